// Package kube drives the rounds of Autoscaler objects: it gives each its workload, does a round
// when an event or a tick asks for one, and writes what people look at into the object's status.
//
// Rounds of one Autoscaler never overlap, a panic in one is contained (controller-runtime sees to
// both), and a round costs what its workload costs: other objects are found by index, never listed.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
	"github.com/sluice-autoscaler/sluice/scaler/kube/queue"
)

// Kind is an Autoscaler's kind in a loop.Ref.
const Kind = "Autoscaler.sluice.dev"

// Ref names an Autoscaler.
func Ref(key types.NamespacedName) loop.Ref {
	return loop.Ref{Driver: Driver, Namespace: key.Namespace, Kind: Kind, Name: key.Name}
}

// Options configure a Reconciler. All fields are needed unless said otherwise.
type Options struct {
	// Client reads from a cache that has Index's fields, and writes status.
	Client client.Client
	Scaler *scaler.Scaler
	// Targets is the Scaler's Target.
	Targets *Targets
	// Register tells the Scaler's Path of an Autoscaler with a Service, Settle that one has none or
	// is not driven, and Forget that it is gone. Each may be nil.
	Register func(as *v1alpha1.Autoscaler, spec *loop.Spec)
	// Declare, when given, tells the Scaler's Source which object a workload is, and its signals.
	Declare func(ref, object loop.Ref, spec *loop.Spec)
	Settle  func(ref loop.Ref)
	Forget  func(ref loop.Ref)
	// Journal, when not nil, is told of Autoscalers that are gone.
	Journal  *scaler.Journal
	Recorder events.EventRecorder
	Log      *slog.Logger
	Clock    func() time.Time
	// StatusWrites bounds the writes of status of all Autoscalers together; the zero value has its
	// defaults.
	StatusWrites StatusWrites
	// Inline writes a status within its round, for a test with a clock of its own.
	Inline bool
	// Leader tells whether this replica does rounds; nil does always.
	Leader *lead.Leader
	// MaxPerNamespace is how many Autoscalers of one namespace are driven, the oldest; 0 drives
	// all.
	MaxPerNamespace int
}

// Reconciler does one round of one Autoscaler at a time. It is safe for concurrent use with
// different keys.
type Reconciler struct {
	Options
	writes *writeBudget
	// changes counts those of Autoscalers and HPAs, once noting says that somebody counts.
	changes atomic.Uint64
	noting  atomic.Bool
	// queue orders the rounds; nil where nobody drives them.
	queue atomic.Pointer[queue.Queue]
	// writers has an entry for each write of status under way.
	writers chan struct{}

	mu        sync.Mutex
	workloads map[types.NamespacedName]*workload
}

// workload is one Autoscaler's.
type workload struct {
	*scaler.Workload
	uid    types.UID
	object loop.Ref
	// phase is its own instant within the tick.
	phase time.Duration
	// memory is that of the terms in which it was driven.
	memory int
	// neighbours are what was found of others at a count of changes.
	neighbours neighbours
	// told are the other writers of the target that an event has told of.
	told rivals
	// held says that the Scaler's Path knows the workload.
	held       bool
	generation int64
	// invalid is why the spec cannot be used; retryAt is when it may have become possible, the zero
	// time when only another spec helps.
	invalid error
	retryAt time.Time
	status  status
	writing writing
}

// New returns a Reconciler.
func New(o Options) *Reconciler {
	if o.Leader == nil {
		o.Leader = lead.Always(1)
	}
	return &Reconciler{
		Options: o, writes: newWriteBudget(o.StatusWrites), writers: make(chan struct{}, writers), workloads: map[types.NamespacedName]*workload{},
	}
}

const (
	// invalidAfter is when an invalid Autoscaler is looked at again: a change of it comes as an
	// event.
	invalidAfter = time.Minute
	// rivalsAfter is when rivals are looked for again after a fault.
	rivalsAfter = 5 * time.Second
)

