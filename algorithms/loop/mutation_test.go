//go:build mutation

package loop_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutation takes one rule out of the source. The scenario must fail without it.
type mutation struct {
	rule, file, source, without string
	scenario                    string
}

// mutations lists each rule of the loop, and of the guard around the policy, with the scenario that
// catches its absence.
func mutations() []mutation {
	const l, h, g, k = "loop.go", "handover.go", "../guard/guard.go", "clock.go"
	return []mutation{
		{"a clock that is set back moves no timer", k, "passed := max(0, now.Sub(c.seen))", "passed := now.Sub(c.seen)", "clock-back"},
		{"the loop's time comes back to the clock's", k, "c.at = c.at.Add(min(max(gap, -passed/slew), passed/slew))", "_ = gap", "clock-back"},
		{"an age is measured once", k, "if !born.Equal(c.born) {", "if true {", "clock-young"},
		{"data time follows the readings", l, "return later(l.clock.step(v.Now).at.Add(-age), l.memory.dataTime)", "return l.clock.step(v.Now).at", "data-time"},
		{"data time never goes back", l, "return later(l.clock.step(v.Now).at.Add(-age), l.memory.dataTime)", "return l.clock.step(v.Now).at.Add(-age)", "data-time-back"},
		{"start-ups are learnt", l, "m.starts.Add(p.Ready.Sub(p.Created))", "_ = m.starts", "start-ups"},
		{"a start-up counts once", l, "p.Ready.After(l.lastStep) && ", "", "start-ups"},
		{"start-ups count from the first round on", l, " && !p.Created.Before(l.began)", "", "start-up-before"},
		{"the limit is learnt", l, "m.limit = limit", "_ = limit", "limit"},
		{"the spec's limit comes first", l, "if o.Limits.PodConcurrency == 0 {", "if true {", "limit-of-the-spec"},
		{"settling after a change", l, "l.memory.scaledAt.Add(t.Settle)", "l.memory.scaledAt", "settling"},
		{"settling after a wake-up", l, "l.memory.activeSince.Add(t.SettleWake)", "l.memory.activeSince", "settling-after-wake"},
		{"watched for the idle time", l, "due = later(due, l.clock.bornAt.Add(l.cfg.Guard.IdleAfter))", "_ = due", "young"},
		{"settling takes the sooner round", h, "if p.recheck == 0 || d < p.recheck {", "if true {", "wake-wants-fewer"},
		{"nothing goes unseen", l, "case blind > max(left, 0):", "case false:", "blind"},
		{"the longer wait counts", l, "case blind > max(left, 0):", "case blind > 0:", "blind"},
		{"no gateway leaves unseen", l, "if blind > 0 && v.Path != nil && v.Path.In && !p.in {", "if false {", "blind"},
		{"a settling sleep is going to sleep", l, "p.phase = GoingToSleep\n", "_ = p\n", "young"},
		{"what failed is not done", l, "if err != nil || c.Scale == nil {", "if c.Scale == nil {", "settling"},
		{"a policy's own round", l, "[]time.Duration{d.Next, p.recheck}", "[]time.Duration{p.recheck}", "asked-for"},
		{"a hand-over's own round", l, "[]time.Duration{d.Next, p.recheck}", "[]time.Duration{d.Next}", "circle"},
		{"a dry run touches nothing", l, "if l.cfg.Mode == ModeDryRun {\n\t\treturn c\n\t}", "", "dry-run"},
		{"a dry run has no path", l, "if l.cfg.Mode == ModeDryRun {\n\t\tpath = nil\n\t}", "", "dry-run"},
		{"a failure is told while waking only", l, "if phase != Waking {", "if false {", "cannot-start"},
		{"a pod without trouble may still come", l, "case p.Trouble == \"\":\n\t\t\treturn \"\"", "case p.Trouble == \"\":", "cannot-start"},
		{"asleep the gateways hold", h, "out = plan{phase: Asleep, in: true}", "out = plan{phase: Asleep}", "circle"},
		{"waking the gateways hold", h, "out = plan{phase: Waking, in: true, replicas: want, recheck: t.Recheck}\n\tcase want == 0:", "out = plan{phase: Waking, replicas: want, recheck: t.Recheck}\n\tcase want == 0:", "circle"},
		{"the way to zero is not a jump", h, "out = h.sleep(now, current, p, t)", "out = plan{phase: Asleep, in: true}", "circle"},
		{"without a gateway the last pod stays", h, "if p.Listening == 0 {", "if false {", "no-gateway"},
		{"the path comes first", h, "if !p.In {", "if false {", "circle"},
		{"a broken path begins the grace again", h, "h.PathSince = time.Time{}\n\t\treturn plan{phase: GoingToSleep", "return plan{phase: GoingToSleep", "no-gateway"},
		{"proxies get a grace", h, "if left := t.Grace - now.Sub(h.PathSince); left > 0 {", "if left := time.Duration(0); left > 0 {", "circle"},
		{"an interrupted way to zero begins again", h, " || out.phase != GoingToSleep && out.phase != Asleep {", " {", "request-on-the-way-to-zero"},
		{"at zero the way to zero is over", h, "if current == 0 || ", "if ", "scaled-by-hand"},
		{"lost pods are held for", h, "case p.Ready == 0:\n\t\tout = plan{phase: Waking", "case false:\n\t\tout = plan{phase: Waking", "all-pods-lost"},
		{"gateways linger for pods to come", h, "(p.Ready < current || p.Waiting > 0)", "p.Waiting > 0", "all-pods-lost"},
		{"gateways linger for what waits", h, "(p.Ready < current || p.Waiting > 0)", "p.Ready < current", "lingering-waiting"},
		{"gateways linger after a wake-up only", h, "case h.Phase == Waking && ", "case ", "awake-scale-up"},
		{"lingering ends", h, " && now.Sub(h.ReadySince) < t.Linger", "", "lingering"},
		{"lingering begins with the first ready pod", h, "if p.Ready == 0 {\n\t\th.ReadySince = time.Time{}\n\t} else if", "if", "all-pods-lost-twice"},
		{"a wake-up is sized by what waits", g, "n = max(n, algorithms.Pods(math.Ceil(waiting/p.cfg.Target)))", "_ = math.Ceil", "circle"},
		{"what waits wakes", g, "woken := wake > 0 && (!d.Valid || d.Replicas < wake)", "woken := false", "unknown"},
		{"never down on partly known", g, "case partial && d.Replicas <= cur:", "case false:", "unknown"},
		{"a fallback after the hold", g, "if p.cfg.Fallback == nil {", "if true {", "fallback"},
		{"the hold comes before the fallback", g, "if left > 0 {", "if false {", "fallback"},
		{"the fallback takes nothing away", g, "max(o.Replicas.Current, *p.cfg.Fallback)", "*p.cfg.Fallback", "fallback"},
		{"behavior bounds", g, "if p.limiter != nil && !woken {", "if false {", "behavior"},
		{"behavior bounds no wake-up", g, "if from := d.Replicas; from < wake {", "if from := d.Replicas; false {", "wake-against-behavior"},
		{"zero needs an idle time", g, "if d.Replicas < 1 && o.Limits.Min == 0 && cur > 0 && !p.idle(&o) {", "if false {", "not-idle"},
		{"idle means known", g, "o.Signals[s].Value != 0 || o.Signals[s].Coverage < FullCoverage {", "o.Signals[s].Value != 0 {", "not-idle"},
		{"idle means that nothing waits", g, "w < 0 || o.Signals[w].Value != 0 {", "w < 0 {", "not-idle"},
		{"the lower bound", g, "if d.Replicas < o.Limits.Min {", "if false {", "lower-bound"},
		{"the upper bound", g, "if d.Replicas > o.Limits.Max {", "if false {", "bounds"},
		{"out of bounds is put right on unknown signals", g, "if cur == 0 || cur >= o.Limits.Min && cur <= o.Limits.Max {", "if true {", "bounds"},
		{"asleep is not too small", g, "if cur == 0 || cur >= o.Limits.Min", "if cur >= o.Limits.Min", "asleep-below-the-bound"},
	}
}

