package cel_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
)

// cost measures what a decision allocates, in bytes, and how long it takes.
func cost(p algorithms.Policy) (d algorithms.Decision, bytes uint64, took time.Duration) {
	begin := time.Now()
	bytes = allocated(func() { d = p.Decide(observation()) })
	return d, bytes, time.Since(begin)
}

// allocated is how many bytes something allocates.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// nested puts an expression into n macros, each of which makes two of what it is given.
func nested(first, twice string, n int, last string) string {
	return first + strings.Repeat(fmt.Sprintf(".map(a, %s)", twice), n) + last
}

// Expressions that make or read through much more than CEL's cost counts: each is given up within
// bounds and says so, though its owner sets costLimit as high as it goes. It runs alone, since it
// measures.
func TestHostileExpressions(t *testing.T) {
	long := strings.Repeat("a", 3000)
	for name, c := range map[string]struct {
		expression, want string
	}{
		"replace":                {`"` + long + `".replace("", "` + long + `").replace("", "` + long[:1000] + `").size()`, "strings and lists"},
		"replace in macros":      {nested(`["aaaaaaaaaa"]`, `a.replace("a", "aaaaaaaaaa")`, 10, `[0].size()`), "costLimit"},
		"replace behind ||":      {`["a"].exists(x, ` + strings.Repeat(`"`+long[:600]+`".replace("", "`+long[:600]+`").replace("", "`+long[:600]+`") == "" || `, 3) + `false) ? 1 : 2`, "costLimit"},
		"sums of strings":        {nested(`["aaaaaaaaaa"]`, `a + a + a + a + a + a`, 15, `[0].size()`), "costLimit"},
		"sums of bytes":          {nested(`[b"aaaaaaaaaa"]`, `a + a + a + a + a + a`, 15, `[0].size()`), "costLimit"},
		"sums of lists":          {nested(`[[1]]`, `a + a + a + a + a + a`, 15, `[0].size()`), "strings and lists"},
		"lists of lists, ==":     {nested(`[[1]]`, `[a, a, a, a, a]`, 9, `.exists(a, a == a) ? 1 : 2`), "strings and lists"},
		"lists of lists, !=":     {nested(`[[1]]`, `[a, a, a, a, a]`, 9, `.exists(a, a != a) ? 1 : 2`), "strings and lists"},
		"maps of maps, ==":       {nested(`[{"k": 1}]`, `{"k": a, "l": a, "m": a, "n": a, "o": a}`, 9, `.exists(a, a == a) ? 1 : 2`), "strings and lists"},
		"lists of lists, in":     {nested(`[[1]]`, `[a, a, a, a, a]`, 9, `.exists(a, a in [a]) ? 1 : 2`), "strings and lists"},
		"lists of lists, format": {nested(`[[1]]`, `[a, a, a, a, a]`, 9, `.map(a, "%s".format([a]))[0].size()`), "strings and lists"},
		"join":                   {`[` + strings.Repeat(`"",`, 1500) + `""].join("` + long + `").size()`, "strings and lists"},
		"join of a sum":          {nested(`[["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]]`, `a + a`, 12, `[0].join("`+long+`").size()`), "strings and lists"},
		"indexOf":                {`[1,2,3,4,5,6,7,8].map(a, "` + long + `".indexOf("` + long[:1500] + `b"))[0]`, "strings and lists"},
		"format":                 {`"%.999999999f".format([1.0]).size()`, "precision"},
		"quote and reverse":      {`[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, "` + long + `".reverse().upperAscii().size()))[0][0]`, "strings and lists"},
		"literals in a macro":    {`[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [a,` + strings.Repeat("1,", 3000) + `1])).size()`, "strings and lists"},
		"conversions":            {`["` + strings.Repeat("1s", 1500) + `"].map(z, [1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6].map(c, duration(z))))).size()`, "strings and lists"},
		"comprehensions":         {nested(`[1]`, `1`, 1, strings.Repeat(`.map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, [1,2,3,4,5,6,7,8,9,10].map(d, [1,2,3,4,5,6,7,8,9,10].map(e, [1,2,3,4,5,6,7,8,9,10].map(f, a))))))`, 1)) + `.size()`, "costLimit"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(c.expression)
			cfg.CostLimit = 100_000
			p, err := cel.New(cfg)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Fatalf("New = %.300v, want it taken or a fault with %q", err, c.want)
				}
				return
			}
			d, bytes, took := cost(p)
			if d.Valid || d.Reason != "ExpressionFailed" || !strings.Contains(d.Message, c.want) {
				t.Errorf("Decide = %+v, want it to hold because of %q", d, c.want)
			}
			if bytes > 64<<20 || took > 10*time.Second {
				t.Errorf("it allocates %d bytes in %s, want at most 64 MiB and 10 s", bytes, took)
			}
			if d := p.Decide(observation()); d.Valid {
				t.Errorf("the second decision is %+v", d)
			}
		})
	}
	if _, err := cel.New(cel.Config{Expression: "1", Target: 1, CostLimit: 100_001}); err == nil || !strings.Contains(err.Error(), "costLimit") {
		t.Errorf("New with a higher cost limit = %v", err)
	}
}

