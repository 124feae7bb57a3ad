package main

import (
	"io"
	"strings"
	"testing"
)

func TestSuiteReusesAnotherFolder(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	out := t.TempDir()
	code := run([]string{"bench", "suite", "--traces", t.TempDir(), "--out", out + "/", "--reuse", out}, strings.NewReader(""), io.Discard, &stderr)
	if code != 2 || !strings.Contains(stderr.String(), "want another folder than --out") {
		t.Errorf("exit %d: %s; want 2, since the folder to write to is no earlier one", code, &stderr)
	}
}
