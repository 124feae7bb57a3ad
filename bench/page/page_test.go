package page_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/sluice-autoscaler/sluice/bench/page"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/summarytest"
)

func write(t *testing.T, s summary.Summary, src summary.Source, o page.Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.HTML(&b, s, src, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// part is what a regular expression's group finds in a page.
func part(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the page has no %s", pattern)
	}
	return m[1]
}

const dataPattern = `(?s)<script type="application/json" id="data">(.*?)</script>`

// TestPageGolden keeps the page without the parts that are files of their own.
func TestPageGolden(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Bench(summarytest.Runs([]string{"day"}, []string{"start-5s"}, summarytest.Plans()[:2], 2, 12), "kpa")
	text := write(t, s, runs, page.Options{})
	if again := write(t, s, runs, page.Options{}); again != text {
		t.Error("the same input makes two pages")
	}
	text = regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAllString(text, "<style>…</style>")
	text = regexp.MustCompile(`(?s)<script>.*?</script>`).ReplaceAllString(text, "<script>…</script>")
	text = regexp.MustCompile(`'sha256-[^']*'`).ReplaceAllString(text, "'sha256-…'")
	golden(t, "page.html", []byte(text))
}

func TestAssetsArePinned(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"uplot.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
	} {
		data, err := os.ReadFile(filepath.Join("assets", name))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not uplot 1.6.32's: its sum is %x", name, sum)
		}
	}
}

func TestPageNeedsNothingElse(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Small()
	text := write(t, s, runs, page.Options{})
	if m := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]+|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon`).FindString(text); m != "" {
		t.Errorf("the page speaks of %q", m)
	}
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			scripts++
		case "link", "img", "iframe", "object", "embed", "base", "form", "a":
			t.Errorf("the page has a <%s>", n.Data)
		}
		for _, a := range n.Attr {
			if a.Key == "src" || a.Key == "href" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("the page has <%s %s=%q>", n.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 2 {
		t.Errorf("%d scripts, want the data and the code", scripts)
	}
	if !strings.Contains(text, "Permission is hereby granted, free of charge") {
		t.Error("the licence of uPlot is not in the page")
	}
}

// evil are names that would do harm if they were taken for markup.
func evil() (summary.Summary, summary.Runs) {
	const attack = `</script><script>document.documentElement.dataset.error="injected"</script><img src=x onerror="document.documentElement.dataset.error='injected'">`
	runs := summarytest.Runs([]string{"a" + attack, `"><b onmouseover=x>`}, []string{"<!--" + attack}, summarytest.Plans()[:2], 1, 30)
	for i := range runs {
		runs[i].Result.Policy += attack
		for k := range runs[i].Decisions {
			runs[i].Decisions[k].Message, runs[i].Decisions[k].Reason = attack, "<i>"
		}
	}
	s, _ := summarytest.Bench(runs, runs[0].Result.Policy)
	s.Command = []string{"sluice", attack}
	s.Commit, s.Sluice = attack, attack
	s.Notes = []string{attack + "`" + attack + "`"}
	s.Scenarios = []json.RawMessage{json.RawMessage(`{"name":"</pre><script>document.documentElement.dataset.error='injected'</script>"}`)}
	return s, runs
}

func TestPageEscapes(t *testing.T) {
	t.Parallel()
	s, runs := evil()
	root, err := html.Parse(strings.NewReader(write(t, s, runs, page.Options{})))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && (n.Data == "img" || n.Data == "b" || n.Data == "i") {
			t.Errorf("a name became a <%s>", n.Data)
		}
		if n.Type == html.ElementNode && n.Data == "script" {
			scripts++
		}
	}
	if scripts != 2 {
		t.Errorf("%d scripts, want 2", scripts)
	}
}

// lame is a Source of which some records are missing or broken.
type lame struct{ summary.Runs }

// Run implements summary.Source.
func (l lame) Run(i int) (score.Run, error) {
	switch i % 3 {
	case 1:
		return score.Run{}, fmt.Errorf("record %d: %w", i, fs.ErrNotExist)
	case 2:
		return score.Run{}, errors.New("record <2>: broken")
	}
	return l.Runs.Run(i)
}

func TestPageTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Small()
	text := write(t, s, lame{runs}, page.Options{})
	for _, want := range []string{"6 raw records of 18 are missing", "record &lt;2&gt;: broken, and others"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	text = write(t, s, runs, page.Options{MaxRuns: 7})
	for _, want := range []string{"have 7 runs of 18", "<code>sluice bench report --runs N DIR</code>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	var data struct{ Runs []struct{ T, S, P int } }
	if err := json.Unmarshal([]byte(part(t, text, dataPattern)), &data); err != nil {
		t.Fatal(err)
	}
	// All policies of the first seed of both traces, and one more.
	seen := map[int]int{}
	for _, r := range data.Runs {
		seen[r.T]++
	}
	if diff := cmp.Diff(map[int]int{0: 4, 1: 3}, seen); diff != "" {
		t.Errorf("runs by trace (-want +got):\n%s", diff)
	}
}

// TestPageShrinks checks a long run: sums, means and maxima survive, and the page stays small.
func TestPageShrinks(t *testing.T) {
	t.Parallel()
	const n = 100_003
	var run score.Run
	run.Result = score.Result{Policy: "p", Trace: "t", Seed: 1 << 63}
	zero := func() []float32 { return make([]float32, n) }
	run.Series = score.Series{Step: 1, Arrivals: zero(), Demand: zero(), Waiting: zero(), Wanted: zero(), Ready: zero(), Starting: zero(), ColdStarts: zero(), Violations: zero(), WaitMax: zero()}
	run.Series.Arrivals[50_000], run.Series.Violations[50_000], run.Series.WaitMax[50_000] = 670, 7, 9
	for i := range n {
		run.Series.Ready[i] = 3
	}
	s, runs := summarytest.Bench([]score.Run{run}, "")
	text := write(t, s, runs, page.Options{})
	var data struct {
		Runs []struct {
			Seed    string
			Per     int
			Step    float64
			A, V, M int
			R, W    int
		}
		Arrays [][]float64
	}
	if err := json.Unmarshal([]byte(part(t, text, dataPattern)), &data); err != nil {
		t.Fatal(err)
	}
	r := data.Runs[0]
	most := func(v []float64) (top float64) {
		for _, x := range v {
			top = max(top, x)
		}
		return top
	}
	if r.Per != 67 || r.Step != 67 || r.Seed != "9223372036854775808" || len(data.Arrays[r.A]) > 1500 {
		t.Errorf("steps of %v (%d) and %d points, seed %s", r.Step, r.Per, len(data.Arrays[r.A]), r.Seed)
	}
	if a, v, m := most(data.Arrays[r.A]), most(data.Arrays[r.V]), most(data.Arrays[r.M]); a != 10 || v != 7 || m != 9 {
		t.Errorf("arrivals %v, violations %v, longest wait %v, want 10, 7, 9", a, v, m)
	}
	if got := data.Arrays[r.R]; got[0] != 3 || got[len(got)-1] != 3 {
		t.Errorf("ready from %v to %v, want 3", got[0], got[len(got)-1])
	}
	if len(text) > 150_000 {
		t.Errorf("the page has %d bytes", len(text))
	}
}

func TestManyRuns(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Bench(summarytest.Runs([]string{"a", "b", "c", "d", "e"}, []string{"s1", "s2"}, summarytest.Plans(), 10, 300), "kpa")
	if len(runs) != 600 {
		t.Fatalf("%d runs", len(runs))
	}
	if text := write(t, s, runs, page.Options{}); len(text) > 8<<20 {
		t.Errorf("the page of 600 runs has %d MiB", len(text)>>20)
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares bytes with a file under testdata, numbers to nine digits: the last ones depend on
// the machine's arithmetic.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	got = regexp.MustCompile(`\d+\.\d{8,}(e-?\d+)?`).ReplaceAllFunc(got, func(number []byte) []byte {
		v, err := strconv.ParseFloat(string(number), 64)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.AppendFloat(nil, v, 'g', 9, 64)
	})
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got; go test -update rewrites it):\n%s", path, diff)
	}
}
