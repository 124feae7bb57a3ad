// Package promises checks what Sluice promises against the recorded history of a run: the requests
// that were sent, the writes of replica counts, who held the lease, and the faults. It is pure: the
// same history gives the same violations.
package promises

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// History is what was recorded of a run. All instants count from its beginning.
type History struct {
	Workloads []Workload
	Requests  []Request
	Writes    []Write
	Leases    []Lease
	Faults    []Fault
	// Hold is how long a gateway holds a request before it answers 504; zero: for ever.
	Hold time.Duration
}

// Workload is a scaled workload and its bounds.
type Workload struct {
	Name     string
	Min, Max int
	// Needed is the most replicas that the recorded load can need; 0: it is not checked.
	Needed int
}

// Request is one request, from its first byte to the end of its answer.
type Request struct {
	Workload   string
	Begin, End time.Duration
	// Failure says why it was lost; "" for one that was answered as it should be.
	Failure string
}

// Write is one write of a replica count that the API server accepted.
type Write struct {
	Workload string
	// At is when the API server received it.
	At time.Duration
	// Writer is the pod that wrote; "" for a person's write, which is only the next one's From.
	Writer   string
	From, To int
}

// Lease tells who held the lease from an instant on, "" for nobody.
type Lease struct {
	At     time.Duration
	Holder string
}

// Fault is one fault that was injected: it lasts from Begin to End.
type Fault struct {
	Kind       Kind
	Begin, End time.Duration
	// Workload is the one that it hits; "" for all.
	Workload string
}

// Kind names a fault.
type Kind string

// The kinds of faults.
const (
	ControllerKilled     Kind = "controller killed"
	ControllerFrozen     Kind = "controller frozen"
	GatewayKilled        Kind = "gateway killed"
	APIServerStopped     Kind = "API server stopped"
	EtcdStopped          Kind = "etcd stopped"
	ControllerNoAPI      Kind = "controller cut off from the API server"
	ControllerNoGateways Kind = "controller cut off from gateways"
	ControllerNoSidecars Kind = "controller cut off from sidecars"
	BackOffGrown         Kind = "controller killed until its back-off has grown"
	OlderStandby         Kind = "leader frozen, the older-born standby takes over"
	QuotaZero            Kind = "quota of no pods"
	AdmissionRefused     Kind = "pods refused by admission"
	ServiceRemade        Kind = "Service deleted and made again"
	AutoscalerDeleted    Kind = "Autoscaler deleted while asleep, and made again"
	NamespaceDeleted     Kind = "another namespace deleted"
	SecretsDeleted       Kind = "certificates' Secrets deleted"
	APIServicesDeleted   Kind = "APIServices deleted"
)

// Allowance says what a kind of fault may cost. The zero value: nothing.
type Allowance struct {
	// Held: requests that were on their way when it began may be lost. The process that dies takes
	// its connections with it.
	Held bool
	// Refused is how long after its beginning new connections may still be led to what has died.
	Refused time.Duration
	// Late: a request may be lost after the gateway's whole hold time, if that ended before the fault
	// or within settling after it: nobody could start a pod.
	Late bool
	// Gone: requests that overlap the fault, or begin within settling after it, may be lost: what
	// they were sent to is not there.
	Gone bool
	// Blind: the workload's signals are unknown from stale after its beginning until its end, so no
	// write may lower its count.
	Blind bool
}

// Allowances is what each kind may cost; a kind that is not in it may cost nothing.
func Allowances() map[Kind]Allowance {
	return map[Kind]Allowance{
		ControllerKilled:     {},
		ControllerFrozen:     {Late: true},
		GatewayKilled:        {Held: true, Refused: 5 * time.Second},
		APIServerStopped:     {Late: true},
		EtcdStopped:          {Late: true},
		ControllerNoAPI:      {Late: true},
		ControllerNoGateways: {Late: true},
		ControllerNoSidecars: {Blind: true},
		BackOffGrown:         {Late: true},
		OlderStandby:         {Late: true},
		QuotaZero:            {Gone: true},
		AdmissionRefused:     {Gone: true},
		ServiceRemade:        {Gone: true},
		AutoscalerDeleted:    {Gone: true},
		NamespaceDeleted:     {},
		SecretsDeleted:       {},
		APIServicesDeleted:   {},
	}
}

const (
	// stale is how long signals that were read before a fault may still be decided on.
	stale = 6 * time.Second
	// settling is how long the data plane may take after a fault's end.
	settling = 5 * time.Second
	// seen is how long a request was on its way before it must have kept its workload from zero.
	// Below it, the request and the last step to zero may cross; a draining pod answers it.
	seen = 3 * time.Second
)

// Violation is a promise that a history breaks.
type Violation struct {
	Promise string
	At      time.Duration
	Text    string
}

func (v Violation) String() string {
	return fmt.Sprintf("%8.3f s  %s: %s", v.At.Seconds(), v.Promise, v.Text)
}

