package report_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

func page(t *testing.T, s report.Summary, src report.Source, o report.PageOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.HTML(&b, s, src, o); err != nil {
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
	s, runs := bench(fixture([]string{"day"}, []string{"start-5s"}, plans()[:2], 2, 12), "kpa")
	text := page(t, s, runs, report.PageOptions{})
	if again := page(t, s, runs, report.PageOptions{}); again != text {
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
	s, runs := small()
	text := page(t, s, runs, report.PageOptions{})
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
func evil() (report.Summary, report.Runs) {
	const attack = `</script><script>document.documentElement.dataset.error="injected"</script><img src=x onerror="document.documentElement.dataset.error='injected'">`
	runs := fixture([]string{"a" + attack, `"><b onmouseover=x>`}, []string{"<!--" + attack}, plans()[:2], 1, 30)
	for i := range runs {
		runs[i].Result.Policy += attack
		for k := range runs[i].Decisions {
			runs[i].Decisions[k].Message, runs[i].Decisions[k].Reason = attack, "<i>"
		}
	}
	s, _ := bench(runs, runs[0].Result.Policy)
	s.Command = []string{"sluice", attack}
	s.Commit, s.Sluice = attack, attack
	s.Notes = []string{attack + "`" + attack + "`"}
	s.Scenarios = []json.RawMessage{json.RawMessage(`{"name":"</pre><script>document.documentElement.dataset.error='injected'</script>"}`)}
	return s, runs
}

func TestPageEscapes(t *testing.T) {
	t.Parallel()
	s, runs := evil()
	root, err := html.Parse(strings.NewReader(page(t, s, runs, report.PageOptions{})))
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
type lame struct{ report.Runs }

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
	s, runs := small()
	text := page(t, s, lame{runs}, report.PageOptions{})
	for _, want := range []string{"6 raw records of 18 are missing", "record &lt;2&gt;: broken, and others"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	text = page(t, s, runs, report.PageOptions{MaxRuns: 7})
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
	s, runs := bench([]score.Run{run}, "")
	text := page(t, s, runs, report.PageOptions{})
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
	s, runs := bench(fixture([]string{"a", "b", "c", "d", "e"}, []string{"s1", "s2"}, plans(), 10, 300), "kpa")
	if len(runs) != 600 {
		t.Fatalf("%d runs", len(runs))
	}
	if text := page(t, s, runs, report.PageOptions{}); len(text) > 8<<20 {
		t.Errorf("the page of 600 runs has %d MiB", len(text)>>20)
	}
}

// browse opens a page in chromium and returns its document after the scripts ran, and what the console said.
func browse(t *testing.T, text string, args ...string) (document, console string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (Debian: apt-get install chromium), so the page is not opened")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append(append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + filepath.Join(dir, "profile"), "--window-size=1280,2400", "--enable-logging=stderr", "--virtual-time-budget=4000",
	}, args...), "file://"+path)...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, log.String())
	}
	var lines []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			lines = append(lines, line)
		}
	}
	return out.String(), strings.Join(lines, "")
}

// attributes are the values of an attribute in a document, by the element's id or class.
func attributes(t *testing.T, document, name string) map[string][]string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		who, value, has := n.Data, "", false
		for _, a := range n.Attr {
			if a.Key == "id" || (a.Key == "class" && who == n.Data) {
				who = a.Val
			}
			if a.Key == name {
				value, has = a.Val, true
			}
		}
		if has {
			found[who] = append(found[who], value)
		}
	}
	return found
}

