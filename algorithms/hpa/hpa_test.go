package hpa_test

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
)

// policy makes an hpa policy of JSON parameters.
func policy(tb testing.TB, params string) *hpa.Policy {
	tb.Helper()
	c := hpa.Default()
	if err := algorithms.Strict(json.RawMessage(params), &c); err != nil {
		tb.Fatal(err)
	}
	p, err := hpa.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// calculator is a policy without the stock limits.
func calculator(tb testing.TB, params string) *hpa.Policy {
	tb.Helper()
	return policy(tb, strings.Replace(params, "{", `{"limits":"none",`, 1))
}

func observe(tb testing.TB, line string) algorithms.Observation {
	tb.Helper()
	o, err := record.Unmarshal([]byte(line))
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// pods writes a list of pods: each word is a milli-value of the signal m, or a state without a
// value.
func pods(words string) string {
	var out []string
	for w := range strings.FieldsSeq(words) {
		switch {
		case w == "missing":
			out = append(out, `{"state":"ready"}`)
		case w[0] >= '0' && w[0] <= '9':
			v, _ := algorithms.ParseQuantity(w)
			b, _ := json.Marshal(v.Float())
			out = append(out, `{"state":"ready","values":{"m":`+string(b)+`},"requests":{"m":1}}`)
		default:
			out = append(out, `{"state":"`+w+`","requests":{"m":1}}`)
		}
	}
	return "[" + strings.Join(out, ",") + "]"
}

const (
	perPod   = `{"metrics":[{"type":"Pods","pods":{"metric":{"name":"m"},"target":{"type":"AverageValue","averageValue":"TARGET"}}}]}`
	value    = `{"metrics":[{"type":"External","external":{"metric":{"name":"q"},"target":{"type":"Value","value":"TARGET"}}}]}`
	average  = `{"metrics":[{"type":"Object","object":{"metric":{"name":"q"},"target":{"type":"AverageValue","averageValue":"TARGET"}}}]}`
	resource = `{"metrics":[{"type":"Resource","resource":{"name":"m","target":{"type":"Utilization","averageUtilization":TARGET}}}]}`
)

// TestVectors holds values computed by hand from the HPA's arithmetic; the oracle holds the rest.
func TestVectors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		params, target, line string
		want                 int
		valid                bool
	}{
		"three of ten missing, going down":         {perPod, "100m", `{"t":1,"current":10,"pods":` + pods("50m 50m 50m 50m 50m 50m 50m missing missing missing") + `}`, 7, true},
		"one of three pending, going up":           {perPod, "100m", `{"t":1,"current":3,"pods":` + pods("pending 200m 200m") + `}`, 4, true},
		"truncated thousandths stay in the band":   {perPod, "10m", `{"t":1,"current":5,"pods":` + pods("11m 11m 11m 11m 14m") + `}`, 5, true},
		"qps of the issue's example":               {perPod, "10", `{"t":32,"current":3,"pods":` + pods("50 missing pending") + `}`, 5, true},
		"all missing":                              {perPod, "10", `{"t":1,"current":3,"pods":` + pods("missing missing missing") + `}`, 0, false},
		"no pods":                                  {perPod, "10", `{"t":1,"current":3,"pods":[]}`, 0, false},
		"failed and terminating ones are ignored":  {perPod, "10", `{"t":1,"current":2,"pods":` + pods("30 30 failed terminating") + `}`, 6, true},
		"missing turns up into nothing":            {perPod, "10", `{"t":1,"current":2,"pods":` + pods("15 missing") + `}`, 2, true},
		"upper edge of the band":                   {perPod, "1000", `{"t":1,"current":1,"pods":` + pods("1100") + `}`, 1, true},
		"just over the band":                       {perPod, "1000", `{"t":1,"current":1,"pods":` + pods("1101") + `}`, 2, true},
		"lower edge of the band":                   {perPod, "1000", `{"t":1,"current":10,"pods":` + pods("900 900 900 900 900 900 900 900 900 900") + `}`, 10, true},
		"only totals are told":                     {perPod, "10", `{"t":1,"current":4,"ready":4,"signals":{"m":{"0s":80}}}`, 8, true},
		"value by ready pods":                      {value, "10", `{"t":1,"current":4,"ready":3,"starting":1,"signals":{"q":{"0s":20}}}`, 6, true},
		"value from zero":                          {value, "10", `{"t":1,"current":0,"signals":{"q":{"60s":21}}}`, 3, true},
		"value unknown":                            {value, "10", `{"t":1,"current":4,"signals":{"q":{"0s":null}}}`, 0, false},
		"average is independent of readiness":      {average, "10", `{"t":1,"current":4,"ready":1,"starting":3,"signals":{"q":{"0s":70}}}`, 7, true},
		"average in the band":                      {average, "10", `{"t":1,"current":4,"signals":{"q":{"0s":43}}}`, 4, true},
		"average from zero":                        {average, "10", `{"t":1,"current":0,"signals":{"q":{"0s":11}}}`, 2, true},
		"average at zero of nothing":               {average, "10", `{"t":1,"current":0,"signals":{"q":{"0s":0}}}`, 0, true},
		"shortest window for want of a reading":    {average, "10", `{"t":1,"current":1,"signals":{"q":{"60s":500,"6s":30}}}`, 3, true},
		"utilization":                              {resource, "50", `{"t":1,"current":2,"pods":` + pods("900m 900m") + `}`, 4, true},
		"missing use all they ask for, going down": {resource, "50", `{"t":1,"current":4,"pods":[{"state":"ready","values":{"m":0.1},"requests":{"m":1}},{"state":"ready","values":{"m":0.1},"requests":{"m":1}},{"state":"ready","values":{"m":0.1},"requests":{"m":1}},{"state":"ready","requests":{"m":1}}]}`, 3, true},
		"utilization without requests":             {resource, "50", `{"t":1,"current":1,"pods":[{"state":"ready","values":{"m":0.9}}]}`, 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := calculator(t, strings.Replace(tt.params, "TARGET", tt.target, 1)).Decide(observe(t, tt.line))
			if d.Valid != tt.valid || d.Valid && d.Replicas != tt.want {
				t.Errorf("Decide = %d, valid %v (%s); want %d, %v", d.Replicas, d.Valid, d.Message, tt.want, tt.valid)
			}
		})
	}
}

