package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// school makes pupils: policies that ask for 2 pods, and for 7 once they have learnt something, and
// notes what becomes of them.
type school struct {
	made, closed int
	learnt       []algorithms.Sample
	refuse       error
}

type pupil struct {
	*school
	Signals []string `json:"signals"`
	Extra   int      `json:"extra"`
	taught  bool
}

func (s *school) entry() catalog.Entry {
	return catalog.Entry{Name: "pupil", New: func(_ float64, params json.RawMessage) (algorithms.Policy, error) {
		p := &pupil{school: s, Signals: []string{algorithms.Concurrency}}
		if err := algorithms.Strict(params, p); err != nil {
			return nil, err
		}
		s.made++
		return p, nil
	}}
}

func (p *pupil) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Minute}}
}

func (p *pupil) Learns() []string { return p.Signals }

func (p *pupil) Learn(h []algorithms.Sample) error {
	if p.refuse != nil {
		return p.refuse
	}
	p.taught, p.learnt = true, h
	return nil
}

func (p *pupil) Decide(algorithms.Observation) algorithms.Decision {
	d := algorithms.Decision{Valid: true, Replicas: 2 + p.Extra, Reason: "Blind"}
	if p.taught {
		d.Replicas, d.Reason = 7+p.Extra, "Taught"
	}
	return d
}

