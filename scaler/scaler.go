// Package scaler drives workloads: for each Autoscaler it observes, asks the policy, carries a plan out and keeps a record.
// One round is one Reconcile of a controller-runtime controller: rounds of one Autoscaler never overlap, and a panic in one
// is contained.
package scaler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler/activation"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
	"github.com/sluice-autoscaler/sluice/wire"
)

// PodState is where a pod is in its life.
type PodState string

// The states of a pod.
const (
	PodStarting    PodState = "Starting"
	PodReady       PodState = "Ready"
	PodTerminating PodState = "Terminating"
)

// Pod is a pod as the scaler needs it. The instants are those at which the controller saw the change; zero means not yet.
type Pod struct {
	Name, IP                           string
	State                              PodState
	Created, Scheduled, Started, Ready time.Time
	// Limit is how many requests it works on at a time; 0 is without limit or unknown.
	Limit float64
	// Trouble is why it cannot start without help ("ImagePullBackOff: …"), "" when nothing is known to be wrong.
	Trouble string
}

// Observer is where signals and pods come from.
type Observer interface {
	// Signals appends a signal for each need of the pods that the selector selects and of what gateways hold for services.
	Signals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal
	// Pods lists the selected pods that are not finished.
	Pods(namespace string, selector labels.Selector) []Pod
	// Gateways lists the gateways.
	Gateways() []activation.Gateway
}

// Actuator reads and writes scales.
type Actuator interface {
	Get(ctx context.Context, t actuate.Target) (actuate.State, error)
	Set(ctx context.Context, t actuate.Target, n int) error
}

// Options configure a Reconciler. All fields are needed unless said otherwise.
type Options struct {
	Client   client.Client
	Observer Observer
	Actuator Actuator
	Assigner *activation.Assigner
	Recorder events.EventRecorder
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	// Clock tells the time.
	Clock func() time.Time
	// Tick is the time between rounds of a workload in which nothing happens; 2 s, as Knative's.
	Tick time.Duration
	// Timing holds the waits of the way to zero and back.
	Timing activation.Timing
	// Ports is the range of gateway ports to assign.
	Ports activation.PortRange
	// Policies are the policies that specs may name.
	Policies catalog.Catalog
	// History is where policies that learn from a past get it, by way of Run; nil means that they begin without one.
	History History
}

// Reconciler runs one round of one Autoscaler at a time. It is safe for concurrent use with different keys.
type Reconciler struct {
	Options
	metrics *instruments

	mu        sync.Mutex
	workloads map[types.NamespacedName]*workload
	// searches are those that Run has not begun; searched tells it of them.
	searches []*search
	searched chan struct{}
	ports    sync.Mutex
}

// workload is what the scaler remembers of one Autoscaler between rounds.
type workload struct {
	generation int64
	invalid    error
	policy     *guard.Policy
	// closePolicy lets go what the policy holds; nil before the first.
	closePolicy func()
	// search is for the past that the policy has not learnt; nil when there is none to learn, or it has learnt it, or nothing is known.
	search     *search
	memory     activation.Memory
	scale      actuate.State
	scaleKnown bool
	ports      []wire.Assignment
	// decidedAt is when the last wake-up's scale was written; coldDetected is the last cold start recorded.
	decidedAt    time.Time
	coldDetected int64
	// dataTime is the instant up to which all signals were known in the last round; it never goes back.
	dataTime time.Time
	// scaledAt is when the scale was last written.
	scaledAt time.Time
	// activeSince is when the workload last left zero in this controller's life.
	activeSince time.Time
	// status is what was last meant to be in the Autoscaler's status; statusAt when it was last written.
	status   *v1alpha1.AutoscalerStatus
	statusAt time.Time
	signals  []algorithms.Signal
	// starts are the start-up times seen; begun names the pods that were seen starting and are not ready yet.
	starts algorithms.StartTimes
	begun  map[string]bool
	// limit is the pods' concurrency limit as it was last known, 0 before.
	limit float64
}

// take puts a policy in the place of the one there was, which lets go what it holds.
func (w *workload) take(p *guard.Policy, closer func()) {
	if w.closePolicy != nil {
		w.closePolicy()
	}
	w.policy, w.closePolicy = p, closer
}

// New returns a Reconciler.
func New(o Options) *Reconciler {
	return &Reconciler{Options: o, metrics: newInstruments(o.Metrics), workloads: map[types.NamespacedName]*workload{}, searched: make(chan struct{}, 1)}
}

func (r *Reconciler) workload(key types.NamespacedName) *workload {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.workloads[key]
	if !ok {
		w = &workload{generation: -1}
		r.workloads[key] = w
	}
	return w
}

func (r *Reconciler) forget(key types.NamespacedName) {
	r.mu.Lock()
	if w := r.workloads[key]; w != nil {
		w.search.drop()
		w.take(nil, nil)
	}
	delete(r.workloads, key)
	r.mu.Unlock()
	r.Assigner.Set(key.String(), nil)
	r.metrics.forget(key)
}
