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

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
)

// countedScales counts reads of scales by namespace.
type countedScales struct {
	scale.ScaleInterface
	namespace string
	mu        *sync.Mutex
	reads     map[string]int
}

func (s countedScales) Scales(namespace string) scale.ScaleInterface {
	s.namespace = namespace
	return s
}

func (s countedScales) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads[s.namespace]++
	return &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 3}}, nil
}

// TestScaleReadsAreBounded has a tenant with 1,000 targets of a kind that is not watched: the API
// server is asked a few times a second for all of them, and a neighbour's target is read as before.
func TestScaleReadsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rollouts := schema.GroupVersion{Group: "argoproj.io", Version: "v1alpha1"}
		mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{rollouts})
		mapper.Add(rollouts.WithKind("Rollout"), meta.RESTScopeNamespace)
		s := countedScales{mu: &sync.Mutex{}, reads: map[string]int{}}
		targets := kube.NewTargets(nil, s, mapper, nil)
		ref := func(namespace string, n int) loop.Ref {
			return loop.Ref{Driver: kube.Driver, Namespace: namespace, Kind: "Rollout.argoproj.io", Name: fmt.Sprint("web-", n)}
		}
		const seconds, tick = 120, 2
		throttled := 0
		for range seconds / tick {
			for n := range 1000 {
				if _, err := targets.Get(t.Context(), ref("tenant", n)); errors.Is(err, scaler.ErrThrottled) {
					throttled++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if st, err := targets.Get(t.Context(), ref("victim", 1)); err != nil || st.Replicas != 3 {
				t.Fatalf("the neighbour's target: %+v, %v; want 3 replicas", st, err)
			}
			time.Sleep(tick * time.Second)
		}
		if n := s.reads["tenant"]; n > 20+5*seconds {
			t.Errorf("%d reads for the tenant in %d s, want at most %d", n, seconds, 20+5*seconds)
		}
		if n := s.reads["victim"]; n < seconds/6-1 || n > seconds/5+1 {
			t.Errorf("%d reads for the neighbour in %d s, want one each 5 s or 6 s", n, seconds)
		}
		if throttled == 0 {
			t.Error("none of 1,000 targets is throttled, though they are read 5 a second")
		}
	})
}

// older is an Autoscaler of the world's namespace that was created before its own.
func older(name string, change func(*v1alpha1.Autoscaler)) *v1alpha1.Autoscaler {
	as := &v1alpha1.Autoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u0", CreationTimestamp: metav1.NewTime(time.Unix(900_000, 0))},
		Spec: v1alpha1.AutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name}, MaxReplicas: 10,
		},
	}
	if change != nil {
		change(as)
	}
	return as
}

// TestSurplusAutoscalersAreNotDriven bounds the Autoscalers of a namespace: the oldest are driven,
// and the others say why they are not.
func TestSurplusAutoscalersAreNotDriven(t *testing.T) {
	t.Parallel()
	for most, driven := range map[int]bool{0: true, 1: false, 2: true} {
		w := newWorld(t, nil, older("elder", nil))
		w.r.MaxPerNamespace = most
		w.demand = 35
		w.ready(1)
		res := w.step(time.Second)
		c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionAbleToScale)
		if c == nil || (w.replicas == 4) != driven || (c.Reason == "TooManyAutoscalers") == driven || res.RequeueAfter <= 0 {
			t.Errorf("with at most %d, of two: %d replicas, AbleToScale %+v, next in %v; driven should be %v", most, w.replicas, c, res.RequeueAfter, driven)
		}
	}
}

// TestWinnerIsTold sees that the writer of the target that has precedence gets an event, once.
func TestWinnerIsTold(t *testing.T) {
	t.Parallel()
	onWeb := func(as *v1alpha1.Autoscaler) { as.Spec.ScaleTargetRef.Name = "web" }
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}},
	}
	for name, winner := range map[string]client.Object{"an HPA": hpa, "an older Autoscaler": older("elder", onWeb)} {
		w := newWorld(t, nil, winner)
		for range 3 {
			w.step(2 * time.Second)
		}
		told := 0
		for len(w.recorder.Events) > 0 {
			if e := <-w.recorder.Events; strings.HasPrefix(e, "Warning AnotherAutoscaler Autoscaler web names the same target") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%s was told %d times, want once", name, told)
		}
	}
	// The winner's own condition says that there is another.
	w := newWorld(t, nil, older("younger", func(as *v1alpha1.Autoscaler) {
		onWeb(as)
		as.CreationTimestamp = metav1.NewTime(time.Unix(1_900_000, 0))
	}))
	w.ready(1)
	w.step(time.Second)
	c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionAbleToScale)
	if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "Autoscaler younger scales the same target, is younger") {
		t.Errorf("the winner's AbleToScale = %+v, want True, with the younger's name", c)
	}
}

