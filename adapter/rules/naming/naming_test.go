package naming_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/naming"
)

func labels(t *testing.T, m config.ResourceMapping) *naming.Labels {
	t.Helper()
	l, waits, err := naming.NewLabels(m, mapping.New(mapping.Kubernetes()))
	if err != nil || waits != nil {
		t.Fatalf("NewLabels: %v, %v", err, waits)
	}
	return l
}

func TestLabels(t *testing.T) {
	t.Parallel()
	over := map[string]config.GroupResource{"ns": {Resource: "namespace"}, "app": {Group: "apps", Resource: "deployments"}}
	for _, c := range []struct {
		mapping         config.ResourceMapping
		label, resource string // resource "" is none
		back            string // the label of the resource, "" is the same
	}{
		{config.ResourceMapping{Overrides: over}, "ns", "namespaces", ""},
		{config.ResourceMapping{Overrides: over}, "app", "deployments.apps", ""},
		{config.ResourceMapping{Overrides: over}, "pod", "", ""},
		{config.ResourceMapping{Template: "<<.Resource>>"}, "pod", "pods", ""},
		{config.ResourceMapping{Template: "<<.Resource>>"}, "pods", "pods", "pod"},
		{config.ResourceMapping{Template: "<<.Resource>>"}, "container", "", ""},
		{config.ResourceMapping{Template: "<<.Resource>>", Overrides: over}, "namespace", "namespaces", "ns"},
		{config.ResourceMapping{Template: "kube_<<.Resource>>"}, "kube_ingress", "ingresses.networking.k8s.io", ""},
		{config.ResourceMapping{Template: "kube_<<.Resource>>"}, "ingress", "", ""},
		{config.ResourceMapping{Template: "kube_<<.Group>>_<<.Resource>>"}, "kube_apps_deployment", "deployments.apps", ""},
		{config.ResourceMapping{Template: "kube_<<.Group>>_<<.Resource>>"}, "kube_networking_k8s_io_ingress", "ingresses.networking.k8s.io", ""},
		{config.ResourceMapping{Template: "kube_<<.Group>>_<<.Resource>>"}, "kube__pod", "pods", ""},
		{config.ResourceMapping{Template: "kube_<<.Group>>_<<.Resource>>"}, "kube_other_io_ingress", "", ""},
		{config.ResourceMapping{Template: "<<.Resource>>"}, strings.Repeat("p", 300), "", ""},
	} {
		l := labels(t, c.mapping)
		for range 2 { // the second answer comes from memory
			r, ok := l.Resource(c.label)
			if got := r.String(); ok != (c.resource != "") || ok && got != c.resource {
				t.Errorf("%+v: %s is %s, %v; want %s", c.mapping, c.label, got, ok, c.resource)
			}
		}
		if c.resource == "" {
			continue
		}
		want := c.back
		if want == "" {
			want = c.label
		}
		if got, err := l.Label(schema.ParseGroupResource(c.resource)); err != nil || got != want {
			t.Errorf("%+v: the label of %s is %s, %v; want %s", c.mapping, c.resource, got, err, want)
		}
	}
}

// A label template cannot run for long or write much.
func TestLabelTemplates(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"<<range 1000000000000>><<end>><<.Resource>>", `<<define "a">><<template "a">><<template "a">><<end>><<template "a">><<.Resource>>`,
		`<<printf "%900000d" 1>><<.Resource>>`, "<<if true>><<range 9>><<end>><<end>><<.Resource>>",
	} {
		if _, _, err := naming.NewLabels(config.ResourceMapping{Template: text}, mapping.New(mapping.Kubernetes())); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ matches, as, series, want string }{
		{"", "", "up", "up"},
		{"^(.*)_total$", "", "jobs_total", "jobs"},
		{"_total$", "", "jobs_total", "_total"},
		{"^(.*)_total", "${1}_per_second", "jobs_total_x", "jobs_per_second"},
		{"^(?P<base>.*)_total$", "${base}_rate", "jobs_total", "jobs_rate"},
		{"^(.*)_(.*)$", "$2$$", "a_b", "b$"},
		{"^(.*)_total$", "$1_rate", "jobs_total", "error: name.as \"$1_rate\" makes an empty name of series \"jobs_total\"; $1_rate names no group of \"^(.*)_total$\": write ${1}_rate"},
		{"^(.*)_total$", "$base", "jobs_total", "error: name.as \"$base\" makes an empty name of series \"jobs_total\"; $base names no group of \"^(.*)_total$\""},
		{"^a", "", "b", "error: series name \"b\" did not match expected pattern \"^a\""},
	} {
		n, err := naming.NewNames(&config.DiscoveryRule{Name: config.NameMapping{Matches: c.matches, As: c.as}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.Metric(c.series)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%+v gives %s", c, got)
		}
	}
}

func TestTakes(t *testing.T) {
	t.Parallel()
	n, err := naming.NewNames(&config.DiscoveryRule{
		SeriesFilters: []config.RegexFilter{{Is: "^a"}, {IsNot: "_total$"}}, Name: config.NameMapping{Matches: "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string]bool{"ab": true, "ab_total": false, "b": false, "a": false} {
		if got := n.Takes(series); got != want {
			t.Errorf("Takes(%s) = %v", series, got)
		}
	}
}
