package config_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

const file = `
delegates:
- name: keda-a
  service: {namespace: keda-a, name: keda-metrics-apiserver}
  ca: {file: /etc/keda-a/ca.crt}
  apis: [external]
  match:
  - {selectorKey: scaledobject.keda.sh/name, namespaceSelector: keda=a}
- name: keda-b
  service: {namespace: keda-b, name: keda-metrics-apiserver, port: 443}
  ca: {file: /etc/keda-b/ca.crt}
  apis: [external]
  timeout: 3s
  match:
  - {selectorKey: scaledobject.keda.sh/name, selectorValues: [billing, mail]}
  - {selectorKey: scaledobject.keda.sh/name, namespaces: [pay]}
- name: datadog
  service: {namespace: datadog, name: cluster-agent-metrics, port: 8443}
  ca: {insecureSkipTLSVerify: true}
  apis: [external]
  match:
  - {metricPattern: 'datadogmetric@[a-z0-9-]+:[a-z0-9-]+', ignoreCase: true}
- name: zalando
  url: https://10.0.0.7:443
  serverName: kube-metrics-adapter.kube-system.svc
  ca: {insecureSkipTLSVerify: true}
  identity: {bearerTokenFile: /token}
  apis: [custom, external]
  match:
  - rest: true
`

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRoute(t *testing.T) {
	t.Parallel()
	c := parse(t, file)
	if d := c.Delegates[0]; time.Duration(d.Timeout) != 10*time.Second || d.MaxConcurrent != 16 || time.Duration(d.MaxAge) != 5*time.Minute || !d.Identity.ServiceAccount() {
		t.Errorf("the defaults are %+v", d)
	}
	if d := c.Delegates[3]; d.Identity.ServiceAccount() || time.Duration(c.Delegates[1].Timeout) != 3*time.Second {
		t.Errorf("what is given is %+v", d)
	}
	of := func(ns string) (labels.Set, error) {
		switch ns {
		case "team-a":
			return labels.Set{"keda": "a"}, nil
		case "unread":
			return nil, errors.New("the API server is away")
		}
		return labels.Set{}, nil
	}
	for _, test := range []struct {
		name, api, metric, namespace, selector string
		want                                   string
		rest                                   bool
		hidden                                 []int
		unknown                                bool
	}{
		{name: "by a namespace's label", api: "external", metric: "s0-prometheus", namespace: "team-a", selector: "scaledobject.keda.sh/name=web", want: "keda-a"},
		{name: "by a selector's value", api: "external", metric: "s0-prometheus", namespace: "shop", selector: "scaledobject.keda.sh/name=mail", want: "keda-b"},
		{name: "in()", api: "external", metric: "s0-prometheus", namespace: "shop", selector: "scaledobject.keda.sh/name in (mail,billing)", want: "keda-b"},
		{name: "in() with another", api: "external", metric: "s0-prometheus", namespace: "shop", selector: "scaledobject.keda.sh/name in (mail,web)", want: "zalando", rest: true},
		{name: "by a namespace", api: "external", metric: "s0-prometheus", namespace: "pay", selector: "scaledobject.keda.sh/name=web", want: "keda-b"},
		{name: "two of them", api: "external", metric: "s0-prometheus", namespace: "team-a", selector: "scaledobject.keda.sh/name=mail", want: "keda-a", hidden: []int{1}},
		{name: "the same name without the key", api: "external", metric: "s0-prometheus", namespace: "team-a", want: "zalando", rest: true},
		{name: "the key denied", api: "external", metric: "s0-prometheus", namespace: "pay", selector: "!scaledobject.keda.sh/name", want: "zalando", rest: true},
		{name: "the key unequal", api: "external", metric: "s0-prometheus", namespace: "pay", selector: "scaledobject.keda.sh/name!=x", want: "zalando", rest: true},
		{name: "the key there", api: "external", metric: "s0-prometheus", namespace: "pay", selector: "scaledobject.keda.sh/name", want: "keda-b"},
		{name: "another key", api: "external", metric: "s0-prometheus", namespace: "pay", selector: "name=x", want: "zalando", rest: true},
		{name: "the other API", api: "custom", metric: "s0-prometheus", namespace: "pay", selector: "scaledobject.keda.sh/name=web", want: "zalando", rest: true},
		{name: "labels not known", api: "external", metric: "s0-prometheus", namespace: "unread", selector: "scaledobject.keda.sh/name=web", want: "keda-a", unknown: true},
		{name: "labels that do not matter", api: "external", metric: "other", namespace: "unread", want: "zalando", rest: true},
		{name: "a pattern", api: "external", metric: "datadogmetric@prod:api-rps", namespace: "shop", want: "datadog"},
		{name: "case folded", api: "external", metric: "DatadogMetric@Prod:API-rps", namespace: "shop", want: "datadog"},
		{name: "anchored at the end", api: "external", metric: "datadogmetric@prod:api_rps", namespace: "shop", want: "zalando", rest: true},
		{name: "anchored at the beginning", api: "external", metric: "xdatadogmetric@prod:api", namespace: "shop", want: "zalando", rest: true},
		{name: "root scope", api: "custom", metric: "load", want: "zalando", rest: true},
	} {
		s, err := labels.Parse(test.selector)
		if err != nil {
			t.Fatal(err)
		}
		got := c.Route(config.Request{API: test.api, Metric: test.metric, Namespace: test.namespace, Selector: s}, of)
		if c.Delegates[got.Delegate].Name != test.want || got.Rest != test.rest || !slices.Equal(got.Hidden, test.hidden) || (got.Err != nil) != test.unknown {
			t.Errorf("%s: %+v, want %s", test.name, got, test.want)
		}
	}
	nobody := parse(t, strings.Replace(file, "- rest: true", "- {rest: true, namespaces: [kube-system]}", 1)).Route(config.Request{API: "custom", Metric: "a", Namespace: "shop"}, of)
	if nobody.Delegate != -1 {
		t.Errorf("a metric of nobody is %+v", nobody)
	}
}

