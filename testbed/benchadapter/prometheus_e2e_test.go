//go:build e2e

package benchadapter

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A real Prometheus has what a shape is filled with.
func TestFill(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v: run make prometheus and put it into the PATH", err)
	}
	o := Options{Prometheus: program, Out: t.TempDir()}
	if err := os.Mkdir(filepath.Join(o.Out, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range []shape{{metrics: 200, pods: 10, series: 50_000}, {metrics: 200, pods: 10, series: 2000, own: true}} {
		p, err := startPrometheus(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		began := time.Now()
		if err := s.fill(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: filled in %v", &s, time.Since(began))
		for _, a := range s.asks() {
			pod := podName(a.workload, s.pods-1)
			for query, want := range map[string]string{
				`count({__name__=~"bench_.+"})`:                                 map[bool]string{false: "50000", true: "2000"}[s.own],
				`count(` + a.name + `{namespace="bench-10",pod="` + pod + `"})`: "1",
			} {
				got, err := get(t.Context(), http.DefaultClient, p.url+"/api/v1/query?query="+url.QueryEscape(query), nil)
				var answer struct {
					Data struct {
						Result []struct{ Value [2]any }
					}
				}
				if err != nil || json.Unmarshal(got.body, &answer) != nil || len(answer.Data.Result) != 1 || answer.Data.Result[0].Value[1] != want {
					t.Fatalf("%s is %s, %v; want %s", query, got.body, err, want)
				}
			}
		}
	}
}
