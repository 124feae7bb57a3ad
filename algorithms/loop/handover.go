package loop

import (
	"fmt"
	"time"
)

// Phase is where a workload is between zero and many.
type Phase string

const (
	// Awake means that ready instances take the requests; the gateways are out of the path.
	Awake Phase = "Awake"
	// GoingToSleep means that demand is zero and the gateways are being put into the path, before
	// the last instance goes.
	GoingToSleep Phase = "GoingToSleep"
	// Asleep means no replicas: the gateways hold what comes.
	Asleep Phase = "Asleep"
	// Waking means that replicas are wanted and none is ready, or that gateways still release what
	// they held.
	Waking Phase = "Waking"
)

// Timing holds the waits around decisions.
type Timing struct {
	// Tick is the longest time between two rounds. Lower reacts sooner to what no event announces,
	// at one round each.
	Tick time.Duration
	// Recheck is the time between rounds while a hand-over goes on.
	Recheck time.Duration
	// Settle is how long after a change nothing is scaled down: rounds also come with events, and a
	// policy near an edge would flap with them.
	Settle time.Duration
	// SettleWake is the same after a wake-up: windows know little of it yet.
	SettleWake time.Duration
	// Grace is how long the gateways must have been in the path before the last instance goes, so
	// that every proxy has seen them. Longer is safer, and keeps an instance for so long.
	Grace time.Duration
	// Linger is the longest time for which the gateways stay in the path after the first instance
	// became ready, to pace a burst over those that are still to come.
	Linger time.Duration
}

// DefaultTiming is a round every 2 s as in Knative, or every 100 ms during a hand-over; 2 s of
// settling, 6 s after a wake-up; 2 s of grace (a change of the path took 0.1 s on the testbed); and
// 5 s of lingering.
func DefaultTiming() Timing {
	return Timing{
		Tick: 2 * time.Second, Recheck: 100 * time.Millisecond, Settle: 2 * time.Second, SettleWake: 6 * time.Second,
		Grace: 2 * time.Second, Linger: 5 * time.Second,
	}
}

// noGatewayRecheck is the time between rounds while the last instance stays because no gateway
// listens.
const noGatewayRecheck = time.Second

// handover is what the way to zero and back remembers between rounds.
type handover struct {
	Phase Phase `json:"phase,omitempty"`
	// PathSince is since when the gateways were seen in the path on this way to zero; ReadySince
	// since when instances were ready.
	PathSince  time.Time `json:"pathSince,omitzero"`
	ReadySince time.Time `json:"readySince,omitzero"`
}

// plan is what a round is to do, before it becomes Commands.
type plan struct {
	phase    Phase
	in       bool
	replicas int
	// recheck is when to look again at the latest; 0 leaves it to the tick.
	recheck time.Duration
	// rule is the one that kept the count from what was wanted; why says what is waited for, ""
	// when nothing is.
	rule, why string
}

// lookAgain asks for a round after d, if none is due sooner.
func (p *plan) lookAgain(d time.Duration) {
	if p.recheck == 0 || d < p.recheck {
		p.recheck = d
	}
}

// The rules of the loop that change a count, beside the guard's.
const (
	ruleHandover  = "Handover"
	ruleNoGateway = "NoGateway"
	ruleSettling  = "Settling"
	ruleBlind     = "Blind"
)

const whyBlind = "after an outage of the platform, what routes requests is given time to see changes again"

// next plans one step of a workload that has a path. want is the guarded decision, or the current
// count where there is none. The package comment has the truth table.
func (h *handover) next(now time.Time, current, want int, p *Path, t *Timing) plan {
	if p.Ready == 0 {
		h.ReadySince = time.Time{}
	} else if h.ReadySince.IsZero() {
		h.ReadySince = now
	}
	var out plan
	switch {
	case current == 0 && want == 0:
		out = plan{phase: Asleep, in: true}
	case current == 0:
		out = plan{phase: Waking, in: true, replicas: want, recheck: t.Recheck}
	case want == 0:
		out = h.sleep(now, current, p, t)
	case p.Ready == 0:
		out = plan{phase: Waking, in: true, replicas: want, recheck: t.Recheck}
	case h.Phase == Waking && (p.Ready < current || p.Waiting > 0) && now.Sub(h.ReadySince) < t.Linger:
		out = plan{
			phase: Waking, in: true, replicas: want, recheck: t.Recheck,
			why: "the gateway stays in the path until all pods are ready and nothing waits",
		}
	default:
		out = plan{phase: Awake, replicas: want}
	}
	if current == 0 || out.phase != GoingToSleep && out.phase != Asleep {
		h.PathSince = time.Time{}
	}
	h.Phase = out.phase
	return out
}

// sleep plans the way to zero: gateways in the path, seen by every proxy, then no replicas.
func (h *handover) sleep(now time.Time, current int, p *Path, t *Timing) plan {
	if p.Listening == 0 {
		return plan{
			phase: Awake, in: p.Ready == 0, replicas: min(current, 1), recheck: noGatewayRecheck,
			rule: ruleNoGateway, why: "no gateway listens for the Service, so the last pod stays",
		}
	}
	if !p.In {
		h.PathSince = time.Time{}
		return plan{phase: GoingToSleep, in: true, replicas: current, recheck: t.Recheck, rule: ruleHandover, why: "the gateway is being put into the path"}
	}
	if h.PathSince.IsZero() {
		h.PathSince = now
	}
	if left := t.Grace - now.Sub(h.PathSince); left > 0 {
		return plan{phase: GoingToSleep, in: true, replicas: current, recheck: left, rule: ruleHandover, why: "every proxy is given time to see the gateway"}
	}
	return plan{phase: Asleep, in: true}
}

// validate reports every fault of a Timing.
func (t *Timing) validate() []error {
	var errs []error
	for _, f := range []struct {
		name  string
		v, lo time.Duration
	}{
		{"tick", t.Tick, time.Millisecond},
		{"recheck", t.Recheck, time.Millisecond},
		{"settle", t.Settle, 0},
		{"settleWake", t.SettleWake, 0},
		{"grace", t.Grace, 0},
		{"linger", t.Linger, 0},
	} {
		if f.v < f.lo || f.v > time.Hour {
			errs = append(errs, fmt.Errorf("timing.%s = %v: want %v–%v", f.name, f.v, f.lo, time.Hour))
		}
	}
	return errs
}
