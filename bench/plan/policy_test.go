package plan_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/plan"
)

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]plan.Policy{
		"kpa":                           {Label: "kpa", Name: "kpa"},
		"kpa:target=7,stableWindow=30s": {Label: "kpa:target=7,stableWindow=30s", Name: "kpa", Params: json.RawMessage(`{"stableWindow":"30s","target":7}`)},
		"hpa":                           {Label: "hpa", Name: "hpa", Tick: 15 * time.Second},
		"hpa:tick=5s,label=mine":        {Label: "mine", Name: "hpa", Tick: 5 * time.Second},
		"lookahead:tick=2s":             {Label: "lookahead:tick=2s", Name: "lookahead", Tick: 2 * time.Second, Params: json.RawMessage(`{"tick":"2s"}`)},
		`kpa:guard={"scaleToZero":{"after":"1s"},"minReplicas":2}`: {
			Label: `kpa:guard={"scaleToZero":{"after":"1s"},"minReplicas":2}`, Name: "kpa", Guard: json.RawMessage(`{"scaleToZero":{"after":"1s"},"minReplicas":2}`),
		},
		`cel:expression=math.ceil(signal("concurrency", "60s") / target),target=3`: {
			Label: `cel:expression=math.ceil(signal("concurrency", "60s") / target),target=3`, Name: "cel",
			Params: json.RawMessage(`{"expression":"math.ceil(signal(\"concurrency\", \"60s\") / target)","target":3}`),
		},
		"perrequest:keepAlive=5m": {Label: "perrequest:keepAlive=5m", Name: "perrequest", Params: json.RawMessage(`{"keepAlive":"5m"}`)},
	} {
		got, err := plan.ParsePolicy(catalog.Default(), spec)
		if err != nil {
			t.Errorf("ParsePolicy(%q): %v", spec, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(plan.Policy{})); diff != "" {
			t.Errorf("ParsePolicy(%q):\n%s", spec, diff)
		}
	}
	for spec, want := range map[string]string{
		"":                        "unknown",
		"nosuch":                  `policy "nosuch": unknown; known are`,
		"kpa:target":              `"target": want key=value`,
		"kpa:target=7,target=8":   "target is given twice",
		"kpa:tick=never":          "tick = never: want 100ms–1h",
		"kpa:target=-1":           "target = -1",
		"perrequest:keepAlive=1y": "keepAlive",
	} {
		if _, err := plan.ParsePolicy(catalog.Default(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePolicy(%q) = %v, want a word of %q", spec, err, want)
		}
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	p, err := plan.ParsePolicy(catalog.Default(), "kpa:target=7,label=mine")
	if err != nil {
		t.Fatal(err)
	}
	q, err := p.With(map[string]json.RawMessage{"target": json.RawMessage("9"), "stableWindow": json.RawMessage(`"30s"`)})
	if err != nil {
		t.Fatal(err)
	}
	if q.Label != "kpa:stableWindow=30s,target=9" || string(p.Params) != `{"target":7}` {
		t.Errorf("With = %q, and the policy it was made of has %s: want kpa:stableWindow=30s,target=9 and {\"target\":7}", q.Label, p.Params)
	}
}

// FuzzParsePolicy: whatever the specification, an error or a policy that can be made.
func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{"kpa", "kpa:target=7", "hpa:tick=5s,guard={}", `cel:expression=a("b,c")`, "kpa:a=[1,{", "perrequest:keepAlive=1s", ":,=,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := plan.ParsePolicy(catalog.Default(), spec)
		if err != nil || p.Name == plan.PerRequest {
			return
		}
		if _, err := p.New(5); err != nil {
			t.Errorf("ParsePolicy(%q) took what New refuses: %v", spec, err)
		}
	})
}
