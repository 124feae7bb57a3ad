package scaler_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// many is a platform of many workloads, each of whose reads takes a while.
type many struct {
	mu              sync.Mutex
	gets            map[string][]time.Time
	sets            map[string]int
	running, most   int
	overlap         map[string]int
	takes           time.Duration
	fault, panicked map[string]bool
}

func newMany() *many {
	return &many{
		gets: map[string][]time.Time{}, sets: map[string]int{}, overlap: map[string]int{}, fault: map[string]bool{}, panicked: map[string]bool{},
	}
}

func (m *many) Get(ctx context.Context, ref loop.Ref) (scaler.State, error) {
	m.mu.Lock()
	m.gets[ref.Name] = append(m.gets[ref.Name], time.Now())
	m.running++
	m.overlap[ref.Name]++
	if m.most = max(m.most, m.running); m.overlap[ref.Name] > 1 {
		m.most = 1_000_000 // two rounds of one workload at once
	}
	takes, fault, panics, n := m.takes, m.fault[ref.Name], m.panicked[ref.Name], m.sets[ref.Name]
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.running--
		m.overlap[ref.Name]--
	}()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return scaler.State{}, ctx.Err()
	}
	if panics {
		panic("the platform has a fault")
	}
	if fault {
		return scaler.State{}, fmt.Errorf("read: %w", scaler.ErrThrottled)
	}
	return scaler.State{Replicas: n}, nil
}

func (m *many) Set(_ context.Context, ref loop.Ref, n int, _ []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[ref.Name] = n
	return nil
}

func (m *many) Signals(_ time.Time, _ loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	for _, n := range needs {
		dst = append(dst, algorithms.Signal{Name: n.Name, Window: n.Window, Value: 0, Known: true, Coverage: 1})
	}
	return dst
}

func (m *many) Instances(_ loop.Ref, dst []loop.Instance) []loop.Instance { return dst }

// count is how many rounds a workload has had.
func (m *many) count(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.gets[name])
}

// last are the times between the reads of a workload.
func (m *many) gaps(name string) []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []time.Duration
	for i := 1; i < len(m.gets[name]); i++ {
		out = append(out, m.gets[name][i].Sub(m.gets[name][i-1]))
	}
	return out
}

func workloadSpec(name string, replicas int) scaler.WorkloadSpec {
	return scaler.WorkloadSpec{
		Ref: loop.Ref{Driver: "test", Kind: "app", Name: name},
		Spec: loop.Spec{
			MinReplicas: 1, MaxReplicas: 10,
			Policy: loop.Policy{Name: "fixed", Parameters: fmt.Appendf(nil, `{"replicas": %d}`, replicas)},
		},
	}
}

// tick runs a Ticker in a bubble, and returns what ends it.
func tick(t *testing.T, m *many, o scaler.TickerOptions) (*scaler.Ticker, func()) {
	t.Helper()
	timing := loop.DefaultTiming()
	timing.Tick, timing.Settle = time.Second, 0
	o.Scaler = scaler.New(scaler.Options{
		Target: m, Source: m, Catalog: catalog.Default(), Timing: timing, Clock: time.Now,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	tk := scaler.NewTicker(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tk.Run(ctx) }()
	return tk, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestTickerKeepsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMany()
		tk, stop := tick(t, m, scaler.TickerOptions{AtOnce: 2})
		defer stop()
		m.fault["b"], m.panicked["c"] = true, true
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 3), workloadSpec("b", 1), workloadSpec("c", 1)})
		pass(time.Minute)
		for name, want := range map[string]time.Duration{"a": time.Second, "b": 5 * time.Second, "c": 2 * time.Second} {
			gaps := m.gaps(name)
			if len(gaps) < 10 {
				t.Errorf("%s had %d rounds in a minute", name, len(gaps)+1)
			}
			for _, g := range gaps {
				if g != want {
					t.Errorf("%s: a round came %v after the last, want %v", name, g, want)
				}
			}
		}
		if m.sets["a"] != 3 {
			t.Errorf("a has %d replicas, want 3", m.sets["a"])
		}
	})
}

// TestTickerIsBounded has more workloads than rounds at once, each slow.
func TestTickerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMany()
		m.takes = 100 * time.Millisecond
		tk, stop := tick(t, m, scaler.TickerOptions{AtOnce: 3})
		defer stop()
		var list []scaler.WorkloadSpec
		for i := range 60 {
			list = append(list, workloadSpec(fmt.Sprint(i), 1))
		}
		tk.Set(list)
		pass(21 * time.Second) // one turn takes 2 s
		if m.most != 3 {
			t.Errorf("%d rounds at once, want 3, and none of one workload twice", m.most)
		}
		for i := range 60 {
			if n := m.count(fmt.Sprint(i)); n < 9 || n > 11 {
				t.Errorf("workload %d had %d rounds, want 10: nobody is left behind", i, n)
			}
		}
	})
}

func TestTickerTakesLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMany()
		var forgotten []string
		tk, stop := tick(t, m, scaler.TickerOptions{AtOnce: 2, Forget: func(ref loop.Ref) { forgotten = append(forgotten, ref.Name) }})
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 2), workloadSpec("b", 2)})
		pass(5*time.Second + time.Second/2)
		if m.sets["a"] != 2 || m.sets["b"] != 2 {
			t.Errorf("after the first list: %v", m.sets)
		}
		before := m.count("b")
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 4), workloadSpec("c", 1)})
		synctest.Wait()
		if m.sets["a"] != 4 || m.count("c") != 1 {
			t.Errorf("a change waits: a has %d, want 4; c had %d rounds, want one", m.sets["a"], m.count("c"))
		}
		pass(5 * time.Second)
		if m.count("b") != before || len(forgotten) != 1 || forgotten[0] != "b" {
			t.Errorf("b had %d rounds, want the %d from when it was in the list; forgotten are %q", m.count("b"), before, forgotten)
		}

		m.mu.Lock()
		m.takes = 2 * time.Second // a round of each runs while the list changes
		m.mu.Unlock()
		pass(3 * time.Second)
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 6)})
		pass(5 * time.Second)
		if m.sets["a"] != 6 || len(forgotten) != 2 {
			t.Errorf("a change during a round: a has %d, want 6; forgotten are %q, want b and c", m.sets["a"], forgotten)
		}
		stop()
	})
}

