package v1alpha1_test

import (
	"encoding/json"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
)

// allocated is how many bytes something allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Any spec that the API server may let pass is refused, or drives rounds within its bounds. Neither
// costs more than a bound, whatever stands in it.
func FuzzSpec(f *testing.F) {
	for _, text := range []string{
		`{"scaleTargetRef":{"kind":"Deployment","name":"web"},"serviceRef":{"name":"web"},"maxReplicas":9}`,
		`{"scaleTargetRef":{"kind":"Deployment","name":"web"},"minReplicas":2147483647,"maxReplicas":2147483647,"mode":"DryRun","signals":[{"name":"concurrency","target":{"averageValue":"1e-9"}}]}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"behavior":{"scaleUp":{"stabilizationWindowSeconds":3600,"policies":[{"type":"Percent","value":2147483647,"periodSeconds":1800}]}}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"onMissingData":{"hold":"24h","replicas":3},"scaleToZero":{"after":"1h"},"hold":{"timeout":"1h","maxRequests":1}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"policy":{"name":"cel","parameters":{"expression":"[[1]].map(a,[a,a]).map(a,[a,a]).exists(a,a==a)?1:2"}}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"policy":{"name":"keda","parameters":{"triggers":[{"signal":"concurrency","threshold":1e-300}],"advanced":{"scalingModifiers":{"formula":"concurrency / 0","target":1}}}}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"policy":{"name":"schedule","parameters":{"rules":[{"start":"*/7 3-9 1,15 * 1-5","duration":"1h","replicas":9}]}}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"policy":{"name":"portfolio","parameters":{"experts":[{"name":"histogram","parameters":{"bin":"1s","range":"24h"}},{"name":"pid"}]}}}`,
		`{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":1,"maxReplicas":5,"policy":{"name":"kpa","parameters":{"stableWindow":"1h","scaleDownDelay":"1h","panicWindowPercentage":1}}}`,
	} {
		f.Add([]byte(text), 7.5, 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, load float64, replicas int) {
		var s v1alpha1.AutoscalerSpec
		if len(text) > 64<<10 || json.Unmarshal(text, &s) != nil {
			return
		}
		begin := time.Now()
		bytes := allocated(func() { drive(t, &s, load, min(max(replicas, 0), 1_000_000)) })
		if took := time.Since(begin); bytes > 128<<20 || took > 10*time.Second {
			t.Errorf("%s costs %d bytes and %s, want at most 128 MiB", text, bytes, took)
		}
	})
}

// drive does five rounds of a spec, if it can be driven.
func drive(t *testing.T, s *v1alpha1.AutoscalerSpec, load float64, replicas int) {
	t.Helper()
	spec, err := s.Loop()
	if err != nil {
		return
	}
	l, err := loop.New(spec, catalog.Default(), loop.DefaultTiming())
	if err != nil {
		if errors.Is(err, catalog.ErrTemporary) {
			t.Errorf("%v: may pass, though nothing outside is asked", err)
		}
		return
	}
	defer l.Close()
	at := time.Unix(1_000_000, 0)
	for range 5 {
		v := loop.View{Now: at, Born: at.Add(-2 * time.Hour), Replicas: replicas}
		for _, n := range l.Needs() {
			if n.Window < 0 || n.Window > 2*time.Hour {
				t.Errorf("it needs %s over %s: more than is kept", n.Name, n.Window)
			}
			v.Signals = append(v.Signals, algorithms.Signal{Name: n.Name, Window: n.Window, Value: load, Known: true, Coverage: 1})
		}
		c := l.Step(v)
		if c.Scale != nil {
			if n := *c.Scale; n < 0 || n > int(s.MaxReplicas) && n > replicas {
				t.Errorf("it scales %d to %d, want at most %d", replicas, n, s.MaxReplicas)
			}
			replicas = *c.Scale
		}
		if c.Next <= 0 || c.Next > time.Minute {
			t.Errorf("the next round is due after %s", c.Next)
		}
		l.Done(at, c, nil)
		at = at.Add(2 * time.Second)
	}
}
