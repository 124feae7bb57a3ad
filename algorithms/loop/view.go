package loop

import (
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Ref names a workload on whatever platform runs it. It is comparable, so it can be a map's key.
type Ref struct {
	// Driver is the platform's driver, such as "kubernetes".
	Driver string `json:"driver"`
	// Namespace is the driver's scope of names; it may be empty.
	Namespace string `json:"namespace,omitempty"`
	// Kind is the driver's word for the sort of workload. On Kubernetes it is Kind.group, such as
	// "Deployment.apps".
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// String is kind, namespace and name, for messages.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Instance is one pod, task or process of a workload. The instants are those at which the change
// was seen; the zero time means not yet, or unknown.
type Instance struct {
	// ID is unique within the workload. Address is the host or IP under which it is reached.
	ID, Address string
	// State is ready, starting or terminating, or one of the rarer states.
	State algorithms.PodState

	Created, Scheduled, Started, Ready time.Time

	// InFlight is how many requests it had at its last reading; negative means unknown.
	InFlight float64
	// Limit is how many requests it works on at a time; 0 means no limit, or unknown.
	Limit float64
	// Trouble says why it cannot start without help ("ImagePullBackOff: …"); "" when nothing is
	// known to be wrong.
	Trouble string
}

// Path is the state of the way by which requests reach a workload: through a gateway that holds
// them, or straight to its instances.
type Path struct {
	// In says that the path leads through every gateway that listens, and through at least one.
	In bool
	// Ready is how many instances the platform sends requests to.
	Ready int
	// Listening is how many gateways accept requests for the workload. Fault says why the others,
	// or all, do not; "" when nothing is wrong.
	Listening int
	Fault     string
	// Waiting is how many requests gateways hold now.
	Waiting int
	// ColdStarts are the latest wake-ups that the gateways have seen, in no order.
	ColdStarts []ColdStart
}

// ColdStart gives the instants of one wake-up as a gateway saw them; the zero time means not yet.
type ColdStart struct {
	// Detected is when the first request found no instance. Answering is when an instance answered;
	// Address is that instance's. Released is when the first held request was handed over.
	Detected, Answering, Released time.Time
	Address                       string
	// Held is how many requests had waited by then.
	Held int
}

// PathState is what a path ought to be.
type PathState struct {
	// In says that requests are to go through the gateways.
	In bool `json:"in"`
	// Failure says why no instance can start; gateways answer with it instead of holding. "" holds.
	Failure string `json:"failure,omitempty"`
}

// View is all that a round has seen. Step only reads it, and keeps nothing of it.
type View struct {
	// Now is the instant of the round. It ought to carry a monotonic reading: see clock.
	Now time.Time
	// Born is when the workload was first to be scaled; the zero time means long ago.
	Born time.Time
	// Signals answer Loop.Needs.
	Signals []algorithms.Signal
	// Replicas is the count that the target was last asked for.
	Replicas int
	// Instances are those that exist and have not finished.
	Instances []Instance
	// Trouble says why no instance can be created, "" when nothing is known against it.
	Trouble string
	// Path is nil when nothing holds requests for the workload.
	Path *Path
	// BlindUntil is until when those who route requests may not see what changes, after an outage
	// of the platform; the zero time means that they do.
	BlindUntil time.Time
	// Done is closed when the round has taken too long to decide; nil never is.
	Done <-chan struct{}
}

// Commands are what a round is to do. The shell carries them out, from zero the scale first, and
// tells Loop.Done.
type Commands struct {
	// Scale is the count to write; nil leaves it as it is.
	Scale *int
	// First are the IDs of the instances that are to go first, when Scale takes some away.
	First []string
	// Path is what the path ought to be; nil when there is none. It may already be so.
	Path *PathState
	// Next is when the next round is due at the latest, after View.Now; always above 0.
	Next time.Duration
	// Record says what was seen and decided, and why.
	Record Record
}

// Record is one round as data: what was seen, what was decided, what changed the decision, and the
// outcome. It is what explanations, metrics and events are made of.
type Record struct {
	At    time.Time `json:"at"`
	Phase Phase     `json:"phase"`
	// From is the count before; To the count that is to be written. They are equal when nothing is.
	From int `json:"from"`
	To   int `json:"to"`
	// Desired is what the guarded policy wants; meaningless unless Valid.
	Desired int  `json:"desired"`
	Valid   bool `json:"valid"`
	// Reason is a CamelCase word; Message a sentence, empty when the loop is quiet.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// Waiting says what a hand-over or a settling change waits for, "" when nothing is waited for.
	Waiting string `json:"waiting,omitempty"`
	// Terms are the numbers behind Desired; Clamps are the rules that changed it, in their order.
	Terms  []algorithms.Term  `json:"terms,omitempty"`
	Clamps []algorithms.Clamp `json:"clamps,omitempty"`
	// Signals are what was read, Replicas the instances by state.
	Signals  []algorithms.Signal `json:"signals,omitempty"`
	Replicas algorithms.Replicas `json:"replicas"`
	// Limits are the bounds of the decision.
	Limits algorithms.Limits `json:"limits"`
	// StartUp is what is known of start-up times; ActiveSince since when the workload is wanted.
	StartUp     algorithms.StartUp `json:"startUp,omitzero"`
	ActiveSince time.Time          `json:"activeSince,omitzero"`
	// Mode is the Spec's. Applied says that the shell has written To.
	Mode    Mode `json:"mode"`
	Applied bool `json:"applied"`
	// Fault is why the shell could not carry the round out, "" when it could.
	Fault string `json:"fault,omitempty"`
}