func TestSomeMetricsFail(t *testing.T) {
	t.Parallel()
	const two = `{"metrics":[
		{"type":"External","external":{"metric":{"name":"a"},"target":{"type":"AverageValue","averageValue":10}}},
		{"type":"External","external":{"metric":{"name":"b"},"target":{"type":"AverageValue","averageValue":10}}}]}`
	tests := map[string]struct {
		signals string
		want    int
		valid   bool
		reason  string
	}{
		"the larger wins":                   {`{"a":{"0s":60},"b":{"0s":30}}`, 6, true, "Metrics"},
		"up in spite of a failed one":       {`{"a":{"0s":60}}`, 6, true, "Metrics"},
		"not down in spite of a failed one": {`{"a":{"0s":20}}`, 0, false, "SomeMetricsFailed"},
		"all failed":                        {`{}`, 0, false, "NoData"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy(t, two).Decide(observe(t, `{"t":1,"current":4,"signals":`+tt.signals+`}`))
			if d.Valid != tt.valid || d.Reason != tt.reason || d.Valid && d.Replicas != tt.want {
				t.Errorf("Decide = %d, valid %v, %s (%s); want %d, %v, %s", d.Replicas, d.Valid, d.Reason, d.Message, tt.want, tt.valid, tt.reason)
			}
		})
	}
}

// TestDefaultRates takes the HPA's defaults from 1 to 50 in steps of 15 s, and down only after 300
// s.
func TestDefaultRates(t *testing.T) {
	t.Parallel()
	p := policy(t, `{"target":1,"minReplicas":1,"maxReplicas":100,"behavior":{}}`)
	cur, now := 1, time.Unix(1_000_000, 0)
	step := func(demand float64) int {
		d := p.Decide(algorithms.Observation{
			Now: now, Replicas: algorithms.Replicas{Current: cur, Ready: cur}, Limits: algorithms.Limits{Max: 100},
			Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Value: demand, Known: true, Coverage: 1}},
		})
		cur, now = d.Replicas, now.Add(15*time.Second)
		return cur
	}
	for i, want := range []int{5, 10, 20, 40, 50, 50} {
		if got := step(50); got != want {
			t.Fatalf("step %d up = %d, want %d", i, got, want)
		}
	}
	for i := range 19 {
		if got := step(1); got != 50 {
			t.Fatalf("step %d of a lull = %d, want 50 for 300 s", i, got)
		}
	}
	if got := step(1); got != 1 {
		t.Fatalf("after 300 s = %d, want 1", got)
	}
}