// Reconcile does one round.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var as v1alpha1.Autoscaler
	if err := r.Client.Get(ctx, req.NamespacedName, &as, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("read Autoscaler %s: %w", req, err)
	}
	if !as.DeletionTimestamp.IsZero() {
		r.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	ctx, cancel, term, ok := r.Leader.Bind(ctx)
	defer cancel()
	if q := r.queue.Load(); q != nil {
		ctx = q.Round(ctx, req)
	}
	if !ok { // the next term asks for a round of everything
		return ctrl.Result{}, nil
	}
	w := r.workload(&as, term)
	next, urgent := r.round(ctx, w, &as)
	if errors.Is(context.Cause(ctx), lead.ErrNotLeading) {
		return ctrl.Result{}, nil
	}
	r.writeStatus(ctx, w, &as)
	priority := 0
	if urgent {
		priority = queue.Urgent
	}
	if next == r.Scaler.Timing.Tick {
		next = queue.Spread(r.Clock(), next, w.phase)
	}
	return ctrl.Result{RequeueAfter: next, Priority: &priority}, nil
}

// round configures the workload, yields to a rival or does a round, and puts it into status. It
// says when the next is due, and whether somebody waits for it.
func (r *Reconciler) round(ctx context.Context, w *workload, as *v1alpha1.Autoscaler) (next time.Duration, urgent bool) {
	if err := r.configure(ctx, w, as); err != nil {
		if w.retryAt.IsZero() {
			r.settle(w)
			w.status.condition(as, v1alpha1.ConditionScalingActive, false, "InvalidSpec", err.Error())
			return invalidAfter, false
		}
		w.status.condition(as, v1alpha1.ConditionScalingActive, false, "PolicyUnavailable", err.Error())
		if !w.Configured() { // else the spec before still drives
			r.settle(w)
			return r.Scaler.Timing.Tick, false
		}
	}
	others, err := r.look(ctx, w, as)
	if err != nil {
		r.Log.WarnContext(ctx, "rivals not known, will retry", slog.String("autoscaler", w.Ref().String()), slog.Any("error", err))
		return rivalsAfter, false
	}
	if others.surplus {
		r.settle(w)
		w.status.condition(as, v1alpha1.ConditionAbleToScale, false, "TooManyAutoscalers",
			fmt.Sprintf("the namespace has %d older Autoscalers, which is as many as are driven in one: nothing is done here", r.MaxPerNamespace))
		return rivalsAfter, false
	}
	r.tellRivals(w, as, others.rivals)
	w.status.contested(as, others.loser)
	if others.winner != "" {
		r.settle(w)
		w.status.condition(as, v1alpha1.ConditionAbleToScale, false, "AnotherAutoscaler", others.winner+": nothing is done here until it is gone")
		return r.Scaler.Timing.Tick, false
	}
	out, err := w.Round(ctx)
	for _, n := range out.Notices {
		kind := corev1.EventTypeNormal
		if n.Warning {
			kind = corev1.EventTypeWarning
		}
		r.Recorder.Eventf(as, nil, kind, n.Reason, "Learn", "%s", n.Message)
	}
	if errors.Is(context.Cause(ctx), lead.ErrNotLeading) { // cut short, and no fault
		return out.Next, false
	}
	r.report(ctx, w, as, &out, err)
	return out.Next, out.Path != nil && out.Path.Waiting > 0 || out.Record.Phase == loop.Waking
}

// settle says that nothing is expected of a workload that is not driven.
func (r *Reconciler) settle(w *workload) {
	if r.Settle != nil {
		r.Settle(w.Ref())
	}
}

