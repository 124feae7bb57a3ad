package cel_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func config(expression string) cel.Config {
	c := cel.Default()
	c.Target, c.Expression = 10, expression
	return c
}

func observation() algorithms.Observation {
	return algorithms.Observation{
		Now: time.Date(2026, 7, 6, 6, 30, 0, 0, time.UTC), ActiveSince: time.Date(2026, 7, 6, 6, 29, 0, 0, time.UTC),
		Replicas: algorithms.Replicas{Current: 4, Ready: 3, Starting: 1}, Limits: algorithms.Limits{Min: 1, Max: 50},
		StartUp: algorithms.StartUp{P90: 4 * time.Second},
		Signals: []algorithms.Signal{
			{Name: "concurrency", Window: time.Minute, Value: 75, Known: true},
			{Name: "concurrency", Window: 6 * time.Second, Value: 130, Known: true},
			{Name: "queue", Window: 0, Known: false},
		},
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expression, reason string
		want               int
	}{
		{`math.ceil(signal("concurrency", "60s") / target)`, "Expression", 8},
		{`signal("concurrency", "60s") / target`, "Expression", 8},
		{`math.greatest(signal("concurrency", "1m") / 10.0, signal("concurrency", "6s") / 20.0)`, "Expression", 8},
		{`replicas.ready + replicas.starting + limits.min`, "Expression", 5},
		{`now.getHours("Europe/Berlin") == 8 && now.getDayOfWeek() == 1 ? 12 : 3`, "Expression", 12},
		{`activeFor < duration("2m") ? 9 : 1`, "Expression", 9},
		{`int(startUp.p90) + previous`, "Expression", 3},
		{`1000`, "Expression", 50},
		{`known("queue", "0s") ? 1 : 2`, "Expression", 2},
		{`known("queue", "0s") && signal("queue", "0s") > 5.0 ? 1 : 2`, "Expression", 2},
		{`signal("queue", "0s") / target`, "NoData", 0},
		{`replicas.current / (replicas.current - 4)`, "ExpressionFailed", 0},
		{`signal("concurrency", "60s") / 0.0`, "Nonsense", 0},
		{`-1`, "Nonsense", 0},
		{`[1,2,3,4,5,6,7,8].map(a, [1,2,3,4,5,6,7,8].map(b, [1,2,3,4,5,6,7,8].map(c, [1,2,3,4,5,6,7,8].map(d, a)))).size()`, "ExpressionFailed", 0},
	} {
		p, err := cel.New(config(c.expression))
		if err != nil {
			t.Errorf("%s: %v", c.expression, err)
			continue
		}
		d := p.Decide(observation())
		if d.Reason != c.reason || d.Valid != (c.reason == "Expression") || (d.Valid && d.Replicas != c.want) {
			t.Errorf("%s = %+v, want %d %s", c.expression, d, c.want, c.reason)
		}
	}
}

func TestFaultsNameThePosition(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`signal("concurrency", "60s") / 10`:     "<input>:1:30: found no matching overload",
		"1 +\n  nonsense":                       "<input>:2:3: undeclared reference to 'nonsense'",
		`1 + `:                                  "Syntax error",
		`signal("concurrency", 60)`:             "<input>:1:7: found no matching overload",
		`signal("concurrency", "60")`:           "<input>:1:7: window \"60\"",
		`signal("con" + "currency", "60s")`:     "<input>:1:7: signal: want literals",
		`"five"`:                                "<input>:1:1: gives string",
		`known("concurrency", "60s")`:           "gives bool",
		` `:                                     "empty",
		strings.Repeat("(", 200) + "1":          "recursion",
		"1 + " + strings.Repeat("1 + ", 3000):   "at most 8192",
		`[1].map(x, signal("a", string(x)))[0]`: "want literals",
	} {
		if _, err := cel.New(config(expression)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%.40q) = %v, want an error with %q", expression, err, want)
		}
	}
	if _, err := cel.New(cel.Config{Expression: "1", Target: 1}); err == nil || !strings.Contains(err.Error(), "costLimit = 0") {
		t.Errorf("New without a cost limit = %v", err)
	}
}

func TestPrevious(t *testing.T) {
	t.Parallel()
	p, err := cel.New(config(`previous + 1`))
	if err != nil {
		t.Fatal(err)
	}
	for want := range 3 {
		if d := p.Decide(observation()); d.Replicas != want {
			t.Errorf("answer %d is %+v", want, d)
		}
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	p, err := cel.New(config(`known("rate", "5m") ? signal("rate", "5m") : signal("concurrency", "60s") + signal("concurrency", "1m")`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[algorithms.Need]bool{{Name: "rate", Window: 5 * time.Minute}: true, {Name: "concurrency", Window: time.Minute}: true}
	for _, n := range p.Needs() {
		if !want[n] {
			t.Errorf("needs %v, which it does not read", n)
		}
		delete(want, n)
	}
	if len(want) != 0 {
		t.Errorf("does not need %v", want)
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	mk := func() (algorithms.Policy, error) {
		return cel.New(config(`previous < 0 ? 3.0 : math.greatest(double(previous) * 0.9, signal("concurrency", "60s") / target)`))
	}
	policytest.Check(t, 61, 5, mk)
	policytest.Monotone(t, 62, 30, func() (algorithms.Policy, error) { return cel.New(cel.Default()) })
}

// Any expression either does not compile or answers within bounds.
func FuzzExpression(f *testing.F) {
	f.Add(`math.ceil(signal("concurrency", "60s") / target)`)
	f.Add(`int(now.getHours("X")) + previous`)
	f.Add(`[1,2].map(x, x * 1000000000)[1] * 100000000000`)
	f.Add(`["a"].map(a, a.replace("", "bbbb") + a).map(a, [a, a]).exists(a, a == a) ? 1 : 2`)
	f.Add(`["a", "b"].join("-").format([now, 1.5]).split("-").size() + {"a": [1]}["a"][0]`)
	f.Fuzz(func(t *testing.T, expression string) {
		begin := time.Now()
		var p *cel.Policy
		var err error
		bytes := allocated(func() { p, err = cel.New(config(expression)) })
		if took := time.Since(begin); bytes > 64<<20 || took > 5*time.Second {
			t.Errorf("New allocates %d bytes in %s, want at most 64 MiB", bytes, took)
		}
		if err != nil {
			return
		}
		if _, bytes, took := cost(p); bytes > 64<<20 || took > 5*time.Second {
			t.Errorf("Decide allocates %d bytes in %s, want at most 64 MiB", bytes, took)
		}
		policytest.Run(t, p, []algorithms.Observation{observation(), {}})
	})
}

func BenchmarkDecide(b *testing.B) {
	p, err := cel.New(cel.Default())
	if err != nil {
		b.Fatal(err)
	}
	o := observation()
	o.Quiet = true
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(o)
	}
}
