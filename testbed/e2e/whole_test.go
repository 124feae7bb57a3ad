//go:build e2e

package e2e_test

import (
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/rbacaudit"
)

// ran tells that faults were done, which give cause to most rights.
var ran atomic.Bool

// seldom are rights that these tests give no cause to use. Nor are lists used where the API server
// can stream them as watches, as the testbed's can.
var seldom = map[string]string{
	"update secrets sluice-ca|sluice-adapter-tls|sluice-gateway-tls|sluice-controller-tls": "when certificates are renewed",
	"get */scale.*":                          "for targets of kinds that are not watched",
	"delete endpointslices.discovery.k8s.io": "when an Autoscaler names another Service",
	"patch events.events.k8s.io":             "when an event comes again",
}

// TestRightsAreUsed holds what the controller may do against what it has done until now, by the API
// server's audit log: nothing that it asked for was refused, and no right is idle. Its file is the
// last, so that the tests before it have given cause; it skips where they were not run.
func TestRightsAreUsed(t *testing.T) {
	if !ran.Load() {
		t.Skip("the tests that use the rights were not run")
	}
	everywhere, err := cluster.Kube.RbacV1().ClusterRoles().Get(t.Context(), "sluice-controller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own, err := cluster.Kube.RbacV1().Roles(kit.Namespace).Get(t.Context(), "sluice-controller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Open(record.log())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // only read
	report, err := rbacaudit.Compare(append(append([]rbacv1.PolicyRule{}, everywhere.Rules...), own.Rules...), controllerUser, log)
	if err != nil {
		t.Fatal(err)
	}
	for _, right := range report.Unused {
		reason, known := seldom[right]
		if what, list := strings.CutPrefix(right, "list "); list && !slices.Contains(report.Unused, "watch "+what) {
			reason, known = "it is streamed", true
		}
		if known {
			t.Logf("unused: %s (%s)", right, reason)
			continue
		}
		t.Errorf("the controller has the right to %s and did not use it", right)
	}
	for _, asked := range report.Refused {
		if strings.Contains(asked, "v1beta1.metrics.k8s.io") {
			continue // TestRules installs with it, and with the right to it
		}
		if strings.Contains(asked, "serviceaccounts") {
			continue // TestDelegate installs with a Role for it
		}
		t.Errorf("the controller may not %s and asked for it", asked)
	}
}
