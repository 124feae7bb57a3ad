package activation_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/scaler/activation"
)

func TestNext(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	timing := activation.Timing{Grace: 2 * time.Second, Linger: 5 * time.Second}
	tests := map[string]struct {
		m    activation.Memory
		in   activation.Input
		want activation.Plan
	}{
		"awake":                       {in: activation.Input{Desired: 3, Valid: true, Current: 2, Ready: 2, Gateways: 1}, want: activation.Plan{Phase: activation.Awake, Replicas: 3}},
		"no decision keeps the count": {in: activation.Input{Current: 2, Ready: 2, Gateways: 1}, want: activation.Plan{Phase: activation.Awake, Replicas: 2}},
		"idle: the slice comes first": {
			in:   activation.Input{Desired: 0, Valid: true, Current: 1, Ready: 1, Gateways: 1},
			want: activation.Plan{Phase: activation.GoingToSleep, Slice: true, Replicas: 1},
		},
		"idle: proxies are given time": {
			m:    activation.Memory{Phase: activation.GoingToSleep, SliceSince: now.Add(-time.Second)},
			in:   activation.Input{Desired: 0, Valid: true, Current: 1, Ready: 1, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.GoingToSleep, Slice: true, Replicas: 1},
		},
		"idle: then no replicas": {
			m:    activation.Memory{Phase: activation.GoingToSleep, SliceSince: now.Add(-2 * time.Second)},
			in:   activation.Input{Desired: 0, Valid: true, Current: 1, Ready: 1, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.Asleep, Slice: true},
		},
		"idle without a gateway keeps one pod": {
			in:   activation.Input{Desired: 0, Valid: true, Current: 3, Ready: 3},
			want: activation.Plan{Phase: activation.Awake, Replicas: 1},
		},
		"a request while falling asleep": {
			m:    activation.Memory{Phase: activation.GoingToSleep, SliceSince: now.Add(-time.Second)},
			in:   activation.Input{Desired: 1, Valid: true, Current: 1, Ready: 1, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.Awake, Replicas: 1},
		},
		"asleep":           {in: activation.Input{Desired: 0, Valid: true, Gateways: 1}, want: activation.Plan{Phase: activation.Asleep, Slice: true}},
		"asleep and blind": {in: activation.Input{Gateways: 1}, want: activation.Plan{Phase: activation.Asleep, Slice: true}},
		"waking":           {in: activation.Input{Desired: 2, Valid: true, Waiting: 12, Gateways: 1, SliceIn: true}, want: activation.Plan{Phase: activation.Waking, Slice: true, Replicas: 2}},
		"waking: a first pod of two is ready": {
			m:    activation.Memory{Phase: activation.Waking},
			in:   activation.Input{Desired: 2, Valid: true, Current: 2, Ready: 1, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.Waking, Slice: true, Replicas: 2},
		},
		"waking: not for ever": {
			m:    activation.Memory{Phase: activation.Waking, ReadySince: now.Add(-5 * time.Second)},
			in:   activation.Input{Desired: 2, Valid: true, Current: 2, Ready: 1, Waiting: 3, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.Awake, Replicas: 2},
		},
		"awake again once all are ready": {
			m:    activation.Memory{Phase: activation.Waking},
			in:   activation.Input{Desired: 2, Valid: true, Current: 2, Ready: 2, Gateways: 1, SliceIn: true},
			want: activation.Plan{Phase: activation.Awake, Replicas: 2},
		},
		"all pods lost while awake": {
			m:    activation.Memory{Phase: activation.Awake},
			in:   activation.Input{Desired: 3, Valid: true, Current: 3, Ready: 0, Gateways: 1},
			want: activation.Plan{Phase: activation.Waking, Slice: true, Replicas: 3},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.in.Now = now
			_, got := activation.Next(tt.m, tt.in, timing)
			if got.Phase != tt.want.Phase || got.Slice != tt.want.Slice || got.Replicas != tt.want.Replicas {
				t.Errorf("Next(%+v, %+v) = %+v, want %+v", tt.m, tt.in, got, tt.want)
			}
		})
	}
}

// TestNeverZeroBeforeTheSliceWasSeen drives random sequences: whenever the last replicas are taken away, the slice has been in
// place without a break for the grace time, and whenever no pod is ready, the slice is wanted.
func TestNeverZeroBeforeTheSliceWasSeen(t *testing.T) {
	t.Parallel()
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	timing := activation.Timing{Grace: 2 * time.Second, Linger: 5 * time.Second}
	for range 200 {
		var m activation.Memory
		now := time.Unix(1_000_000, 0)
		current, ready, slice := 1, 1, false
		var since time.Time
		slept := 0
		for range 500 {
			in := activation.Input{
				Now: now, Valid: rng.IntN(10) > 0, Current: current, Ready: ready, Gateways: rng.IntN(8), SliceIn: slice && rng.IntN(20) > 0,
			}
			if rng.IntN(6) == 0 {
				in.Desired, in.Waiting = rng.IntN(4), rng.IntN(3)
			}
			in.Gateways = min(in.Gateways, 1)
			if !in.SliceIn {
				since = time.Time{}
			} else if since.IsZero() {
				since = now
			}
			var p activation.Plan
			m, p = activation.Next(m, in, timing)
			if ready == 0 && !p.Slice {
				t.Fatalf("seed %d: no pod is ready and the slice is not wanted: %+v → %+v", seed, in, p)
			}
			if current > 0 && p.Replicas == 0 {
				slept++
				if since.IsZero() || now.Sub(since) < timing.Grace {
					t.Fatalf("seed %d: replicas taken away %v after the slice came in, want at least %v: %+v", seed, now.Sub(since), timing.Grace, in)
				}
			}
			current, slice = p.Replicas, p.Slice
			ready = min(ready, current)
			if rng.IntN(3) == 0 {
				ready = current
			}
			now = now.Add(time.Duration(100+rng.IntN(900)) * time.Millisecond)
		}
		if slept == 0 {
			t.Fatalf("seed %d: the workload never slept: the test shows nothing", seed)
		}
	}
}
