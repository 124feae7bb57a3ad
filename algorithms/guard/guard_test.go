package guard_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// says is a policy that answers a fixed count from the signal it needs.
type says struct{ n int }

func (s says) Needs() []algorithms.Need {
	return []algorithms.Need{{Name: algorithms.Concurrency, Window: time.Minute}}
}

func (s says) Decide(o algorithms.Observation) algorithms.Decision {
	if _, ok := o.Signal(algorithms.Concurrency, time.Minute); !ok {
		return algorithms.Decision{Reason: "NoData", Message: "unknown"}
	}
	return algorithms.Decision{Replicas: s.n, Valid: true, Reason: "Says"}
}
func (s says) Snapshot() json.RawMessage     { return nil }
func (s says) Restore(json.RawMessage) error { return nil }

const idleAfter = 90 * time.Second

func TestDecide(t *testing.T) {
	t.Parallel()
	known := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute, Value: 5, Known: true, Coverage: 1}
	half := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute, Value: 5, Known: false, Coverage: 0.5}
	thin := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute, Value: 5, Known: true, Coverage: 0.5}
	none := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute}
	idle := algorithms.Signal{Name: algorithms.Concurrency, Window: idleAfter, Known: true, Coverage: 1}
	idleUnseen := algorithms.Signal{Name: algorithms.Concurrency, Window: idleAfter, Known: true, Coverage: 0.5}
	busy := algorithms.Signal{Name: algorithms.Concurrency, Window: idleAfter, Value: 1e-9, Known: true, Coverage: 1}
	waits := func(n float64) algorithms.Signal {
		return algorithms.Signal{Name: algorithms.Waiting, Window: algorithms.Instant, Value: n, Known: true, Coverage: 1}
	}
	tests := map[string]struct {
		says       int
		cur, ready int
		limits     algorithms.Limits
		signals    []algorithms.Signal
		want       int
		valid      bool
		reason     string
	}{
		"the policy's word within bounds":     {4, 2, 2, algorithms.Limits{Max: 10}, []algorithms.Signal{known, waits(0)}, 4, true, "Says"},
		"upper bound":                         {40, 2, 2, algorithms.Limits{Max: 10}, []algorithms.Signal{known, waits(0)}, 10, true, "MaxReplicas"},
		"lower bound":                         {1, 2, 2, algorithms.Limits{Min: 2, Max: 10}, []algorithms.Signal{known, waits(0)}, 2, true, "MinReplicas"},
		"zero after a seen idle time":         {0, 1, 1, algorithms.Limits{Max: 10}, []algorithms.Signal{known, idle, waits(0)}, 0, true, "Says"},
		"not zero when something came":        {0, 1, 1, algorithms.Limits{Max: 10}, []algorithms.Signal{known, busy, waits(0)}, 1, true, "NotIdleYet"},
		"not zero when idleness was not seen": {0, 1, 1, algorithms.Limits{Max: 10}, []algorithms.Signal{known, idleUnseen, waits(0)}, 1, true, "NotIdleYet"},
		"not zero while one waits":            {0, 1, 1, algorithms.Limits{Max: 10}, []algorithms.Signal{known, idle, waits(1)}, 1, true, "NotIdleYet"},
		"not zero when waiting is unknown":    {0, 1, 1, algorithms.Limits{Max: 10}, []algorithms.Signal{known, idle}, 1, true, "NotIdleYet"},
		"asleep stays asleep":                 {0, 0, 0, algorithms.Limits{Max: 10}, []algorithms.Signal{known, waits(0)}, 0, true, "Says"},
		"wakes by what waits":                 {1, 0, 0, algorithms.Limits{Max: 10}, []algorithms.Signal{known, waits(35)}, 4, true, "Wake"},
		"wakes on unknown signals":            {1, 0, 0, algorithms.Limits{Max: 10}, []algorithms.Signal{none, waits(1)}, 1, true, "Wake"},
		"wakes within the upper bound":        {1, 0, 0, algorithms.Limits{Max: 3}, []algorithms.Signal{known, waits(500)}, 3, true, "MaxReplicas"},
		"takes nothing back while waking":     {1, 5, 0, algorithms.Limits{Max: 10}, []algorithms.Signal{known, waits(1)}, 5, true, "Wake"},
		"blind holds":                         {9, 3, 3, algorithms.Limits{Max: 10}, []algorithms.Signal{none, waits(0)}, 0, false, "NoData"},
		"partial never goes down":             {1, 3, 3, algorithms.Limits{Max: 10}, []algorithms.Signal{half, waits(0)}, 0, false, "PartialData"},
		"partial may go up":                   {5, 3, 3, algorithms.Limits{Max: 10}, []algorithms.Signal{half, waits(0)}, 5, true, "Says"},
		"known but thin never goes down":      {1, 3, 3, algorithms.Limits{Max: 10}, []algorithms.Signal{thin, waits(0)}, 0, false, "PartialData"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := guard.New(guard.Config{IdleAfter: idleAfter, Target: 10}, says{tt.says})
			if err != nil {
				t.Fatal(err)
			}
			d := p.Decide(algorithms.Observation{
				Now: time.Unix(1_000_000, 0), Signals: tt.signals, Limits: tt.limits,
				Replicas: algorithms.Replicas{Current: tt.cur, Ready: tt.ready},
			})
			if d.Valid != tt.valid || d.Reason != tt.reason || tt.valid && d.Replicas != tt.want {
				t.Errorf("Decide = %d, valid %v, %s (%s); want %d, %v, %s", d.Replicas, d.Valid, d.Reason, d.Message, tt.want, tt.valid, tt.reason)
			}
		})
	}
}

