package scaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// History is where the past of workloads comes from.
type History interface {
	// Fetch returns the samples that are known of a workload's signals up to until, in the order of
	// their instants. What is unknown is left out; that nothing is known is no error. An error
	// names its remedy. Fetch is called for several workloads at once and ends early with ctx.
	Fetch(ctx context.Context, ref loop.Ref, signals []string, until time.Time) ([]algorithms.Sample, error)
}

const (
	// firstPause is how long after a failed fetch the next one begins; it doubles up to
	// longestPause.
	firstPause, longestPause = 10 * time.Second, 5 * time.Minute
	// fetchTime is for how long fetches are tried, from the beginning of the first.
	fetchTime = time.Hour
	// fetchTimeout bounds one fetch.
	fetchTimeout = 2 * time.Minute
	// fetchesAtOnce bounds how many fetches run at a time: when the controller starts, all
	// workloads ask, and each past is some MB.
	fetchesAtOnce = 4
)

// fetchState is how far a fetch has come.
type fetchState int

const (
	fetching fetchState = iota
	failing             // and tried again
	fetched
	gaveUp
)

// historyFetch is for the past of one workload. Rounds make, read and drop it; RunHistory carries
// it out.
type historyFetch struct {
	ref     loop.Ref
	signals []string
	// seen is the state that the last round knew; rounds alone use it.
	seen fetchState

	mu      sync.Mutex
	dropped bool
	cancel  context.CancelFunc // nil before it is carried out
	state   fetchState
	samples []algorithms.Sample
	fault   error // of the last fetch
}

// serves says that the result will do for a policy that learns these signals.
func (s *historyFetch) serves(signals []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state != gaveUp && slices.Equal(s.signals, signals)
}

// drop ends the fetch. A nil fetch has ended.
func (s *historyFetch) drop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped, s.samples = true, nil
	if s.cancel != nil {
		s.cancel()
	}
}

// begin returns the context of the fetch, which ends when it is dropped; ok is false if it already
// is.
func (s *historyFetch) begin(ctx context.Context) (_ context.Context, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped {
		return ctx, false
	}
	ctx, s.cancel = context.WithCancel(ctx)
	return ctx, true
}

func (s *historyFetch) reach(state fetchState, samples []algorithms.Sample, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dropped {
		s.state, s.samples, s.fault = state, samples, fault
	}
}

// progress returns how far the fetch has come, and whether that is new since the last call.
func (s *historyFetch) progress() (state fetchState, samples []algorithms.Sample, fault error, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = s.state != s.seen
	s.seen = s.state
	return s.state, s.samples, s.fault, fresh
}

// run fetches until it succeeds, for fetchTime at most. Each fetch takes one of the places.
func (s *historyFetch) run(ctx context.Context, from History, clock func() time.Time, places chan struct{}) {
	ctx, ok := s.begin(ctx)
	if !ok {
		return
	}
	defer s.cancel()
	var end <-chan time.Time
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-ctx.Done():
			return
		case places <- struct{}{}:
		}
		if end == nil {
			t := time.NewTimer(fetchTime)
			defer t.Stop()
			end = t.C
		}
		fetch, cancel := context.WithTimeout(ctx, fetchTimeout)
		samples, err := from.Fetch(fetch, s.ref, s.signals, clock())
		cancel()
		<-places
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			s.reach(fetched, samples, nil)
			return
		}
		s.reach(failing, nil, err)
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		case <-end:
			wait.Stop()
			s.reach(gaveUp, nil, err)
			return
		}
	}
}

// RunHistory fetches the past of workloads whose policies learn from one, until ctx ends, and waits
// for what it has begun. Without it, or without Options.History, policies begin knowing nothing. It
// is to be called once.
func (s *Scaler) RunHistory(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, fetchesAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.queued:
		}
		s.mu.Lock()
		begin := s.fetches
		s.fetches = nil
		s.mu.Unlock()
		for _, f := range begin {
			all.Go(func() { f.run(ctx, s.History, s.Clock, places) })
		}
	}
}

