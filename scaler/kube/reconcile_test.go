package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

// world is a small cluster: what the reconciler sees and does, with a clock that the test moves.
type world struct {
	t        *testing.T
	client   client.Client
	r        *kube.Reconciler
	s        *scaler.Scaler
	recorder *events.FakeRecorder
	now      time.Time
	replicas int
	scaleErr error
	// setErr and putErr are what writing the scale and the path fail with; fault is why no gateway
	// listens; forgotten are the Refs whose path was given up.
	setErr, putErr error
	fault          string
	// trouble is why pods cannot be created.
	trouble   string
	forgotten []loop.Ref
	// statuses counts the writes of status.
	statuses int
	// answer, when not nil, is what the API server says to a write of status.
	answer func() error
	// demand is the concurrency that every window shows; unknown makes signals unknown with half
	// coverage; waiting is held.
	demand  float64
	unknown bool
	age     time.Duration
	waiting int
	pods    []loop.Instance
	// gateway says that one listens; path is what the Service's path was last made.
	gateway bool
	path    loop.PathState
	cold    *loop.ColdStart
	// log is what was done, in order.
	log []string
}

func (w *world) Signals(_ time.Time, _ loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	for _, n := range needs {
		s := algorithms.Signal{Name: n.Name, Window: n.Window, Value: w.demand, Known: !w.unknown, Coverage: 1, Age: w.age}
		if n.Name == algorithms.Waiting {
			s.Value, s.Known = float64(w.waiting), true
		} else if w.unknown {
			s.Coverage = 0.5
		}
		dst = append(dst, s)
	}
	return dst
}

func (w *world) Instances(_ loop.Ref, dst []loop.Instance) []loop.Instance {
	return append(dst, w.pods...)
}

// See implements scaler.Path.
func (w *world) See(context.Context, loop.Ref) (*loop.Path, error) {
	p := &loop.Path{In: w.path.In && w.gateway, Waiting: w.waiting, Fault: w.fault}
	for _, pod := range w.pods {
		if pod.State == algorithms.PodReady {
			p.Ready++
		}
	}
	if w.gateway {
		p.Listening = 1
	}
	if w.cold != nil {
		p.ColdStarts = []loop.ColdStart{*w.cold}
	}
	return p, nil
}

// Put implements scaler.Path.
func (w *world) Put(_ context.Context, _ loop.Ref, want loop.PathState) error {
	if w.putErr != nil {
		return w.putErr
	}
	w.path = want
	return nil
}

// target is the world's scaler.Target.
type target struct{ *world }

func (w target) Get(context.Context, loop.Ref) (scaler.State, error) {
	return scaler.State{Replicas: w.replicas, Trouble: w.trouble}, w.scaleErr
}

func (w target) Set(_ context.Context, _ loop.Ref, n int, _ []string) error {
	if n == 0 && !w.path.In {
		w.t.Errorf("replicas were set to 0 while the gateway was not in the path")
	}
	if w.setErr != nil {
		return w.setErr
	}
	w.log = append(w.log, fmt.Sprintf("%d→%d", w.replicas, n))
	w.replicas = n
	return nil
}

// ready gives the world n ready pods.
func (w *world) ready(n int) {
	w.pods = nil
	for i := range n {
		w.pods = append(w.pods, loop.Instance{ID: fmt.Sprintf("web-%d", i), Address: fmt.Sprintf("198.18.2.%d", i), State: algorithms.PodReady, Created: w.now})
	}
}

// step does one round, d after the last.
func (w *world) step(d time.Duration) ctrl.Result {
	w.t.Helper()
	w.now = w.now.Add(d)
	res, err := w.r.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "web"}})
	if err != nil {
		w.t.Fatalf("Reconcile: %v", err)
	}
	return res
}

func (w *world) autoscaler() *v1alpha1.Autoscaler {
	w.t.Helper()
	var as v1alpha1.Autoscaler
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: "shop", Name: "web"}, &as); err != nil {
		w.t.Fatal(err)
	}
	return &as
}