// Each error names the field, its value and a remedy.
func TestFaults(t *testing.T) {
	t.Parallel()
	const good = "name: a\n  url: https://a\n  ca: {insecureSkipTLSVerify: true}\n  apis: [external]\n  match: [{metric: x}]\n"
	parse(t, "delegates:\n- "+good)
	for _, test := range []struct{ from, to, want string }{
		{"name: a", "name: A_b", `delegates[0].name = "A_b": want lower-case letters`},
		{"url: https://a", "url: http://a", `delegates[0].url = "http://a": want https://`},
		{"url: https://a", "url: https://a/apis?x=1", `want https://host:port and nothing else`},
		{"url: https://a", "url: https://u:p@a", `want https://host:port`},
		{"url: https://a", "serverName: a", `delegates[0].service = "": want a service`},
		{"url: https://a", "url: https://a\n  service: {namespace: a, name: b}", "there is a service as well"},
		{"url: https://a", "service: {namespace: '', name: B, port: 70000}", `delegates[0].service.port = 70000: want 1–65535`},
		{"ca: {insecureSkipTLSVerify: true}", "ca: {}", "delegates[0].ca = \"0 of file, inline, insecureSkipTLSVerify\": want one"},
		{"ca: {insecureSkipTLSVerify: true}", "ca: {insecureSkipTLSVerify: true, file: a}", "2 of file"},
		{"ca: {insecureSkipTLSVerify: true}", "ca: {inline: x}", `delegates[0].ca.inline = "x": want certificates in PEM`},
		{"apis: [external]", "apis: []", "delegates[0].apis = \"[]\": want custom, external or both"},
		{"apis: [external]", "apis: [resource]", `delegates[0].apis[0] = "resource": want custom or external`},
		{"apis: [external]", "apis: [custom, custom]", "delegates[0].apis[1]"},
		{"match: [{metric: x}]", "match: []", `delegates[0].match = "a list of 0": want 1–64`},
		{"match: [{metric: x}]", "match: [{}]", `delegates[0].match[0].metric = "": the match says nothing`},
		{"match: [{metric: x}]", "match: [{rest: true, metric: x}]", "the rest has no metric"},
		{"match: [{metric: x}]", "match: [{rest: true}, {rest: true}]", "delegates[0].match[1].rest = true: delegates[0].match[0] takes the rest of the external metrics"},
		{"match: [{metric: x}]", "match: [{metricPattern: 'a)|(b'}]", `delegates[0].match[0].metricPattern = "a)|(b": want a regular expression`},
		{"match: [{metric: x}]", "match: [{metric: x, metricPattern: x}]", "want one of them"},
		{"match: [{metric: x}]", "match: [{metric: x, selectorValues: [a]}]", "want a selectorKey"},
		{"match: [{metric: x}]", "match: [{selectorKey: 'a b'}]", `selectorKey = "a b": want a label key`},
		{"match: [{metric: x}]", "match: [{namespaces: ['a/b']}]", `namespaces[0] = "a/b"`},
		{"match: [{metric: x}]", "match: [{namespaceSelector: 'a in'}]", "want a label selector"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  timeout: 1h", "delegates[0].timeout = 1h: want 100ms–30s"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  maxConcurrent: 9999", "delegates[0].maxConcurrent = 9999: want 1–256"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  maxAge: 1s", "delegates[0].maxAge = 1s: want 10s–24h"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  identity: {certFile: a}", "delegates[0].identity.certFile"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  identity: {none: true, bearerTokenFile: a}", "delegates[0].identity.none"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n  verify: no", "field verify not found"},
		{"match: [{metric: x}]", "match: [{metric: x}]\n- " + good, `delegates[1].name = "a": another delegate has it`},
	} {
		text := "delegates:\n- " + strings.Replace(good, test.from, test.to, 1)
		if _, err := config.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %v, want %q in it", test.to, err, test.want)
		}
	}
	if _, err := config.Parse(make([]byte, config.MaxBytes+1)); err == nil {
		t.Error("a large file is read")
	}
}

