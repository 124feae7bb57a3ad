package scaler

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
)

// History is where the past of workloads comes from.
type History interface {
	// Fetch returns the samples that are known of a target's signals up to until, in the order of their instants. What is unknown is left out;
	// that nothing is known is no error. An error names its remedy. Fetch is called for several targets at once and ends early with ctx.
	Fetch(ctx context.Context, t actuate.Target, signals []string, until time.Time) ([]algorithms.Sample, error)
}

const (
	// firstPause is how long after a failed fetch the next one begins; it doubles up to longestPause.
	firstPause, longestPause = 10 * time.Second, 5 * time.Minute
	// searchTime is for how long fetches are tried, from the beginning of the first.
	searchTime = time.Hour
	// fetchTimeout bounds one fetch.
	fetchTimeout = 2 * time.Minute
	// fetchesAtOnce bounds how many fetches run at a time: when the controller starts, all workloads ask, and each past is some MB.
	fetchesAtOnce = 4
)

// searchState is how far a search has come.
type searchState int

const (
	searching searchState = iota
	failing               // and tried again
	found
	gaveUp
)

// search is for the past of one workload. Rounds make, read and drop it, Run carries it out.
type search struct {
	target  actuate.Target
	signals []string
	// told is the state that the last round knew; rounds alone use it.
	told searchState

	mu      sync.Mutex
	dropped bool
	cancel  context.CancelFunc // nil before it is carried out
	state   searchState
	samples []algorithms.Sample
	fault   error // of the last fetch
}

// serves says that what is found will do for a policy that learns these signals of this target.
func (s *search) serves(t actuate.Target, signals []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state != gaveUp && s.target == t && slices.Equal(s.signals, signals)
}

// drop ends the search. A nil search has ended.
func (s *search) drop() {
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

// begin returns the context of the search, which ends when it is dropped; ok is false if it already is.
func (s *search) begin(ctx context.Context) (_ context.Context, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped {
		return ctx, false
	}
	ctx, s.cancel = context.WithCancel(ctx)
	return ctx, true
}

func (s *search) reach(state searchState, samples []algorithms.Sample, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dropped {
		s.state, s.samples, s.fault = state, samples, fault
	}
}

// news returns how far the search has come, and whether that is new since the last call.
func (s *search) news() (state searchState, samples []algorithms.Sample, fault error, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = s.state != s.told
	s.told = s.state
	return s.state, s.samples, s.fault, fresh
}

// run fetches until it succeeds, for searchTime at most. Each fetch takes one of the places.
func (s *search) run(ctx context.Context, from History, clock func() time.Time, places chan struct{}) {
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
			t := time.NewTimer(searchTime)
			defer t.Stop()
			end = t.C
		}
		fetch, cancel := context.WithTimeout(ctx, fetchTimeout)
		samples, err := from.Fetch(fetch, s.target, s.signals, clock())
		cancel()
		<-places
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			s.reach(found, samples, nil)
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

// Run fetches the past of workloads whose policies learn from one, until ctx ends, and waits for what it has begun. Without it, or without
// Options.History, policies begin knowing nothing. It is to be called once.
func (r *Reconciler) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, fetchesAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.searched:
		}
		r.mu.Lock()
		begin := r.searches
		r.searches = nil
		r.mu.Unlock()
		for _, s := range begin {
			all.Go(func() { s.run(ctx, r.History, r.Clock, places) })
		}
	}
}

// seek has the past of the workload fetched for its new policy, if that learns from one and is untaught: it starts afresh, or goes on from a
// policy whose past has not come. A search that goes on already may serve.
func (rd *round) seek(afresh bool) {
	before := rd.w.search
	if rd.History == nil || before == nil && !afresh {
		return
	}
	signals := rd.w.policy.Learns()
	if len(signals) > 0 && before != nil && before.serves(rd.target(), signals) {
		return
	}
	before.drop()
	rd.w.search = nil
	if len(signals) == 0 {
		return
	}
	rd.w.search = &search{target: rd.target(), signals: signals}
	rd.mu.Lock()
	rd.searches = append(rd.searches, rd.w.search)
	rd.mu.Unlock()
	select {
	case rd.searched <- struct{}{}:
	default:
	}
}

// teach puts a policy that has learnt the past in the place of the untaught one once the past has come, and says what became of it. Nothing
// of the past is later than the policy's first observation, which is to be at until.
func (rd *round) teach(ctx context.Context, until time.Time) {
	if rd.w.search == nil {
		return
	}
	state, samples, fault, fresh := rd.w.search.news()
	if !fresh {
		return
	}
	target := slog.String("target", rd.target().String())
	warn := func(remedy string) {
		rd.Log.WarnContext(ctx, "history not learnt", slog.String("autoscaler", rd.key.String()), target, slog.Bool("will_retry", state == failing), slog.Any("error", fault))
		rd.Recorder.Eventf(rd.as, nil, corev1.EventTypeWarning, "HistoryUnavailable", "Learn", "%s; %s", brief(fault.Error()), remedy)
	}
	switch state {
	case searching:
	case failing:
		warn("the policy decides without it, and it is asked for again for up to " + searchTime.String())
	case gaveUp: // the search stays, so that a change of the spec begins another
		warn("the policy goes on without it; a change of the spec, or a restart of the controller, asks for it again")
	case found:
		rd.w.search = nil // whatever comes: what has a fault now has it in each round
		n, _ := slices.BinarySearchFunc(samples, until, func(s algorithms.Sample, t time.Time) int {
			if s.At.After(t) {
				return 1
			}
			return -1
		})
		samples = samples[:n]
		if n == 0 {
			rd.Recorder.Eventf(rd.as, nil, corev1.EventTypeNormal, "HistoryEmpty", "Learn",
				"nothing is known yet of the past of %s, and the policy goes on without it; if the workload is older, see docs/history.md", rd.target())
			rd.Log.InfoContext(ctx, "history is empty", slog.String("autoscaler", rd.key.String()), target)
			return
		}
		if fault = rd.learn(samples); fault != nil {
			warn("the policy goes on without it")
			return
		}
		from, to := samples[0].At.UTC(), samples[n-1].At.UTC()
		rd.Recorder.Eventf(rd.as, nil, corev1.EventTypeNormal, "HistoryLearned", "Learn", "the policy has learnt %d samples of %s from %s to %s (%s)",
			n, strings.Join(known(samples), " and "), from.Format(time.RFC3339), to.Format(time.RFC3339), to.Sub(from))
		rd.Log.InfoContext(ctx, "history learnt", slog.String("autoscaler", rd.key.String()), target, slog.Int("samples", n), slog.Float64("span_seconds", to.Sub(from).Seconds()))
	}
}

// learn makes a fresh policy of the spec and teaches it; the memory of what guards it is kept.
func (rd *round) learn(samples []algorithms.Sample) error {
	p, closer, err := rd.as.Spec.NewPolicy(rd.Policies)
	if err != nil {
		return err
	}
	if err := errors.Join(p.RestoreRules(rd.w.policy.Snapshot()), p.Learn(samples)); err != nil {
		closer()
		return err
	}
	rd.w.take(p, closer)
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

// brief is a text that fits into an event, whose note holds 1024 bytes: its beginning and, with the cause of an error, its end.
func brief(text string) string {
	const head, tail = 250, 450
	if len(text) <= head+tail {
		return text
	}
	return strings.ToValidUTF8(text[:head], "") + " … " + strings.ToValidUTF8(text[len(text)-tail:], "")
}