// sameObject refuses a patch that names another UID, as the API server does and the fake does not.
func sameObject(ctx context.Context, c client.Client, o client.Object, p client.Patch) error {
	raw, err := p.Data(o)
	if err != nil {
		return err
	}
	var named v1alpha1.Autoscaler
	if err := json.Unmarshal(raw, &named); err != nil {
		return err
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	if named.UID != "" && named.UID != o.GetUID() {
		return fmt.Errorf("the patch names the object %s, this is %s", named.UID, o.GetUID())
	}
	return nil
}

func newWorld(t *testing.T, change func(*v1alpha1.Autoscaler), more ...client.Object) *world {
	t.Helper()
	return newWorldWith(t, scaler.Options{Catalog: catalog.Default()}, change, more...)
}

func newWorldWith(t *testing.T, o scaler.Options, change func(*v1alpha1.Autoscaler), more ...client.Object) *world {
	t.Helper()
	s := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	as := &v1alpha1.Autoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1, UID: "u1", CreationTimestamp: metav1.NewTime(time.Unix(1_000_000, 0))},
		Spec: v1alpha1.AutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			ServiceRef:     &v1alpha1.ServiceReference{Name: "web"},
			MaxReplicas:    10,
			Signals:        []v1alpha1.SignalSpec{{Name: "concurrency", Target: v1alpha1.SignalTarget{AverageValue: resource.MustParse("10")}}},
			Policy:         v1alpha1.PolicySpec{Name: "target", Parameters: &runtime.RawExtension{Raw: []byte(`{"stabilizationWindow":"0s"}`)}},
		},
	}
	if change != nil {
		change(as)
	}
	w := &world{t: t, now: time.Unix(2_000_000, 0), replicas: 1, gateway: true, recorder: events.NewFakeRecorder(1000)}
	w.client = fake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&v1alpha1.Autoscaler{}).
		WithIndex(&autoscalingv2.HorizontalPodAutoscaler{}, kube.ByTarget, kube.TargetOfHPA).
		WithIndex(&v1alpha1.Autoscaler{}, kube.ByTarget, kube.TargetOfAutoscaler).
		WithIndex(&v1alpha1.Autoscaler{}, kube.ByService, kube.ServiceOf).
		WithObjects(append([]client.Object{as}, more...)...).
		WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			w.statuses++
			if w.answer != nil {
				if err := w.answer(); err != nil {
					return err
				}
			}
			if err := sameObject(ctx, c, o, p); err != nil {
				return err
			}
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		}}).Build()
	clock := func() time.Time { return w.now }
	if o.Clock != nil {
		clock = o.Clock
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if policies := o.Catalog; policies != nil { // as the controller does
		o.Catalog, o.CatalogOf = nil, func(loop.Ref) loop.Catalog { return policies }
	}
	o.Target, o.Source, o.Path, o.Timing, o.Clock, o.Metrics = target{w}, w, w, loop.DefaultTiming(), clock, prometheus.NewRegistry()
	w.s = scaler.New(o)
	w.r = kube.New(kube.Options{
		Client: w.client, Scaler: w.s, Targets: kube.NewTargets(w.client, nil, nil, nil), Forget: func(ref loop.Ref) { w.forgotten = append(w.forgotten, ref) }, Recorder: w.recorder, Log: o.Log, Clock: clock, Inline: true,
	})
	return w
}