// report puts a round into status, and tells of what changed by an event.
func (r *Reconciler) report(ctx context.Context, w *workload, as *v1alpha1.Autoscaler, out *scaler.Outcome, err error) {
	fault, failed := errors.AsType[*scaler.RoundError](err)
	if err != nil && !errors.Is(err, scaler.ErrConflict) {
		r.Log.WarnContext(ctx, "round failed, will retry", slog.String("autoscaler", w.Ref().String()), slog.Any("error", err))
	}
	able, active := scaleConditions(out, fault, err)
	if able != nil {
		if able.ok && w.told.loser != "" {
			able.message += "; " + w.told.loser + ", is younger and does nothing"
		}
		w.status.condition(as, v1alpha1.ConditionAbleToScale, able.ok, able.reason, able.message)
	}
	if failed && fault.Stage == scaler.StageSet && able != nil {
		r.Recorder.Eventf(as, nil, corev1.EventTypeWarning, able.reason, "Scale", "%s", err)
	}
	if w.invalid != nil { // the spec before drives, and the condition says why
		active = &verdict{false, "PolicyUnavailable", w.invalid.Error()}
	}
	if out.Record.At.IsZero() {
		if active != nil {
			w.status.condition(as, v1alpha1.ConditionScalingActive, active.ok, active.reason, active.message)
		}
		return
	}
	w.status.describe(as, &out.Record, active)
	if out.ColdStart != nil {
		w.status.coldStart(out.ColdStart)
	}
	if rec := &out.Record; rec.Applied {
		r.Recorder.Eventf(as, nil, corev1.EventTypeNormal, rec.Reason, "Scale", "%d to %d replicas: %s", rec.From, rec.To, words(rec))
	}
}

// verdict is what a condition says.
type verdict struct {
	ok              bool
	reason, message string
}

// scaleConditions are what a round says of AbleToScale and, where it is not for the record to say,
// of ScalingActive; nil leaves a condition as it is.
func scaleConditions(out *scaler.Outcome, fault *scaler.RoundError, err error) (able, active *verdict) {
	switch {
	case fault == nil:
		if p := out.Path; p != nil && p.Listening == 0 && p.Fault != "" && out.Record.Phase != loop.Awake {
			return &verdict{false, "NoGateway", p.Fault}, nil
		}
		return &verdict{true, "ReadyForNewScale", "the target's scale can be read and written"}, nil
	case errors.Is(err, scaler.ErrConflict): // done again at once
		return nil, nil
	case fault.Stage == scaler.StageGet:
		return &verdict{false, "FailedGetScale", err.Error()}, nil
	case fault.Stage == scaler.StageSet:
		return &verdict{false, "FailedUpdateScale", err.Error()}, nil
	}
	return nil, &verdict{false, "FailedHandover", err.Error()}
}

// workload returns the one of an Autoscaler. One that scales another object now begins anew, and so
// does one that another replica has driven meanwhile: what is remembered of it may not be so.
func (r *Reconciler) workload(as *v1alpha1.Autoscaler, term lead.Term) *workload {
	key := client.ObjectKeyFromObject(as)
	r.mu.Lock()
	w := r.workloads[key]
	r.mu.Unlock()
	if w != nil && w.uid != as.UID { // deleted and made again before a round saw it gone
		r.forget(key)
		w = nil
	}
	if w != nil && w.memory != term.Memory {
		w.Close()
		w = nil
	}
	if w != nil && w.generation != as.Generation {
		if object := TargetRef(as.Namespace, as.Spec.ScaleTargetRef); object != w.object {
			w.Close()
			w = nil
		}
	}
	if w == nil {
		w = &workload{
			Workload: r.Scaler.Open(Ref(key)), uid: as.UID, object: TargetRef(as.Namespace, as.Spec.ScaleTargetRef), generation: -1, memory: term.Memory,
			phase:  queue.Phase(key, r.Scaler.Timing.Tick),
			status: status{AutoscalerStatus: *as.Status.DeepCopy()},
		}
		r.mu.Lock()
		r.workloads[key] = w
		r.mu.Unlock()
	}
	return w
}

