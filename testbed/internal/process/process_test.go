package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/testbed/internal/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTail(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, tc := range []struct {
		name, content string
		lines         int
		want          string
	}{
		{"empty", "", 3, ""},
		{"fewer lines than asked for", "a\nb\n", 3, "a\nb"},
		{"more lines", "a\nb\nc\nd\n", 2, "c\nd"},
		{"no newline at the end", "a\nb", 1, "b"},
		{"a cut line is left out", long + "\n" + long + "\nlast\n", 5, long + "\nlast"},
		{"one line longer than the limit keeps its end", long + long, 5, (long + long)[:16<<10]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := process.Tail(path, tc.lines)
			if err != nil || got != tc.want {
				t.Errorf("Tail(%d lines) = %q, %v, want %q", tc.lines, got, err, tc.want)
			}
		})
	}
}

func shell(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Spec{Name: "part", Path: "/bin/sh", Args: []string{"-c", script}, LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFailureShowsEndAndLog(t *testing.T) {
	p := shell(t, "echo starting; echo no such flag >&2; exit 3")
	<-p.Done()
	got := p.Failure("run it").Error()
	for _, want := range []string{"run it", "part", "exit status 3", "starting", "no such flag"} {
		if !strings.Contains(got, want) {
			t.Errorf("Failure = %q, want it to contain %q", got, want)
		}
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	p := shell(t, "trap '' TERM; while :; do :; done")
	started := time.Now()
	p.Stop(50 * time.Millisecond)
	select {
	case <-p.Done():
	default:
		t.Error("Stop returned before the process had ended")
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("Stop took %s, want about its grace of 50 ms", took)
	}
}

func TestStopIsHeard(t *testing.T) {
	p := shell(t, "exec sleep 60")
	started := time.Now()
	p.Stop(30 * time.Second)
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("Stop took %s for a process that ends on SIGTERM, want no wait for the grace of 30 s", took)
	}
}
