package report_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares bytes with a file under testdata, numbers to nine digits: the last ones depend on the machine's arithmetic.
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

func TestGoldens(t *testing.T) {
	t.Parallel()
	s, runs := small()
	contest := report.Contest{Subject: "keda", Rivals: []string{"kpa", "hpa"}, Budget: 0.01}
	for name, write := range map[string]func(io.Writer) error{
		"results.csv":  func(w io.Writer) error { return report.CSV(w, s.Results) },
		"table.txt":    func(w io.Writer) error { return report.Text(w, s) },
		"summary.json": func(w io.Writer) error { return report.Encode(w, s) },
		"contest.md": func(w io.Writer) error {
			return report.Markdown(w, report.Judge(s.Comparison, contest), contest)
		},
		"standings.md": func(w io.Writer) error {
			return report.StandingsTable(w, report.Standings(s.Comparison, contest), contest)
		},
		"spark.txt": func(w io.Writer) error { return report.Sparklines(w, runs[0], 72) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.Bytes())
		})
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want, runs := small()
	dir := filepath.Join(t.TempDir(), "deep", "out")
	head := want
	head.Notes = want.Notes[:1]
	w, err := report.Create(dir, head, false)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i, r := range runs {
		all.Go(func() {
			if err := w.Put(i, r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	half, err := report.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(half.Summary.Results); n != len(runs) || len(half.Summary.Notes) != 2 {
		t.Errorf("a folder without end has %d results and the notes %q, want %d and one that says so", n, half.Summary.Notes, len(runs))
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	f, err := report.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	want.Raw = f.Summary.Raw
	if err := errors.Join(report.Encode(&a, want), report.Encode(&b, f.Summary)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.String(), b.String()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	for i, r := range runs {
		got, err := f.Run(i)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("run %d (-want +got):\n%s", i, diff)
		}
	}
	if err := os.Remove(filepath.Join(dir, "raw", "0003.json.gz")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Run(3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing raw record: %v, want fs.ErrNotExist", err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(names) != 3 || len(hidden) != 0 {
		t.Errorf("the folder holds %q and %q, want raw, results.csv, summary.json", names, hidden)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s, runs := small()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), []byte("years"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, overwrite := range []bool{false, true} {
		if _, err := report.Create(foreign, s, overwrite); !errors.Is(err, report.ErrExists) {
			t.Errorf("Create(overwrite %v) on a foreign folder: %v, want ErrExists", overwrite, err)
		}
	}
	dir := t.TempDir()
	w, err := report.Create(dir, s, false)
	if err != nil {
		t.Fatalf("Create in an empty folder: %v", err)
	}
	if err := errors.Join(w.Put(0, runs[0]), w.Put(7, runs[1])); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	_, err = report.Create(dir, s, false)
	if !errors.Is(err, report.ErrExists) || !strings.Contains(err.Error(), "overwrite") {
		t.Errorf("Create on a bench folder: %v, want ErrExists and what to do", err)
	}
	mine := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if w, err = report.Create(dir, s, true); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(0, runs[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	raw, _ := filepath.Glob(filepath.Join(dir, "raw", "*"))
	if len(raw) != 1 {
		t.Errorf("after an overwrite raw/ holds %q, want one record", raw)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a file of the user's: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                               "not a bench summary",
		`[]`:                             "not a bench summary",
		`{"name":"web","version":"1.2"}`: "not a bench summary",
		`{"results":[]}`:                 "not a bench summary",
		`{"version":2,"results":[]}`:     "format version 2",
		`{"version":1,"results":[{}],"raw":["../../../etc/passwd"]}`: "want a name like",
		`{"version":1,"results":[{}],"raw":["0000.json.gz","1"]}`:    "1 results",
		`{"version":1,"results":[{"requests":"many"}]}`:              "requests",
	} {
		if _, err := report.Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want an error with %q", text, err, want)
		}
	}
	if s, err := report.Decode([]byte(`{"version":1,"results":[{},{}],"later":true}`)); err != nil || len(s.Raw) != 2 {
		t.Errorf("Decode with an unknown field and no names: %v, %v", s.Raw, err)
	}
}

func TestPutRefusesWhatIsNoNumber(t *testing.T) {
	t.Parallel()
	w, err := report.Create(t.TempDir(), report.Summary{}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		if err := w.Put(0, score.Run{Result: score.Result{Policy: "kpa", WaitP50: v}}); err == nil || !strings.Contains(err.Error(), "policy kpa") {
			t.Errorf("Put with %v: %v, want an error that names the run", v, err)
		}
	}
	if s, err := w.Finish(); err != nil || len(s.Results) != 0 {
		t.Errorf("Finish = %v, %v", s.Results, err)
	}
}

func FuzzDecode(f *testing.F) {
	s, _ := bench(fixture([]string{"t"}, []string{"s"}, plans()[:1], 1, 2), "")
	s.Scenarios, s.Comparison = nil, nil
	var b bytes.Buffer
	if err := report.Encode(&b, s); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"version":1,"results":[{"podSeconds":1e308},{"podSeconds":1e308}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := report.Decode(data)
		if err != nil {
			return
		}
		var a, b bytes.Buffer
		if err := report.Encode(&a, s); err != nil {
			t.Fatalf("a summary that was read cannot be written: %v", err)
		}
		again, err := report.Decode(a.Bytes())
		if err != nil {
			t.Fatalf("a summary that was written cannot be read: %v", err)
		}
		if err := report.Encode(&b, again); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("read and written again it differs: %v", err)
		}
		s = report.Summarize(s)
		for _, write := range []func(io.Writer) error{
			func(w io.Writer) error { return report.Encode(w, s) },
			func(w io.Writer) error { return report.Text(w, s) },
			func(w io.Writer) error { return report.CSV(w, s.Results) },
		} {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}

// pack packs what a raw record would hold.
func pack(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

func FuzzDecodeRun(f *testing.F) {
	runs := fixture([]string{"t"}, []string{"s"}, plans()[:1], 1, 2)
	text, err := json.Marshal(runs[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, true)
	f.Add(pack(text)[:100], false)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if packed { // few random changes leave gzip's check sum right
			data = pack(data)
		}
		run, err := report.DecodeRun(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := report.EncodeRun(&b, run); err != nil {
			t.Fatal(err)
		}
		again, err := report.DecodeRun(&b)
		if diff := cmp.Diff(run, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("written and read again: %v %s", err, diff)
		}
		if err := report.Sparklines(io.Discard, run, 60); err != nil {
			t.Error(err)
		}
		s, runs := bench([]score.Run{run}, "kpa")
		if err := report.HTML(io.Discard, s, runs, report.PageOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func TestDecodeRunRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{`:                                   "parse",
		`{"series":{"arrivals":[1]}}`:         "series.demand has 0 steps and series.arrivals 1",
		`{"waits":[{"upper":2},{"upper":1}]}`: "rising upper bounds",
		`{"waits":[{"upper":2,"count":-1}]}`:  "counts ≥ 0",
		`{"series":{"step":0,"arrivals":[1],"demand":[1],"waiting":[1],"wanted":[1],"ready":[1],"starting":[1],"coldStarts":[1],"violations":[1],"waitMax":[1]}}`: "series.step",
	} {
		if _, err := report.DecodeRun(bytes.NewReader(pack([]byte(text)))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("DecodeRun(%s) = %v, want an error with %q", text, err, want)
		}
	}
	whole := pack([]byte(`{}`))
	for n := range len(whole) {
		if _, err := report.DecodeRun(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("a record cut to %d bytes is read", n)
		}
	}
}

func result(policy, trace string, seed uint64, pods, violations float64, cold int64) score.Result {
	return score.Result{Policy: policy, Trace: trace, Scenario: "s", Seed: seed, PodSeconds: pods, SLOViolations: violations, ColdStarts: cold}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	rows := report.Compare([]score.Result{
		result("kpa", "a", 1, 100, 0.02, 4),
		result("kpa", "a", 2, 200, 0.04, 0),
		result("own", "a", 1, 50, 0.01, 1),
		result("own", "a", 2, 50, 0.01, 1),
		result("own", "a", 3, 999, 0.5, 1), // the baseline lacks this seed
		result("kpa", "b", 1, 10, 0, 0),
		result("own", "b", 1, 20, 0, 3),
	}, "kpa")
	if len(rows) != 4 {
		t.Fatalf("%d rows, want 4", len(rows))
	}
	own := rows[1]
	if own.Policy != "own" || own.Seeds != 3 {
		t.Fatalf("row 1 is %+v", own)
	}
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-4*math.Max(1, math.Abs(want)) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	near("mean", rows[0].Mean["podSeconds"].Mean, 150)
	near("low", rows[0].Mean["podSeconds"].Low, 150-12.7062*50)
	// By hand: the ratios are 1/2 and 1/4, their logarithms' mean −ln √8, their standard error ln(2)/2.
	r := own.Ratio["podSeconds"]
	near("ratio", r.Mean, 1/math.Sqrt(8))
	near("ratio high", r.High, math.Exp(-math.Log(math.Sqrt(8))+12.7062*math.Ln2/2))
	near("cold starts, with a zero: the means' ratio", own.Ratio["coldStarts"].Mean, 0.5)
	near("its low bound, cut off at 0", own.Ratio["coldStarts"].Low, 0)
	near("difference", own.Delta["sloViolations"].Mean, -0.02)
	if _, ok := rows[3].Ratio["coldStarts"]; ok {
		t.Error("a ratio to nothing is there")
	}
	over := report.OverTraces(rows)
	if len(over) != 2 || over[1].Traces != 2 {
		t.Fatalf("over traces: %+v", over)
	}
	near("geometric mean", over[1].Ratio["podSeconds"].Mean, math.Sqrt(2/math.Sqrt(8)))
	near("worst", over[1].Worst, (0.01+0.01+0.5)/3)
	if diff := cmp.Diff([]report.Front{{Trace: "a", Scenario: "s", Policies: []string{"kpa"}}, {Trace: "b", Scenario: "s", Policies: []string{"kpa"}}}, report.Fronts(rows)); diff != "" {
		t.Errorf("fronts (-want +got):\n%s", diff)
	}
}

// TestFront checks the front against the definition on random points.
func TestFront(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var results []score.Result
		for i := range 1 + rng.IntN(12) {
			results = append(results, result(fmt.Sprint("p", i), "t", 1, float64(rng.IntN(6)), float64(rng.IntN(6))/10, 0))
		}
		want := map[string]bool{}
		for _, a := range results {
			beaten := false
			for _, b := range results {
				if b.PodSeconds <= a.PodSeconds && b.SLOViolations <= a.SLOViolations && (b.PodSeconds < a.PodSeconds || b.SLOViolations < a.SLOViolations) {
					beaten = true
				}
			}
			if !beaten {
				want[a.Policy] = true
			}
		}
		got := map[string]bool{}
		for _, p := range report.Fronts(report.Compare(results, ""))[0].Policies {
			got[p] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("front of %+v (-want +got):\n%s", results, diff)
		}
	}
}

// TestIntervalCovers checks that 95 % intervals hold the true ratio 95 times in 100.
func TestIntervalCovers(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for _, seeds := range []uint64{2, 5, 15} {
		const rounds = 250
		hits := 0
		for range rounds {
			var results []score.Result
			for trace := range 3 {
				for seed := range seeds {
					load := math.Exp(rng.NormFloat64())
					results = append(results, result("base", fmt.Sprint(trace), seed, load, 0, 0), result("own", fmt.Sprint(trace), seed, load*0.8*math.Exp(0.1*rng.NormFloat64()), 0, 0))
				}
			}
			r := report.OverTraces(report.Compare(results, "base"))[1].Ratio["podSeconds"]
			if r.Low <= 0.8 && 0.8 <= r.High {
				hits++
			}
		}
		if share := float64(hits) / rounds; share < 0.90 || share > 0.999 {
			t.Errorf("with %d seeds the interval holds the truth in %.3f of all cases, want about 0.95", seeds, share)
		}
	}
}

func TestJudgePutsLossesFirst(t *testing.T) {
	t.Parallel()
	rows := report.Compare([]score.Result{
		result("own", "won", 1, 50, 0.005, 0), result("kpa", "won", 1, 100, 0.005, 0), result("hpa", "won", 1, 80, 0.2, 0),
		result("own", "dear", 1, 120, 0.005, 0), result("kpa", "dear", 1, 100, 0.005, 0),
		result("own", "late", 1, 50, 0.3, 0), result("kpa", "late", 1, 100, 0.005, 0),
		result("own", "even", 1, 100, 0.02, 0), result("kpa", "even", 1, 100, 0.03, 0), result("hpa", "even", 1, 90, 0.4, 0),
		result("kpa", "missing", 1, 100, 0.03, 0),
	}, "")
	type line struct {
		Trace, Rival string
		Lost         bool
	}
	var got []line
	for _, v := range report.Judge(rows, report.Contest{Subject: "own", Rivals: []string{"kpa", "hpa"}, Budget: 0.01}) {
		got = append(got, line{v.Trace, v.Rival, v.Lost})
	}
	want := []line{{"late", "kpa", true}, {"dear", "kpa", true}, {"even", "kpa", false}, {"won", "kpa", false}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestStandings(t *testing.T) {
	t.Parallel()
	in := func(scenario string, results ...score.Result) []score.Result {
		for i := range results {
			results[i].Scenario = scenario
		}
		return results
	}
	rows := report.Compare(slices.Concat(
		in("quick",
			result("own", "a", 1, 50, 0.005, 1), result("kpa", "a", 1, 100, 0.005, 4), result("hpa", "a", 1, 80, 0.2, 0), result("clairvoyant", "a", 1, 40, 0, 0),
			result("own", "b", 1, 200, 0.005, 2), result("kpa", "b", 1, 100, 0.005, 8), result("clairvoyant", "b", 1, 50, 0, 0)),
		in("slow",
			result("own", "a", 1, 50, 0.3, 3), result("kpa", "a", 1, 100, 0.005, 0), result("kpa", "missing", 1, 100, 0.03, 0)),
	), "")
	contest := report.Contest{Subject: "own", Rivals: []string{"kpa", "hpa"}, Bound: "clairvoyant", Budget: 0.01}
	nan := math.NaN()
	want := []report.Standing{
		{Scenario: "quick", Traces: 2, Lost: 1, Ratio: 1, First: 1, ToBound: math.Sqrt(5), RivalToBound: math.Sqrt(5), Kept: 2, KeptRatio: 1, KeptToBound: math.Sqrt(5), RivalsKept: []int{2, 0}, ColdStarts: 0.25},
		{Scenario: "slow", Traces: 1, Lost: 1, Over: 1, Ratio: 0.5, First: 0.5, ToBound: nan, RivalToBound: nan, KeptRatio: nan, KeptToBound: nan, RivalsKept: []int{1, 0}, ColdStarts: math.Inf(1)},
		{Scenario: "all", Traces: 3, Lost: 2, Over: 1, Ratio: math.Cbrt(0.5), First: math.Cbrt(0.5), ToBound: math.Sqrt(5), RivalToBound: math.Sqrt(5), Kept: 2, KeptRatio: 1, KeptToBound: math.Sqrt(5), RivalsKept: []int{3, 0}, ColdStarts: 0.5},
	}
	if diff := cmp.Diff(want, report.Standings(rows, contest), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("standings (-want +got):\n%s", diff)
	}
	if got := report.Standings(rows[:1], contest); got != nil {
		t.Errorf("without a rival: %+v, want none", got)
	}
}

func TestEmptyAndOdd(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]report.Summary{
		"empty":    report.Summarize(report.Summary{Baseline: "kpa"}),
		"one":      report.Summarize(report.Summary{Results: []score.Result{{}}, Baseline: "kpa"}),
		"no names": report.Summarize(report.Summary{Results: []score.Result{{Policy: "a\tb\n\x1b[31mred"}, {Policy: "|*x*|"}}}),
		"not real": report.Summarize(report.Summary{Results: []score.Result{{Policy: "a", PodSeconds: math.Inf(1), WaitP99: math.NaN()}}}),
	} {
		var b bytes.Buffer
		if err := report.Text(&b, s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if bytes.ContainsRune(b.Bytes(), '\x1b') {
			t.Errorf("%s lets an escape sequence through: %q", name, b.String())
		}
	}
	if err := report.Sparklines(io.Discard, score.Run{}, 0); err != nil {
		t.Error(err)
	}
}
