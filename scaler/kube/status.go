package kube

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// status is what people look at with kubectl: an Autoscaler's status as it ought to be.
type status struct {
	v1alpha1.AutoscalerStatus
	// urgent says that something changed that people wait for; changed that numbers did.
	urgent, changed bool
	// writtenAt is when it was last written.
	writtenAt time.Time
	// demand is the value behind Concurrency; known says that there is one.
	demand float64
	known  bool
}

// keptDecisions is how many records stay in status; the journal has more.
const keptDecisions = 10

// condition sets a condition. A change of its status, or of the reason for False, is urgent.
func (s *status) condition(as *v1alpha1.Autoscaler, kind string, ok bool, reason, message string) {
	before := meta.FindStatusCondition(s.Conditions, kind)
	want := metav1.ConditionFalse
	if ok {
		want = metav1.ConditionTrue
	}
	if before != nil && before.Status == want && before.Reason == reason && before.Message == message && before.ObservedGeneration == as.Generation {
		return
	}
	if before == nil || before.Status != want || before.Reason != reason && !ok {
		s.urgent = true
	}
	s.changed = true
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: kind, Status: want, Reason: reason, Message: message, ObservedGeneration: as.Generation})
}

// contested says who claims the same and yields, "" that nobody does.
func (s *status) contested(as *v1alpha1.Autoscaler, younger string) {
	switch {
	case younger != "":
		s.condition(as, v1alpha1.ConditionContested, true, "AnotherAutoscaler", younger+": it is younger, and does nothing")
	case meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionContested) != nil:
		s.condition(as, v1alpha1.ConditionContested, false, "Alone", "no other Autoscaler names the same target or Service")
	}
}

// describe puts a round's record into status. Active, where it is not nil, is what ScalingActive
// says instead of what follows from the record.
func (s *status) describe(as *v1alpha1.Autoscaler, r *loop.Record, active *verdict) {
	set := func(field *int32, n int) {
		if v := int32(min(max(n, 0), math.MaxInt32)); *field != v {
			*field, s.changed = v, true
		}
	}
	current := r.From
	if r.Applied {
		current = r.To
	}
	set(&s.CurrentReplicas, current)
	set(&s.ReadyReplicas, r.Replicas.Ready)
	s.setDemand(r)
	switch {
	case active != nil:
	case !r.Valid:
		active = &verdict{false, r.Reason, r.Message + "; replicas are held"}
	default:
		active = &verdict{true, "ValidSignals", "signals are known and decisions follow from them"}
	}
	s.condition(as, v1alpha1.ConditionScalingActive, active.ok, active.reason, active.message)
	if r.Valid {
		set(&s.DesiredReplicas, r.Desired)
		limited, why := slices.Contains(limits(), r.Reason), "the wanted count is within the bounds"
		if limited {
			why = r.Message
		}
		s.condition(as, v1alpha1.ConditionScalingLimited, limited, r.Reason, why)
	}
	if string(r.Phase) != s.Phase {
		s.Phase, s.urgent = string(r.Phase), true
	}
	why := r.Waiting
	if why == "" {
		why = "phase " + string(r.Phase)
	}
	s.condition(as, v1alpha1.ConditionActive, r.Phase != loop.Asleep, string(r.Phase), why)
	if r.To != r.From && (r.Applied || r.Mode == loop.ModeDryRun) {
		s.remember(r)
	}
}

// limits are the reasons for which a wanted count was not given.
func limits() []string {
	return []string{"MinReplicas", "MaxReplicas", "ScaleUpLimit", "ScaleDownLimit", "ScaleUpStabilized", "ScaleDownStabilized"}
}

func (s *status) setDemand(r *loop.Record) {
	known, value := false, 0.0
	if len(r.Signals) > 0 && r.Signals[0].Name == algorithms.Concurrency && r.Signals[0].Known && algorithms.Finite(r.Signals[0].Value) {
		known, value = true, r.Signals[0].Value
	}
	if known == s.known && value == s.demand && (s.Concurrency != "") == known {
		return
	}
	s.known, s.demand = known, value
	text := ""
	if known {
		text = strconv.FormatFloat(value, 'f', 2, 64)
	}
	if text != s.Concurrency {
		s.Concurrency, s.changed = text, true
	}
}

// words is a record's sentence, with what is waited for.
func words(r *loop.Record) string {
	if r.Waiting == "" {
		return r.Message
	}
	return r.Message + "; " + r.Waiting
}

// remember keeps the latest changes. What a dry run says again is not one.
func (s *status) remember(r *loop.Record) {
	rec := v1alpha1.DecisionRecord{
		Time: metav1.NewMicroTime(r.At), From: int32(r.From), To: int32(r.To), Reason: r.Reason, Message: words(r), Applied: r.Applied,
	}
	if len(s.Decisions) > 0 {
		if last := s.Decisions[0]; !rec.Applied && last.From == rec.From && last.To == rec.To && last.Reason == rec.Reason {
			return
		}
	}
	rec.Terms = make(map[string]string, len(r.Terms))
	for _, t := range r.Terms {
		rec.Terms[t.Name] = strconv.FormatFloat(t.Value, 'g', 6, 64)
	}
	s.Decisions = slices.Insert(s.Decisions, 0, rec)
	s.Decisions = s.Decisions[:min(len(s.Decisions), keptDecisions)]
	if rec.Applied {
		at := metav1.NewMicroTime(r.At)
		s.LastScaleTime = &at
	}
	s.urgent = true
}