// TestStock takes an HPA without behavior: the largest answer of 300 s, and 4 pods or twice as many
// in 15 s however often it is asked.
func TestStock(t *testing.T) {
	t.Parallel()
	for _, tick := range []int{1, 2, 5, 15} {
		p := policy(t, `{"target":1}`)
		cur, counts := 1, map[int]int{}
		at := 0
		for ; at < 500; at += tick {
			demand := 49.0
			if at >= 120 {
				demand = 1
			}
			d := p.Decide(algorithms.Observation{
				Now: time.Unix(1_000_000, 0).Add(time.Duration(at) * time.Second), Replicas: algorithms.Replicas{Current: cur, Ready: cur}, Limits: algorithms.Limits{Min: 1, Max: 100},
				Signals: []algorithms.Signal{{Name: algorithms.Concurrency, Value: demand, Known: true, Coverage: 1}},
			})
			counts[at], cur = cur, d.Replicas
			if before, ok := counts[at-14]; ok && cur > max(2*before, 4) {
				t.Errorf("tick %d s: %d pods at %d s, 14 s after %d", tick, cur, at, before)
			}
			if at >= 120 && at < 405 && cur != 49 {
				t.Fatalf("tick %d s: %d pods at %d s, want 49 for 300 s", tick, cur, at)
			}
		}
		if cur != 1 {
			t.Errorf("tick %d s: %d pods in the end, want 1", tick, cur)
		}
	}
}

// TestYieldLimits takes away what is stock, and leaves what was stated.
func TestYieldLimits(t *testing.T) {
	t.Parallel()
	for params, want := range map[string]int{`{"target":1}`: 49, `{"target":1,"maxReplicas":100}`: 49, `{"target":1,"behavior":{}}`: 5} {
		p := policy(t, params)
		p.YieldLimits()
		if d := p.Decide(observe(t, `{"t":1,"current":1,"limits":{"max":100},"signals":{"concurrency":{"0s":49}}}`)); d.Replicas != want {
			t.Errorf("%s: %d pods, want %d", params, d.Replicas, want)
		}
	}
}