// lease is a lock whose holder the test can replace, or which it can cut off.
type lease struct {
	mu     sync.Mutex
	record *resourcelock.LeaderElectionRecord
	cut    bool
	// seen is the record that was read or written last: an update of another is a conflict.
	seen *resourcelock.LeaderElectionRecord
}

func (l *lease) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, nil, errors.New("connection refused")
	}
	l.seen = l.record
	r := *l.record
	raw, err := json.Marshal(r)
	return &r, raw, err
}

func (l *lease) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.Update(ctx, r)
}

func (l *lease) Update(_ context.Context, r resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return errors.New("connection refused")
	}
	if l.seen != l.record {
		return errors.New("conflict")
	}
	l.record, l.seen = &r, &r
	return nil
}

func (l *lease) RecordEvent(string) {}
func (l *lease) Identity() string   { return "me" }
func (l *lease) Describe() string   { return "lease" }

func (l *lease) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// lead begins a term by a lease that the test has in its hands.
func (w *world) lead() *lease {
	l := &lease{record: &resourcelock.LeaderElectionRecord{}}
	w.r.Leader = lead.New(l, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.r.Leader.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	time.Sleep(5 * time.Second)
	return l
}

// TestOutageLosesNoMemory follows a workload through an outage of the API server: outside a term
// nothing is done, and after it the policy goes on with what it remembers.
func TestOutageLosesNoMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(as *v1alpha1.Autoscaler) {
			as.Spec.Policy = v1alpha1.PolicySpec{Name: "target", Parameters: &runtime.RawExtension{Raw: []byte(`{"stabilizationWindow":"10m"}`)}}
		})
		l := w.lead()
		w.demand = 35
		w.ready(1)
		w.step(5 * time.Second)
		if w.replicas != 4 {
			t.Fatalf("in a term: %d replicas, want 4", w.replicas)
		}
		w.ready(4)
		l.change(func() { l.cut = true })
		time.Sleep(time.Minute)
		w.demand = 95
		if res := w.step(time.Minute); w.replicas != 4 || res.RequeueAfter != 0 {
			t.Errorf("outside a term: %d replicas, next in %v; want 4 and no round by itself", w.replicas, res.RequeueAfter)
		}
		l.change(func() { l.cut = false })
		time.Sleep(5 * time.Second)
		w.demand = 5
		w.step(5 * time.Second)
		if w.replicas != 4 {
			t.Errorf("after the outage: %d replicas, want 4: the policy remembers that they were needed", w.replicas)
		}
	})
}

// TestAnotherTermIsNotRemembered has another replica wake a workload. The former leader remembers
// it asleep, and scales nothing by that.
func TestAnotherTermIsNotRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		l := w.lead()
		w.replicas = 0
		w.step(time.Second)
		if phase := w.autoscaler().Status.Phase; phase != "Asleep" {
			t.Fatalf("phase %s, want Asleep", phase)
		}
		l.change(func() {
			now := metav1.Now()
			l.record = &resourcelock.LeaderElectionRecord{HolderIdentity: "other", LeaderTransitions: 1, AcquireTime: now, RenewTime: now, LeaseDurationSeconds: 8}
		})
		time.Sleep(time.Minute) // the other never renews
		if term, ok := w.r.Leader.Term(); !ok || term.Memory != 2 {
			t.Fatalf("after the other's term: %+v, %v; want one with another memory", term, ok)
		}
		w.replicas, w.waiting, w.demand = 9, 25, 85
		w.ready(9)
		w.step(time.Minute)
		if len(w.log) != 0 {
			t.Errorf("the other woke 9, as many as are needed: scale writes %v, want none", w.log)
		}
	})
}