// TestEveryRuleIsCaught takes each rule out, one at a time, and runs the scenarios: one must fail.
func TestEveryRuleIsCaught(t *testing.T) {
	t.Parallel()
	for _, m := range mutations() {
		t.Run(strings.ReplaceAll(m.rule, " ", "-"), func(t *testing.T) {
			t.Parallel()
			path, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(raw), m.source); n != 1 {
				t.Fatalf("%q stands %d times in %s, want once: the list is behind the code", m.source, n, m.file)
			}
			dir := t.TempDir()
			mutant := filepath.Join(dir, "mutant.go")
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{mutant: strings.Replace(string(raw), m.source, m.without, 1), filepath.Join(dir, "overlay.json"): string(overlay)} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "-run", "^TestScenarios$", ".").CombinedOutput()
			text := string(out)
			switch {
			case err == nil:
				t.Errorf("no scenario fails without the rule, want %s to", m.scenario)
			case strings.Contains(text, "[build failed]") || strings.Contains(text, "[setup failed]"):
				t.Errorf("the mutant does not build:\n%s", text)
			case !strings.Contains(text, "--- FAIL: TestScenarios/"+m.scenario+" "):
				t.Errorf("scenario %s does not fail without the rule:\n%s", m.scenario, text)
			}
		})
	}
}
