package main

import (
	"io"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/internal/cli"
)

func TestSuiteReusesAnotherFolder(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	out := t.TempDir()
	err := execute(t.Context(), []string{"bench", "suite", "--traces", t.TempDir(), "--out", out + "/", "--reuse", out}, strings.NewReader(""), io.Discard, &stderr)
	if code := cli.Status("sluice", err, &stderr); code != 2 || !strings.Contains(stderr.String(), "want another folder than --out") {
		t.Errorf("%v: %s; want wrong use, since the folder to write to is no earlier one", err, &stderr)
	}
}