// TestToZeroAndBack walks a workload through its whole circle and checks what was done, and in
// which order.
func TestToZeroAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.ready(1)
	w.demand = 35
	w.step(time.Second)
	w.ready(4)
	w.step(2 * time.Second)
	if w.replicas != 4 || w.autoscaler().Status.Phase != "Awake" || w.path.In {
		t.Fatalf("under 35 requests at 10 a pod: %d replicas, phase %s, gateway in the path %v; want 4, Awake, false", w.replicas, w.autoscaler().Status.Phase, w.path.In)
	}

	w.demand = 0
	res := w.step(2 * time.Second)
	if w.replicas != 4 || w.autoscaler().Status.Phase != "GoingToSleep" || res.RequeueAfter > 200*time.Millisecond {
		t.Fatalf("idle: %d replicas, phase %s, next round in %v; want still 4, GoingToSleep, soon", w.replicas, w.autoscaler().Status.Phase, res.RequeueAfter)
	}
	if !w.path.In {
		t.Fatal("idle: the gateway is not being put into the path")
	}
	w.step(100 * time.Millisecond)
	w.step(time.Second)
	if w.replicas != 4 {
		t.Fatalf("within the grace time replicas went to %d, want 4", w.replicas)
	}
	w.step(time.Second)
	w.step(time.Second)
	if w.replicas != 0 || w.autoscaler().Status.Phase != "Asleep" {
		t.Fatalf("after the grace time: %d replicas, phase %s; want 0, Asleep", w.replicas, w.autoscaler().Status.Phase)
	}
	w.ready(0)
	w.step(time.Second)

	w.waiting = 25
	detected := w.now.Add(-3 * time.Millisecond)
	w.step(time.Second)
	if w.replicas != 3 || w.autoscaler().Status.Phase != "Waking" {
		t.Fatalf("25 wait: %d replicas, phase %s; want 3, Waking", w.replicas, w.autoscaler().Status.Phase)
	}
	w.ready(3)
	w.waiting, w.demand = 0, 25
	w.cold = &loop.ColdStart{Detected: detected, Answering: w.now, Released: w.now, Address: "198.18.2.0:8012", Held: 25}
	w.step(time.Second)
	st := w.autoscaler().Status
	if st.Phase != "Awake" || w.path.In {
		t.Errorf("with ready pods: phase %s, gateway in the path %v; want Awake, false", st.Phase, w.path.In)
	}
	if c := st.LastColdStart; c == nil || c.Held != 25 || c.Decided == "" || c.PodCreated == "" || c.Released == "" {
		t.Errorf("cold start in status = %+v, want one of 25 requests with its phases", c)
	}
	if got := fmt.Sprint(w.log); got != "[1→4 4→0 0→3]" {
		t.Errorf("scale writes %v, want [1→4 4→0 0→3]", got)
	}
	if n := len(st.Decisions); n != 3 || st.Decisions[0].To != 3 || !st.Decisions[0].Applied || st.Decisions[0].Reason != "Wake" {
		t.Errorf("decisions = %+v, want three, the newest a wake to 3", st.Decisions)
	}
}

func TestUnknownHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.replicas, w.unknown, w.demand = 5, true, 1
	w.ready(5)
	w.step(time.Second)
	w.step(10 * time.Minute)
	if len(w.log) != 0 {
		t.Errorf("scale writes %v on unknown signals, want none", w.log)
	}
	c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionScalingActive)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != "PartialData" {
		t.Errorf("ScalingActive = %+v, want False, PartialData", c)
	}
}

// TestTimersStandStillWithTheData lets the readings of a burst grow old: the panic that they caused
// must not run out on them.
func TestTimersStandStillWithTheData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(as *v1alpha1.Autoscaler) {
		as.Spec.Policy = v1alpha1.PolicySpec{Name: "kpa", Parameters: &runtime.RawExtension{Raw: []byte(`{"stableWindow":"6s"}`)}}
	})
	w.demand = 30
	w.ready(1)
	w.step(time.Second)
	if w.replicas != 3 {
		t.Fatalf("a burst of 30 at 10 a pod gives %d replicas, want 3", w.replicas)
	}
	w.ready(3)
	w.demand = 10
	for range 20 {
		w.age += time.Second
		w.step(time.Second)
	}
	if w.replicas != 3 {
		t.Errorf("20 s after the last reading replicas are %d, want 3 as when it came", w.replicas)
	}
	w.age = 0
	for range 2 {
		w.step(4 * time.Second)
	}
	if w.replicas != 1 {
		t.Errorf("with new readings replicas are %d, want 1", w.replicas)
	}
}

