package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluice-autoscaler/sluice/"

// layer is a row of the table of imports: what the packages under a folder may import directly,
// besides the standard library and packages under the same folder.
type layer struct {
	// folder is the tree that the row rules; the longest that matches a package counts. With exact
	// it rules that one package, and none below it.
	folder string
	exact  bool
	// allow lists packages of this module; "x/..." stands for x and all below it.
	allow []string
	// modules lists prefixes of what may be imported of other modules; "*" stands for all but
	// Kubernetes', "k8s" for those.
	modules []string
	// forbid lists packages of the standard library that may not be imported.
	forbid []string
	// reason says why.
	reason string
}

// impure are packages by which the outside gets into an algorithm.
var impure = []string{"context", "log", "log/slog", "net", "net/http", "os", "sync", "sync/atomic"}

// ground is what every layer may use.
var ground = []string{"internal/cli", "internal/serve"}

// layers is the table of docs/adr/0003-layers.md.
var layers = []layer{
	{
		folder: "algorithms", modules: []string{"gonum.org/v1/gonum"}, forbid: impure,
		reason: "the simulator and the controller run the same code: a clock, a lock or a log makes a simulation lie",
	},
	{
		folder: "algorithms/loop", allow: []string{"algorithms/..."}, forbid: append([]string{"math/rand", "math/rand/v2"}, impure...),
		reason: "the loop is what all shells share: the same View gives the same Commands, whoever drives it",
	},
	{
		folder: "algorithms/loop/looptest", allow: []string{"algorithms/..."},
		reason: "it runs scenario files against shells in tests, and is in no program",
	},
	{
		folder: "algorithms/cel", allow: []string{"algorithms/..."}, modules: []string{"github.com/google/cel-go"}, forbid: impure,
		reason: "an expression needs an interpreter; only this family may link one",
	},
	{
		folder: "wire", forbid: []string{"net", "net/http", "os"},
		reason: "all processes import the names and formats that they share; those must cost nothing and do nothing",
	},
	{
		folder: "wire/policy", modules: []string{"google.golang.org/grpc", "google.golang.org/protobuf"},
		reason: "the plug-in service is defined by a proto file, whose code needs grpc",
	},
	{
		folder: "prom", modules: []string{"github.com/prometheus/"},
		reason: "adapter, scaler and bench stand on it: it knows Prometheus and neither Kubernetes nor them",
	},
	{
		folder: "api", allow: []string{"algorithms/..."}, modules: []string{"k8s"},
		reason: "the Autoscaler type converts to the loop's Spec, so that its validation is the loop's",
	},
	{
		folder: "proxy", allow: append([]string{"wire/..."}, ground...), modules: []string{"*"},
		reason: "sidecar and gateway share the HTTP engine; it stands beside every pod and so links no Kubernetes",
	},
	{
		folder: "sidecar", allow: append([]string{"wire/...", "proxy/..."}, ground...), modules: []string{"*"},
		reason: "it stands beside every pod: small, and without Kubernetes",
	},
	{
		folder: "gateway", allow: append([]string{"wire/...", "algorithms/...", "proxy/..."}, ground...), modules: []string{"*"},
		reason: "what holds and forwards is tested without a cluster, and runs on other platforms",
	},
	{
		folder: "gateway/endpoints", allow: []string{"wire/...", "gateway/..."}, modules: []string{"*", "k8s"},
		reason: "the gateway's one driver for Kubernetes",
	},
	{
		folder: "adapter", allow: append([]string{"wire/...", "algorithms/...", "api/...", "prom/..."}, ground...), modules: []string{"*", "k8s"},
		reason: "adapter and scaler never import each other: each declares the interface that it needs, and cmd joins them",
	},
	{
		folder: "adapter/fetch/source", allow: []string{"prom/...", "adapter/rules/...", "adapter/fetch/preset"}, modules: []string{"*"},
		reason: "what is asked of Prometheus does not depend on the cluster, so it links no client of one",
	},
	{
		folder: "adapter/fetch/preset", allow: []string{"prom/...", "algorithms"}, modules: []string{"*"},
		reason: "templates are data, and filling them in is pure",
	},
	{
		folder: "adapter/fetch/memory", allow: []string{"adapter/rules/answer", "adapter/fetch/source"},
		reason: "queries are repeated whoever asks for them, so it knows neither rules nor the cluster",
	},
	{
		folder: "scaler", allow: append([]string{"wire/...", "algorithms/...", "api/...", "prom/..."}, ground...), modules: []string{"*", "k8s"},
		reason: "shells and drivers around the ports; adapter and scaler never import each other",
	},
	{
		folder: "scaler", exact: true, allow: append([]string{"wire/...", "algorithms/...", "api/...", "prom/...", "scaler/..."}, ground...), modules: []string{"*"},
		reason: "the ports carry no Kubernetes type, so that a driver for another platform can stand behind them",
	},
	{
		folder: "scaler/process", allow: []string{"algorithms/...", "scaler"},
		reason: "a driver for any program with an HTTP interface proves that the ports need no Kubernetes",
	},
	{
		folder: "scaler/conformance", allow: []string{"algorithms/...", "scaler"},
		reason: "it tests drivers of any platform, so it knows the ports alone",
	},
	{
		folder: "bench", allow: append([]string{"wire/...", "algorithms/...", "prom/..."}, ground...), modules: []string{"*", "sigs.k8s.io/yaml"},
		reason: "the bench runs the algorithms as they are shipped, and needs no cluster",
	},
	{
		folder: "docs", allow: []string{"wire/..."}, modules: []string{"*"},
		reason: "samples for users import what users may import",
	},
	{
		folder: "internal", modules: []string{"*"},
		reason: "what every part stands on imports no part",
	},
	{
		folder: "internal/pki/secrets", allow: []string{"internal/pki"}, modules: []string{"*", "k8s"},
		reason: "certificates are values; this is where Kubernetes keeps them",
	},
	{
		folder: "internal/review", modules: []string{"*", "k8s"},
		reason: "who may read a program's metrics is for the cluster to say",
	},
	{
		folder: "internal/reference", allow: []string{"algorithms/...", "scaler/plugin"},
		reason: "it writes docs/reference from the catalog, and is in no program",
	},
	{
		folder: "cmd", allow: []string{"..."}, modules: []string{"*", "k8s"},
		reason: "mains join the parts; no row allows cmd, so nothing imports it",
	},
}

