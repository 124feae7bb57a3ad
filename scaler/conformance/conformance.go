// Package conformance tests a driver against the contracts of the scaler's ports. It is for tests.
package conformance

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// Platform is a driver with the platform behind it, as a test sees them. Source, Path and the
// functions may be nil; what needs them is not tested then.
type Platform struct {
	Target scaler.Target
	Source scaler.Source
	Path   scaler.Path

	// Workload exists, has no instance, no load, and nothing in its path. Missing does not exist.
	Workload, Missing loop.Ref

	// Await waits until n instances are ready, no other one is there, and the driver can see that.
	Await func(t *testing.T, n int)
	// Fail makes the platform answer the next write with a fault of that kind, and tells whether it
	// can.
	Fail func(t *testing.T, kind error) bool
	// Sever cuts the driver off from the platform for good, and lets so much time pass that
	// readings are not to be believed any more. Now is the instant then.
	Sever func(t *testing.T) (now time.Time)
	// Now is the instant for Source.Signals.
	Now func() time.Time
}

// Run tests a driver. Open makes a new platform, and cleans up after itself.
func Run(t *testing.T, open func(t *testing.T) Platform) {
	t.Helper()
	for _, c := range []struct {
		name  string
		needs func(p *Platform) bool
		check func(t *testing.T, p *Platform)
	}{
		{"GetAfterSet", nil, getAfterSet},
		{"SetIsIdempotent", nil, setTwice},
		{"NotFound", nil, notFound},
		{"Cancelled", nil, cancelled},
		{"Faults", func(p *Platform) bool { return p.Fail != nil }, faults},
		{"FirstGoesNoFurther", hasInstances, first},
		{"FirstOfStrangers", hasInstances, strangers},
		{"Instances", hasInstances, instances},
		{"SignalsOfNothing", hasSource, unknown},
		{"SignalsOfIdleness", hasInstances, idle},
		{"SignalsCutOff", func(p *Platform) bool { return hasInstances(p) && p.Sever != nil }, severed},
		{"PathIsIdempotent", func(p *Platform) bool { return p.Path != nil }, path},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			if c.needs != nil && !c.needs(&p) {
				t.Skip("the driver has nothing of this kind")
			}
			c.check(t, &p)
		})
	}
}

func hasSource(p *Platform) bool    { return p.Source != nil && p.Now != nil }
func hasInstances(p *Platform) bool { return hasSource(p) && p.Await != nil }

// set asks for n replicas and reads them back.
func (p *Platform) set(t *testing.T, n int, first []string) {
	t.Helper()
	if err := p.Target.Set(t.Context(), p.Workload, n, first); err != nil {
		t.Fatalf("Set(%d, %v): %v", n, first, err)
	}
	p.want(t, n)
}

func (p *Platform) want(t *testing.T, n int) {
	t.Helper()
	got, err := p.Target.Get(t.Context(), p.Workload)
	if err != nil || got.Replicas != n {
		t.Fatalf("Get = %+v, %v, want %d replicas", got, err, n)
	}
}

// ready sets n and waits for the instances.
func (p *Platform) ready(t *testing.T, n int, first []string) []loop.Instance {
	t.Helper()
	p.set(t, n, first)
	p.Await(t, n)
	return p.Source.Instances(p.Workload, nil)
}

func ids(all []loop.Instance) []string {
	var out []string
	for i := range all {
		out = append(out, all[i].ID)
	}
	slices.Sort(out)
	return out
}

func getAfterSet(t *testing.T, p *Platform) {
	p.want(t, 0)
	for _, n := range []int{3, 1, 4, 0, 2} {
		p.set(t, n, nil)
	}
}

func setTwice(t *testing.T, p *Platform) {
	p.set(t, 2, nil)
	if !hasInstances(p) {
		p.set(t, 2, nil)
		return
	}
	p.Await(t, 2)
	before := ids(p.Source.Instances(p.Workload, nil))
	if after := ids(p.ready(t, 2, before)); !slices.Equal(before, after) {
		t.Errorf("Set of the same count made %v of %v", after, before)
	}
}

func notFound(t *testing.T, p *Platform) {
	if got, err := p.Target.Get(t.Context(), p.Missing); !errors.Is(err, scaler.ErrNotFound) {
		t.Errorf("Get = %+v, %v, want ErrNotFound", got, err)
	}
	if err := p.Target.Set(t.Context(), p.Missing, 1, nil); !errors.Is(err, scaler.ErrNotFound) {
		t.Errorf("Set: %v, want ErrNotFound", err)
	}
	if p.Path == nil {
		return
	}
	if got, err := p.Path.See(t.Context(), p.Missing); got != nil || err != nil && !errors.Is(err, scaler.ErrNotFound) {
		t.Errorf("See = %+v, %v, want no path, or ErrNotFound", got, err)
	}
}

func cancelled(t *testing.T, p *Platform) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Target.Set(ctx, p.Workload, 3, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Set with an ended context: %v, want %v", err, context.Canceled)
	}
	p.want(t, 0)
}

func faults(t *testing.T, p *Platform) {
	p.set(t, 1, nil)
	kinds := []error{scaler.ErrConflict, scaler.ErrThrottled, scaler.ErrForbidden, scaler.ErrNotFound}
	for _, kind := range kinds {
		if !p.Fail(t, kind) {
			continue
		}
		err := p.Target.Set(t.Context(), p.Workload, 3, nil)
		for _, k := range kinds {
			if is := errors.Is(err, k); is != errors.Is(kind, k) {
				t.Errorf("Set with a fault of kind %q: %v is of kind %q: %v", kind, err, k, is)
			}
		}
		p.want(t, 1)
	}
	p.set(t, 2, nil)
}