// configure gives the workload a spec that has changed, or one whose fault may have passed.
func (r *Reconciler) configure(ctx context.Context, w *workload, as *v1alpha1.Autoscaler) error {
	now := r.Clock()
	if w.generation == as.Generation && (w.retryAt.IsZero() || now.Before(w.retryAt)) {
		return w.invalid
	}
	if w.generation != as.Generation {
		w.generation = as.Generation
		w.status.ObservedGeneration = as.Generation
		w.status.urgent = true
	}
	spec, err := as.Spec.Loop()
	if err == nil {
		r.register(ctx, w, as, &spec)
		err = w.Configure(spec, as.CreationTimestamp.Time)
	}
	w.invalid, w.retryAt = err, time.Time{}
	if errors.Is(err, catalog.ErrTemporary) {
		w.retryAt = now.Add(r.Scaler.Timing.Tick)
	}
	return err
}

// register tells targets and path of the workload, also of one whose policy cannot be made: it may
// be asleep. Of one that is not to be held for any more the gateways leave the path before its
// ports are taken away.
func (r *Reconciler) register(ctx context.Context, w *workload, as *v1alpha1.Autoscaler, spec *loop.Spec) {
	service := ""
	if spec.ServiceRef != nil {
		service = spec.ServiceRef.Name
	}
	r.Targets.Register(w.Ref(), w.object, service)
	if r.Declare != nil {
		r.Declare(w.Ref(), w.object, spec)
	}
	hold := service != "" && spec.Mode != loop.ModeDryRun
	if hold && r.Register != nil {
		r.Register(as, spec)
	}
	if !hold && r.Forget != nil {
		if w.held {
			if err := w.ReleasePath(ctx); err != nil {
				r.Log.WarnContext(ctx, "gateways not taken out of the path", slog.String("autoscaler", w.Ref().String()), slog.Any("error", err))
			}
		}
		r.Forget(w.Ref())
	}
	w.held = hold
}

func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	w := r.workloads[key]
	delete(r.workloads, key)
	r.mu.Unlock()
	if w != nil {
		w.Close()
	}
	ref := Ref(key)
	r.Targets.Forget(ref)
	if r.Forget != nil {
		r.Forget(ref)
	}
	if r.Journal != nil {
		r.Journal.Forget(ref)
	}
}

// The fields by which other objects are found.
const (
	// ByTarget finds HPAs and Autoscalers by what they scale.
	ByTarget = "sluice.target"
	// ByService finds Autoscalers by their Service.
	ByService = "sluice.service"
)

// TargetOfHPA is the index function of ByTarget for HPAs.
func TargetOfHPA(o client.Object) []string {
	if h, ok := o.(*autoscalingv2.HorizontalPodAutoscaler); ok {
		return []string{targetKey(TargetRef("", h.Spec.ScaleTargetRef))}
	}
	return nil
}

// TargetOfAutoscaler is the same for Autoscalers.
func TargetOfAutoscaler(o client.Object) []string {
	if a, ok := o.(*v1alpha1.Autoscaler); ok {
		return []string{targetKey(TargetRef("", a.Spec.ScaleTargetRef))}
	}
	return nil
}

// ServiceOf is the index function of ByService.
func ServiceOf(o client.Object) []string {
	if a, ok := o.(*v1alpha1.Autoscaler); ok && a.Spec.ServiceRef != nil {
		return []string{a.Spec.ServiceRef.Name}
	}
	return nil
}

func targetKey(ref loop.Ref) string { return ref.Kind + "/" + ref.Name }

// Index gives a cache the fields by which other objects are found.
func Index(ctx context.Context, c client.FieldIndexer) error {
	return errors.Join(
		c.IndexField(ctx, &autoscalingv2.HorizontalPodAutoscaler{}, ByTarget, TargetOfHPA),
		c.IndexField(ctx, &v1alpha1.Autoscaler{}, ByTarget, TargetOfAutoscaler),
		c.IndexField(ctx, &v1alpha1.Autoscaler{}, ByService, ServiceOf),
	)
}