// TestSyncPeriod looks at the metrics once in 15 s, and at any time at zero.
func TestSyncPeriod(t *testing.T) {
	t.Parallel()
	p := policy(t, `{"target":1,"limits":"none","syncPeriod":"15s"}`)
	for _, s := range []struct {
		line  string
		want  int
		valid bool
	}{
		{`{"t":100,"current":4,"signals":{"concurrency":{"0s":6}}}`, 6, true},
		{`{"t":101,"current":6,"signals":{"concurrency":{"0s":20}}}`, 6, false},
		{`{"t":110,"current":0,"signals":{"concurrency":{"0s":20}}}`, 20, true},
		{`{"t":114,"current":20,"signals":{"concurrency":{"0s":3}}}`, 20, false},
		{`{"t":115,"current":20,"signals":{"concurrency":{"0s":3}}}`, 3, true},
		{`{"t":129,"current":3,"signals":{"concurrency":{"0s":30}}}`, 3, false},
	} {
		d := p.Decide(observe(t, s.line))
		if d.Valid != s.valid || d.Replicas != s.want {
			t.Errorf("%s: %d, valid %t, %s; want %d, %t", s.line, d.Replicas, d.Valid, d.Reason, s.want, s.valid)
		}
	}
	again := policy(t, `{"target":1,"limits":"none","syncPeriod":"15s"}`)
	if err := again.Restore(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if d := again.Decide(observe(t, `{"t":129,"current":3,"signals":{"concurrency":{"0s":30}}}`)); d.Valid {
		t.Errorf("a restored policy does not wait: %+v", d)
	}
}

// TestNearestThousandth reads a float as our own metrics API serves it, and no reading below zero.
func TestNearestThousandth(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{"70.0003": 7, "70.0005": 8, "70.001": 8, "-30": -1, "null": -1} {
		d := calculator(t, `{"target":10}`).Decide(observe(t, `{"t":1,"current":1,"signals":{"concurrency":{"0s":`+value+`}}}`))
		if got := map[bool]int{true: d.Replicas, false: -1}[d.Valid]; got != want {
			t.Errorf("%s at 10: %d pods, want %d", value, got, want)
		}
	}
}

// TestReleases holds what 1.38 does otherwise.
func TestReleases(t *testing.T) {
	t.Parallel()
	const huge = `{"t":1,"current":2,"signals":{"q":{"0s":1e15}}}`
	tests := map[string]struct {
		params, target, line string
		want                 map[string]int
	}{
		"a pod that succeeded is no missing one": {perPod, "100", `{"t":1,"current":3,"pods":` + pods("50 50 succeeded") + `}`, map[string]int{"1.37": 2, "1.38": 1}},
		"overhead is in the requests of 1.37": {
			resource, "50", `{"t":1,"current":1,"pods":[{"state":"ready","values":{"m":0.8},"requests":{"m":1},"overhead":{"m":1}}]}`,
			map[string]int{"1.37": 1, "1.38": 2},
		},
		"saturation":                              {average, "1m", huge, map[string]int{"1.37": 1_000_000, "1.38": 1_000_000}},
		"no tolerance over no pods":               {average, "10", `{"t":1,"current":3,"ready":0,"signals":{"q":{"0s":0}}}`, map[string]int{"1.37": 0, "1.38": 0}},
		"within tolerance the pods that exist":    {average, "10", `{"t":1,"current":20,"ready":19,"signals":{"q":{"0s":195}}}`, map[string]int{"1.37": 19, "1.38": 19}},
		"within tolerance the surge of a rollout": {average, "10", `{"t":1,"current":20,"ready":20,"starting":2,"signals":{"q":{"0s":210}}}`, map[string]int{"1.37": 22, "1.38": 22}},
	}
	for name, tt := range tests {
		for release, want := range tt.want {
			for _, written := range []string{release, `"` + release + `"`} {
				params := strings.Replace(strings.Replace(tt.params, "TARGET", tt.target, 1), "{", `{"release":`+written+`,`, 1)
				d := calculator(t, params).Decide(observe(t, tt.line))
				if !d.Valid || d.Replicas != want {
					t.Errorf("%s in %s: %d, valid %t (%s), want %d", name, release, d.Replicas, d.Valid, d.Message, want)
				}
				if strings.HasPrefix(name, "within") != strings.Contains(d.Message, "kubernetes#138505") {
					t.Errorf("%s: the message is %q", name, d.Message)
				}
			}
		}
	}
}

func TestCPUReadingsOfYoungPods(t *testing.T) {
	t.Parallel()
	const cpu = `{"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"AverageValue","averageValue":"100m"}}}]}`
	const old = `{"state":"ready","values":{"cpu":0.1},"started":100,"changed":110}`
	tests := map[string]struct {
		pod  string
		want int
	}{
		"an old one counts": {`{"state":"ready","values":{"cpu":0.5},"started":100,"changed":110}`, 6},
		"a young one whose reading reaches back does not": {`{"state":"ready","values":{"cpu":0.5},"started":950,"changed":980,"readOver":30}`, 2},
		"a young one with a whole window does":            {`{"state":"ready","values":{"cpu":0.5},"started":950,"changed":960,"readOver":30}`, 6},
		"a young unready one does not":                    {`{"state":"starting","values":{"cpu":0.5},"started":950,"changed":960}`, 2},
		"an old one that was never ready does not":        {`{"state":"starting","values":{"cpu":0.5},"started":100,"changed":129}`, 2},
		"an old one that was ready once does":             {`{"state":"starting","values":{"cpu":0.5},"started":100,"changed":131}`, 6},
		"a ready one of which no more is known does":      {`{"state":"ready","values":{"cpu":0.5}}`, 6},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := calculator(t, cpu).Decide(observe(t, `{"t":1000,"current":2,"pods":[`+old+`,`+tt.pod+`]}`)); !d.Valid || d.Replicas != tt.want {
				t.Errorf("Decide = %d, valid %v (%s), want %d", d.Replicas, d.Valid, d.Message, tt.want)
			}
		})
	}
}