// TestSettles sees that a burst of events does not make a policy near an edge flap, that a wake-up
// is given time, and that a new Autoscaler watches for the idle time before it puts anything to
// sleep.
func TestSettles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(as *v1alpha1.Autoscaler) { as.CreationTimestamp = metav1.NewTime(time.Unix(2_000_000, 0)) })
	w.replicas = 0
	w.waiting = 25
	w.step(time.Second)
	w.ready(1)
	w.waiting, w.demand = 0, 1
	for range 50 {
		w.step(100 * time.Millisecond)
	}
	if got := fmt.Sprint(w.log); got != "[0→3]" {
		t.Errorf("5 s after a wake-up to 3 the scale was written %v, want [0→3]", got)
	}
	w.step(2 * time.Second)
	if w.replicas != 1 {
		t.Errorf("7 s after the wake-up replicas are %d, want 1", w.replicas)
	}
	w.demand = 45
	w.step(100 * time.Millisecond)
	w.demand = 15
	w.step(100 * time.Millisecond)
	if w.replicas != 5 {
		t.Errorf("0.1 s after going up replicas are %d, want 5", w.replicas)
	}
	w.step(2 * time.Second)
	if w.replicas != 2 {
		t.Errorf("a tick after going up replicas are %d, want 2", w.replicas)
	}
	w.demand = 0
	for range 30 { // the Autoscaler is 40 s old after these, its idle time is 60 s
		w.step(time.Second)
	}
	if w.replicas == 0 {
		t.Error("the workload sleeps before its Autoscaler has watched for the idle time")
	}
	for range 30 {
		w.step(time.Second)
	}
	if w.replicas != 0 {
		t.Errorf("after the idle time replicas are %d, want 0", w.replicas)
	}
}

func TestYieldsToAnHPA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "old"},
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}},
	})
	w.demand = 100
	w.step(time.Second)
	c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionAbleToScale)
	if len(w.log) != 0 || c == nil || c.Status != metav1.ConditionFalse || c.Reason != "AnotherAutoscaler" {
		t.Errorf("beside an HPA: scale writes %v, AbleToScale %+v; want none, False AnotherAutoscaler", w.log, c)
	}
}

