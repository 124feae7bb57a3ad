package promises_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

const s = time.Second

// web is a history of one workload of 0 to 5 pods that needs 3, to which change is done.
func web(change func(h *promises.History)) promises.History {
	h := promises.History{
		Hold:      60 * s,
		Workloads: []promises.Workload{{Name: "web", Min: 0, Max: 5, Needed: 3}, {Name: "api", Min: 1, Max: 5}},
		Requests:  []promises.Request{{Workload: "web", Begin: 10 * s, End: 11 * s}},
		Writes:    []promises.Write{{Workload: "web", At: 10 * s, Writer: "a", From: 0, To: 1}, {Workload: "web", At: 30 * s, Writer: "a", From: 1, To: 0}},
	}
	change(&h)
	return h
}

func lost(begin, end time.Duration) promises.Request {
	return promises.Request{Workload: "web", Begin: begin, End: end, Failure: "reset"}
}

func write(at time.Duration, writer string, from, to int) promises.Write {
	return promises.Write{Workload: "web", At: at, Writer: writer, From: from, To: to}
}

func fault(kind promises.Kind, begin, end time.Duration) func(h *promises.History) {
	return func(h *promises.History) {
		h.Faults = append(h.Faults, promises.Fault{Kind: kind, Begin: begin, End: end})
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *promises.History)
		faults []func(h *promises.History)
		want   []string
	}{
		{name: "a quiet run", change: func(*promises.History) {}},

		{name: "a lost request", change: func(h *promises.History) { h.Requests = append(h.Requests, lost(12*s, 13*s)) }, want: []string{promises.NothingLost}},
		{
			name:   "a killed controller loses nothing",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(12*s, 13*s)) },
			faults: []func(*promises.History){fault(promises.ControllerKilled, 12*s, 14*s)}, want: []string{promises.NothingLost},
		},
		{
			name:   "what a killed gateway held",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(12*s, 15*s)) },
			faults: []func(*promises.History){fault(promises.GatewayKilled, 15*s, 15*s)},
		},
		{
			name:   "a connection to the killed gateway",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(16*s, 16*s)) },
			faults: []func(*promises.History){fault(promises.GatewayKilled, 15*s, 15*s)},
		},
		{
			name:   "one long after the gateway was killed",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(21*s, 22*s)) },
			faults: []func(*promises.History){fault(promises.GatewayKilled, 15*s, 15*s)}, want: []string{promises.NothingLost},
		},
		{
			name:   "held for the whole time during an outage",
			change: func(h *promises.History) { h.Requests, h.Writes = append(h.Requests, lost(12*s, 72*s)), nil },
			faults: []func(*promises.History){fault(promises.APIServerStopped, 11*s, 101*s)},
		},
		{
			name:   "held for the whole time, though the outage was over",
			change: func(h *promises.History) { h.Requests, h.Writes = append(h.Requests, lost(12*s, 72*s)), nil },
			faults: []func(*promises.History){fault(promises.APIServerStopped, 11*s, 41*s)}, want: []string{promises.NothingLost},
		},
		{
			name:   "lost at once during an outage",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(12*s, 13*s)) },
			faults: []func(*promises.History){fault(promises.APIServerStopped, 11*s, 101*s)}, want: []string{promises.NothingLost},
		},
		{
			name:   "held for the whole time after an outage",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(101*s, 161*s)) },
			faults: []func(*promises.History){fault(promises.APIServerStopped, 11*s, 101*s)}, want: []string{promises.NothingLost},
		},
		{
			name: "another workload's fault",
			change: func(h *promises.History) {
				h.Requests = append(h.Requests, lost(12*s, 13*s))
				h.Faults = append(h.Faults, promises.Fault{Kind: promises.QuotaZero, Begin: 10 * s, End: 20 * s, Workload: "api"})
			}, want: []string{promises.NothingLost},
		},
		{
			name:   "refused by a quota",
			change: func(h *promises.History) { h.Requests = append(h.Requests, lost(12*s, 13*s)) },
			faults: []func(*promises.History){fault(promises.QuotaZero, 10*s, 20*s)},
		},

		{
			name:   "down on unknown",
			change: func(*promises.History) {},
			faults: []func(*promises.History){fault(promises.ControllerNoSidecars, 20*s, 40*s)}, want: []string{promises.NotOnUnknown},
		},
		{
			name:   "down on what was read before",
			change: func(*promises.History) {},
			faults: []func(*promises.History){fault(promises.ControllerNoSidecars, 28*s, 40*s)},
		},
		{
			name:   "up on unknown",
			change: func(h *promises.History) { h.Writes = []promises.Write{write(30*s, "a", 1, 2)} },
			faults: []func(*promises.History){fault(promises.ControllerNoSidecars, 20*s, 40*s)},
		},

		{
			name: "two writers without a lease",
			change: func(h *promises.History) {
				h.Writes = []promises.Write{write(1*s, "a", 0, 1), write(2*s, "b", 1, 2), write(3*s, "a", 2, 3)}
			}, want: []string{promises.OneWriter},
		},
		{
			name: "a hand-over",
			change: func(h *promises.History) {
				h.Writes = []promises.Write{write(1*s, "a", 0, 1), write(5*s, "b", 1, 2)}
				h.Leases = []promises.Lease{{Holder: "a"}, {At: 3 * s, Holder: ""}, {At: 4 * s, Holder: "b"}}
			},
		},
		{
			name: "a write after the hand-over",
			change: func(h *promises.History) {
				h.Writes = []promises.Write{write(1*s, "a", 0, 1), write(5*s, "a", 1, 2)}
				h.Leases = []promises.Lease{{Holder: "a"}, {At: 4 * s, Holder: "b"}}
			}, want: []string{promises.OneWriter},
		},
		{
			name: "a person's write",
			change: func(h *promises.History) {
				h.Writes = []promises.Write{write(1*s, "a", 0, 1), write(2*s, "", 1, 9), write(3*s, "a", 9, 3)}
			},
		},

		{name: "above the maximum", change: func(h *promises.History) { h.Writes = []promises.Write{write(1*s, "a", 0, 6)} }, want: []string{promises.WithinBounds, promises.NotMore}},
		{
			name: "below the minimum", change: func(h *promises.History) {
				h.Writes = []promises.Write{{Workload: "api", At: s, Writer: "a", From: 1, To: 0}}
			}, want: []string{promises.WithinBounds},
		},
		{name: "more than needed", change: func(h *promises.History) { h.Writes = []promises.Write{write(1*s, "a", 0, 4)} }, want: []string{promises.NotMore}},
		{
			name: "to zero under a request", change: func(h *promises.History) {
				h.Requests = append(h.Requests, promises.Request{Workload: "web", Begin: 26 * s, End: 31 * s})
			}, want: []string{promises.NotUnderLoad},
		},
		{
			name: "to zero as a request comes", change: func(h *promises.History) {
				h.Requests = append(h.Requests, promises.Request{Workload: "web", Begin: 29 * s, End: 31 * s})
			},
		},
		{
			name: "a workload that nobody knows", change: func(h *promises.History) {
				h.Writes = []promises.Write{{Workload: "other", At: s, Writer: "a", To: 1}}
			}, want: []string{promises.KnownWorkload},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := web(test.change)
			for _, f := range test.faults {
				f(&h)
			}
			var got []string
			for _, v := range promises.Check(h) {
				got = append(got, v.Promise)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Check: violated promises (-want +got):\n%s%v", diff, promises.Check(h))
			}
		})
	}
}

// Every kind says what it may cost, so that a new one is not held to nothing by an oversight.
func TestAllowances(t *testing.T) {
	all := promises.Allowances()
	if len(all) != 17 {
		t.Errorf("%d kinds have an allowance, want 17: a new kind needs one, and a fault in testbed/e2e", len(all))
	}
	for kind, a := range all {
		if a.Refused > 5*time.Second {
			t.Errorf("%s: new connections may fail for %v, want at most 5 s", kind, a.Refused)
		}
	}
}
