package benchlive

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Each trial is valid, between three and five minutes long, within what two cores bear; all
// together end within half an hour.
func TestTrials(t *testing.T) {
	t.Parallel()
	o := Options{Out: t.TempDir()}
	total := time.Duration(0)
	for _, x := range append(trials(), calibration()) {
		s, err := o.scenario(x)
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		if _, err := plan.ParsePolicy(catalog.Default(), x.policy); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		src, err := x.source(&s)
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		total += src.Length()
		if d := src.Length(); x.name != calibration().name && (d < 3*time.Minute || d > 5*time.Minute) {
			t.Errorf("%s lasts %v, want 3–5 minutes", x.name, d)
		}
		buf := make([]trace.Request, 100_000)
		requests := scenario.Requests(src, &s, x.seed)
		n := 0
		for got := requests.Read(buf); got > 0; got = requests.Read(buf[n:]) {
			n += got
		}
		if rate := float64(n) / src.Length().Seconds(); n < 50 || rate > 100 {
			t.Errorf("%s: %d requests, %.1f a second: want some, and at most 100 a second", x.name, n, rate)
		}
	}
	if total > 28*time.Minute {
		t.Errorf("all trials last %v: with bringing the testbed up, that is over half an hour", total)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	got, err := choose([]string{"sparse", "ramp"})
	if err != nil || len(got) != 2 || got[0].name != "sparse" {
		t.Errorf("choose = %v, %v", got, err)
	}
	if _, err := choose([]string{"sparsely"}); err == nil || !strings.Contains(err.Error(), "steady, ramp") {
		t.Errorf("choose(sparsely) = %v, want an error that lists the trials", err)
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	if got, err := rewrite("a: 1\nb: 2\n", "a: 1", "a: 3"); err != nil || got != "a: 3\nb: 2\n" {
		t.Errorf("rewrite = %q, %v", got, err)
	}
	if _, err := rewrite("a", "b", "c"); err == nil {
		t.Error("rewrote what is not there")
	}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	g := goal{"pod-seconds", 0.1}
	for ratio, want := range map[float64]bool{1: true, 1.09: true, 0.91: true, 1.11: false, 0.89: false} {
		if got := g.met(live.Line{Simulated: ratio, Live: 1}); got != want {
			t.Errorf("a ratio of %v: met = %v, want %v", ratio, got, want)
		}
	}
	if !g.met(live.Line{}) {
		t.Error("none of either is no difference")
	}
}

// What an earlier run left is simulated and reported again, without a cluster.
func TestAgain(t *testing.T) {
	t.Parallel()
	dir, kept := t.TempDir(), t.TempDir()
	for _, name := range []string{calibration().name, "sparse"} {
		seen := live.Observations{
			Requests: []load.Record{{Intended: time.Second, Sent: time.Second, Done: 4 * time.Second, Work: time.Second, Status: 200}},
			Cluster: &live.Cluster{
				Pods:   []live.Pod{{Name: "a", Steps: []live.Step{{At: 2 * time.Second, State: live.Created}, {At: 3 * time.Second, State: live.Ready}}}},
				Wanted: []live.Count{{At: 0, Replicas: 0}, {At: 1500 * time.Millisecond, Replicas: 1}},
			},
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, name, "seen.json.gz"))
		if err != nil {
			t.Fatal(err)
		}
		z := gzip.NewWriter(f)
		if err := errors.Join(json.NewEncoder(z).Encode(seen), z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	err := Run(t.Context(), Options{Out: dir, Report: kept, Only: []string{"sparse"}, Again: true, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(kept, "simulated-vs-live.md"))
	if err != nil || string(raw) != out.String() || !strings.Contains(out.String(), "| sparse | kpa |") {
		t.Errorf("the kept report: %v\n%s\nprinted:\n%s", err, raw, out.String())
	}
	if _, err := os.Stat(filepath.Join(kept, "simulated-vs-live.json")); err != nil {
		t.Error(err)
	}
}