// first asks for three to go first, and for one to go.
func first(t *testing.T, p *Platform) {
	all := p.ready(t, 4, nil)
	named := []string{all[2].ID, all[0].ID, all[1].ID}
	left := ids(p.ready(t, 3, named))
	honoured := slices.DeleteFunc(ids(all), func(id string) bool { return id == named[0] })
	switch {
	case slices.Equal(left, honoured):
		t.Log("the platform lets one choose who goes first")
	case len(left) == 3:
		t.Log("the platform chooses by itself who goes first")
	default:
		t.Errorf("3 of %v should be left when %v should go first: %v are", ids(all), named, left)
	}
	for _, id := range left {
		if !slices.Contains(ids(all), id) {
			t.Errorf("%s is new: scaling down started an instance", id)
		}
	}
}

// strangers names instances that do not exist.
func strangers(t *testing.T, p *Platform) {
	p.ready(t, 2, nil)
	if left := p.ready(t, 1, []string{"no-such-instance", ""}); len(left) != 1 {
		t.Errorf("%v are left, want one", ids(left))
	}
}

func instances(t *testing.T, p *Platform) {
	mark := loop.Instance{ID: "mark"}
	p.ready(t, 2, nil)
	got := p.Source.Instances(p.Workload, []loop.Instance{mark})
	if len(got) != 3 || got[0] != mark {
		t.Fatalf("Instances did not append two: %+v", got)
	}
	if got[1].ID == got[2].ID || got[1].ID == "" || got[2].ID == "" {
		t.Errorf("the IDs %q and %q do not tell the instances apart", got[1].ID, got[2].ID)
	}
	for _, i := range got[1:] {
		if i.State != algorithms.PodReady || i.Created.IsZero() || i.Ready.Before(i.Created) || i.Trouble != "" {
			t.Errorf("a ready instance is %+v", i)
		}
	}
	if other := p.Source.Instances(p.Missing, nil); len(other) != 0 {
		t.Errorf("a workload that does not exist has %+v", other)
	}
}

// needs are some of what policies need, and one that nobody has.
func needs() []algorithms.Need {
	return []algorithms.Need{
		{Name: algorithms.Concurrency, Window: time.Minute},
		{Name: algorithms.Concurrency, Window: algorithms.Instant},
		{Name: algorithms.Rate, Window: time.Minute},
		{Name: algorithms.Waiting, Window: algorithms.Instant},
		{Name: "no-such-signal", Window: time.Second},
	}
}

// signals asks for all needs, and holds what each answer must be.
func (p *Platform) signals(t *testing.T, now time.Time, ref loop.Ref) []algorithms.Signal {
	t.Helper()
	mark, needs := algorithms.Signal{Name: "mark"}, needs()
	got := p.Source.Signals(now, ref, needs, []algorithms.Signal{mark})
	if len(got) != len(needs)+1 || got[0] != mark {
		t.Fatalf("Signals did not append %d: %+v", len(needs), got)
	}
	got = got[1:]
	for i, s := range got {
		if s.Name != needs[i].Name || s.Window != needs[i].Window {
			t.Errorf("signal %d is %s over %v, want %s over %v", i, s.Name, s.Window, needs[i].Name, needs[i].Window)
		}
		if s.Known && (math.IsNaN(s.Value) || math.IsInf(s.Value, 0) || s.Value < 0 || s.Age < 0) || s.Coverage < 0 || s.Coverage > 1 {
			t.Errorf("signal %+v is out of its bounds", s)
		}
	}
	if got[len(got)-1].Known {
		t.Errorf("a signal that nobody has is known: %+v", got[len(got)-1])
	}
	return got[:len(got)-1]
}

func unknown(t *testing.T, p *Platform) {
	for _, s := range p.signals(t, p.Now(), p.Missing) {
		if s.Known {
			t.Errorf("of a workload that does not exist %+v is known", s)
		}
	}
}

// idle has instances without requests, whose demand is known to be zero.
func idle(t *testing.T, p *Platform) {
	p.ready(t, 2, nil)
	for _, s := range p.signals(t, p.Now(), p.Workload) {
		if !s.Known || s.Value != 0 || s.Coverage < 0.5 {
			t.Errorf("without requests %+v, want a known 0", s)
		}
		if s.Age > 10*time.Second {
			t.Errorf("%+v is old, and was just read", s)
		}
	}
}

func severed(t *testing.T, p *Platform) {
	p.ready(t, 2, nil)
	now := p.Sever(t)
	for _, s := range p.signals(t, now, p.Workload) {
		if s.Known {
			t.Errorf("without readings %+v is known", s)
		}
	}
	if got, err := p.Target.Get(t.Context(), p.Workload); err == nil {
		t.Errorf("Get = %+v without a platform, want an error", got)
	}
}

func path(t *testing.T, p *Platform) {
	for _, in := range []bool{true, true, false, false, true} {
		want := loop.PathState{In: in}
		for range 2 {
			if err := p.Path.Put(t.Context(), p.Workload, want); err != nil {
				t.Fatalf("Put(%+v): %v", want, err)
			}
		}
		got, err := p.Path.See(t.Context(), p.Workload)
		if err != nil || got == nil || got.In != in || got.Waiting != 0 || got.Ready != 0 {
			t.Fatalf("See = %+v, %v, want in %v, with nobody waiting and nobody ready", got, err, in)
		}
	}
}