func TestBadParameters(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ params, want string }{
		"unknown field":               {`{"metric":[]}`, `unknown field "metric"`},
		"no such type":                {`{"metrics":[{"type":"Node"}]}`, `metrics[0].type = "Node"`},
		"type without its field":      {`{"metrics":[{"type":"Pods","object":{}}]}`, `metrics[0].type = "Pods"`},
		"utilization of a custom one": {`{"metrics":[{"type":"Pods","pods":{"metric":{"name":"m"},"target":{"type":"Utilization","averageUtilization":1}}}]}`, `type = "Utilization"`},
		"target of another type":      {`{"metrics":[{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"Value","averageValue":1}}}]}`, "the one that type Value names"},
		"no name":                     {`{"metrics":[{"type":"External","external":{"metric":{},"target":{"type":"Value","value":1}}}]}`, "metrics[0] has no name"},
		"zero target":                 {`{"metrics":[{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"Value","value":"0"}}}]}`, "> 0"},
		"quantity":                    {`{"metrics":[{"type":"External","external":{"metric":{"name":"m"},"target":{"type":"Value","value":"ten"}}}]}`, `quantity "ten"`},
		"tolerance":                   {`{"tolerance":-1}`, "tolerance = -1"},
		"period":                      {`{"behavior":{"scaleUp":{"policies":[{"type":"Pods","value":1,"periodSeconds":3600}]}}}`, "behavior.scaleUp.policies[0].periodSeconds = 3600"},
		"select policy":               {`{"behavior":{"scaleDown":{"selectPolicy":"max"}}}`, `selectPolicy = "max"`},
		"bounds":                      {`{"minReplicas":3,"maxReplicas":2}`, "maxReplicas = 2: want ≥ 1 (pods), at least minReplicas"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := hpa.Default()
			err := algorithms.Strict(json.RawMessage(tt.params), &c)
			if err == nil {
				_, err = hpa.New(c)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New(%s) = %v, want an error that says %q", tt.params, err, tt.want)
			}
		})
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	for _, params := range []string{`{"target":10}`, `{"target":10,"behavior":{"scaleUp":{"stabilizationWindowSeconds":30}}}`, strings.Replace(perPod, "TARGET", "10", 1)} {
		policytest.Check(t, 11, 100, func() (algorithms.Policy, error) {
			return guard.New(guard.Default(), policy(t, params))
		})
		if !strings.Contains(params, "behavior") { // it remembers
			policytest.Monotone(t, 12, 2000, func() (algorithms.Policy, error) { return calculator(t, params), nil })
		}
	}
}

