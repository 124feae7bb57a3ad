package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/sluice-autoscaler/sluice/"

// layers is the table of imports within the module: what the packages under a folder may import directly, besides the standard
// library. An entry that ends in "..." allows the tree; "k8s" stands for any Kubernetes module.
var layers = map[string]struct {
	allow []string
	// std lists standard packages that are forbidden.
	forbidStd []string
	kube      bool
	third     bool
}{
	"algorithms":           {allow: []string{"algorithms/..."}, forbidStd: []string{"net", "os", "log", "sync", "context", "net/http", "log/slog"}},
	"algorithms/cel":       {allow: []string{"algorithms/..."}, third: true, forbidStd: []string{"net", "os", "log", "sync", "context", "net/http", "log/slog"}},
	"wire/policy":          {third: true},
	"docs":                 {allow: []string{"wire/..."}, third: true},
	"wire":                 {forbidStd: []string{"net", "os", "net/http"}},
	"api":                  {allow: []string{"algorithms/...", "api/..."}, kube: true},
	"sidecar":              {allow: []string{"wire/...", "sidecar/...", "internal/serve"}, third: true},
	"gateway":              {allow: []string{"wire/...", "algorithms/...", "gateway/...", "internal/serve"}, third: true},
	"gateway/endpoints":    {allow: []string{"wire/...", "gateway/..."}, kube: true, third: true},
	"adapter":              {allow: []string{"wire/...", "algorithms/...", "api/...", "prom", "adapter/...", "internal/serve"}, kube: true, third: true},
	"scaler":               {allow: []string{"wire/...", "algorithms/...", "api/...", "prom", "scaler/...", "internal/serve"}, kube: true, third: true},
	"prom":                 {third: true},
	"bench":                {allow: []string{"wire/...", "algorithms/...", "prom", "bench/..."}, third: true},
	"internal":             {allow: []string{"internal/..."}, third: true},
	"internal/pki/secrets": {allow: []string{"internal/..."}, kube: true, third: true},
	"cmd":                  {allow: []string{"..."}, kube: true, third: true},
}

type pkg struct {
	ImportPath    string
	Imports, Deps []string
}

// list runs go list in the module's root.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list %v: %v\n%s", args, err, e.Stderr)
		}
		t.Fatalf("go list %v: %v", args, err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
}

// host is the first element of an import path; it has a dot unless the package is of the standard library.
func host(path string) string {
	h, _, _ := strings.Cut(path, "/")
	return h
}

func kube(path string) bool {
	return strings.HasPrefix(path, "k8s.io/") || strings.HasPrefix(path, "sigs.k8s.io/")
}

func TestLayers(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module)
		name := ""
		for layer := range layers { // the longest matching folder rules
			if (rel == layer || strings.HasPrefix(rel, layer+"/")) && len(layer) > len(name) {
				name = layer
			}
		}
		if name == "" {
			t.Errorf("%s is in no layer: add its folder to the table here and to docs/adr/0003-layers.md", rel)
			continue
		}
		seen++
		l := layers[name]
		for _, imp := range p.Imports {
			switch {
			case strings.HasPrefix(imp, module):
				if !allowed(strings.TrimPrefix(imp, module), l.allow) {
					t.Errorf("%s imports %s: %s may import %v only", rel, strings.TrimPrefix(imp, module), name, l.allow)
				}
			case kube(imp):
				if !l.kube {
					t.Errorf("%s imports %s: no Kubernetes module in %s", rel, imp, name)
				}
			case strings.Contains(host(imp), "."):
				if !l.third && !l.kube && !strings.HasPrefix(imp, "gonum.org/v1/gonum") {
					t.Errorf("%s imports %s: %s is for the standard library", rel, imp, name)
				}
			default:
				for _, f := range l.forbidStd {
					if imp == f {
						t.Errorf("%s imports %s: %s is pure", rel, imp, name)
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were checked: the test does not see the module", seen)
	}
}

func allowed(rel string, allow []string) bool {
	for _, a := range allow {
		if a == "..." || rel == a {
			return true
		}
		if tree, ok := strings.CutSuffix(a, "/..."); ok && (rel == tree || strings.HasPrefix(rel, tree+"/")) {
			return true
		}
	}
	return false
}

func TestSidecarLinksNoKubernetes(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./cmd/sluice-sidecar") {
		for _, d := range p.Deps {
			if kube(d) {
				t.Errorf("sluice-sidecar links %s: it must link no Kubernetes package", d)
			}
		}
	}
}

// TestControllerLinksNoBench: what the controller shares with the bench stands in algorithms, wire and prom.
func TestControllerLinksNoBench(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./cmd/sluice-controller") {
		for _, d := range p.Deps {
			if strings.HasPrefix(d, module+"bench/") {
				t.Errorf("sluice-controller links %s: it must link nothing of the bench", strings.TrimPrefix(d, module))
			}
		}
	}
}

// TestSidecarIsSmall builds the sidecar as it is shipped: it sits beside every pod.
func TestSidecarIsSmall(t *testing.T) {
	t.Parallel()
	const most = 15_000_000
	out := filepath.Join(t.TempDir(), "sluice-sidecar")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", out, "./cmd/sluice-sidecar")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the sidecar: %v\n%s", err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= most {
		t.Errorf("the sidecar has %d bytes, want less than %d", info.Size(), most)
	}
}

func TestAlgorithmsLinkLittle(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./algorithms/...") {
		if rel := strings.TrimPrefix(p.ImportPath, module); rel == "algorithms/cel" || rel == "algorithms/catalog" {
			continue // cel is what may link cel-go, and catalog links every policy
		}
		for _, d := range p.Deps {
			if strings.Contains(host(d), ".") && !strings.HasPrefix(d, module) && !strings.HasPrefix(d, "gonum.org/v1/gonum") {
				t.Errorf("%s links %s: algorithms link the standard library and gonum only", p.ImportPath, d)
			}
		}
	}
}