// debts are imports that break the table and are still there. Delete a line when its import has
// gone: the test asks for it. No line may be added.
var debts = map[string][]string{}

type pkg struct {
	ImportPath    string
	Imports, Deps []string
}

// rel is the path within the module.
func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module) }

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

// foreign reports whether an import path is of another module, and so neither of this one nor of
// the standard library.
func foreign(path string) bool {
	host, _, _ := strings.Cut(path, "/")
	return strings.Contains(host, ".") && !strings.HasPrefix(path, module)
}

func kube(path string) bool {
	return strings.HasPrefix(path, "k8s.io/") || strings.HasPrefix(path, "sigs.k8s.io/")
}

// under reports whether the package rel is tree or stands below it.
func under(rel, tree string) bool { return rel == tree || strings.HasPrefix(rel, tree+"/") }

// ruling returns the row for a package.
func ruling(rel string) (layer, bool) {
	var found layer
	ok := false
	for _, l := range layers {
		if l.exact && rel == l.folder {
			return l, true
		}
		if !l.exact && under(rel, l.folder) && len(l.folder) > len(found.folder) {
			found, ok = l, true
		}
	}
	return found, ok
}

// permits reports whether a package that the row rules may import another.
func (l layer) permits(imp string) bool {
	if rel, ok := strings.CutPrefix(imp, module); ok {
		return under(rel, l.folder) || slices.ContainsFunc(l.allow, func(a string) bool {
			tree, all := strings.CutSuffix(a, "/...")
			return a == "..." || rel == a || all && under(rel, tree)
		})
	}
	if foreign(imp) {
		return slices.ContainsFunc(l.modules, func(m string) bool {
			switch m {
			case "k8s":
				return kube(imp)
			case "*":
				return !kube(imp)
			default:
				return strings.HasPrefix(imp, m)
			}
		})
	}
	return !slices.Contains(l.forbid, imp)
}