// TestTwoAutoscalersOfOneService lets two Autoscalers of different targets name one Service: the
// older has it, by creation and then by name, and both say so. One that only looks on is no rival.
func TestTwoAutoscalersOfOneService(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		other string
		age   time.Duration
		mode  v1alpha1.Mode
		yield bool
		says  string
	}{
		"older":                       {"z", time.Hour, v1alpha1.ModeApply, true, "Autoscaler z names the same Service web"},
		"same age, name before":       {"a", 0, v1alpha1.ModeApply, true, "Autoscaler a names the same Service web"},
		"same age, name behind":       {"z", 0, v1alpha1.ModeApply, false, "Autoscaler z names the same Service web"},
		"younger":                     {"a", -time.Hour, v1alpha1.ModeApply, false, "Autoscaler a names the same Service web"},
		"older, but touches nothing":  {"a", time.Hour, v1alpha1.ModeDryRun, false, ""},
		"of a namespace of the other": {"", 0, "", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "attacker", Name: "a", UID: "u2", CreationTimestamp: metav1.NewTime(time.Unix(0, 0))}}
			if tc.other != "" {
				other.Namespace, other.Name = "shop", tc.other
				other.CreationTimestamp = metav1.NewTime(time.Unix(1_000_000, 0).Add(-tc.age))
			}
			other.Spec = v1alpha1.AutoscalerSpec{
				Mode: tc.mode, ServiceRef: &v1alpha1.ServiceReference{Name: "web"},
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "another"},
			}
			w := newWorld(t, nil, other)
			w.demand = 100
			w.step(time.Second)
			able, contested := w.condition(v1alpha1.ConditionAbleToScale), w.condition(v1alpha1.ConditionContested)
			if tc.yield {
				if len(w.log) != 0 || able.Status != metav1.ConditionFalse || able.Reason != "AnotherAutoscaler" || !strings.Contains(able.Message, tc.says) {
					t.Errorf("scale writes %v, AbleToScale %+v: want none, and %q", w.log, able, tc.says)
				}
				return
			}
			if len(w.log) == 0 || able.Status != metav1.ConditionTrue {
				t.Errorf("scale writes %v, AbleToScale %+v: want it to scale", w.log, able)
			}
			if tc.says == "" && contested.Type != "" || tc.says != "" && (contested.Status != metav1.ConditionTrue || !strings.Contains(contested.Message, tc.says)) {
				t.Errorf("Contested %+v, want %q", contested, tc.says)
			}
			if tc.says == "" {
				return
			}
			if err := w.client.Delete(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			w.step(time.Second)
			if c := w.condition(v1alpha1.ConditionContested); c.Status != metav1.ConditionFalse {
				t.Errorf("Contested %+v once it is alone, want False", c)
			}
		})
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(as *v1alpha1.Autoscaler) { as.Spec.Mode = v1alpha1.ModeDryRun })
	w.demand = 45
	w.ready(1)
	w.step(time.Second)
	w.step(2 * time.Second)
	st := w.autoscaler().Status
	if len(w.log) != 0 || len(st.Decisions) != 1 || st.Decisions[0].To != 5 || st.Decisions[0].Applied {
		t.Errorf("dry run: scale writes %v, decisions %+v; want none, and one record that says 5", w.log, st.Decisions)
	}
	if w.path.In {
		t.Error("dry run put the gateway into the path")
	}
}

func TestInvalidSpecIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(as *v1alpha1.Autoscaler) {
		as.Spec.Policy = v1alpha1.PolicySpec{Name: "kpa", Parameters: &runtime.RawExtension{Raw: []byte(`{"stableWindo":"6s"}`)}}
	})
	w.step(time.Second)
	c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionScalingActive)
	if c == nil || c.Reason != "InvalidSpec" || !strings.Contains(c.Message, "stableWindo") || !strings.Contains(c.Message, "stableWindow") {
		t.Errorf("ScalingActive = %+v, want InvalidSpec naming the field and the known ones", c)
	}
}

// A policy that cannot be made yet is tried again every round, though the spec stays as it is.
func TestPolicyThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	fault := catalog.Temporary(errors.New("ca.pem is not there"))
	policies := catalog.Default(catalog.Entry{Name: "late", New: func(target float64, _ json.RawMessage) (algorithms.Policy, error) {
		if fault != nil {
			return nil, fault
		}
		return catalog.Default().New("target", target, nil)
	}})
	w := newWorldWith(t, scaler.Options{Catalog: policies}, func(as *v1alpha1.Autoscaler) { as.Spec.Policy = v1alpha1.PolicySpec{Name: "late"} })
	reason := func() string {
		c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionScalingActive)
		if c == nil {
			return "none"
		}
		return c.Reason
	}
	for range 2 {
		if res := w.step(2 * time.Second); reason() != "PolicyUnavailable" || res.RequeueAfter <= 0 || res.RequeueAfter > 2*time.Second {
			t.Errorf("while the file is not there: ScalingActive's reason is %s and the next round in %v, want PolicyUnavailable, within 2s", reason(), res.RequeueAfter)
		}
	}
	fault = nil
	w.step(2 * time.Second)
	if c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, v1alpha1.ConditionScalingActive); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("once the file is there: ScalingActive = %+v, want true", c)
	}
}

func TestNoGatewayKeepsTheLastPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.gateway = false
	w.replicas = 2
	w.ready(2)
	for range 100 {
		w.step(time.Second)
	}
	if got := fmt.Sprint(w.log); got != "[2→1]" {
		t.Errorf("idle without a gateway: scale writes %v, want [2→1]", got)
	}
}

