// Package scaler drives workloads by the one loop (algorithms/loop), on any platform. A round of a
// workload is: see what its ports show, step the loop, carry the commands out, keep the record.
//
// The ports (Target, Source, Path, Sink) carry no type of any platform. Drivers implement them:
// scaler/kube for Kubernetes, scaler/process for a program with an HTTP interface. Rounds are
// driven by whoever knows when something happened: a controller of Autoscaler objects
// (scaler/kube), or Run over a list of workloads.
package scaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Options configure a Scaler. All fields are needed unless said otherwise.
type Options struct {
	Target Target
	Source Source
	// Path is how requests reach workloads at zero; nil means that nothing is ever held.
	Path Path
	// Sink takes the records; nil drops them.
	Sink Sink
	// Catalog has the policies. CatalogOf, when not nil, takes its place: the policies of one
	// workload, which may be allowed what another's are not.
	Catalog   loop.Catalog
	CatalogOf func(loop.Ref) loop.Catalog
	Timing    loop.Timing
	// BlindUntil is loop.View.BlindUntil; nil means that the platform has no outages.
	BlindUntil func() time.Time
	// Clock tells the time.
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// History is where policies that learn from a past get it, by way of RunHistory; nil means that
	// they begin without one.
	History History
}

// Scaler has what all workloads share. It is safe for concurrent use.
type Scaler struct {
	Options
	metrics *instruments

	mu sync.Mutex
	// fetches are those that RunHistory has not begun; queued tells it of them.
	fetches []*historyFetch
	queued  chan struct{}
}

// New returns a Scaler.
func New(o Options) *Scaler {
	if o.Sink == nil {
		o.Sink = noSink{}
	}
	if o.CatalogOf == nil {
		o.CatalogOf = func(loop.Ref) loop.Catalog { return o.Catalog }
	}
	if o.BlindUntil == nil {
		o.BlindUntil = func() time.Time { return time.Time{} }
	}
	return &Scaler{Options: o, metrics: newInstruments(o.Metrics), queued: make(chan struct{}, 1)}
}

type noSink struct{}

// Put implements Sink.
func (noSink) Put(loop.Ref, loop.Record) {}

// Workload is one scaled workload. Its methods are not safe for concurrent use; different workloads
// may be used at once.
type Workload struct {
	s     *Scaler
	ref   loop.Ref
	spec  loop.Spec
	born  time.Time
	loop  *loop.Loop
	fetch *historyFetch

	// replicas is the target's count as it was last known.
	replicas int
	known    bool
	// decidedAt is when the last wake-up's count was written; coldSeen is until when cold starts
	// are accounted for.
	decidedAt, coldSeen time.Time

	signals   []algorithms.Signal
	instances []loop.Instance
}

// Open returns a workload that has no Spec yet. Close is to be called once it is not used any more.
func (s *Scaler) Open(ref loop.Ref) *Workload { return &Workload{s: s, ref: ref} }

// Ref names the workload.
func (w *Workload) Ref() loop.Ref { return w.ref }

// Configure gives the workload its Spec. The memory of the Spec before is kept, the policy's too
// where it is of the same kind. An error leaves the workload as it was, without a Spec if it had
// none; one that is catalog.ErrTemporary may pass.
func (w *Workload) Configure(spec loop.Spec, born time.Time) error {
	next, err := loop.New(spec, w.s.CatalogOf(w.ref), w.s.Timing)
	if err != nil {
		return err
	}
	afresh := w.loop == nil
	if !afresh {
		if err := next.Inherit(w.loop); err != nil {
			afresh = true
			w.s.Log.Debug("policy starts afresh", slog.String("workload", w.ref.String()), slog.Any("error", err))
		}
	}
	w.replace(next)
	w.spec, w.born = spec, born
	w.requestHistory(afresh)
	return nil
}

// replace puts a loop in the place of the one there was, which lets go what it holds.
func (w *Workload) replace(l *loop.Loop) {
	if w.loop != nil {
		w.loop.Close()
	}
	w.loop = l
}

// Close lets go all that the workload holds, and its metrics.
func (w *Workload) Close() {
	w.fetch.drop()
	w.replace(nil)
	w.s.metrics.forget(w.ref)
}

// Stage is the part of a round that failed.
type Stage string