// coldStart puts a wake-up that was seen through into status.
func (s *status) coldStart(c *scaler.ColdStart) {
	at := func(phase int) string {
		if d := c.Phases[phase]; d >= 0 {
			return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
		}
		return ""
	}
	s.LastColdStart = &v1alpha1.ColdStartStatus{
		Detected: metav1.NewMicroTime(c.Detected), Held: int32(min(c.Held, 1<<30)),
		Decided: at(scaler.Decided), PodCreated: at(scaler.PodCreated), Scheduled: at(scaler.Scheduled),
		Started: at(scaler.Started), Answering: at(scaler.Answering), Released: at(scaler.Released),
	}
	s.urgent = true
}

// StatusWrites bounds how often status is written, of all Autoscalers together.
type StatusWrites struct {
	// Urgent is how many writes a second may tell of what people wait for: a phase, a condition, a
	// change of the count. 0 means 100.
	Urgent float64
	// Numbers is how many may tell of changed numbers alone. 0 means 10.
	Numbers float64
}

const (
	// statusEvery is how often one Autoscaler's status is written when only numbers have changed.
	statusEvery = 5 * time.Second
	// statusBurst is how many seconds' worth of writes may come at once.
	statusBurst = 4
)

// writeBudget shares the writes among all Autoscalers. It is safe for concurrent use.
type writeBudget struct{ urgent, numbers *rate.Limiter }

func newWriteBudget(w StatusWrites) *writeBudget {
	bucket := func(perSecond, otherwise float64) *rate.Limiter {
		if perSecond <= 0 {
			perSecond = otherwise
		}
		return rate.NewLimiter(rate.Limit(perSecond), int(math.Ceil(statusBurst*perSecond)))
	}
	return &writeBudget{urgent: bucket(w.Urgent, 100), numbers: bucket(w.Numbers, 10)}
}

// due tells whether a status is to be written now. One that has to wait is asked about again in its
// next round.
func (b *writeBudget) due(s *status, now time.Time) bool {
	switch {
	case s.urgent:
		return b.urgent.AllowN(now, 1)
	case s.changed:
		return now.Sub(s.writtenAt) >= statusEvery && b.numbers.AllowN(now, 1)
	}
	return false
}

// patch is the whole status as a merge patch: nothing depends on how far the cache is behind. The
// API server refuses it for another object of the same name.
func (s *status) patch(uid types.UID) ([]byte, error) {
	type withUnknown struct {
		v1alpha1.AutoscalerStatus
		// null while unknown: a merge patch keeps what is left out
		Concurrency *string `json:"concurrency"`
	}
	body := withUnknown{AutoscalerStatus: s.AutoscalerStatus}
	if s.Concurrency != "" {
		body.Concurrency = &s.Concurrency
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": body})
}

// writers is how many statuses may be on their way to the API server at once, beside the rounds.
const writers = 8

// statusTimeout bounds one write that goes beside the rounds.
const statusTimeout = 10 * time.Second

// writing is one workload's write beside the rounds.
type writing struct {
	// underway says that one is on its way; failed that the last one did not arrive.
	underway, failed atomic.Bool
}

// writeStatus has status written when it is due: beside the rounds, so that none waits for the API
// server. While a write of the workload is on its way, or all writers are busy, the next round asks
// again.
func (r *Reconciler) writeStatus(ctx context.Context, w *workload, as *v1alpha1.Autoscaler) {
	if w.writing.failed.Swap(false) {
		w.status.urgent = true
	}
	if w.writing.underway.Load() {
		return
	}
	select {
	case r.writers <- struct{}{}:
	default:
		return
	}
	free := func() { <-r.writers }
	now := r.Clock()
	if !r.writes.due(&w.status, now) {
		free()
		return
	}
	patch, err := w.status.patch(as.UID)
	if err != nil { // a fault of this program: nothing in a status cannot be encoded
		free()
		r.Log.ErrorContext(ctx, "status not encoded", slog.String("autoscaler", w.Ref().String()), slog.Any("error", err))
		return
	}
	w.status.urgent, w.status.changed, w.status.writtenAt = false, false, now
	w.writing.underway.Store(true)
	namespace, name := as.Namespace, as.Name
	write := func() {
		defer free()
		defer w.writing.underway.Store(false)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
		defer cancel()
		as := &v1alpha1.Autoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if err := client.IgnoreNotFound(r.Client.Status().Patch(ctx, as, client.RawPatch(types.MergePatchType, patch))); err != nil {
			w.writing.failed.Store(true)
			r.Log.WarnContext(ctx, "status not written, will retry", slog.String("autoscaler", w.Ref().String()), slog.Any("error", err))
		}
	}
	if r.Inline {
		write()
		return
	}
	go write()
}
