package report_test

import (
	"bytes"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/contest"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/summarytest"
)

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

func TestGoldens(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Small()
	match := contest.Contest{Subject: "keda", Rivals: []string{"kpa", "hpa"}, Budget: 0.01}
	for name, write := range map[string]func(io.Writer) error{
		"results.csv":  func(w io.Writer) error { return folder.CSV(w, s.Results) },
		"table.txt":    func(w io.Writer) error { return report.Text(w, s) },
		"summary.json": func(w io.Writer) error { return folder.Encode(w, s) },
		"contest.md": func(w io.Writer) error {
			return contest.Markdown(w, contest.Judge(s.Comparison, match), match)
		},
		"standings.md": func(w io.Writer) error {
			return contest.StandingsTable(w, contest.Standings(s.Comparison, match), match)
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

func TestEmptyAndOdd(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]summary.Summary{
		"empty":    summary.Summarize(summary.Summary{Baseline: "kpa"}),
		"one":      summary.Summarize(summary.Summary{Results: []score.Result{{}}, Baseline: "kpa"}),
		"no names": summary.Summarize(summary.Summary{Results: []score.Result{{Policy: "a\tb\n\x1b[31mred"}, {Policy: "|*x*|"}}}),
		"not real": summary.Summarize(summary.Summary{Results: []score.Result{{Policy: "a", PodSeconds: math.Inf(1), WaitP99: math.NaN()}}}),
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

func TestRender(t *testing.T) {
	t.Parallel()
	head, runs := summarytest.Small()
	dir := t.TempDir()
	w, err := folder.Create(dir, head, false)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range runs {
		if err := w.Put(i, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first := map[string][]byte{}
	for range 2 {
		written, err := report.Render(f, report.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(written) != 4 {
			t.Fatalf("written: %q, want four files", written)
		}
		for _, path := range written {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if old, ok := first[path]; ok && !bytes.Equal(old, data) {
				t.Errorf("%s differs when it is made again", path)
			}
			first[path] = data
		}
	}
	// Without any raw record there is still a page and a Pareto chart.
	if err := os.RemoveAll(filepath.Join(dir, "raw")); err != nil {
		t.Fatal(err)
	}
	written, err := report.Render(f, report.Options{})
	if err != nil || len(written) != 3 {
		t.Errorf("without raw records: %q, %v", written, err)
	}
}