func (p *pupil) Snapshot() json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"taught":%v}`, p.taught))
}

func (p *pupil) Restore(raw json.RawMessage) error {
	var s struct {
		Taught *bool `json:"taught"`
	}
	if err := json.Unmarshal(raw, &s); err != nil || s.Taught == nil {
		return fmt.Errorf("want a pupil's: %w", err)
	}
	p.taught = *s.Taught
	return nil
}

func (p *pupil) Close() error {
	p.closed++
	return nil
}

// call is one Fetch; answer ends it.
type call struct {
	Target, Signals string
	at              time.Time
	answer          func([]algorithms.Sample, error)
}

// library is a History whose fetches hang until they are answered or cancelled.
type library struct {
	mu        sync.Mutex
	calls     []call
	cancelled int
	running   int
}

func (l *library) Fetch(ctx context.Context, t loop.Ref, signals []string, until time.Time) ([]algorithms.Sample, error) {
	type result struct {
		samples []algorithms.Sample
		err     error
	}
	got := make(chan result, 1)
	l.mu.Lock()
	l.calls = append(l.calls, call{t.String(), strings.Join(signals, " "), until, func(s []algorithms.Sample, err error) { got <- result{s, err} }})
	l.running++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.running--
		l.mu.Unlock()
	}()
	select {
	case r := <-got:
		return r.samples, r.err
	case <-ctx.Done():
		l.mu.Lock()
		l.cancelled++
		l.mu.Unlock()
		return nil, fmt.Errorf("ask: %w", ctx.Err())
	}
}

// past is a world with a library, whose clock is that of the bubble.
type past struct {
	*world
	library
	school
	logged strings.Builder
	stop   context.CancelFunc
	ended  chan error
}

func newPast(t *testing.T, policy, params string, more ...client.Object) *past {
	p := &past{ended: make(chan error, 1)}
	p.world = newWorldWith(t, scaler.Options{
		Clock: time.Now, History: &p.library, Catalog: catalog.Default(p.entry()), Log: slog.New(slog.NewTextHandler(&p.logged, nil)),
	}, func(as *v1alpha1.Autoscaler) { setPolicy(as, policy, params) }, more...)
	p.demand = 10
	p.ready(2)
	p.replicas = 2
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	go func() { p.ended <- p.s.RunHistory(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-p.ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return p
}

func setPolicy(as *v1alpha1.Autoscaler, name, params string) {
	as.Spec.Policy = v1alpha1.PolicySpec{Name: name}
	if params != "" {
		as.Spec.Policy.Parameters = &runtime.RawExtension{Raw: []byte(params)}
	}
}

// round waits for a tick and for what goes on, and does a round.
func (p *past) round() {
	p.t.Helper()
	time.Sleep(2 * time.Second)
	synctest.Wait()
	p.now = time.Now()
	p.step(0)
	synctest.Wait()
}

// change changes the spec.
func (p *past) change(f func(*v1alpha1.Autoscaler)) {
	p.t.Helper()
	as := p.autoscaler()
	f(as)
	as.Generation++
	if err := p.client.Update(p.t.Context(), as); err != nil {
		p.t.Fatal(err)
	}
}

// fetches checks how many there were, and returns the last.
func (p *past) fetches(want int) call {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) != want {
		p.t.Fatalf("%d fetches, want %d: %+v", len(p.calls), want, p.calls)
	}
	if want == 0 {
		return call{}
	}
	return p.calls[want-1]
}

// told returns the events about history since the last call.
func (p *past) told() []string {
	var out []string
	for {
		select {
		case e := <-p.recorder.Events:
			if strings.Contains(e, " History") {
				out = append(out, e)
			}
		default:
			return out
		}
	}
}

func (p *past) wantTold(want ...string) {
	p.t.Helper()
	got := p.told()
	if len(got) != len(want) {
		p.t.Errorf("events %q, want %d with %q", got, len(want), want)
		return
	}
	for i := range want {
		for part := range strings.SplitSeq(want[i], "|") {
			if !strings.Contains(got[i], part) {
				p.t.Errorf("event %q does not say %q", got[i], part)
			}
		}
	}
}

func (p *past) wantReplicas(when string, want int) {
	p.t.Helper()
	if p.replicas != want {
		p.t.Errorf("%s: %d replicas, want %d", when, p.replicas, want)
	}
}

// samples are n minutes of demand that end at the instant.
func samples(end time.Time, n int) []algorithms.Sample {
	var out []algorithms.Sample
	for i := range n {
		out = append(out, algorithms.Sample{At: end.Add(-time.Duration(n-1-i) * time.Minute), Signal: algorithms.Concurrency, Value: float64(i)})
	}
	return out
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}

func TestHistoryIsLearnt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", `{"signals": ["concurrency", "rate"]}`)
		p.round()
		c := p.fetches(1)
		if diff := cmp.Diff(call{Target: "Autoscaler.sluice.dev shop/web", Signals: "concurrency rate"}, c, cmp.FilterPath(func(q cmp.Path) bool {
			return q.String() == "at" || q.String() == "answer"
		}, cmp.Ignore())); diff != "" || !c.at.Equal(p.now) {
			t.Errorf("the fetch at %v, up to %v (−want +got):\n%s", p.now, c.at, diff)
		}
		for range 5 { // it hangs, and rounds go on
			p.round()
		}
		p.wantReplicas("while the past is fetched", 2)
		p.wantTold()
		p.fetches(1)

		// The readings are five seconds old: what is later than they are was seen already by
		// nobody, but is not past to the policy.
		p.age = 5 * time.Second
		h := samples(p.now.Add(2*time.Second), 120)
		c.answer(h, nil)
		p.round()
		p.wantReplicas("with the past", 7)
		if diff := cmp.Diff(h[:119], p.learnt); diff != "" {
			t.Errorf("learnt (−want +got):\n%s", diff)
		}
		p.wantTold("Normal HistoryLearned|119 samples of concurrency from 1999-12-31T22:0|(1h58m0s)")
		if p.made != 2 || p.closed != 1 {
			t.Errorf("%d policies made, %d closed: want 2, 1", p.made, p.closed)
		}

		// A change of the spec keeps the memory, and asks for nothing.
		p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", `{"extra": 1}`) })
		p.round()
		p.round()
		p.wantReplicas("after a change of the spec", 8)
		p.fetches(1)
		p.wantTold()

		// Another policy has no memory in common with it; coming back begins afresh.
		p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "kpa", "") })
		p.round()
		p.fetches(1)
		p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", "") })
		p.round()
		p.fetches(2).answer(samples(p.now, 3), nil)
		p.round()
		p.wantReplicas("taught again", 7)
	})
}

// What guards a policy is kept when a taught one takes its place: here that a pod a minute may be
// added, and one was.
func TestBehaviorOutlivesTheUntaught(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		p.replicas = 1
		p.change(func(as *v1alpha1.Autoscaler) {
			as.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{
				Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}},
			}}
		})
		p.round()
		p.wantReplicas("untaught", 2)
		p.fetches(1).answer(samples(p.now, 3), nil)
		for range 28 {
			p.round()
		}
		p.wantTold("HistoryLearned")
		p.wantReplicas("within a minute", 2)
		for range 3 {
			p.round()
		}
		p.wantReplicas("after it", 3)
	})
}

func TestHistoryNotAskedFor(t *testing.T) {
	for name, c := range map[string]struct{ policy, params string }{
		"no learner": {"kpa", ""}, "a learner of nothing": {"pupil", `{"signals": []}`}, "no experts that learn": {"portfolio", `{"experts": [{"name": "kpa"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPast(t, c.policy, c.params)
				p.round()
				p.round()
				p.fetches(0)
				p.wantTold()
			})
		})
	}
	t.Run("no history", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPast(t, "pupil", "")
			p.s.History = nil
			p.round()
			p.round()
			p.wantReplicas("without a history", 2)
			p.fetches(0)
		})
	})
}

func TestEmptyHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		p.round()
		p.fetches(1).answer(nil, nil)
		p.round()
		p.wantTold("Normal HistoryEmpty|nothing is known yet of the past of this workload|docs/history.md")
		p.round()
		p.wantReplicas("nothing known", 2)
		p.fetches(1)
		p.wantTold()
		if p.made != 1 {
			t.Errorf("%d policies made, want the first only", p.made)
		}
	})
}

func TestHistoryUnavailable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		fail := func(n int) {
			t.Helper()
			p.fetches(n).answer(nil, errors.New("ask "+strings.Repeat("a long query ", 200)+": connection refused"))
		}
		p.round()
		begun := time.Now()
		fail(1)
		p.round()
		got := p.told()
		if len(got) != 1 || !strings.Contains(got[0], "Warning HistoryUnavailable ask a long") || !strings.Contains(got[0], "connection refused; the policy decides without it") || len(got[0]) > 1024 {
			t.Errorf("events %q, want one with beginning, cause and remedy", got)
		}
		last, n := begun, 1
		var pauses []time.Duration
		for time.Since(begun) < 2*time.Hour {
			p.round()
			p.mu.Lock()
			more := len(p.calls) > n
			p.mu.Unlock()
			if more {
				n++
				pauses = append(pauses, p.calls[n-1].at.Sub(last))
				last = p.calls[n-1].at
				fail(n)
			}
		}
		if want := "[10s 20s 40s 1m20s 2m40s 5m0s 5m0s"; !strings.HasPrefix(fmt.Sprint(pauses), want) || last.Sub(begun) > time.Hour || last.Sub(begun) < 54*time.Minute {
			t.Errorf("pauses %v, want %s …, for an hour", pauses, want)
		}
		p.wantTold("Warning HistoryUnavailable|connection refused; the policy goes on without it")
		if n := strings.Count(p.logged.String(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings logged, want one for the failure and one for giving up:\n%s", n, &p.logged)
		}
		p.wantReplicas("without the past", 2)

		p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", `{"extra": 1}`) })
		p.round()
		p.fetches(n+1).answer(samples(p.now, 3), nil)
		p.round()
		p.wantReplicas("after a change of the spec", 8)
		p.wantTold("HistoryLearned")
	})
}

// A fetch that hangs is ended after two minutes, and another that succeeds ends the search.
func TestHistoryHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		for range 61 {
			p.round()
		}
		p.wantTold("HistoryUnavailable|deadline exceeded")
		for range 5 {
			p.round()
		}
		p.fetches(2).answer(samples(p.now, 3), nil)
		p.round()
		p.wantTold("HistoryLearned")
		p.wantReplicas("with the past", 7)
	})
}

func TestHistoryRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		p.refuse = errors.New("not in order")
		p.round()
		p.fetches(1).answer(samples(p.now, 3), nil)
		p.round()
		p.round()
		p.wantTold("Warning HistoryUnavailable|not in order")
		p.wantReplicas("untaught", 2)
		if p.made != 2 || p.closed != 1 {
			t.Errorf("%d policies made, %d closed: want the second closed", p.made, p.closed)
		}
	})
}

