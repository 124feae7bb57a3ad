package ruletool_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/cmd/sluice/ruletool"
)

const renderRules = `
rules:
- seriesQuery: '{namespace!=""}'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: '{broken!=""}'
  resources: {namespaced: false}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>})'
`

// Of a Prometheus the names are asked for, and one series of each; what it refuses is that rule's
// own affair.
func TestRenderFromPrometheus(t *testing.T) {
	t.Parallel()
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		match := r.Form.Get("match[]")
		asked = append(asked, r.URL.Path+" "+match+" "+r.Form.Get("limit"))
		answer := `{"status":"success","data":["up","http.requests"]}`
		switch {
		case strings.Contains(match, "broken"):
			w.WriteHeader(http.StatusBadRequest)
			answer = `{"status":"error","errorType":"bad_data","error":"no such thing"}`
		case strings.HasSuffix(r.URL.Path, "/series") && strings.Contains(match, `"up"`):
			answer = `{"status":"success","data":[{"__name__":"up","namespace":"shop","pod":"a"}]}`
		case strings.HasSuffix(r.URL.Path, "/series"):
			answer = `{"status":"success","data":[{"__name__":"http.requests","namespace":"shop"}]}`
		}
		if _, err := w.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(renderRules), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	c := ruletool.Rules()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	c.SetArgs([]string{"render", file, "--prometheus", server.URL, "-n", "shop", "--object", "a"})
	err := c.ExecuteContext(t.Context())
	if err == nil || err.Error() != "1 rules make no metrics, or fewer than they should" {
		t.Errorf("the error is %v", err)
	}
	for _, want := range []string{
		`sum(up{namespace="shop",pod="a"}) by (pod)`, `sum(up{namespace="shop",pod!=""}) by (pod)`, `sum({"http.requests",namespace="a"}) by (namespace)`,
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%s is not in\n%s", want, stdout.String())
		}
	}
	if want := "externalRules[0]: bad_data: no such thing"; !strings.Contains(stderr.String(), want) {
		t.Errorf("%q is not in %q", want, stderr.String())
	}
	want := `/api/v1/label/__name__/values {namespace!=""} |/api/v1/series {__name__="up",namespace!=""} 1|/api/v1/series {__name__="http.requests",namespace!=""} 1|/api/v1/label/__name__/values {broken!=""} `
	if got := strings.Join(asked, "|"); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
