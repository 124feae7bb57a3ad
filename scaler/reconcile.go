package scaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler/activation"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
	"github.com/sluice-autoscaler/sluice/wire"
)

// retryAfter is when a round that met a fault is done again.
const retryAfter = 2 * time.Second

// conflictAfter is when a round is done again that read a cache behind its own writes.
const conflictAfter = 50 * time.Millisecond

// Reconcile does one round.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	began := r.Clock()
	defer func() { r.metrics.observe(began, r.Clock()) }()
	var as v1alpha1.Autoscaler
	if err := r.Client.Get(ctx, req.NamespacedName, &as); err != nil {
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
	w := r.workload(req.NamespacedName)
	rd := &round{Reconciler: r, w: w, as: &as, key: req.NamespacedName, now: began, status: *as.Status.DeepCopy()}
	if w.status != nil { // the cache may lag behind what was written last
		rd.status = *w.status.DeepCopy()
	}
	next, err := rd.run(ctx)
	w.status = &rd.status
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		next = conflictAfter
	case err != nil:
		r.Log.WarnContext(ctx, "round failed, will retry", slog.String("autoscaler", req.String()), slog.Any("error", err))
		next = retryAfter
	}
	if err := rd.writeStatus(ctx); err != nil {
		r.Log.WarnContext(ctx, "status not written, will retry", slog.String("autoscaler", req.String()), slog.Any("error", err))
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// round is one round's working set.
type round struct {
	*Reconciler
	w      *workload
	as     *v1alpha1.Autoscaler
	key    types.NamespacedName
	now    time.Time
	status v1alpha1.AutoscalerStatus
	// urgent asks for the status to be written in this round.
	urgent bool
}

func (rd *round) target() actuate.Target {
	return actuate.Target{Namespace: rd.key.Namespace, Ref: rd.as.Spec.ScaleTargetRef}
}

func (rd *round) run(ctx context.Context) (time.Duration, error) {
	if err := rd.prepare(); err != nil {
		reason, next := "InvalidSpec", time.Minute
		if errors.Is(err, catalog.ErrTemporary) {
			reason, next = "PolicyUnavailable", retryAfter
		}
		rd.condition(v1alpha1.ConditionScalingActive, false, reason, err.Error())
		rd.Assigner.Set(rd.key.String(), rd.w.ports)
		return next, nil
	}
	if rival, err := rd.rival(ctx); err != nil {
		return 0, err
	} else if rival != "" {
		rd.condition(v1alpha1.ConditionAbleToScale, false, "AnotherAutoscaler", rival+" scales the same target: nothing is done here until it is gone")
		rd.Assigner.Set(rd.key.String(), rd.w.ports)
		return rd.Tick, nil
	}

	gateways := rd.Observer.Gateways()
	waiting, held := rd.waiting(gateways)
	if !rd.w.scaleKnown || rd.w.scale.Replicas != 0 || waiting == 0 { // on a wake-up the read is spared
		st, err := rd.Actuator.Get(ctx, rd.target())
		if err != nil {
			rd.w.scaleKnown = false
			rd.condition(v1alpha1.ConditionAbleToScale, false, "FailedGetScale", err.Error())
			rd.Assigner.Set(rd.key.String(), rd.w.ports)
			return 0, err
		}
		rd.w.scale, rd.w.scaleKnown = st, true
	}
	rd.condition(v1alpha1.ConditionAbleToScale, true, "ReadyForNewScale", "the target's scale can be read and written")

	hand, err := rd.handover(ctx, gateways)
	if err != nil {
		rd.condition(v1alpha1.ConditionScalingActive, false, "FailedHandover", err.Error())
		return 0, err
	}
	obs, pods := rd.observe()
	rd.teach(ctx, obs.Now)
	decision := rd.w.policy.Decide(obs)
	rd.metrics.decisions.WithLabelValues(rd.key.Namespace, rd.key.Name, decision.Reason).Inc()
	rd.describe(obs, decision)

	plan := activation.Plan{Phase: activation.Awake, Replicas: rd.w.scale.Replicas}
	if decision.Valid {
		plan.Replicas = decision.Replicas
	}
	if hand != nil {
		rd.w.memory, plan = activation.Next(rd.w.memory, activation.Input{
			Now: rd.now, Desired: decision.Replicas, Valid: decision.Valid, Current: rd.w.scale.Replicas, Ready: hand.ready,
			Waiting: waiting, Gateways: len(hand.listening), SliceIn: hand.in(),
		}, rd.Timing)
	}
	plan = rd.settle(plan)
	if err := rd.carryOut(ctx, plan, decision, hand, pods); err != nil {
		return 0, err
	}
	rd.coldStart(held, pods)
	rd.phase(plan)
	next := rd.Tick
	for _, d := range []time.Duration{decision.Next, plan.Recheck} {
		if d > 0 {
			next = min(next, d)
		}
	}
	return next, nil
}

// prepare validates the spec and makes the policy when the spec has changed; the memory of a policy of the same kind is kept.
func (rd *round) prepare() error {
	if rd.w.generation == rd.as.Generation {
		return rd.w.invalid
	}
	rd.w.generation, rd.urgent = rd.as.Generation, true
	rd.status.ObservedGeneration = rd.as.Generation
	if rd.w.invalid = rd.as.Spec.Validate(); rd.w.invalid != nil {
		return rd.w.invalid
	}
	p, closer, err := rd.as.Spec.NewPolicy(rd.Policies)
	if err != nil {
		rd.w.invalid = err
		if errors.Is(err, catalog.ErrTemporary) {
			rd.w.generation = 0 // the next round tries again
		}
		return err
	}
	afresh := rd.w.policy == nil
	if !afresh {
		if err := p.Restore(rd.w.policy.Snapshot()); err != nil {
			afresh = true
			rd.Log.Debug("policy starts afresh", slog.String("autoscaler", rd.key.String()), slog.Any("error", err))
		}
	}
	rd.w.take(p, closer)
	rd.seek(afresh)
	return nil
}

// rival names another writer of the same target that has precedence: any HPA, or an older Autoscaler.
func (rd *round) rival(ctx context.Context) (string, error) {
	if rd.as.Spec.Mode == v1alpha1.ModeDryRun {
		return "", nil
	}
	same := func(ref autoscalingv2.CrossVersionObjectReference) bool {
		mine := rd.as.Spec.ScaleTargetRef
		return ref.Kind == mine.Kind && ref.Name == mine.Name && group(ref.APIVersion) == group(mine.APIVersion)
	}
	var hpas autoscalingv2.HorizontalPodAutoscalerList
	if err := rd.Client.List(ctx, &hpas, client.InNamespace(rd.key.Namespace)); err != nil {
		return "", fmt.Errorf("list HPAs beside %s: %w", rd.key, err)
	}
	for i := range hpas.Items {
		if same(hpas.Items[i].Spec.ScaleTargetRef) {
			return "HorizontalPodAutoscaler " + hpas.Items[i].Name, nil
		}
	}
	var others v1alpha1.AutoscalerList
	if err := rd.Client.List(ctx, &others, client.InNamespace(rd.key.Namespace)); err != nil {
		return "", fmt.Errorf("list Autoscalers beside %s: %w", rd.key, err)
	}
	for i := range others.Items {
		o := &others.Items[i]
		if o.Name == rd.as.Name || o.Spec.Mode == v1alpha1.ModeDryRun || !same(o.Spec.ScaleTargetRef) {
			continue
		}
		mine, theirs := rd.as.CreationTimestamp.Time, o.CreationTimestamp.Time
		if theirs.Before(mine) || theirs.Equal(mine) && o.Name < rd.as.Name {
			return "Autoscaler " + o.Name, nil
		}
	}
	return "", nil
}

func group(apiVersion string) string {
	for i := range len(apiVersion) {
		if apiVersion[i] == '/' {
			return apiVersion[:i]
		}
	}
	return ""
}

// waiting is what gateways hold for the workload now, and their port reports about it.
func (rd *round) waiting(gateways []activation.Gateway) (int, []wire.PortReport) {
	if rd.as.Spec.ServiceRef == nil {
		return 0, nil
	}
	n := 0
	var reports []wire.PortReport
	for _, g := range gateways {
		if g.Report == nil {
			continue
		}
		for _, p := range g.Report.Ports {
			if p.Namespace == rd.key.Namespace && p.Service == rd.as.Spec.ServiceRef.Name {
				n += p.Waiting
				reports = append(reports, p)
			}
		}
	}
	return n, reports
}

// observe reads signals and pods.
func (rd *round) observe() (algorithms.Observation, []Pod) {
	var services []string
	if rd.as.Spec.ServiceRef != nil {
		services = []string{rd.as.Spec.ServiceRef.Name}
	}
	sel := rd.w.scale.Selector
	pods := rd.Observer.Pods(rd.key.Namespace, sel)
	rd.w.signals = rd.Observer.Signals(rd.now, rd.key.Namespace, sel, services, rd.w.policy.Needs(), rd.w.signals[:0])
	// A policy's time is that of its data: timers such as the end of panic must not run out on readings that stand still.
	age := time.Duration(0)
	for _, sig := range rd.w.signals {
		age = max(age, sig.Age)
	}
	if at := rd.now.Add(-age); at.After(rd.w.dataTime) {
		rd.w.dataTime = at
	}
	o := algorithms.Observation{
		Now: rd.w.dataTime, Signals: rd.w.signals, ActiveSince: rd.w.activeSince,
		Replicas: algorithms.Replicas{Current: rd.w.scale.Replicas},
		Limits:   algorithms.Limits{Min: rd.as.Spec.Min(), Max: int(rd.as.Spec.MaxReplicas)},
	}
	for _, p := range pods {
		switch p.State {
		case PodReady:
			o.Replicas.Ready++
		case PodStarting:
			o.Replicas.Starting++
			if !p.Created.IsZero() {
				o.Replicas.StartingAges = append(o.Replicas.StartingAges, max(0, rd.now.Sub(p.Created)))
			}
		case PodTerminating:
			o.Replicas.Terminating++
		}
	}
	rd.w.learn(pods)
	o.StartUp, o.Limits.PodConcurrency = rd.w.starts.StartUp(), rd.w.limit
	if h := rd.as.Spec.Hold; h != nil && h.PodConcurrency != nil {
		o.Limits.PodConcurrency = float64(*h.PodConcurrency)
	}
	return o, pods
}

// learn takes from the pods how long starts take and how much a pod carries. Only starts that were watched count: what the API says of
// a pod that was ready before may be the end of a later trouble.
func (w *workload) learn(pods []Pod) {
	begun := map[string]bool{}
	limit := 0.0
	for _, p := range pods {
		switch p.State {
		case PodStarting:
			begun[p.Name] = true
		case PodReady:
			if w.begun[p.Name] && !p.Created.IsZero() && !p.Ready.IsZero() {
				w.starts.Add(p.Ready.Sub(p.Created))
			}
			if p.Limit > 0 && (limit == 0 || p.Limit < limit) {
				limit = p.Limit
			}
		case PodTerminating:
		}
	}
	w.begun = begun
	if limit > 0 {
		w.limit = limit
	}
}

// describe puts what was observed and decided into status and conditions.
func (rd *round) describe(o algorithms.Observation, d algorithms.Decision) {
	rd.status.CurrentReplicas, rd.status.ReadyReplicas = int32(o.Replicas.Current), int32(o.Replicas.Ready)
	rd.status.Concurrency = ""
	if len(o.Signals) > 0 && o.Signals[0].Known {
		s := o.Signals[0]
		rd.status.Concurrency = strconv.FormatFloat(s.Value, 'f', 2, 64)
	}
	if !d.Valid {
		rd.condition(v1alpha1.ConditionScalingActive, false, d.Reason, d.Message+"; replicas are held")
		return
	}
	rd.status.DesiredReplicas = int32(d.Replicas)
	rd.metrics.desired.WithLabelValues(rd.key.Namespace, rd.key.Name).Set(float64(d.Replicas))
	rd.condition(v1alpha1.ConditionScalingActive, true, "ValidSignals", "signals are known and decisions follow from them")
	limited := slices.Contains([]string{"MinReplicas", "MaxReplicas", "ScaleUpLimit", "ScaleDownLimit", "ScaleUpStabilized", "ScaleDownStabilized"}, d.Reason)
	why := "the wanted count is within the bounds"
	if limited {
		why = d.Message
	}
	rd.condition(v1alpha1.ConditionScalingLimited, limited, d.Reason, why)
}

// hand is the state of a workload's handover between pods and gateways.
type hand struct {
	svc       *corev1.Service
	slice     *discoveryv1.EndpointSlice // as it is; nil when there is none
	ready     int                        // ready endpoints in the user's own slices
	listening []activation.Gateway
	fault     string
}

// in tells whether the slice names just the gateways that listen, and at least one.
func (h *hand) in() bool {
	if h.slice == nil || len(h.slice.Endpoints) == 0 || len(h.listening) != len(h.slice.Endpoints) {
		return false
	}
	for _, g := range h.listening {
		if !slices.ContainsFunc(h.slice.Endpoints, func(e discoveryv1.Endpoint) bool { return slices.Contains(e.Addresses, g.IP) }) {
			return false
		}
	}
	return true
}

// handover reads the Service, its slices and who listens, and keeps the gateway ports assigned. It is nil without a Service.
func (rd *round) handover(ctx context.Context, gateways []activation.Gateway) (*hand, error) {
	if rd.as.Spec.ServiceRef == nil || rd.as.Spec.Mode == v1alpha1.ModeDryRun {
		rd.Assigner.Set(rd.key.String(), nil)
		return nil, nil
	}
	h := &hand{svc: &corev1.Service{}}
	name := rd.as.Spec.ServiceRef.Name
	if err := rd.Client.Get(ctx, types.NamespacedName{Namespace: rd.key.Namespace, Name: name}, h.svc); err != nil {
		return nil, fmt.Errorf("read Service %s: %w", name, err)
	}
	var list discoveryv1.EndpointSliceList
	if err := rd.Client.List(ctx, &list, client.InNamespace(rd.key.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: name}); err != nil {
		return nil, fmt.Errorf("list slices of Service %s: %w", name, err)
	}
	for i := range list.Items {
		s := &list.Items[i]
		if activation.Own(s) {
			h.slice = s
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				h.ready++
			}
		}
	}
	rd.ports.Lock()
	defer rd.ports.Unlock()
	ports, err := activation.Ports(h.svc, h.slice, rd.Assigner.Used(rd.key.String()), rd.Ports)
	if err != nil {
		return nil, err
	}
	for i := range ports {
		rd.bounds(&ports[i])
		if len(rd.w.ports) == len(ports) { // carried over until carryOut knows better
			ports[i].InPath, ports[i].Failure = rd.w.ports[i].InPath, rd.w.ports[i].Failure
		}
	}
	rd.w.ports = ports
	rd.Assigner.Set(rd.key.String(), ports)
	h.listening, h.fault = activation.Listening(gateways, ports)
	return h, nil
}

