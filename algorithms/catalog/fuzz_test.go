package catalog_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
)

// Any parameters and any line of observation: either an error, or decisions that are finite and, in
// guard, within the line's limits.
func FuzzPolicies(f *testing.F) {
	all := catalog.Default().All()
	const line = `{"t": 30, "current": 10, "ready": 8, "starting": 2, "signals": {"concurrency": {"60s": 100, "30s": 90, "6s": 300, "0s": 9}, "rate": {"60s": 5}, "duration": {"60s": 0.2}, "q": {"0s": 50}}, "limits": {"min": 1, "max": 20}}`
	for i, params := range []string{
		`{"expression": "signal('q', '0s') / target"}`, `{"replicas": 3}`, `{"behavior": {}}`, `{"triggers": [{"signal": "q", "threshold": 5}], "fallback": {"replicas": 3}}`,
		`{"minCount": 1, "range": "10m"}`, `{"waitGoal": "1s", "violationBudget": 0.1}`, `{"experts": [{"name": "fixed"}, {"name": "target"}], "block": "10s"}`, `{"bin": "1h", "harmonics": 3}`,
		`{"reachable": false}`, `{"kp": 1, "kd": 600}`, `{"timeZone": "Europe/Berlin", "rules": [{"start": "* * * * *", "duration": "1h", "replicas": 9}]}`,
		`{"load": "Rate", "waitProbability": 0, "tailWait": "1s", "tailProbability": 0.1}`, `{"adjustmentType": "PercentChangeInCapacity"}`, `{"evaluationPeriod": "1m", "scaleInPoints": 15}`,
	} {
		f.Add(i, params, line)
	}
	f.Fuzz(func(t *testing.T, which int, params, text string) {
		e := all[uint(which)%uint(len(all))]
		p, err := e.New(10, json.RawMessage(params))
		o, bad := record.Unmarshal([]byte(text))
		if err != nil || bad != nil {
			return
		}
		next := o
		next.Now = o.Now.Add(40 * time.Second)
		next.Replicas.Current = min(2*o.Replicas.Current, 1_000_000)
		seq := []algorithms.Observation{o, next, o}
		seq[2].Now = next.Now
		for _, one := range seq {
			if d := p.Decide(one); d.Valid && (d.Replicas < 0 || d.Replicas > 1_000_000) {
				t.Fatalf("%s %s answers %+v", e.Name, params, d)
			}
		}
		fresh, err := e.New(10, json.RawMessage(params))
		if err != nil {
			t.Fatalf("%s %s is taken once and refused once: %v", e.Name, params, err)
		}
		guarded, err := guard.New(guard.Default(), fresh)
		if err != nil {
			t.Fatal(err)
		}
		policytest.Run(t, guarded, seq)
	})
}
