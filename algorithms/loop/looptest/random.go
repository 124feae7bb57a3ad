package looptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Same gives random histories to two shells and fails where their commands differ. Instances, path
// and readings of a history follow from the commands, as they would in a cluster, or do not.
func Same(t *testing.T, histories, rounds int, one, other Open) {
	t.Helper()
	moved := 0
	for seed := range uint64(histories) {
		rng := rand.New(rand.NewPCG(seed, 7))
		spec, timing := randomSpec(rng), loop.DefaultTiming()
		a, b := one(t, spec, timing), other(t, spec, timing)
		w := world{spec: spec, timing: timing, shell: a}
		now, replicas, ready, in := Epoch(), rng.IntN(4), 0, false
		for i := range rounds {
			ready = min(ready+rng.IntN(2), replicas)
			if rng.IntN(15) == 0 {
				ready = rng.IntN(replicas + 1)
			}
			v := loop.View{Now: now, Born: Epoch().Add(-time.Hour), Replicas: replicas}
			w.instances(now, ready, replicas-ready, rng.IntN(2), 0, float64(rng.IntN(2)*10), "")
			v.Instances = w.pods
			waiting, demand := 0.0, "0"
			if rng.IntN(3) > 0 {
				demand = fmt.Sprint(rng.IntN(200))
			}
			if rng.IntN(6) == 0 {
				demand = "unknown"
			}
			if rng.IntN(4) == 0 {
				waiting = float64(rng.IntN(30))
			}
			w.signals(&v, demand, 0.4+0.6*rng.Float64(), time.Duration(rng.IntN(3000))*time.Millisecond, waiting)
			if spec.ServiceRef != nil {
				v.Path = &loop.Path{In: in && rng.IntN(10) > 0, Ready: ready, Listening: min(rng.IntN(6), 2), Waiting: int(waiting)}
			}
			var fault error
			if rng.IntN(10) == 0 {
				fault = errors.New("the platform refuses")
			}
			x, y := a.Round(v, fault), b.Round(v, fault)
			names := []string{"scale", "path", "failure", "next", "phase", "reason"}
			if fault != nil { // what follows a fault is the shell's
				names = []string{"scale", "phase", "reason"}
			}
			if p, q := describe(&x, names), describe(&y, names); p != q {
				t.Fatalf("history %d, round %d:\n one shell   %s\n the other   %s\n view %+v", seed, i, p, q, v)
			}
			if x.Scale != nil && fault == nil {
				replicas, moved = *x.Scale, moved+1
			}
			if x.Path != nil {
				in = x.Path.In
			}
			now = now.Add(time.Duration(rng.Int64N(int64(x.Next))) + time.Millisecond)
			if rng.IntN(10) == 0 {
				now = now.Add(time.Minute)
			}
		}
	}
	if moved < histories {
		t.Errorf("only %d changes in %d histories: the test shows little", moved, histories)
	}
}

func randomSpec(rng *rand.Rand) loop.Spec {
	s := loop.Spec{MaxReplicas: 3 + rng.IntN(20), MinReplicas: rng.IntN(3)}
	if s.MinReplicas == 0 || rng.IntN(3) > 0 {
		s.ServiceRef = &loop.ServiceRef{Name: "web"}
	}
	s.ScaleToZero = &loop.ScaleToZero{After: new(algorithms.Duration(time.Second * time.Duration(1+rng.IntN(60))))}
	if q, err := algorithms.ParseQuantity("10"); err == nil {
		s.Signals = []loop.Signal{{Name: algorithms.Concurrency, Target: loop.Target{AverageValue: q}}}
	}
	switch rng.IntN(3) {
	case 0:
		s.Policy = loop.Policy{Name: "target", Parameters: json.RawMessage(`{"stabilizationWindow":"5s"}`)}
	case 1:
		s.OnMissingData = &loop.MissingData{Hold: new(algorithms.Duration(10 * time.Second)), Replicas: new(2)}
	}
	return s
}