// The stages of a round that can fail.
const (
	// StageGet is reading the target.
	StageGet Stage = "Get"
	// StageSee is reading the path.
	StageSee Stage = "See"
	// StageSet is writing the target's count.
	StageSet Stage = "Set"
	// StagePut is changing the path.
	StagePut Stage = "Put"
)

// RoundError is a fault of a round, and where it happened.
type RoundError struct {
	Stage Stage
	Err   error
}

// Error implements error.
func (e *RoundError) Error() string { return e.Err.Error() }

// Unwrap returns the fault itself.
func (e *RoundError) Unwrap() error { return e.Err }

// Notice is something that people should be told of, once.
type Notice struct {
	Warning         bool
	Reason, Message string
}

// Outcome is what a round came to.
type Outcome struct {
	// Next is when the next round is due at the latest.
	Next time.Duration
	// Record is the round's; its At is zero when the round did not get as far as a decision. Its
	// slices hold until the workload's next round.
	Record loop.Record
	// Path is the path as it was seen, nil where there is none.
	Path *loop.Path
	// ColdStart is a wake-up that was seen through in this round, nil when there is none.
	ColdStart *ColdStart
	Notices   []Notice
}

const (
	// retryAfter is when a round that met a fault is done again.
	retryAfter = 2 * time.Second
	// conflictAfter is when a round is done again that read memory behind its own writes.
	conflictAfter = 50 * time.Millisecond
	// decideTimeout bounds a decision. Policies bound their work as well, so that this is met where
	// the machine is short of processors.
	decideTimeout = time.Second
	// throttledAfter is when a round is done again that the platform asked to be fewer.
	throttledAfter = 5 * time.Second
)

// Round does one round. An error is a *RoundError; Outcome.Next says then when to try again.
func (w *Workload) Round(ctx context.Context) (Outcome, error) {
	if w.loop == nil {
		return Outcome{Next: retryAfter}, &RoundError{StageGet, fmt.Errorf("round of %s: it has no spec yet", w.ref)}
	}
	began := w.s.Clock()
	defer func() { w.s.metrics.round.Observe(w.s.Clock().Sub(began).Seconds()) }()
	out := Outcome{}
	err := w.round(ctx, began, &out)
	switch {
	case err == nil:
	case errors.Is(err, ErrConflict):
		out.Next = conflictAfter
	case errors.Is(err, ErrThrottled):
		out.Next = throttledAfter
	default:
		out.Next = retryAfter
	}
	return out, err
}

func (w *Workload) round(ctx context.Context, now time.Time, out *Outcome) error {
	view, err := w.view(ctx, now)
	if err != nil {
		return err
	}
	out.Path = view.Path
	out.Notices = w.learnHistory(w.loop.DataTime(&view))
	c := w.step(ctx, view)
	r := &c.Record
	w.s.metrics.decided(w.ref, r)
	err = w.carryOut(ctx, &c)
	out.ColdStart = w.coldStart(view.Path)
	out.Next, out.Record = c.Next, c.Record
	w.s.Sink.Put(w.ref, c.Record)
	return err
}

// step decides, for at most decideTimeout.
func (w *Workload) step(ctx context.Context, v loop.View) loop.Commands {
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	v.Done = ctx.Done()
	return w.loop.Step(v)
}

// view sees what the ports show. On a wake-up the read of the target is spared: the count was zero.
func (w *Workload) view(ctx context.Context, now time.Time) (loop.View, error) {
	v := loop.View{Now: now, Born: w.born, BlindUntil: w.s.BlindUntil()}
	if w.s.Path != nil && w.spec.ServiceRef != nil && w.spec.Mode != loop.ModeDryRun {
		path, err := w.s.Path.See(ctx, w.ref)
		if err != nil {
			return v, &RoundError{StageSee, fmt.Errorf("see the path of %s: %w", w.ref, err)}
		}
		v.Path = path
	}
	if !w.known || w.replicas != 0 || v.Path == nil || v.Path.Waiting == 0 {
		st, err := w.s.Target.Get(ctx, w.ref)
		if err != nil {
			w.known = false
			return v, &RoundError{StageGet, err}
		}
		w.replicas, w.known = st.Replicas, true
		v.Trouble = st.Trouble
	}
	w.signals = w.s.Source.Signals(now, w.ref, w.loop.Needs(), w.signals[:0])
	w.instances = w.s.Source.Instances(w.ref, w.instances[:0])
	v.Replicas, v.Signals, v.Instances = w.replicas, w.signals, w.instances
	return v, nil
}

