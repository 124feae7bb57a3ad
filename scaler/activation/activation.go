// Package activation takes a workload to zero and back without losing a request: it decides when the gateway's slice is on
// the user's Service and when the replica count may be written. Next is pure; Slice and Assigner carry its plans out.
package activation

import (
	"fmt"
	"time"
)

// Phase is where a workload is between zero and many.
type Phase string

const (
	// Awake means that ready pods take the requests; the gateway is out of the path.
	Awake Phase = "Awake"
	// GoingToSleep means that demand has been zero and the gateway is being put into the path before the last pod goes.
	GoingToSleep Phase = "GoingToSleep"
	// Asleep means no replicas: the gateway holds what comes.
	Asleep Phase = "Asleep"
	// Waking means that replicas are wanted and none is ready, or the gateway is still letting go what it held.
	Waking Phase = "Waking"
)

// Timing holds the two waits of the handover.
type Timing struct {
	// Grace is how long the gateway's slice must have been on the Service before the last pod goes, so that every proxy has
	// seen it. Longer is safer and keeps a pod for so long.
	Grace time.Duration
	// Linger is the longest time for which the gateway stays in the path after the first pod became ready, to pace a burst
	// over the pods that are still to come.
	Linger time.Duration
}

// DefaultTiming is 2 s of grace (a slice flip took about 0.1 s on the testbed) and 5 s of lingering.
func DefaultTiming() Timing { return Timing{Grace: 2 * time.Second, Linger: 5 * time.Second} }

// Memory is what Next remembers between calls. The zero value is right for a workload seen for the first time.
type Memory struct {
	Phase Phase
	// SliceSince is since when the slice was seen in place in this handover; ReadySince since when pods were ready.
	SliceSince, ReadySince time.Time
}

// Input is what Next looks at.
type Input struct {
	Now time.Time
	// Desired is the guarded decision; Valid is false when there is none: then nothing is scaled.
	Desired int
	Valid   bool
	// Current is spec.replicas; Ready the ready endpoints in the user's own slices; Waiting the requests held at gateways.
	Current, Ready, Waiting int
	// Gateways is how many gateways listen for every port of the Service; SliceIn whether the slice names them now.
	Gateways int
	SliceIn  bool
}

// Plan is what is to be done.
type Plan struct {
	Phase Phase
	// Slice says whether the gateway's slice is to be on the Service.
	Slice bool
	// Replicas is the count to write; equal to Current means none.
	Replicas int
	// Recheck is when to look again at the latest; 0 leaves it to the caller.
	Recheck time.Duration
	// Why says in a few words what is waited for, "" when nothing is.
	Why string
}

// soon is the re-check interval while a handover goes on.
const soon = 100 * time.Millisecond

// Next plans one step of a workload that has a Service.
func Next(m Memory, in Input, t Timing) (Memory, Plan) {
	if in.Ready == 0 {
		m.ReadySince = time.Time{}
	} else if m.ReadySince.IsZero() {
		m.ReadySince = in.Now
	}
	want := in.Current
	if in.Valid {
		want = in.Desired
	}
	var p Plan
	switch {
	case in.Current == 0 && want == 0:
		p = Plan{Phase: Asleep, Slice: true}
	case in.Current == 0:
		p = Plan{Phase: Waking, Slice: true, Replicas: want, Recheck: soon}
	case want == 0:
		p = sleep(&m, in, t)
	case in.Ready == 0:
		p = Plan{Phase: Waking, Slice: true, Replicas: want, Recheck: soon}
	case m.Phase == Waking && (in.Ready < in.Current || in.Waiting > 0) && in.Now.Sub(m.ReadySince) < t.Linger:
		p = Plan{Phase: Waking, Slice: true, Replicas: want, Recheck: soon, Why: fmt.Sprintf("%d of %d pods are ready and %d requests wait", in.Ready, in.Current, in.Waiting)}
	default:
		p = Plan{Phase: Awake, Replicas: want}
	}
	if p.Phase != GoingToSleep && p.Phase != Asleep {
		m.SliceSince = time.Time{}
	}
	m.Phase = p.Phase
	return m, p
}

// sleep plans the way to zero: slice in, seen by every proxy, then no replicas.
func sleep(m *Memory, in Input, t Timing) Plan {
	if in.Gateways == 0 {
		return Plan{Phase: Awake, Slice: in.Ready == 0, Replicas: min(in.Current, 1), Recheck: time.Second, Why: "no gateway listens for the Service, so the last pod stays"}
	}
	if !in.SliceIn {
		m.SliceSince = time.Time{}
		return Plan{Phase: GoingToSleep, Slice: true, Replicas: in.Current, Recheck: soon, Why: "the gateway is being put into the path"}
	}
	if m.SliceSince.IsZero() {
		m.SliceSince = in.Now
	}
	if left := t.Grace - in.Now.Sub(m.SliceSince); left > 0 {
		return Plan{Phase: GoingToSleep, Slice: true, Replicas: in.Current, Recheck: left, Why: "every proxy is given time to see the gateway"}
	}
	return Plan{Phase: Asleep, Slice: true}
}
