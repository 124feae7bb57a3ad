package lane_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/gateway/lane"
	"github.com/sluice-autoscaler/sluice/wire"
)

// FuzzPath takes a port into the path and out of it, in any order and at any pace, told by bytes:
// it takes connections while it is in and for the linger after it was, and at no other time.
func FuzzPath(f *testing.F) {
	f.Add([]byte{0, 1, 255, 0, 0, 64, 128, 1})
	f.Add([]byte{1, 1, 0, 254, 0, 3, 5})
	f.Fuzz(func(t *testing.T, history []byte) {
		const linger = 100 * time.Millisecond
		now, left, in := time.Duration(0), time.Duration(-1), false
		work := lane.NewWorkers(t.Context())
		defer work.Close()
		target := assignment.Target{Namespace: "shop", Service: "web"}
		a := wire.Assignment{Namespace: "shop", Service: "web", Listen: 1, Protocol: assignment.HTTP, MaxHeld: 1, MaxHeldBytes: 1, HoldSeconds: 1, PodConcurrency: 1}
		queue := hold.New(hold.Limits{}, hold.NewBudget(1).Share("shop", "web"), rand.New(rand.NewPCG(1, 1)))
		l := lane.New(lane.Options{
			Target: target, Clock: func() time.Duration { return now }, Notify: func(bool) {}, Work: work, Queue: queue,
			ProbeInterval: time.Millisecond, PathLinger: linger,
		}, a)
		for i, b := range history {
			now += time.Duration(b/2) * time.Millisecond
			was := in
			in = b&1 == 1
			if was && !in {
				left = now
			}
			a.InPath = in
			l.Assign(a)
			now += time.Duration(b%7) * time.Millisecond
			if want := in || left >= 0 && now-left < linger; l.Admits() != want {
				t.Fatalf("step %d: admits %v, want %v: in %v, left %v ago", i, l.Admits(), want, in, now-left)
			}
		}
	})
}
