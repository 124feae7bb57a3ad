package ruletest_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/adapter/rules/ruletest"
)

var block = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// Each example of the docs about rules comes out as it stands there: a block with cases is run, and
// another is compiled. Each difference from v0.12.0 has an example.
func TestDocs(t *testing.T) {
	t.Parallel()
	for name, least := range map[string]int{"from-prometheus-adapter.md": 19, "rules.md": 2} {
		text, err := os.ReadFile("../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for section := range strings.SplitSeq(string(text), "\n## ") {
			title, _, _ := strings.Cut(section, "\n")
			blocks := block.FindAllStringSubmatch(section, -1)
			n += len(blocks)
			if len(blocks) == 0 && name == "from-prometheus-adapter.md" && !strings.HasPrefix(title, "# ") {
				t.Errorf("%s: %q has no example", name, title)
			}
			for _, b := range blocks {
				example(t, name+": "+title, b[1])
			}
		}
		if n < least {
			t.Errorf("%s has %d examples: want %d", name, n, least)
		}
	}
}

// The table of a rule's fields has all of them, and no other.
func TestFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Fields of a rule")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)`").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = true
	}
	var fields func(prefix string, of reflect.Type)
	fields = func(prefix string, of reflect.Type) {
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if f.Type.Kind() == reflect.Struct {
				fields(prefix+name+".", f.Type)
				continue
			}
			if !documented[prefix+name] {
				t.Errorf("the field %s is not in the table", prefix+name)
			}
			delete(documented, prefix+name)
		}
	}
	fields("", reflect.TypeFor[config.DiscoveryRule]())
	for name := range documented {
		t.Errorf("the table has a field %s, which there is none of", name)
	}
}

func example(t *testing.T, name, text string) {
	t.Helper()
	if !strings.HasPrefix(text, "cases:") {
		cfg, err := config.Parse([]byte(text))
		if err == nil {
			_, err = rules.Compile(cfg, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	file, unknown, err := ruletest.Read([]byte(text))
	if err != nil || len(unknown) > 0 {
		t.Errorf("%s: %v, unknown %v", name, err, unknown)
		return
	}
	for i := range file.Cases {
		out, err := ruletest.Run(&file.Cases[i])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ruletest.Compare(&file.Cases[i], out)
		if len(out.Differences) > 0 {
			t.Errorf("%s:\n%s", name, ruletest.Diff(out, &file.Cases[i]))
		}
	}
}
