// Package kit puts Sluice on a testbed the way a user would put it on a cluster, and reads from it
// what demonstrations and end-to-end tests look at: the chart and the examples of deploy/, values
// of the metrics APIs through the aggregation layer, Autoscalers, replicas, gateways, logs.
//
// Its functions may be called concurrently. Waits poll the API server every 50 ms; their errors
// tell the last state seen.
package kit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Place tells where the programs and manifests of a build of Sluice are.
type Place struct {
	// Root is the repository's folder, or another that holds deploy/.
	Root string
	// Bin is the folder of the built programs.
	Bin string
	// Helm is the path of the helm program.
	Helm string
}

// images maps the images of the chart and the examples to programs in Place.Bin. The testbed looks
// names up without their tags.
func images() map[string]string {
	return map[string]string{
		"sluice-autoscaler/sluice-controller": "sluice-controller",
		"sluice-autoscaler/sluice-gateway":    "sluice-gateway",
		"sluice-autoscaler/sluice-sidecar":    "sluice-sidecar",
		"sluice-autoscaler/sample":            "sluice-sample",
	}
}

// Find finds the place that belongs to the running program: the repository is the nearest folder
// with deploy/chart at or above the program's own (bin/demo) or else the working one (go test), the
// programs are in its bin/. Helm is $HELM, or the one that make built, or helm of the PATH. The
// error names all that is missing.
func Find() (Place, error) {
	var starts []string
	if self, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(self))
	}
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	for _, start := range starts {
		for dir := start; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "deploy", "chart", "Chart.yaml")); err == nil {
				return At(dir, os.Getenv("HELM"))
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return Place{}, fmt.Errorf("find deploy/chart: it is not in, beside or above any of %s", strings.Join(starts, ", "))
}

// At returns the place at a repository's folder. An empty helm stands for the one that make built,
// or helm of the PATH. The error names all that is missing.
func At(root, helm string) (Place, error) {
	p := Place{Root: root, Bin: filepath.Join(root, "bin"), Helm: helm}
	if p.Helm == "" {
		p.Helm = filepath.Join(root, ".cache", "tools", "helm")
		if _, err := os.Stat(p.Helm); err != nil {
			p.Helm = "helm"
		}
	}
	var errs []error
	if path, err := exec.LookPath(p.Helm); err != nil {
		errs = append(errs, fmt.Errorf("find helm: %w (make demo builds it; or set HELM to its path)", err))
	} else {
		p.Helm = path
	}
	for _, program := range images() {
		path := filepath.Join(p.Bin, program)
		if info, err := os.Stat(path); err != nil {
			errs = append(errs, fmt.Errorf("find %s: %w (make build builds it)", program, err))
		} else if info.Mode()&0o111 == 0 {
			errs = append(errs, fmt.Errorf("find %s: %s is not executable", program, path))
		}
	}
	return p, errors.Join(errs...)
}

// Images maps the names of the images that the chart and the examples use to the built programs,
// for testbed.Options.
func (p Place) Images() map[string]string {
	m := images()
	for name, program := range m {
		m[name] = filepath.Join(p.Bin, program)
	}
	return m
}

// Example returns the path of a manifest of deploy/examples, such as web.yaml.
func (p Place) Example(name string) string {
	return filepath.Join(p.Root, "deploy", "examples", name)
}