// FuzzDecide feeds arbitrary readings and targets: nothing panics, and what is answered is a sane
// count with finite terms.
func FuzzDecide(f *testing.F) {
	f.Add(uint8(3), int64(10_000), 50.0, 0.0, uint8(0))
	f.Add(uint8(0), int64(1), 1e300, -1e300, uint8(7))
	f.Add(uint8(255), int64(math.MaxInt64), math.MaxFloat64, 5e-324, uint8(0x5b))
	f.Fuzz(func(t *testing.T, current uint8, goal int64, a, b float64, states uint8) {
		if goal <= 0 {
			return
		}
		q, err := algorithms.ParseQuantity(strconv.FormatInt(goal, 10) + "m")
		if err != nil {
			return
		}
		c := hpa.Default()
		id, target := hpa.Identifier{Name: "m"}, hpa.Target{Type: hpa.AverageValue, AverageValue: &q}
		percent := int(goal%1000) + 1
		c.Metrics = []hpa.Metric{
			{Type: hpa.Pods, Pods: &hpa.PodsMetric{Metric: id, Target: target}},
			{Type: hpa.External, External: &hpa.ExternalMetric{Metric: id, Target: hpa.Target{Type: hpa.Value, Value: &q}}},
			{Type: hpa.Object, Object: &hpa.ObjectMetric{Metric: id, Target: target}},
			{Type: hpa.Resource, Resource: &hpa.ResourceMetric{Name: "m", Target: hpa.Target{Type: hpa.Utilization, AverageUtilization: &percent}}},
		}
		p, err := hpa.New(c)
		if err != nil {
			t.Fatal(err)
		}
		all := []algorithms.PodState{algorithms.PodReady, algorithms.PodStarting, algorithms.PodPending, algorithms.PodFailed}
		o := algorithms.Observation{
			Now: time.Unix(1, 0), Replicas: algorithms.Replicas{Current: int(current), Ready: int(current)}, Limits: algorithms.Limits{Max: 10},
			Signals: []algorithms.Signal{{Name: "m", Value: a, Known: true, Coverage: 1}},
			Pods: []algorithms.Pod{
				{State: all[states&3], Values: map[string]float64{"m": a}, Requests: map[string]float64{"m": b}},
				{State: all[states>>2&3], Values: map[string]float64{"m": b}, Requests: map[string]float64{"m": a}},
				{State: all[states>>4&3], Requests: map[string]float64{"m": 1}},
			},
		}
		d := p.Decide(o)
		if d.Valid && (d.Replicas < 0 || d.Replicas > 1_000_000) {
			t.Fatalf("Decide = %d, want 0–1000000", d.Replicas)
		}
		for _, term := range d.Terms {
			if !algorithms.Finite(term.Value) {
				t.Fatalf("term %s = %v", term.Name, term.Value)
			}
		}
	})
}

// quiet is an observation as the bench makes them.
func quiet(tb testing.TB) algorithms.Observation {
	o := observe(tb, `{"t":1,"current":10,"signals":{"concurrency":{"0s":130,"60s":120}},"limits":{"max":50}}`)
	o.Quiet = true
	return o
}

// quietPods is one of 20 single pods, of which some are unready or missing.
func quietPods(tb testing.TB) algorithms.Observation {
	o := observe(tb, `{"t":1,"current":20,"limits":{"max":50},"pods":`+pods(strings.Repeat("12 13 9 30 ", 4)+"missing missing pending pending")+`}`)
	o.Quiet = true
	return o
}

func TestQuietAllocatesNothing(t *testing.T) {
	o := quietPods(t)
	p := policy(t, strings.Replace(perPod, "TARGET", "10", 1))
	if n := testing.AllocsPerRun(1000, func() { p.Decide(o) }); n != 0 {
		t.Errorf("%v allocations a decision over single pods, want 0", n)
	}
	o = quiet(t)
	for _, params := range []string{`{"target":10,"limits":"none"}`, `{"target":10}`, `{"target":10,"behavior":{}}`} {
		p := policy(t, params)
		p.Decide(o)
		if n := testing.AllocsPerRun(1000, func() { o.Now = o.Now.Add(15 * time.Second); p.Decide(o) }); n != 0 {
			t.Errorf("%s: %v allocations a decision without explanation, want 0", params, n)
		}
	}
	// a 60 s window of ticks, all of them to be remembered since each asks for less than the one
	// before
	p = policy(t, `{"target":1,"behavior":{"scaleDown":{"stabilizationWindowSeconds":60}}}`)
	for i := range 60 {
		o.Now, o.Signals[0].Value = o.Now.Add(2*time.Second), float64(1000-i)
		p.Decide(o)
	}
	if n := len(p.Snapshot()); n > 4096 {
		t.Errorf("state of a 60 s window is %d bytes, want at most 4096", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	o := quiet(b)
	p := calculator(b, `{"target":10}`)
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}

func BenchmarkDecideOver20Pods(b *testing.B) {
	o := quietPods(b)
	p := policy(b, strings.Replace(perPod, "TARGET", "10", 1))
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}

func BenchmarkDecideWithBehavior(b *testing.B) {
	o := quiet(b)
	p := policy(b, `{"target":10,"behavior":{}}`)
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(15 * time.Second)
		p.Decide(o)
	}
}

func BenchmarkDecideExplained(b *testing.B) {
	o := quiet(b)
	o.Quiet = false
	p := calculator(b, `{"target":10}`)
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}
