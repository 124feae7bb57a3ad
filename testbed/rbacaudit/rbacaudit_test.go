package rbacaudit_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sluice-autoscaler/sluice/testbed/rbacaudit"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	const user = "system:serviceaccount:sluice:sluice-controller"
	line := func(user, verb, group, resource, sub, name, decision string) string {
		return `{"stage":"ResponseComplete","verb":"` + verb + `","user":{"username":"` + user + `"},"objectRef":{"apiGroup":"` + group +
			`","resource":"` + resource + `","subresource":"` + sub + `","name":"` + name + `"},"annotations":{"authorization.k8s.io/decision":"` + decision + `"}}`
	}
	cases := []struct {
		name string
		rule rbacv1.PolicyRule
		log  []string
		want rbacaudit.Report
	}{
		{
			name: "used", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}},
			log: []string{line(user, "list", "", "pods", "", "", "allow"), line(user, "watch", "", "pods", "", "", "allow")},
		},
		{
			name: "of several verbs and resources", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods", "namespaces"}, Verbs: []string{"get", "list"}},
			log:  []string{line(user, "list", "", "pods", "", "", "allow"), line(user, "get", "", "namespaces", "", "x", "allow")},
			want: rbacaudit.Report{Unused: []string{"get pods", "list namespaces"}},
		},
		{
			name: "somebody else's requests", rule: rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get"}},
			log:  []string{line("eve", "get", "apps", "deployments", "", "web", "allow")},
			want: rbacaudit.Report{Unused: []string{"get deployments.apps"}},
		},
		{
			name: "a subresource is another resource", rule: rbacv1.PolicyRule{APIGroups: []string{"sluice.dev"}, Resources: []string{"autoscalers"}, Verbs: []string{"patch"}},
			log:  []string{line(user, "patch", "sluice.dev", "autoscalers", "status", "web", "allow")},
			want: rbacaudit.Report{Unused: []string{"patch autoscalers.sluice.dev"}},
		},
		{
			name: "the scale of anything", rule: rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*/scale"}, Verbs: []string{"patch", "update"}},
			log:  []string{line(user, "patch", "apps", "deployments", "scale", "web", "allow")},
			want: rbacaudit.Report{Unused: []string{"update */scale.*"}},
		},
		{
			name: "names", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"ca", "tls"}, Verbs: []string{"get", "update"}},
			log:  []string{line(user, "get", "", "secrets", "", "tls", "allow"), line(user, "update", "", "secrets", "", "other", "allow")},
			want: rbacaudit.Report{Unused: []string{"update secrets ca|tls"}},
		},
		{
			name: "refused", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
			log:  []string{line(user, "list", "", "pods", "", "", "allow"), line(user, "delete", "", "pods", "", "web-0", "forbid"), line(user, "delete", "", "pods", "", "web-0", "forbid")},
			want: rbacaudit.Report{Refused: []string{"delete pods web-0"}},
		},
		{
			name: "refused by an API server that has just started", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
			log: []string{line(user, "list", "", "pods", "", "", "forbid"), line(user, "list", "", "pods", "", "", "allow")},
		},
		{
			name: "a request that only came in", rule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
			log:  []string{strings.Replace(line(user, "list", "", "pods", "", "", "allow"), "ResponseComplete", "RequestReceived", 1)},
			want: rbacaudit.Report{Unused: []string{"list pods"}},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := rbacaudit.Compare([]rbacv1.PolicyRule{c.rule}, user, strings.NewReader(strings.Join(c.log, "\n")))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Compare (-want +got):\n%s", d)
			}
		})
	}
	if _, err := rbacaudit.Compare(nil, user, strings.NewReader("{")); err == nil {
		t.Error("half a line gave no error")
	}
}