// TestNoPodsFailFast forbids pods altogether: the path is told why within two rounds, status says
// it, and once pods may be created the failure goes.
func TestNoPodsFailFast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.replicas, w.waiting = 0, 1
	w.step(time.Second)
	w.trouble = "FailedCreate: exceeded quota"
	w.step(time.Second)
	if !strings.Contains(w.path.Failure, "exceeded quota") {
		t.Errorf("path = %+v, want why pods cannot be created", w.path)
	}
	w.step(10 * time.Second) // what is not urgent is written now and then
	if c := w.condition(v1alpha1.ConditionActive); !strings.Contains(w.path.Failure, "exceeded quota") || !strings.Contains(c.Message, "exceeded quota") {
		t.Errorf("path = %+v, Active %+v, want why pods cannot be created in both", w.path, c)
	}
	w.trouble = ""
	w.step(time.Second)
	if w.path.Failure != "" {
		t.Errorf("path = %+v once pods can be created, want no failure", w.path)
	}
}

func TestTroubledPodsFailFast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.replicas = 0
	w.waiting = 1
	w.step(time.Second)
	w.pods = []loop.Instance{{ID: "web-0", State: algorithms.PodStarting, Trouble: "ImagePullBackOff: no such image"}}
	w.step(time.Second)
	if !strings.Contains(w.path.Failure, "ImagePullBackOff") {
		t.Errorf("path = %+v, want the pod's trouble as failure", w.path)
	}
}

func (w *world) condition(kind string) metav1.Condition {
	w.t.Helper()
	if c := meta.FindStatusCondition(w.autoscaler().Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// An Autoscaler that is deleted and made again between two rounds has the same name and generation.
// Its new spec must count.
func TestAutoscalerMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.ready(1)
	w.demand = 35
	w.step(time.Second)
	if w.replicas != 4 {
		t.Fatalf("35 at 10 a pod: %d replicas, want 4", w.replicas)
	}
	as := w.autoscaler()
	if err := w.client.Delete(t.Context(), as); err != nil {
		t.Fatal(err)
	}
	again := &v1alpha1.Autoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 1, UID: "u2", CreationTimestamp: as.CreationTimestamp},
		Spec:       *as.Spec.DeepCopy(),
	}
	again.Spec.Signals[0].Target.AverageValue = resource.MustParse("5")
	if err := w.client.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	w.ready(4)
	w.step(2 * time.Second)
	if w.replicas != 7 {
		t.Errorf("made again with 5 a pod: %d replicas, want 7", w.replicas)
	}
}

// While the policy of a changed spec cannot be made yet, the spec before goes on waking the
// workload.
func TestSpecBeforeDrivesMeanwhile(t *testing.T) {
	t.Parallel()
	policies := catalog.Default(catalog.Entry{Name: "late", New: func(float64, json.RawMessage) (algorithms.Policy, error) {
		return nil, catalog.Temporary(errors.New("ca.pem is not there"))
	}})
	w := newWorldWith(t, scaler.Options{Catalog: policies}, nil)
	w.replicas = 0
	w.step(time.Second)
	as := w.autoscaler()
	as.Spec.Policy, as.Generation = v1alpha1.PolicySpec{Name: "late"}, 2
	if err := w.client.Update(t.Context(), as); err != nil {
		t.Fatal(err)
	}
	w.waiting = 25
	for range 3 {
		w.step(2 * time.Second)
	}
	if w.replicas != 3 {
		t.Errorf("25 wait while the new policy cannot be made: %d replicas, want 3", w.replicas)
	}
	if c := w.condition(v1alpha1.ConditionScalingActive); c.Reason != "PolicyUnavailable" {
		t.Errorf("ScalingActive = %+v, want PolicyUnavailable", c)
	}
}

