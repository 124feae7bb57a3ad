//go:build e2e

package page_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/sluice-autoscaler/sluice/bench/page"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/summarytest"
)

// browse opens a page in chromium and returns its document after the scripts ran, and what the
// console said.
func browse(t *testing.T, text string, args ...string) (document, console string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed: make browser installs it (Debian: apt-get install chromium)")
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
	wide := summarytest.Runs([]string{"day", "sparse", "steps"}, []string{"start-5s", "start-60s"}, summarytest.Plans(), 2, 700)
	evilSummary, evilRuns := evil()
	emptySummary, emptyRuns := summarytest.Bench(nil, "kpa")
	bareSummary, bareRuns := summarytest.Bench([]score.Run{{Result: score.Result{Policy: "p", Trace: "t"}}}, "p")
	fullSummary, fullRuns := summarytest.Bench(wide, "kpa")
	oneSummary, oneRuns := summarytest.Bench(wide[:1], "")
	for _, c := range []struct {
		name   string
		s      summary.Summary
		runs   summary.Runs
		charts int
	}{
		{"many", fullSummary, fullRuns, 5},
		{"one", oneSummary, oneRuns, 5},
		{"bare", bareSummary, bareRuns, 0},
		{"empty", emptySummary, emptyRuns, 0},
		{"evil", evilSummary, evilRuns, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			document, console := browse(t, write(t, c.s, c.runs, page.Options{}), "--dump-dom")
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
		text := write(t, fullSummary, fullRuns, page.Options{})
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
		browse(t, write(t, fullSummary, fullRuns, page.Options{}), "--screenshot="+shot, "--hide-scrollbars")
		f, err := os.Open(shot)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []color.NRGBA{{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xc0, 0x4d, 0x93, 0xff}} {
			if n := pixels(t, img, c); n < 1000 {
				t.Errorf("the colour of policy %d has %d pixels, want thousands", i, n)
			}
		}
	})
}

// pixels counts the pixels of a colour in a picture without transparency.
func pixels(t *testing.T, img image.Image, want color.NRGBA) (n int) {
	t.Helper()
	rgba, ok := img.(*image.RGBA)
	if !ok {
		t.Fatalf("the picture is a %T", img)
	}
	for i := 0; i < len(rgba.Pix); i += 4 {
		if rgba.Pix[i] == want.R && rgba.Pix[i+1] == want.G && rgba.Pix[i+2] == want.B {
			n++
		}
	}
	return n
}