// The promises, as violations name them.
const (
	NothingLost   = "nothing lost"
	NotOnUnknown  = "never down on unknown"
	OneWriter     = "one writer"
	WithinBounds  = "within bounds"
	NotMore       = "never more than needed"
	NotUnderLoad  = "never to zero under a request"
	KnownWorkload = "history names its workloads"
)

// Check returns all violations, in order of time.
func Check(h History) []Violation {
	bounds := map[string]Workload{}
	for _, w := range h.Workloads {
		bounds[w.Name] = w
	}
	var all []Violation
	all = append(all, lost(h)...)
	all = append(all, writers(h)...)
	for _, w := range h.Writes {
		if w.Writer == "" {
			continue
		}
		workload, known := bounds[w.Workload]
		if !known {
			all = append(all, Violation{KnownWorkload, w.At, w.Workload + " is written"})
			continue
		}
		all = append(all, counts(h, workload, w)...)
	}
	slices.SortStableFunc(all, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	return all
}

// lost finds requests that were lost though no fault allows it.
func lost(h History) []Violation {
	var all []Violation
	for _, r := range h.Requests {
		if r.Failure == "" || slices.ContainsFunc(h.Faults, func(f Fault) bool { return allows(f, r, h.Hold) }) {
			continue
		}
		all = append(all, Violation{NothingLost, r.Begin, fmt.Sprintf("%s: a request lost after %.3f s: %s", r.Workload, (r.End - r.Begin).Seconds(), r.Failure)})
	}
	return all
}

// allows tells whether a fault may cost a request.
func allows(f Fault, r Request, hold time.Duration) bool {
	if f.Workload != "" && f.Workload != r.Workload {
		return false
	}
	a := Allowances()[f.Kind]
	switch {
	case a.Held && r.Begin <= f.Begin && r.End >= f.Begin:
		return true
	case r.Begin >= f.Begin && r.Begin < f.Begin+a.Refused:
		return true
	case a.Late && hold > 0 && r.End-r.Begin >= hold && r.End > f.Begin && r.End < f.End+settling:
		return true
	case a.Gone && r.Begin < f.End+settling && r.End > f.Begin:
		return true
	}
	return false
}

// writers finds writes of a pod that did not hold the lease. Without leases, only one pod may have
// written each workload.
func writers(h History) []Violation {
	var all []Violation
	leases := slices.SortedStableFunc(slices.Values(h.Leases), func(a, b Lease) int { return cmp.Compare(a.At, b.At) })
	only := map[string]string{}
	for _, w := range h.Writes {
		if w.Writer == "" {
			continue
		}
		if len(leases) > 0 {
			if holder := holderAt(leases, w.At); holder != w.Writer {
				all = append(all, Violation{OneWriter, w.At, fmt.Sprintf("%s: %s wrote %d while %q held the lease", w.Workload, w.Writer, w.To, holder)})
			}
			continue
		}
		if first, known := only[w.Workload]; known && first != w.Writer {
			all = append(all, Violation{OneWriter, w.At, fmt.Sprintf("%s: %s wrote %d, and %s wrote before", w.Workload, w.Writer, w.To, first)})
			continue
		}
		only[w.Workload] = w.Writer
	}
	return all
}

// holderAt tells who held the lease; before the first record it was that one's holder.
func holderAt(leases []Lease, at time.Duration) string {
	holder := leases[0].Holder
	for _, l := range leases {
		if l.At > at {
			break
		}
		holder = l.Holder
	}
	return holder
}

// counts checks one write against its workload's bounds, needs, faults and requests.
func counts(h History, workload Workload, w Write) []Violation {
	var all []Violation
	found := func(promise, format string, args ...any) {
		all = append(all, Violation{promise, w.At, fmt.Sprintf("%s: %d → %d ", w.Workload, w.From, w.To) + fmt.Sprintf(format, args...)})
	}
	if w.To < workload.Min || w.To > workload.Max {
		found(WithinBounds, "of %d to %d", workload.Min, workload.Max)
	}
	if workload.Needed > 0 && w.To > workload.Needed {
		found(NotMore, "where the load needs %d", workload.Needed)
	}
	if w.To < w.From {
		for _, f := range h.Faults {
			hits := f.Workload == "" || f.Workload == w.Workload
			if Allowances()[f.Kind].Blind && hits && w.At > f.Begin+stale && w.At < f.End {
				found(NotOnUnknown, "%.3f s after the beginning of: %s", (w.At - f.Begin).Seconds(), f.Kind)
			}
		}
	}
	if w.To == 0 {
		for _, r := range h.Requests {
			if r.Workload == w.Workload && r.Begin+seen <= w.At && r.End > w.At {
				found(NotUnderLoad, "with a request on its way for %.3f s", (w.At - r.Begin).Seconds())
				break
			}
		}
	}
	return all
}