// A target that cannot be written is held for all the same.
func TestPathIsPutThoughTheScaleIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.replicas, w.setErr = 0, errors.New("admission denied")
	w.waiting = 1
	w.step(time.Second)
	if !w.path.In {
		t.Error("the gateway is not in the path of a workload that cannot be woken")
	}
	if c := w.condition(v1alpha1.ConditionAbleToScale); c.Reason != "FailedUpdateScale" || !strings.Contains(c.Message, "admission denied") {
		t.Errorf("AbleToScale = %+v, want FailedUpdateScale with the cause", c)
	}
}

// A condition that stays as it is is not written again, round after round: it says one thing a
// round.
func TestConditionsStay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world)
		kind   string
		reason string
	}{
		"no gateway": {func(w *world) { w.gateway, w.replicas, w.fault = false, 0, "gateway gw-0 is leaving" }, v1alpha1.ConditionAbleToScale, "NoGateway"},
		"no path":    {func(w *world) { w.putErr = errors.New("no number is left") }, v1alpha1.ConditionScalingActive, "FailedHandover"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			w.ready(1)
			w.demand = 5
			c.change(w)
			if w.replicas == 0 {
				w.ready(0)
				w.demand = 0
			}
			w.step(time.Second)
			w.step(10 * time.Second)
			first, written := w.condition(c.kind), w.statuses
			for range 5 {
				w.step(10 * time.Second)
			}
			if last := w.condition(c.kind); first.Reason != c.reason || last.Reason != c.reason || w.statuses != written {
				t.Errorf("%s first %+v, 50 s later %+v, written %d times; want %s, unchanged", c.kind, first, last, w.statuses-written, c.reason)
			}
		})
	}
}

// Whoever is not held for any more has no gateway in the path.
func TestDryRunReleasesThePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.replicas = 0
	w.step(time.Second)
	if !w.path.In {
		t.Fatal("asleep: the gateway is not in the path")
	}
	as := w.autoscaler()
	as.Spec.Mode, as.Generation = v1alpha1.ModeDryRun, 2
	if err := w.client.Update(t.Context(), as); err != nil {
		t.Fatal(err)
	}
	w.step(time.Second)
	if w.path.In || len(w.forgotten) != 1 {
		t.Errorf("in DryRun the gateway is in the path: %v; forgotten %v; want it out, then forgotten", w.path.In, w.forgotten)
	}
}

// TestStatusIsWrittenBesideRounds: an API server that does not answer delays no round, gets one
// write of a workload at a time, and what it refused comes again.
func TestStatusIsWrittenBesideRounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.r.Inline = false
		w.ready(1)
		answers := make(chan error)
		w.answer = func() error { return <-answers }
		for range 3 {
			w.step(2 * time.Second)
			synctest.Wait()
		}
		if w.statuses != 1 || w.autoscaler().Status.ObservedGeneration != 0 {
			t.Fatalf("%d writes are under way, want one that has no answer", w.statuses)
		}
		answers <- errors.New("the disk is full")
		synctest.Wait()
		w.step(2 * time.Second)
		synctest.Wait()
		if w.statuses != 2 {
			t.Fatalf("%d writes after one was refused, want it again", w.statuses)
		}
		answers <- nil
		synctest.Wait()
		if got := w.autoscaler().Status; got.ObservedGeneration != 1 || got.ReadyReplicas != 1 {
			t.Errorf("status %+v, want what the rounds saw", got)
		}
	})
}

// TestStatusOfAnObjectMadeAgain: what belongs to an object that is gone is not written to another
// of the same name.
func TestStatusOfAnObjectMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.ready(1)
	w.answer = func() error {
		w.answer = nil
		old := w.autoscaler()
		if err := w.client.Delete(t.Context(), old); err != nil {
			return err
		}
		again := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u2"}, Spec: old.Spec}
		return w.client.Create(t.Context(), again)
	}
	w.step(2 * time.Second)
	if got := w.autoscaler(); got.UID != "u2" || len(got.Status.Conditions) != 0 {
		t.Errorf("%s has the conditions %v of the object before", got.UID, got.Status.Conditions)
	}
}