// requestHistory has the past of the workload fetched for its new policy, if that learns from one
// and has not: it starts afresh, or goes on from a policy whose past has not come. A fetch that
// goes on already may serve.
func (w *Workload) requestHistory(afresh bool) {
	before := w.fetch
	if w.s.History == nil || before == nil && !afresh {
		return
	}
	signals := w.loop.Learns()
	if len(signals) > 0 && before != nil && before.serves(signals) {
		return
	}
	before.drop()
	w.fetch = nil
	if len(signals) == 0 {
		return
	}
	w.fetch = &historyFetch{ref: w.ref, signals: signals}
	w.s.mu.Lock()
	w.s.fetches = append(w.s.fetches, w.fetch)
	w.s.mu.Unlock()
	select {
	case w.s.queued <- struct{}{}:
	default:
	}
}

// learnHistory puts a loop whose policy has learnt the past in the place of the one that has not,
// once the past has come, and says what became of it. Nothing of the past is later than until.
func (w *Workload) learnHistory(until time.Time) []Notice {
	if w.fetch == nil {
		return nil
	}
	state, samples, fault, fresh := w.fetch.progress()
	if !fresh {
		return nil
	}
	name := slog.String("workload", w.ref.String())
	warn := func(remedy string) []Notice {
		w.s.Log.Warn("history not learnt", name, slog.Bool("will_retry", state == failing), slog.Any("error", fault))
		return []Notice{{Warning: true, Reason: "HistoryUnavailable", Message: brief(fault.Error()) + "; " + remedy}}
	}
	switch state {
	case fetching:
	case failing:
		return warn("the policy decides without it, and it is asked for again for up to " + fetchTime.String())
	case gaveUp: // the fetch stays, so that a change of the spec begins another
		return warn("the policy goes on without it; a change of the spec, or a restart of the controller, asks for it again")
	case fetched:
		w.fetch = nil // whatever comes: what has a fault now has it in each round
		n, _ := slices.BinarySearchFunc(samples, until, func(s algorithms.Sample, t time.Time) int {
			if s.At.After(t) {
				return 1
			}
			return -1
		})
		samples = samples[:n]
		if n == 0 {
			w.s.Log.Info("history is empty", name)
			return []Notice{{Reason: "HistoryEmpty", Message: "nothing is known yet of the past of this workload, and the policy goes on without it; if the workload is older, see docs/history.md"}}
		}
		if fault = w.learn(samples); fault != nil {
			return warn("the policy goes on without it")
		}
		from, to := samples[0].At.UTC(), samples[n-1].At.UTC()
		w.s.Log.Info("history learnt", name, slog.Int("samples", n), slog.Float64("span_seconds", to.Sub(from).Seconds()))
		return []Notice{{Reason: "HistoryLearned", Message: fmt.Sprintf("the policy has learnt %d samples of %s from %s to %s (%s)",
			n, strings.Join(known(samples), " and "), from.Format(time.RFC3339), to.Format(time.RFC3339), to.Sub(from))}}
	}
	return nil
}

// learn makes a fresh loop of the spec and teaches it; all memory but the policy's is kept.
func (w *Workload) learn(samples []algorithms.Sample) error {
	l, err := loop.New(w.spec, w.s.CatalogOf(w.ref), w.s.Timing)
	if err != nil {
		return err
	}
	if err := errors.Join(l.InheritRules(w.loop), l.Learn(samples)); err != nil {
		l.Close()
		return err
	}
	w.replace(l)
	return nil
}

// known names the signals of which there are samples, in the order of their first.
func known(samples []algorithms.Sample) []string {
	var names []string
	for i := range samples {
		if !slices.Contains(names, samples[i].Signal) {
			names = append(names, samples[i].Signal)
		}
	}
	return names
}

// brief is a text that fits into an event, whose note holds 1024 bytes: its beginning and, with the
// cause of an error, its end.
func brief(text string) string {
	const head, tail = 250, 450
	if len(text) <= head+tail {
		return text
	}
	return strings.ToValidUTF8(text[:head], "") + " … " + strings.ToValidUTF8(text[len(text)-tail:], "")
}