func TestLayers(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range list(t, "./...") {
		l, ok := ruling(p.rel())
		if !ok {
			t.Errorf("%s is in no layer: add its folder to the table here and to docs/adr/0003-layers.md", p.rel())
			continue
		}
		seen++
		owed := slices.Clone(debts[p.rel()])
		for _, imp := range p.Imports {
			if l.permits(imp) {
				continue
			}
			if i := slices.Index(owed, imp); i >= 0 {
				owed = slices.Delete(owed, i, i+1)
				continue
			}
			t.Errorf("%s may not import %s: %s", p.rel(), strings.TrimPrefix(imp, module), l.reason)
		}
		for _, imp := range owed {
			t.Errorf("%s does not import %s any more: delete the line from debts", p.rel(), imp)
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were checked: the test does not see the module", seen)
	}
}

// TestLayersTable proves that the table says what it is meant to say, on imports that do not exist.
func TestLayersTable(t *testing.T) {
	t.Parallel()
	cases := []struct {
		from, imp string
		want      bool
	}{
		{"algorithms/loop", module + "algorithms/guard", true},
		{"algorithms/loop", "time", true},
		{"algorithms/loop", "sync", false},
		{"algorithms/loop", "math/rand/v2", false},
		{"algorithms/kpa", module + "algorithms/window", true},
		{"algorithms/kpa", module + "api/v1alpha1", false},
		{"algorithms/kpa", "github.com/google/cel-go/cel", false},
		{"algorithms/cel", "github.com/google/cel-go/cel", true},
		{"wire", "google.golang.org/grpc", false},
		{"wire/policy", "google.golang.org/grpc", true},
		{"prom", "github.com/prometheus/common/model", true},
		{"prom/template", module + "prom", true},
		{"prom", "k8s.io/api/core/v1", false},
		{"prom", module + "adapter/store", false},
		{"proxy/h1", module + "proxy/request", true},
		{"proxy/h1", module + "sidecar", false},
		{"sidecar", module + "proxy/h2", true},
		{"sidecar/observe", "k8s.io/klog/v2", false},
		{"gateway", "k8s.io/api/discovery/v1", false},
		{"gateway/endpoints", "k8s.io/api/discovery/v1", true},
		{"adapter/store", module + "scaler", false},
		{"scaler/kube", module + "adapter", false},
		{"scaler/kube", "k8s.io/client-go/scale", true},
		{"scaler", "k8s.io/apimachinery/pkg/types", false},
		{"scaler", module + "scaler/activation", true},
		{"scaler/process", module + "scaler", true},
		{"scaler/process", module + "scaler/kube", false},
		{"scaler/process", "k8s.io/client-go/scale", false},
		{"scaler/conformance", module + "api/v1alpha1", false},
		{"bench/live", "k8s.io/client-go/kubernetes", false},
		{"bench/history", module + "prom", true},
		{"internal/serve", module + "wire", false},
		{"cmd/sluice", module + "bench/sim", true},
		{"scaler", module + "cmd/sluice", false},
	}
	for _, c := range cases {
		l, ok := ruling(c.from)
		if got := ok && l.permits(c.imp); got != c.want {
			t.Errorf("%s imports %s: allowed %v, want %v", c.from, strings.TrimPrefix(c.imp, module), got, c.want)
		}
	}
	for _, l := range layers {
		if l.reason == "" {
			t.Errorf("%s has no reason", l.folder)
		}
	}
}

// links says what a package and all that it imports may not link.
var links = []struct {
	// of is the folder of the packages.
	of     string
	banned func(path string) bool
	// debts are what is still linked; see the variable debts.
	debts  []string
	reason string
}{
	{of: "cmd/sluice-sidecar", banned: kube, reason: "the sidecar stands beside every pod and links no Kubernetes package"},
	{of: "proxy", banned: kube, reason: "the engine of the sidecar links no Kubernetes package"},
	{of: "prom", banned: kube, reason: "the bench and other platforms use it without Kubernetes"},
	{of: "scaler/process", banned: kube, reason: "a driver that needs no Kubernetes proves that the ports carry none"},
	{of: "scaler/conformance", banned: kube, reason: "it tests drivers of any platform"},
	{
		of: "cmd/sluice-controller", banned: func(path string) bool { return under(strings.TrimPrefix(path, module), "bench") },
		reason: "what tries policies out is no part of what runs them",
	},
}

func TestLinks(t *testing.T) {
	t.Parallel()
	all := list(t, "./...")
	for _, l := range links {
		owed := slices.Clone(l.debts)
		for _, p := range all {
			if !under(p.rel(), l.of) {
				continue
			}
			for _, d := range p.Deps {
				if !l.banned(d) {
					continue
				}
				if i := slices.Index(owed, d); i >= 0 {
					owed = slices.Delete(owed, i, i+1)
				} else if !slices.Contains(l.debts, d) {
					t.Errorf("%s links %s: %s", p.rel(), d, l.reason)
				}
			}
		}
		for _, d := range owed {
			t.Errorf("%s does not link %s any more: delete it from the debts", l.of, d)
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
		if slices.Contains(p.Deps, module+"algorithms/cel") || p.rel() == "algorithms/cel" {
			// cel is what may link cel-go; the catalog, and what takes one, links every policy
			continue
		}
		for _, d := range p.Deps {
			if foreign(d) && !strings.HasPrefix(d, "gonum.org/v1/gonum") {
				t.Errorf("%s links %s: algorithms link the standard library and gonum only", p.ImportPath, d)
			}
		}
	}
}
