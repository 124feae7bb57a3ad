package scaler_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/algorithms/loop/looptest"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// platform shows a view through the four ports, and notes what is done.
type platform struct {
	view  loop.View
	fault error
	done  loop.Commands
}

func (p *platform) Get(context.Context, loop.Ref) (scaler.State, error) {
	return scaler.State{Replicas: p.view.Replicas}, nil
}

func (p *platform) Set(_ context.Context, _ loop.Ref, n int, first []string) error {
	p.done.Scale, p.done.First = &n, first
	return p.fault
}

func (p *platform) Signals(_ time.Time, _ loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	for _, n := range needs {
		for _, s := range p.view.Signals {
			if s.Name == n.Name && s.Window == n.Window {
				dst = append(dst, s)
				break
			}
		}
	}
	return dst
}

func (p *platform) Instances(_ loop.Ref, dst []loop.Instance) []loop.Instance {
	return append(dst, p.view.Instances...)
}

// path is the platform's Path; Target and Path both have a method that begins a round's doing.
type path struct{ *platform }

func (p path) See(context.Context, loop.Ref) (*loop.Path, error) { return p.view.Path, nil }

func (p path) Put(_ context.Context, _ loop.Ref, want loop.PathState) error {
	p.done.Path = &want
	return nil
}

func (p path) record(r loop.Record) { p.done.Record = r }

// sink keeps the record of the round.
type sink struct{ path }

func (s sink) Put(_ loop.Ref, r loop.Record) { s.record(r) }

// shell is a Workload between fake ports.
type shell struct {
	*platform
	t     *testing.T
	spec  loop.Spec
	w     *scaler.Workload
	needs []algorithms.Need
	open  bool
}

func (s *shell) Needs() []algorithms.Need { return s.needs }

func (s *shell) Round(v loop.View, fault error) loop.Commands {
	s.t.Helper()
	s.view, s.fault, s.done = v, fault, loop.Commands{}
	if !s.open {
		if err := s.w.Configure(s.spec, v.Born); err != nil {
			s.t.Fatal(err)
		}
		s.open = true
	}
	out, err := s.w.Round(context.Background())
	if (err != nil) != (fault != nil && s.done.Scale != nil) {
		s.t.Fatalf("Round at %v: %v, and carrying out fails with %v", v.Now, err, fault)
	}
	s.done.Next = out.Next
	return s.done
}

func openScaler(t *testing.T, s loop.Spec, timing loop.Timing) looptest.Shell {
	t.Helper()
	p := &platform{}
	sc := scaler.New(scaler.Options{
		Target: p, Source: p, Path: path{p}, Sink: sink{path{p}}, Catalog: catalog.Default(), Timing: timing,
		BlindUntil: func() time.Time { return p.view.BlindUntil },
		Clock:      func() time.Time { return p.view.Now }, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	l := bare(t, s, timing)
	w := sc.Open(loop.Ref{Driver: "test", Kind: "Workload", Name: "web"})
	t.Cleanup(w.Close)
	return &shell{platform: p, t: t, spec: s, w: w, needs: l.Needs()}
}

func bare(t *testing.T, s loop.Spec, timing loop.Timing) looptest.Shell {
	t.Helper()
	l, err := loop.New(s, catalog.Default(), timing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return looptest.Bare{Loop: l}
}

// TestScenarios runs the loop's scenarios through the four ports.
func TestScenarios(t *testing.T) {
	t.Parallel()
	looptest.Scenarios(t, "../algorithms/loop/looptest/testdata", openScaler)
}

// TestSameAsTheLoop runs random histories through the ports and beside them.
func TestSameAsTheLoop(t *testing.T) {
	t.Parallel()
	looptest.Same(t, 100, 100, bare, openScaler)
}