func (rd *round) bounds(a *wire.Assignment) {
	h := rd.as.Spec.Hold
	if h == nil {
		return
	}
	if h.MaxRequests != nil {
		a.MaxHeld = int(*h.MaxRequests)
	}
	if h.Timeout != nil {
		a.HoldSeconds = h.Timeout.Seconds()
	}
	if h.PodConcurrency != nil {
		a.PodConcurrency = int(*h.PodConcurrency)
	}
}

// settleAfterWake is for how long after a wake-up nothing is taken back: windows know little of it yet.
const settleAfterWake = 6 * time.Second

// settle puts off scaling down that would come too soon: within a tick of the last change (rounds also come with events, and a
// policy near an edge would flap with them), soon after a wake-up, or to zero before the Autoscaler has watched for the idle time.
func (rd *round) settle(plan activation.Plan) activation.Plan {
	from := rd.w.scale.Replicas
	if plan.Replicas >= from {
		return plan
	}
	due := later(rd.w.scaledAt.Add(rd.Tick), rd.w.activeSince.Add(settleAfterWake))
	if plan.Replicas == 0 {
		due = later(due, rd.as.CreationTimestamp.Add(rd.as.Spec.IdleAfter()))
	}
	if left := due.Sub(rd.now); left > 0 {
		plan.Replicas, plan.Recheck = from, left
		plan.Why = "scaling down is put off until the last change has settled"
		if plan.Phase == activation.Asleep {
			plan.Phase = activation.GoingToSleep
		}
	}
	return plan
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// carryOut does what the plan says, in the order that loses nothing: from zero the scale is written first, since it takes the
// longest; to zero the slice has long been in (the plan sees to that).
func (rd *round) carryOut(ctx context.Context, plan activation.Plan, d algorithms.Decision, h *hand, pods []Pod) error {
	from := rd.w.scale.Replicas
	if plan.Replicas != from {
		rec := rd.record(from, plan.Replicas, d, plan)
		if rd.as.Spec.Mode == v1alpha1.ModeDryRun {
			rd.remember(rec)
		} else {
			if err := rd.Actuator.Set(ctx, rd.target(), plan.Replicas); err != nil {
				rd.condition(v1alpha1.ConditionAbleToScale, false, "FailedUpdateScale", err.Error())
				rd.Recorder.Eventf(rd.as, nil, corev1.EventTypeWarning, "FailedUpdateScale", "Scale", "%s", err)
				return err
			}
			if from == 0 {
				rd.w.decidedAt = rd.Clock()
				rd.w.activeSince = rd.now
			}
			rd.w.scale.Replicas, rd.w.scaledAt = plan.Replicas, rd.now
			rec.Applied = true
			rd.remember(rec)
			at := metav1.NewMicroTime(rd.now)
			rd.status.LastScaleTime, rd.status.CurrentReplicas = &at, int32(plan.Replicas)
			rd.Recorder.Eventf(rd.as, nil, corev1.EventTypeNormal, rec.Reason, "Scale", "%d to %d replicas: %s", from, plan.Replicas, rec.Message)
			rd.Log.InfoContext(ctx, "scaled", slog.String("autoscaler", rd.key.String()), slog.Int("from", from), slog.Int("replicas", plan.Replicas), slog.String("reason", rec.Reason))
		}
	}
	if h == nil {
		return nil
	}
	if err := rd.applySlice(ctx, h, plan.Slice); err != nil {
		return err
	}
	failure := rd.failure(plan, pods)
	for i := range rd.w.ports {
		rd.w.ports[i].InPath, rd.w.ports[i].Failure = plan.Slice, failure
	}
	rd.Assigner.Set(rd.key.String(), rd.w.ports)
	return nil
}

// applySlice makes Sluice's slice of the Service what it ought to be. A slice that is to be in while nobody listens yet is
// left as it is: pointing at nothing would not help.
func (rd *round) applySlice(ctx context.Context, h *hand, in bool) error {
	if in && len(h.listening) == 0 {
		if h.fault != "" {
			rd.condition(v1alpha1.ConditionAbleToScale, false, "NoGateway", h.fault)
		}
		return nil
	}
	owner := *metav1.NewControllerRef(rd.as, v1alpha1.GroupVersion().WithKind("Autoscaler"))
	ips := make([]string, 0, len(h.listening))
	for _, g := range h.listening {
		ips = append(ips, g.IP)
	}
	want := activation.Slice(h.svc, rd.w.ports, ips, in, owner)
	if h.slice == nil {
		if err := rd.Client.Create(ctx, want); err != nil {
			return fmt.Errorf("create slice %s: %w", want.Name, err)
		}
		return nil
	}
	if equality.Semantic.DeepEqual(h.slice.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(h.slice.Ports, want.Ports) {
		return nil
	}
	next := h.slice.DeepCopy()
	next.Endpoints, next.Ports = want.Endpoints, want.Ports
	next.Labels, next.OwnerReferences = want.Labels, want.OwnerReferences
	if err := rd.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("update slice %s: %w", want.Name, err)
	}
	h.slice = next
	return nil
}

// failure says why no pod can start while none is ready, "" otherwise.
func (rd *round) failure(plan activation.Plan, pods []Pod) string {
	if plan.Phase != activation.Waking {
		return ""
	}
	why := ""
	for _, p := range pods {
		switch {
		case p.State == PodTerminating:
		case p.Trouble == "":
			return ""
		default:
			why = "pod " + p.Name + ": " + p.Trouble
		}
	}
	return why
}

// clockSkew is by how much a gateway's clock may be ahead of the controller's.
const clockSkew = time.Second

// coldStart accounts for a wake-up that a gateway has seen through.
func (rd *round) coldStart(reports []wire.PortReport, pods []Pod) {
	if rd.w.decidedAt.IsZero() { // not woken in this controller's life
		return
	}
	// Several gateways may have held requests of one wake-up. The earliest tells of it, and clocks may differ a little.
	var c *wire.ColdStart
	latest := rd.w.decidedAt.Add(clockSkew).UnixNano()
	for i := range reports {
		x := reports[i].ColdStart
		if x != nil && x.Released > 0 && x.Detected > rd.w.coldDetected && x.Detected <= latest && (c == nil || x.Detected < c.Detected) {
			c = x
		}
	}
	if c == nil {
		return
	}
	rd.w.coldDetected = latest
	detected := time.Unix(0, c.Detected)
	st := &v1alpha1.ColdStartStatus{Detected: metav1.NewMicroTime(detected), Held: int32(min(c.Held, 1<<30))}
	phase := func(name string, at time.Time) string {
		if at.IsZero() || at.Before(detected) {
			return ""
		}
		d := at.Sub(detected).Seconds()
		rd.metrics.cold.WithLabelValues(rd.key.Namespace, rd.key.Name, name).Observe(d)
		return strconv.FormatFloat(d, 'f', 3, 64)
	}
	st.Decided = phase("decided", rd.w.decidedAt)
	ip := c.Pod
	if host, _, err := net.SplitHostPort(c.Pod); err == nil {
		ip = host
	}
	for _, p := range pods {
		if p.IP != "" && p.IP == ip {
			st.PodCreated, st.Scheduled, st.Started = phase("pod_created", p.Created), phase("scheduled", p.Scheduled), phase("started", p.Started)
		}
	}
	if c.Answering > 0 {
		st.Answering = phase("answering", time.Unix(0, c.Answering))
	}
	st.Released = phase("released", time.Unix(0, c.Released))
	rd.status.LastColdStart, rd.urgent = st, true
}

// phase puts the activation phase into status.
func (rd *round) phase(plan activation.Plan) {
	if rd.status.Phase != string(plan.Phase) {
		rd.status.Phase, rd.urgent = string(plan.Phase), true
	}
	why := plan.Why
	if why == "" {
		why = "phase " + string(plan.Phase)
	}
	rd.condition(v1alpha1.ConditionActive, plan.Phase != activation.Asleep, string(plan.Phase), why)
}

func (rd *round) record(from, to int, d algorithms.Decision, plan activation.Plan) v1alpha1.DecisionRecord {
	rec := v1alpha1.DecisionRecord{
		Time: metav1.NewMicroTime(rd.now), From: int32(from), To: int32(to), Reason: d.Reason, Message: d.Message, Terms: map[string]string{},
	}
	if plan.Why != "" {
		rec.Message += "; " + plan.Why
	}
	for _, t := range d.Terms {
		rec.Terms[t.Name] = strconv.FormatFloat(t.Value, 'g', 6, 64)
	}
	return rec
}

// keptDecisions is how many records stay in status.
const keptDecisions = 10

func (rd *round) remember(rec v1alpha1.DecisionRecord) {
	if len(rd.status.Decisions) > 0 {
		last := rd.status.Decisions[0]
		if !rec.Applied && last.From == rec.From && last.To == rec.To && last.Reason == rec.Reason {
			return // a dry run says the same again
		}
	}
	rd.status.Decisions = slices.Insert(rd.status.Decisions, 0, rec)
	rd.status.Decisions = rd.status.Decisions[:min(len(rd.status.Decisions), keptDecisions)]
	rd.urgent = true
}

func (rd *round) condition(kind string, ok bool, reason, message string) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: rd.as.Generation}
	if ok {
		c.Status = metav1.ConditionTrue
	}
	before := meta.FindStatusCondition(rd.status.Conditions, kind)
	if before == nil || before.Status != c.Status || before.Reason != c.Reason && !ok {
		rd.urgent = true
	}
	meta.SetStatusCondition(&rd.status.Conditions, c)
}

// statusEvery is how often status is written when only numbers have changed.
const statusEvery = 5 * time.Second

// writeStatus writes status when something changed that people wait for, or numbers did and the last write is a while ago.
func (rd *round) writeStatus(ctx context.Context) error {
	if equality.Semantic.DeepEqual(rd.as.Status, rd.status) || !rd.urgent && rd.now.Sub(rd.w.statusAt) < statusEvery {
		return nil
	}
	next := rd.as.DeepCopy()
	next.Status = rd.status
	if err := client.IgnoreNotFound(rd.Client.Status().Patch(ctx, next, client.MergeFrom(rd.as))); err != nil {
		return fmt.Errorf("write status of %s: %w", rd.key, err)
	}
	rd.w.statusAt = rd.now
	return nil
}