// TestTickerPoke has workloads that are poked between rounds, during one, and after they have gone.
func TestTickerPoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMany()
		tk, stop := tick(t, m, scaler.TickerOptions{AtOnce: 2})
		defer stop()
		a := workloadSpec("a", 2)
		tk.Set([]scaler.WorkloadSpec{a})
		pass(5*time.Second + time.Second/4)
		before := m.count("a")
		tk.Poke(a.Ref)
		tk.Poke(loop.Ref{Name: "of nothing"})
		synctest.Wait()
		if n := m.count("a"); n != before+1 {
			t.Errorf("a poke makes %d rounds at once, want 1", n-before)
		}
		m.mu.Lock()
		m.takes = time.Second / 2
		m.mu.Unlock()
		pass(time.Second + time.Second/4) // a round runs
		before = m.count("a")
		tk.Poke(a.Ref)
		pass(time.Second / 2)
		if n := m.count("a"); n != before+1 {
			t.Errorf("a poke during a round makes %d rounds right after it, want 1", n-before)
		}
	})
}

// TestTickerBeats has all its rounds hang: then it does not beat, and else it does.
func TestTickerBeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMany()
		beat := serve.NewHeartbeat("rounds", 2*scaler.BeatEvery, time.Now())
		tk, stop := tick(t, m, scaler.TickerOptions{AtOnce: 2, Beat: beat.Beat})
		defer stop()
		pass(time.Minute)
		if err := beat.Alive(time.Now()); err != nil {
			t.Errorf("with nothing to do: %v", err)
		}
		m.takes = 29 * time.Second
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 1)})
		pass(25 * time.Second)
		if err := beat.Alive(time.Now()); err != nil {
			t.Errorf("with one slow round, and room for another: %v", err)
		}
		pass(5 * time.Second) // a's round is over, and its next one runs from 30 s on
		tk.Set([]scaler.WorkloadSpec{workloadSpec("a", 1), workloadSpec("b", 1), workloadSpec("c", 1)})
		pass(25 * time.Second)
		if err := beat.Alive(time.Now()); err == nil {
			t.Error("with all rounds hanging for 25 s: no fault")
		}
		pass(5 * time.Second)
		if err := beat.Alive(time.Now()); err != nil {
			t.Errorf("once they are over: %v", err)
		}
	})
}

// pass lets time pass, and what is due be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestParseSpecs(t *testing.T) {
	t.Parallel()
	drivers := []string{"process"}
	good := `[{"ref": {"driver": "process", "kind": "app", "name": "web"},
	  "spec": {"minReplicas": 1, "maxReplicas": 3, "signals": [{"name": "concurrency", "target": {"averageValue": 5}}]}}]`
	list, err := scaler.ParseSpecs([]byte(good), drivers, catalog.Default(), loop.DefaultTiming())
	if err != nil || len(list) != 1 || list[0].Ref.Name != "web" || list[0].Spec.TargetPerPod() != 5 {
		t.Errorf("ParseSpecs = %+v, %v", list, err)
	}
	faulty := `[
	  {"ref": {"driver": "cloud", "kind": "app", "name": ""}, "spec": {"maxReplicas": 0, "minReplicas": 1}},
	  {"ref": {"driver": "process", "kind": "app", "name": "a"}, "spec": {"maxReplica": 1}},
	  {"ref": {"driver": "process", "kind": "app", "name": "b"}, "spec": {"minReplicas": 1, "maxReplicas": 1, "policy": {"name": "nobody"}}},
	  {"ref": {"driver": "process", "kind": "app", "name": "b"}, "spec": {}},
	  {"ref": {"driver": "process", "kind": "app", "name": "c"}, "spec": {"maxReplicas": 1}}]`
	list, err = scaler.ParseSpecs([]byte(faulty), drivers, catalog.Default(), loop.DefaultTiming())
	if err == nil || list != nil {
		t.Fatalf("ParseSpecs took a faulty list: %+v", list)
	}
	for _, want := range []string{
		`[0].ref.driver = "cloud": want one of ["process"]`, `[0].ref.kind = "app", ref.name = "": want both`, "[0].spec.minReplicas = 1, spec.maxReplicas = 0",
		`[1]: json: unknown field "maxReplica"`, "[2].spec.policy: ", "[3].ref is that of [2]", "[4].spec.serviceRef is missing while spec.minReplicas is 0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSpecs: %v\nwant %q in it", err, want)
		}
	}
	for _, raw := range []string{`{}`, `[{]`, ``, `null`, `[] []`} {
		if list, err := scaler.ParseSpecs([]byte(raw), drivers, catalog.Default(), loop.DefaultTiming()); err == nil {
			t.Errorf("ParseSpecs(%q) = %v, want an error", raw, list)
		}
	}
	if list, err := scaler.ParseSpecs([]byte(`[]`), drivers, catalog.Default(), loop.DefaultTiming()); err != nil || len(list) != 0 {
		t.Errorf("ParseSpecs([]) = %v, %v", list, err)
	}
}
