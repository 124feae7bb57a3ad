package behavior_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
)

func limiter(t *testing.T, rules string) *behavior.Limiter {
	t.Helper()
	var r behavior.Rules
	if err := algorithms.Strict(json.RawMessage(rules), &r); err != nil {
		t.Fatal(err)
	}
	l, err := behavior.New(r)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// step is one round: at a second, with a wish, the answer and why; the answer is always carried
// out.
type step struct {
	at, wish, want int
	why            string
}

func walk(t *testing.T, l *behavior.Limiter, cur int, steps []step) int {
	t.Helper()
	for i, s := range steps {
		now := time.Unix(1_000_000, 0).Add(time.Duration(s.at) * time.Second)
		l.Observe(now, cur)
		n, why := l.Apply(now, cur, s.wish, 1, 1000)
		if n != s.want || why != s.why {
			t.Errorf("step %d: at %d s from %d to %d: %d (%s), want %d (%s)", i, s.at, cur, s.wish, n, why, s.want, s.why)
		}
		l.Answered(now, cur, n)
		cur = n
	}
	return cur
}

const twoUp = `"policies":[{"type":"Pods","value":4,"periodSeconds":60},{"type":"Percent","value":50,"periodSeconds":60}]`

// TestApply holds values computed by hand; the oracle holds the rest.
func TestApply(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rules string
		cur   int
		steps []step
	}{
		"the HPA's defaults": {`{}`, 1, []step{
			{0, 50, 5, "ScaleUpLimit"},
			{15, 50, 10, "ScaleUpLimit"},
			{30, 50, 20, "ScaleUpLimit"},
			{45, 50, 40, "ScaleUpLimit"},
			{60, 50, 50, ""},
			{61, 10, 50, "ScaleDownStabilized"},
			{359, 10, 50, "ScaleDownStabilized"},
			{360, 10, 10, ""},
		}},
		"a change counts until its period is over": {`{"scaleUp":{"policies":[{"type":"Pods","value":4,"periodSeconds":60}]}}`, 10, []step{
			{0, 50, 14, "ScaleUpLimit"}, {59, 50, 14, "ScaleUpLimit"}, {60, 50, 18, "ScaleUpLimit"},
		}},
		"the largest change":  {`{"scaleUp":{` + twoUp + `}}`, 10, []step{{0, 50, 15, "ScaleUpLimit"}}},
		"the smallest change": {`{"scaleUp":{"selectPolicy":"Min",` + twoUp + `}}`, 10, []step{{0, 50, 14, "ScaleUpLimit"}}},
		"no change up":        {`{"scaleUp":{"selectPolicy":"Disabled"}}`, 10, []step{{0, 50, 10, "ScaleUpLimit"}}},
		"no change down":      {`{"scaleDown":{"selectPolicy":"Disabled","stabilizationWindowSeconds":0}}`, 10, []step{{0, 5, 10, "ScaleDownLimit"}}},
		"percent up rounds up and down truncates": {
			`{"scaleUp":{"policies":[{"type":"Percent","value":10,"periodSeconds":15}]},"scaleDown":{"stabilizationWindowSeconds":0,"policies":[{"type":"Percent","value":10,"periodSeconds":15}]}}`,
			3,
			[]step{{0, 50, 4, "ScaleUpLimit"}, {20, 50, 5, "ScaleUpLimit"}, {40, 1, 4, "ScaleDownLimit"}},
		},
		"up is stabilized by the least wish": {`{"scaleUp":{"stabilizationWindowSeconds":30}}`, 10, []step{
			{0, 14, 10, "ScaleUpStabilized"}, {10, 12, 10, "ScaleUpStabilized"}, {30, 14, 12, "ScaleUpStabilized"}, {40, 14, 14, ""},
		}},
		"bounds": {`{"scaleDown":{"stabilizationWindowSeconds":0}}`, 600, []step{{0, 2000, 1000, "TooManyReplicas"}, {60, 0, 1, "TooFewReplicas"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			walk(t, limiter(t, tt.rules), tt.cur, tt.steps)
		})
	}
}

// TestOlder holds the rules of an HPA without behavior: 300 s, the last instant included, and at
// most twice the count or 4 in 15 s.
func TestOlder(t *testing.T) {
	t.Parallel()
	walk(t, behavior.NewOlder(), 1, []step{
		{0, 50, 4, "ScaleUpLimit"},
		{15, 50, 8, "ScaleUpLimit"},
		{16, 50, 8, "ScaleUpLimit"}, // that was 1 s ago
		{30, 50, 16, "ScaleUpLimit"},
		{45, 10, 32, "ScaleUpLimit"}, // 50 was recommended
		{330, 10, 50, "ScaleDownStabilized"},
		{331, 10, 10, ""},
		{332, 50, 50, ""}, // there were 50 15 s ago
		{633, 0, 1, "TooFewReplicas"},
	})
}

// TestOlderIsNoFasterWhenAskedMoreOften asks every 2 s: in no 15 s the count more than doubles, or
// goes above 4.
func TestOlderIsNoFasterWhenAskedMoreOften(t *testing.T) {
	t.Parallel()
	l, cur := behavior.NewOlder(), 1
	counts := map[int]int{}
	for at := 0; at <= 120; at += 2 {
		now := time.Unix(1_000_000, 0).Add(time.Duration(at) * time.Second)
		counts[at] = cur
		l.Observe(now, cur)
		n, _ := l.Apply(now, cur, 49, 1, 100)
		l.Answered(now, cur, n)
		if before, ok := counts[at-14]; ok && n > max(2*before, 4) {
			t.Errorf("at %d s %d pods, 14 s after %d", at, n, before)
		}
		cur = n
	}
	if cur != 49 {
		t.Errorf("%d pods after two minutes, want 49", cur)
	}
}

func TestSnapshotContinues(t *testing.T) {
	t.Parallel()
	const rules = `{"scaleUp":{"policies":[{"type":"Pods","value":4,"periodSeconds":60}]}}`
	l := limiter(t, rules)
	cur := walk(t, l, 10, []step{{0, 50, 14, "ScaleUpLimit"}})
	again := limiter(t, rules)
	if err := again.Restore(l.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(l.Snapshot()), string(again.Snapshot())); diff != "" {
		t.Errorf("a restored memory differs (-whole +restored):\n%s", diff)
	}
	walk(t, again, cur, []step{{30, 50, 14, "ScaleUpLimit"}, {60, 50, 18, "ScaleUpLimit"}})
	if err := again.Restore(json.RawMessage(`{"version":9}`)); err == nil {
		t.Error("a snapshot of version 9 was taken")
	}
}