// A pattern matches whole names alone, whatever it is.
func FuzzPattern(f *testing.F) {
	f.Add("datadogmetric@[a-z]+:[a-z]+", "datadogmetric@a:b")
	f.Add("a|b", "xb")
	f.Add("(?i)a", "A")
	f.Add("a)|(b", "ab")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		d := config.Delegate{Name: "a", URL: "https://a", CA: config.CA{InsecureSkipTLSVerify: true}, APIs: []string{"external"}, Match: []config.Match{{MetricPattern: pattern}}}
		c, err := config.Compile(&config.Config{Delegates: []config.Delegate{d}})
		if err != nil || pattern == "" {
			return
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			t.Fatalf("%q was taken: %v", pattern, err)
		}
		re.Longest()
		got := c.Route(config.Request{API: "external", Metric: name}, nil).Delegate == 0
		if got && !re.MatchString(name) {
			t.Errorf("%q takes %q, where it does not match", pattern, name)
		}
		if loc := re.FindStringIndex(name); !got && loc != nil && loc[0] == 0 && loc[1] == len(name) {
			t.Errorf("%q does not take %q, which it matches as a whole", pattern, name)
		}
	})
}

// Any file is refused or gives routes, and never panics.
func FuzzParse(f *testing.F) {
	f.Add(file, "s0-prometheus", "shop", "scaledobject.keda.sh/name=web")
	f.Fuzz(func(t *testing.T, text, metric, namespace, selector string) {
		c, err := config.Parse([]byte(text))
		if err != nil {
			return
		}
		s, err := labels.Parse(selector)
		if err != nil {
			return
		}
		r := c.Route(config.Request{API: "external", Metric: metric, Namespace: namespace, Selector: s}, func(string) (labels.Set, error) { return nil, errors.New("unknown") })
		if r.Delegate < -1 || r.Delegate >= len(c.Delegates) {
			t.Errorf("the route is %+v", r)
		}
	})
}
