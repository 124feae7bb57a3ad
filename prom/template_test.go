package prom_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-autoscaler/sluice/prom"
)

func workload(kind, name string) prom.Workload {
	return prom.Workload{Namespace: "shop", Kind: kind, Name: name}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		template, kind, name, want string
	}{
		"deployment": {
			string(prom.Rate("x_total")), "Deployment", "web",
			`sum(rate(x_total{namespace="shop",pod=~"web-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"}[60s]))`,
		},
		"another kind":  {`x{pod=~"{pods}"}`, "Rollout", "web", `x{pod=~"web-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"}`},
		"stateful set":  {`x{pod=~"{pods}"}`, "StatefulSet", "db.v1", `x{pod=~"db\\.v1-[0-9]+"}`},
		"replica set":   {`x{pod=~'{pods}'}`, "ReplicaSet", "web", `x{pod=~'web-[bcdfghjklmnpqrstvwxz2456789]{5}'}`},
		"not a pattern": {`x{pod="{name}", other =~ "{name}", no!~"{name}"}`, "", "a.b", `x{pod="a.b", other =~ "a\\.b", no!~"a\\.b"}`},
		"backquotes":    {"x{pod=~`{name}`}", "", "a.b", "x{pod=~`a\\.b`}"},
		"escapes":       {`x{a="\"{name}\\",b='"{name}'}`, "", "w", `x{a="\"w\\",b='"w'}`},
		"a comment":     {"x # don't {name}\n + y{a='{name}'}", "", "w", "x # don't {name}\n + y{a='w'}"},
		"closed early":  {`x{a="{name}"}`, "", `web"} or vector(1) #`, `x{a="web\"} or vector(1) #"}`},
		"single quotes": {`x{a='{name}'}`, "", `it's\`, `x{a='it\'s\\'}`},
		"new line":      {`x{a="{name}"}`, "", "a\nb", `x{a="a\nb"}`},
		"placeholder":   {`x{a="{name}"}`, "", "{step}{name}", `x{a="{step}{name}"}`},
		"everything":    {`x{pod=~"{name}"}`, "", ".*", `x{pod=~"\\.\\*"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := prom.Template(c.template).Expand(workload(c.kind, c.name), time.Minute)
			if err != nil || got != c.want {
				t.Errorf("Expand(%s) = %s, %v; want %s", c.template, got, err, c.want)
			}
		})
	}
	if got, err := prom.Template("x{a=`{name}`}").Expand(workload("", "a`b"), time.Minute); err == nil || !strings.Contains(err.Error(), "double quotes") {
		t.Errorf("a backquote in backquotes: %q, %v; want a fault", got, err)
	}
}

// FuzzExpand checks that a name stays within its string and means itself there, and that no
// template makes Expand panic.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"web", `a"b`, `a\`, "a\nb", ".*", "{name}", "ä", `\x`, "a'b"} {
		f.Add(s, `x{a=~"{name}"}`)
	}
	f.Add("", "`{pods}")
	f.Fuzz(func(t *testing.T, name, template string) {
		// It does not panic.
		_, _ = prom.Template(template).Expand(workload("Deployment", name), time.Second)
		if !utf8.ValidString(name) {
			return // no name is
		}
		got, err := prom.Template(`"{name}"`).Expand(workload("Deployment", name), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := strconv.Unquote(got); err != nil || s != name {
			t.Errorf("%q in a string is %s: %q, %v", name, got, s, err)
		}
		got, err = prom.Template(`=~"{name}"`).Expand(workload("Deployment", name), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s, err := strconv.Unquote(got[2:])
		if err != nil {
			t.Fatalf("%q in a pattern is %s: %v", name, got, err)
		}
		re, err := regexp.Compile("^(?s:" + s + ")$")
		if err != nil || !re.MatchString(name) || re.MatchString(name+"x") {
			t.Errorf("%q as a pattern is %q: want it to match itself alone (%v)", name, s, err)
		}
	})
}