func TestPageInBrowser(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: no browser")
	}
	wide := fixture([]string{"day", "sparse", "steps"}, []string{"start-5s", "start-60s"}, plans(), 2, 700)
	evilSummary, evilRuns := evil()
	emptySummary, emptyRuns := bench(nil, "kpa")
	bareSummary, bareRuns := bench([]score.Run{{Result: score.Result{Policy: "p", Trace: "t"}}}, "p")
	fullSummary, fullRuns := bench(wide, "kpa")
	oneSummary, oneRuns := bench(wide[:1], "")
	for _, c := range []struct {
		name   string
		s      report.Summary
		runs   report.Runs
		charts int
	}{
		{"many", fullSummary, fullRuns, 5},
		{"one", oneSummary, oneRuns, 5},
		{"bare", bareSummary, bareRuns, 0},
		{"empty", emptySummary, emptyRuns, 0},
		{"evil", evilSummary, evilRuns, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			document, console := browse(t, page(t, c.s, c.runs, report.PageOptions{}), "--dump-dom")
			if console != "" {
				t.Errorf("the console says:\n%s", console)
			}
			if e := attributes(t, document, "data-error"); len(e) > 0 {
				t.Errorf("the page met an error: %v", e)
			}
			if r := attributes(t, document, "data-ready"); len(r) != 1 {
				t.Error("the page did not get ready")
			}
			drawn := attributes(t, document, "data-drawn")
			if got := len(drawn["canvas"]); got != c.charts {
				t.Errorf("%d charts over time were drawn, want %d", got, c.charts)
			}
			if c.charts > 0 && (len(drawn["ccdf"]) != 1 || len(drawn["pareto"]) != 1) {
				t.Errorf("drawn: %v, want ccdf and pareto too", drawn)
			}
		})
	}

	// The controls work: a script presses them, for which the page must let it run.
	t.Run("controls", func(t *testing.T) {
		const presses = `<script>
addEventListener("load", () => setTimeout(() => {
  const $ = (id) => document.getElementById(id), out = [], change = (e) => e.dispatchEvent(new Event("change"));
  const check = (name, ok) => { if (!ok) out.push(name); };
  $("scenario").value = 1; change($("scenario"));
  $("trace").value = 2; change($("trace"));
  check("hash", location.hash.includes("scenario=start-60s") && location.hash.includes("trace=steps"));
  check("five charts", document.querySelectorAll("#charts canvas").length === 5);
  const before = $("instant").textContent;
  $("in").click();
  check("zoom changes the range", $("instant").textContent !== before);
  $("right").click(); $("left").click(); $("out").click();
  check("zoom out comes back", $("instant").textContent === before);
  const over = document.querySelector("#charts .u-over"), b = over.getBoundingClientRect();
  const mouse = (type, x) => over.dispatchEvent(new MouseEvent(type, { bubbles: true, clientX: b.left + x, clientY: b.top + 20, movementX: 1, buttons: 1, button: 0 }));
  setTimeout(() => { mouse("mouseenter", 100); mouse("mousemove", 100); }, 100);
  setTimeout(() => {
    check("hover shows one instant: " + $("instant").textContent, !$("instant").textContent.includes("–"));
    const crossed = [...document.querySelectorAll("#charts .u-cursor-x")].filter((e) => !e.classList.contains("u-off") && e.style.transform).length;
    check("hover is in all charts: " + crossed, crossed === 5);
    mouse("mousedown", 100); mouse("mousemove", 300);
    document.dispatchEvent(new MouseEvent("mousemove", { clientX: b.left + 300, clientY: b.top + 20, movementX: 1, buttons: 1 }));
    document.dispatchEvent(new MouseEvent("mouseup", { clientX: b.left + 300, clientY: b.top + 20, button: 0 }));
    setTimeout(() => {
      check("dragging zooms", !$("whole").disabled);
      const rows = () => [...document.querySelectorAll("#table tbody tr")].map((r) => r.textContent);
      const old = rows(), sort = () => document.querySelectorAll("#table th button")[1].click();
      sort(); const up = rows(); sort(); const down = rows(); sort();
      check("sorting", up.join() === down.reverse().join() && rows().join() === old.join());
      $("table-all").click(); check("all traces", rows().length === 18);
      $("table-wide").click(); check("all figures", document.querySelectorAll("#table th").length > 20);
      const n = document.querySelectorAll("#readout tbody tr").length;
      document.querySelector("#chips button").click();
      check("a chip takes a policy away", document.querySelectorAll("#readout tbody tr").length === n - 1);
      $("decision-range").click();
      check("decisions", document.querySelectorAll("#decisions tbody tr").length > 5);
      $("decision-filter").value = "no such reason"; $("decision-filter").oninput();
      check("filter", document.querySelectorAll("#decisions tbody tr").length === 1);
      document.documentElement.dataset.failed = out.join("; ") || "none";
    }, 200);
  }, 300);
}, 100));</script></body>`
		text := page(t, fullSummary, fullRuns, report.PageOptions{})
		text = regexp.MustCompile(`<meta http-equiv[^>]*>`).ReplaceAllString(text, "")
		document, console := browse(t, strings.Replace(text, "</body>", presses, 1), "--dump-dom")
		if console != "" {
			t.Errorf("the console says:\n%s", console)
		}
		if got := attributes(t, document, "data-failed")["html"]; len(got) != 1 || got[0] != "none" {
			t.Errorf("what failed: %v", got)
		}
	})

	// What is on the screen has the colours of the policies.
	t.Run("colours", func(t *testing.T) {
		shot := filepath.Join(t.TempDir(), "shot.png")
		browse(t, page(t, fullSummary, fullRuns, report.PageOptions{}), "--screenshot="+shot, "--hide-scrollbars")
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[[3]uint32]int{}
		for y := 1100; y < img.Bounds().Dy(); y++ {
			for x := range img.Bounds().Dx() {
				r, g, b, _ := img.At(x, y).RGBA()
				seen[[3]uint32{r >> 8, g >> 8, b >> 8}]++
			}
		}
		for i, c := range [][3]uint32{{0x00, 0x72, 0xb2}, {0xd5, 0x5e, 0x00}, {0x00, 0x9e, 0x73}, {0xc0, 0x4d, 0x93}} {
			if seen[c] < 300 {
				t.Errorf("the colour of policy %d has %d pixels in the charts, want hundreds", i, seen[c])
			}
		}
	})
}