// Zones are loaded once, by New: a decision reads none.
func TestTimeZonesAreLoadedOnce(t *testing.T) {
	hours := `[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, now.getHours("Europe/Berlin") + now.getMinutes("America/New_York") + now.getHours("+02:00")))[0][0]`
	cfg := config(hours)
	cfg.CostLimit = 100_000
	p, err := cel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d, bytes, took := cost(p)
	if d.Replicas != 8+30+8 {
		t.Errorf("%s = %+v, want 46", hours, d)
	}
	// a zone takes some 20 kB to load
	if bytes > 300<<10 || took > 10*time.Second {
		t.Errorf("300 readings of hours allocate %d bytes in %s, want at most 300 KiB", bytes, took)
	}
	for _, bad := range []string{
		`now.getHours(string(now))`, `now.getHours("Europe/" + "Berlin")`, `now.getHours(dyn("UTC"))`, `now.getHours("../../etc/passwd")`, `now.getHours("/etc/passwd")`,
		`now.getHours("` + strings.Repeat("a", 100) + `")`, `now.getHours("a\u0000b")`, `now.getHours("Mars/Olympus")`,
		`"a".matches("(((a|b|c|d|e|f){1000}))") ? 1 : 2`, `"a".matches(string(now)) ? 1 : 2`, `matches("a", "` + strings.Repeat("a", 300) + `") ? 1 : 2`,
	} {
		if _, err := cel.New(config(bad)); err == nil {
			t.Errorf("New(%s) takes it, want a fault", bad)
		}
	}
}

// Strings and lists of an ordinary size work as CEL says.
func TestStringsAndLists(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]int{
		`"a-b-c".replace("-", "").size()`:                         3,
		`["a", "b"].join("--").size()`:                            4,
		`"%d-%s".format([12, "x"]).size()`:                        4,
		`("a" + "bc").size()`:                                     3,
		`([1, 2] + [3] + [replicas.ready])[3]`:                    3,
		`[1, 2, 3, 4].filter(x, x > 2).map(x, x * 2)[1]`:          8,
		`[[1, 2], [3, 4]][1][0]`:                                  3,
		`{"a": 5}["a"]`:                                           5,
		`[1, replicas.ready] == [1, 3] ? 7 : 1`:                   7,
		`[replicas.ready, 2] != [1, 3] ? 7 : 1`:                   7,
		`3 in [1, replicas.ready] ? 7 : 1`:                        7,
		`"b" in {"a": 1, "b": 2} ? 7 : 1`:                         7,
		`"abc".matches("^a.c$") && "abc".startsWith("a") ? 7 : 1`: 7,
		`math.greatest([1, 5, replicas.ready])`:                   5,
		`"a,b,c".split(",").size()`:                               3,
		`int("12") + int(double("3.0"))`:                          15,
		`"hello".indexOf("l") + "hello".lastIndexOf("l")`:         5,
		`b"abc" + b"d" == b"abcd" ? 7 : 1`:                        7,
		`timestamp("2026-07-06T06:30:00Z") == now ? 7 : 1`:        7,
		`timestamp("2026-07-06T23:30:00Z").getDate("+02:00")`:     7,
		`dyn(4) + 3`: 7,
	} {
		p, err := cel.New(config(expression))
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if d := p.Decide(observation()); !d.Valid || d.Replicas != want {
			t.Errorf("%s = %+v, want %d", expression, d, want)
		}
	}
}

// Expressions whose types would take minutes to check are refused before that.
func TestHostileTypes(t *testing.T) {
	for name, expression := range map[string]string{
		"a chain of macros":    nested(`[[1]]`, `[[[[a]]]]`, 75, `.size()`),
		"a chain of two":       nested(`[[1]]`, `[a, a]`, 90, `.size()`),
		"a chain of maps":      nested(`[[1]]`, `{"k": {"k": a}}`, 75, `.size()`),
		"lists in lists":       strings.Repeat("[", 90) + "1" + strings.Repeat("]", 90) + ".size()",
		"many lists in lists":  "[" + strings.Repeat(strings.Repeat("[", 40)+"1"+strings.Repeat("]", 40)+",", 90) + "[]].size()",
		"macros within macros": strings.Repeat("[1].map(a, ", 40) + "1" + strings.Repeat(")", 40) + ".size()",
	} {
		var err error
		begin := time.Now()
		bytes := allocated(func() { _, err = cel.New(config(expression)) })
		if err == nil || !strings.Contains(err.Error(), "lists and maps") && !strings.Contains(err.Error(), "recursion") {
			t.Errorf("%s: New = %v, want it refused", name, err)
		}
		if took := time.Since(begin); bytes > 32<<20 || took > 10*time.Second {
			t.Errorf("%s: New allocates %d bytes in %s, want at most 32 MiB", name, bytes, took)
		}
	}
}

// A decision that has taken too long is given up, and says so.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	cfg := config(`[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, a))).size()`)
	cfg.CostLimit = 100_000
	p, err := cel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := observation()
	done := make(chan struct{})
	o.Done = done
	if d := p.Decide(o); !d.Valid || d.Replicas != 10 {
		t.Errorf("in time: %+v, want 10", d)
	}
	close(done)
	if d := p.Decide(o); d.Valid || d.Reason != "ExpressionFailed" || !strings.Contains(d.Message, "longer than a decision may") {
		t.Errorf("too late: %+v, want it to hold and say so", d)
	}
}