// carryOut does what the commands say, in the order that loses nothing: from zero the count is
// written first, since it takes the longest; to zero the path has long been in.
func (w *Workload) carryOut(ctx context.Context, c *loop.Commands) error {
	r := &c.Record
	if c.Scale != nil {
		if err := w.s.Target.Set(ctx, w.ref, *c.Scale, c.First); err != nil {
			r.Fault = err.Error()
			w.known = false
			w.loop.Done(w.s.Clock(), *c, err)
			// The path is put all the same: whoever cannot be scaled is held for.
			return &RoundError{StageSet, errors.Join(err, w.putPath(ctx, c.Path))}
		}
		if r.From == 0 {
			w.decidedAt = w.s.Clock()
		}
		w.replicas, r.Applied = *c.Scale, true
		w.s.Log.InfoContext(ctx, "scaled", slog.String("workload", w.ref.String()), slog.Int("from", r.From),
			slog.Int("replicas", *c.Scale), slog.String("reason", r.Reason))
	}
	w.loop.Done(r.At, *c, nil)
	if err := w.putPath(ctx, c.Path); err != nil {
		r.Fault = err.Error()
		return &RoundError{StagePut, err}
	}
	return nil
}

// putPath makes the path what it ought to be, where there is one.
func (w *Workload) putPath(ctx context.Context, want *loop.PathState) error {
	if want == nil || w.s.Path == nil {
		return nil
	}
	if err := w.s.Path.Put(ctx, w.ref, *want); err != nil {
		return fmt.Errorf("change the path of %s: %w", w.ref, err)
	}
	return nil
}

// Configured tells whether the workload has a Spec that can be driven.
func (w *Workload) Configured() bool { return w.loop != nil }

// ReleasePath takes the gateways out of the path of a workload that is not to be held for any more.
func (w *Workload) ReleasePath(ctx context.Context) error {
	return w.putPath(ctx, &loop.PathState{})
}

// ColdStart accounts for one wake-up: when the first request was held, and how long after that each
// phase was over. A negative duration means that the phase was not seen.
type ColdStart struct {
	Detected time.Time
	Held     int
	Phases   [coldPhases]time.Duration
}

// The phases of a cold start, in their order.
const (
	Decided = iota
	PodCreated
	Scheduled
	Started
	Answering
	Released
	coldPhases
)

// ColdPhases names the phases, as metrics do.
func ColdPhases() [coldPhases]string {
	return [...]string{"decided", "pod_created", "scheduled", "started", "answering", "released"}
}

// clockSkew is by how much a gateway's clock may be ahead of the scaler's.
const clockSkew = time.Second

// coldStart accounts for a wake-up that a gateway has seen through; nil when there is no new one.
func (w *Workload) coldStart(path *loop.Path) *ColdStart {
	if path == nil || w.decidedAt.IsZero() { // not woken in this process's life
		return nil
	}
	// Several gateways may have held requests of one wake-up. The earliest tells of it, and clocks
	// may differ a little.
	var c *loop.ColdStart
	latest := w.decidedAt.Add(clockSkew)
	for i := range path.ColdStarts {
		x := &path.ColdStarts[i]
		if !x.Released.IsZero() && x.Detected.After(w.coldSeen) && !x.Detected.After(latest) && (c == nil || x.Detected.Before(c.Detected)) {
			c = x
		}
	}
	if c == nil {
		return nil
	}
	w.coldSeen = latest
	out := &ColdStart{Detected: c.Detected, Held: c.Held}
	at := [coldPhases]time.Time{Decided: w.decidedAt, Answering: c.Answering, Released: c.Released}
	host := c.Address
	if h, _, err := net.SplitHostPort(c.Address); err == nil {
		host = h
	}
	for i := range w.instances {
		if p := &w.instances[i]; p.Address != "" && p.Address == host {
			at[PodCreated], at[Scheduled], at[Started] = p.Created, p.Scheduled, p.Started
		}
	}
	for i, t := range at {
		out.Phases[i] = -1
		if !t.IsZero() && !t.Before(c.Detected) {
			out.Phases[i] = t.Sub(c.Detected)
			w.s.metrics.cold.WithLabelValues(w.ref.Namespace, w.ref.Name, ColdPhases()[i]).Observe(out.Phases[i].Seconds())
		}
	}
	return out
}