func TestSpecChangesWhileHistoryIsFetched(t *testing.T) {
	t.Run("the same past", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPast(t, "pupil", "")
			p.round()
			p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", `{"extra": 2}`) })
			p.round()
			p.fetches(1).answer(samples(p.now, 3), nil)
			p.round()
			p.wantReplicas("with the past, by the new spec", 9)
			p.wantTold("HistoryLearned")
			if p.made-p.closed != 1 {
				t.Errorf("%d policies made, %d closed: want all but one", p.made, p.closed)
			}
		})
	})
	t.Run("an invalid spec in between", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := newPast(t, "pupil", "")
			p.round()
			p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", `{"extras": 2}`) })
			p.round()
			p.fetches(1).answer(samples(p.now, 3), nil)
			p.round()
			p.wantTold()
			p.change(func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", "") })
			p.round()
			p.wantReplicas("valid again", 7)
		})
	})
	for name, c := range map[string]struct {
		change  func(*v1alpha1.Autoscaler)
		fetches int
		want    string
	}{
		"another target":   {func(as *v1alpha1.Autoscaler) { as.Spec.ScaleTargetRef.Name = "api" }, 2, "Autoscaler.sluice.dev shop/web concurrency"},
		"another signal":   {func(as *v1alpha1.Autoscaler) { setPolicy(as, "pupil", `{"signals": ["rate"]}`) }, 2, "Autoscaler.sluice.dev shop/web rate"},
		"nothing to learn": {func(as *v1alpha1.Autoscaler) { setPolicy(as, "kpa", "") }, 1, "Autoscaler.sluice.dev shop/web concurrency"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPast(t, "pupil", "")
				p.round()
				first := p.fetches(1)
				p.change(c.change)
				p.round()
				p.round()
				last := p.fetches(c.fetches)
				if p.cancelled != 1 || p.running != c.fetches-1 || last.Target+" "+last.Signals != c.want {
					t.Errorf("%d fetches cancelled, %d running, the last of %s %s: want 1, %d, %s", p.cancelled, p.running, last.Target, last.Signals, c.fetches-1, c.want)
				}
				first.answer(samples(p.now, 3), nil)
				p.round()
				p.wantTold()
			})
		})
	}
}

func TestDeletionAndEndCancelFetches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		p.round()
		if err := p.client.Delete(t.Context(), p.autoscaler()); err != nil {
			t.Fatal(err)
		}
		p.round()
		if p.cancelled != 1 || p.running != 0 {
			t.Errorf("after the deletion %d fetches cancelled, %d running: want 1, 0", p.cancelled, p.running)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPast(t, "pupil", "")
		p.round()
		p.stop()
		synctest.Wait()
		if p.cancelled != 1 || p.running != 0 || len(p.ended) != 1 {
			t.Errorf("after the end %d fetches cancelled, %d running, Run ended: %v; want 1, 0, true", p.cancelled, p.running, len(p.ended) == 1)
		}
		p.round()
		p.wantTold()
	})
}

// When the controller starts all workloads ask at once: no more than four are answered at a time,
// and those that fail give way.
func TestFetchesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var more []client.Object
		for i := range 9 {
			as := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%d", i), Generation: 1}}
			as.Spec.ScaleTargetRef.Kind, as.Spec.ScaleTargetRef.Name = "Deployment", as.Name
			as.Spec.MinReplicas, as.Spec.MaxReplicas = new(int32(1)), 5
			setPolicy(as, "pupil", "")
			more = append(more, as)
		}
		p := newPast(t, "pupil", "", more...)
		p.round()
		for _, o := range more {
			if _, err := p.r.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: o.GetName()}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		p.fetches(4)
		for i := range 10 {
			p.calls[i].answer(nil, errors.New("no"))
			synctest.Wait()
			if want := min(4, 9-i); p.running != want {
				t.Errorf("%d fetches answered, %d run: want %d", i+1, p.running, want)
			}
		}
	})
}

// A policy of the catalog that has learnt a daily wave scales ahead of it; the same policy without
// its past does not.
func TestSeasonalIsTaught(t *testing.T) {
	for _, taught := range []bool{false, true} {
		t.Run(fmt.Sprint(taught), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPast(t, "seasonal", `{"window": "10s", "startUp": "30s"}`)
				if !taught {
					p.s.History = nil
				}
				time.Sleep(5 * time.Minute)
				p.round()
				if taught {
					now := time.Now().Truncate(time.Minute)
					var h []algorithms.Sample
					for at := now.AddDate(0, 0, -8); !at.After(now); at = at.Add(time.Minute) {
						s := algorithms.Sample{At: at, Signal: algorithms.Concurrency, Value: 10}
						if m := at.Add(-time.Second).Sub(at.Add(-time.Second).Truncate(24 * time.Hour)).Minutes(); m >= 10 && m < 60 {
							s.Value = 60
						}
						h = append(h, s)
					}
					p.fetches(1).answer(h, nil)
				}
				for range 120 {
					p.round()
				}
				p.wantReplicas("a minute before the busy hour", 1)
				for range 27 {
					p.round()
				}
				want := 1
				if taught {
					want = 6
				}
				p.wantReplicas("seconds before the busy hour", want)
			})
		})
	}
}
