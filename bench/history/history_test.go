package history_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/history"
)

var begin = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func nan() float64 { return math.NaN() }

func TestGapsAndFill(t *testing.T) {
	t.Parallel()
	s := history.Series{Start: begin, Step: 6 * time.Hour, Values: []float64{nan(), 1, 2, 3, 10, nan(), nan(), 40, nan()}}
	if got, want := s.Gaps(), (history.Gaps{Count: 3, Total: 24 * time.Hour, Longest: 12 * time.Hour, Share: 4.0 / 9}); got != want {
		t.Errorf("Gaps = %+v, want %+v", got, want)
	}
	for rule, want := range map[history.Fill][]float64{
		history.FillInterpolate: {1, 1, 2, 3, 10, 20, 30, 40, 40},
		history.FillHold:        {1, 1, 2, 3, 10, 10, 10, 40, 40},
		history.FillDay:         {10, 1, 2, 3, 10, 1, 2, 40, 10},
	} {
		got, err := s.Fill(rule)
		if diff := cmp.Diff(want, got.Values); err != nil || diff != "" {
			t.Errorf("Fill(%s): %v\n%s", rule, err, diff)
		}
		if parsed, err := history.ParseFill(string(rule)); err != nil || parsed != rule {
			t.Errorf("ParseFill(%s) = %s, %v", rule, parsed, err)
		}
	}
	if _, err := history.ParseFill("zero"); err == nil || !strings.Contains(err.Error(), "want interpolate, hold or day") {
		t.Errorf("ParseFill(zero) = %v: want a fault, since unknown is not zero", err)
	}
	if _, err := (history.Series{Step: time.Hour, Values: []float64{nan()}}).Fill(history.FillHold); err == nil {
		t.Error("Fill of nothing is accepted")
	}
	nothing := history.Series{Start: begin, Step: time.Minute, Values: []float64{nan(), nan()}}
	if g := nothing.Gaps(); g.Share != 1 {
		t.Errorf("Gaps of nothing = %+v: want all unknown", g)
	}
	if _, ok := nothing.Trim(); ok {
		t.Error("Trim of nothing is ok")
	}
	trimmed, ok := s.Trim()
	if !ok || !trimmed.Start.Equal(begin.Add(6*time.Hour)) || len(trimmed.Values) != 7 {
		t.Errorf("Trim = %+v, %v", trimmed, ok)
	}
	if got := s.Cut(begin.Add(12*time.Hour), begin.Add(19*time.Hour)); len(got.Values) != 1 || got.Values[0] != 2 {
		t.Errorf("Cut = %+v, want the one whole step", got)
	}
	if got := s.Samples("x"); len(got) != 5 || got[0] != (algorithms.Sample{At: begin.Add(12 * time.Hour), Signal: "x", Value: 1}) {
		t.Errorf("Samples = %+v: want what is known, at the end of each step", got)
	}
	if s.Peak() != 40 || s.Mean() != 56.0/5 {
		t.Errorf("peak %v, mean %v", s.Peak(), s.Mean())
	}
}

func TestReadRecords(t *testing.T) {
	t.Parallel()
	at := begin.Unix()
	line := func(s int64, current int, signals string) string {
		return fmt.Sprintf(`{"t": %d, "current": %d, "signals": {%s}}`, at+s, current, signals)
	}
	in := strings.Join([]string{
		line(0, 1, `"concurrency": {"10s": 5}`),
		line(10, 1, `"concurrency": {"10s": 2, "60s": 9}`),
		line(20, 2, `"concurrency": {"10s": 4}`),
		line(40, 2, `"concurrency": {"10s": null}`),
		line(60, 2, `"concurrency": {"10s": 6}`),
		line(400, 3, `"concurrency": {"10s": 1}`), // speaks for a minute
	}, "\n")
	demand, pods, err := history.ReadRecords(strings.NewReader(in), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	n := nan()
	want := []float64{3, n, 6, n, n, n, n, n, n, n, n, n, n, n, n, n, n, 1, 1, 1}
	if diff := cmp.Diff(want, demand.Values, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("concurrency:\n%s", diff)
	}
	if !demand.Start.Equal(begin) || pods.Values[0] != 1.5 || pods.Values[1] != 2 || pods.Values[19] != 3 {
		t.Errorf("from %v, pods %v: want 1.5, 2, …, 3", demand.Start, pods.Values)
	}
	if _, _, err := history.ReadRecords(strings.NewReader(in+"\n{}"), 20*time.Second); err == nil || !strings.Contains(err.Error(), "line 7") {
		t.Errorf("a broken line: %v, want its number", err)
	}
	if demand, _, err = history.ReadRecords(strings.NewReader(""), time.Minute); err != nil || len(demand.Values) != 0 {
		t.Errorf("nothing: %v, %v", demand, err)
	}
}