// Idle are the signals that the configuration names, all of them; and what a source says of an
// unknown signal is said on.
func TestIdleBySignals(t *testing.T) {
	t.Parallel()
	c := guard.Default()
	c.IdleAfter, c.Idle = idleAfter, []string{"queue_depth", algorithms.Concurrency}
	signal := func(name string, value, coverage float64) algorithms.Signal {
		return algorithms.Signal{Name: name, Window: idleAfter, Value: value, Known: coverage > 0, Coverage: coverage}
	}
	known := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute, Value: 5, Known: true, Coverage: 1}
	waits := algorithms.Signal{Name: algorithms.Waiting, Window: algorithms.Instant, Known: true, Coverage: 1}
	for name, tt := range map[string]struct {
		queue, requests algorithms.Signal
		want            int
	}{
		"both are idle":        {signal("queue_depth", 0, 1), signal(algorithms.Concurrency, 0, 1), 0},
		"the queue is not":     {signal("queue_depth", 1, 1), signal(algorithms.Concurrency, 0, 1), 1},
		"requests are not":     {signal("queue_depth", 0, 1), signal(algorithms.Concurrency, 1, 1), 1},
		"the queue is unknown": {signal("queue_depth", 0, 0), signal(algorithms.Concurrency, 0, 1), 1},
		"it is known in part":  {signal("queue_depth", 0, 0.5), signal(algorithms.Concurrency, 0, 1), 1},
	} {
		p, err := guard.New(c, says{0})
		if err != nil {
			t.Fatal(err)
		}
		d := p.Decide(algorithms.Observation{
			Now: time.Unix(1e9, 0), Limits: algorithms.Limits{Max: 10}, Replicas: algorithms.Replicas{Current: 1, Ready: 1},
			Signals: []algorithms.Signal{known, tt.queue, tt.requests, waits},
		})
		if d.Replicas != tt.want {
			t.Errorf("%s: %d replicas, want %d", name, d.Replicas, tt.want)
		}
	}
	p, err := guard.New(c, says{0})
	if err != nil {
		t.Fatal(err)
	}
	unknown := algorithms.Signal{Name: algorithms.Concurrency, Window: time.Minute, Missing: "Prometheus has no sample of it"}
	d := p.Decide(algorithms.Observation{Now: time.Unix(1e9, 0), Limits: algorithms.Limits{Max: 10}, Replicas: algorithms.Replicas{Current: 1, Ready: 1}, Signals: []algorithms.Signal{unknown, waits}})
	if d.Valid || d.Message != "unknown (concurrency: Prometheus has no sample of it)" {
		t.Errorf("it answers %+v", d)
	}
}
