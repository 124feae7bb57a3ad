package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is generated is fresh.
func TestFresh(t *testing.T) {
	t.Parallel()
	all := catalog.Default(plugin.Entry()).All()
	if page(all) != read(t, pagePath) {
		t.Errorf("%s is not what the catalog says: run make generate", pagePath)
	}
	source := read(t, typePath)
	if want, err := comments(source, all); err != nil || want != source {
		t.Errorf("the comments in %s are not what the catalog says (%v): run make generate", typePath, err)
	}
	// The CRD breaks its lines elsewhere.
	crd := strings.Join(strings.Fields(read(t, "deploy/chart/crds/sluice.dev_autoscalers.yaml")), " ")
	for _, e := range all {
		var names []string
		for _, p := range e.Parameters {
			names = append(names, p.Name)
		}
		if want := e.Name + ": " + strings.Join(names, ", ") + "."; !strings.Contains(crd, want) {
			t.Errorf("the CRD does not say %q: run make generate", want)
		}
	}
}

func TestCommentsNeedTheirFields(t *testing.T) {
	t.Parallel()
	if _, err := comments("package v1alpha1\n", nil); err == nil {
		t.Error("comments found fields in an empty file")
	}
}
