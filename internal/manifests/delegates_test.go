package manifests_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

// TestDelegates: what the chart writes of other providers can be read, and who Sluice is to them
// may read metrics and nothing else.
func TestDelegates(t *testing.T) {
	t.Parallel()
	const values = `delegates=[{"name":"keda","service":{"namespace":"keda","name":"keda-metrics-apiserver"},"ca":{"file":"/var/run/secrets/sluice-delegates/keda-ca/ca.crt"},` +
		`"apis":["external"],"match":[{"selectorKey":"scaledobject.keda.sh/name","namespaceSelector":"keda=a"}]}]`
	var roles []rbacv1.PolicyRule
	mounted, read, namespaces := false, false, false
	for _, d := range documents(t, render(t, "--set-json", values, "--set", "delegateFiles.configMaps={keda-ca}")) {
		switch {
		case d.Kind == "ConfigMap" && d.Name == "sluice-delegates":
			c, err := config.Parse([]byte(decode[corev1.ConfigMap](t, d).Data["delegates.yaml"]))
			if err != nil || len(c.Delegates) != 1 || c.Delegates[0].Match[0].SelectorKey != "scaledobject.keda.sh/name" {
				t.Errorf("the file is %+v, %v", c, err)
			}
			read = true
		case d.Kind == "ClusterRoleBinding" && strings.Contains(string(d.raw), "name: sluice-delegate, namespace"):
			if ref := decode[rbacv1.ClusterRoleBinding](t, d).RoleRef.Name; ref != "sluice-delegate" {
				t.Errorf("sluice-delegate has the role %s", ref)
			}
		case d.Kind == "RoleBinding" && strings.Contains(string(d.raw), "name: sluice-delegate, namespace"):
			t.Errorf("sluice-delegate has more rights: %s", d.raw)
		case d.Kind == "ClusterRole" && d.Name == "sluice-delegate":
			roles = decode[rbacv1.ClusterRole](t, d).Rules
		case d.Kind == "ClusterRole" && d.Name == "sluice-controller:delegate":
			namespaces = true
		case d.Kind == "Deployment" && d.Name == "sluice-controller":
			mounted = strings.Contains(string(d.raw), "--delegate-config=/etc/sluice/delegates/delegates.yaml") && strings.Contains(string(d.raw), `mountPath: "/var/run/secrets/sluice-delegates/keda-ca"`)
		}
	}
	if !mounted || !read || !namespaces {
		t.Errorf("mounted %v, read %v, labels of namespaces %v", mounted, read, namespaces)
	}
	if len(roles) != 1 || !slices.Equal(roles[0].Verbs, []string{"get", "list"}) || !slices.Equal(roles[0].APIGroups, []string{"custom.metrics.k8s.io", "external.metrics.k8s.io"}) {
		t.Errorf("the rights of sluice-delegate are %+v", roles)
	}
	for _, d := range documents(t, render(t)) {
		if strings.Contains(d.Name, "delegate") {
			t.Errorf("without delegates there is %s %s", d.Kind, d.Name)
		}
	}
}
