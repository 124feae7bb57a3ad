package window_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

var epoch = time.Unix(1_800_000_000, 0)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * 1e9)) }

// reading is of a source born at the given second that reads sum at second now.
func reading(born, now, sum float64) window.Reading {
	return window.Reading{Life: float64(epoch.Unix()) + born, Mono: now - born, Sums: [window.Values]float64{sum, sum * 10}, At: at(now)}
}

func TestOver(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		readings []window.Reading
		end      float64
		width    time.Duration
		want     window.Span
	}{
		{name: "nothing read", end: 10, width: 10 * time.Second},
		{
			name:     "between two readings of an old source",
			readings: []window.Reading{reading(-1000, 0, 500), reading(-1000, 10, 530)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 30, Covered: 10},
		},
		{
			name:     "an old source's first reading tells nothing",
			readings: []window.Reading{reading(-1000, 10, 500)},
			end:      10, width: 10 * time.Second, want: window.Span{},
		},
		{
			name:     "the edge is interpolated",
			readings: []window.Reading{reading(-1000, 0, 0), reading(-1000, 10, 30)},
			end:      10, width: 4 * time.Second, want: window.Span{Sum: 12, Covered: 4},
		},
		{
			name:     "born within the window: zero before, exact since",
			readings: []window.Reading{reading(6, 8, 4), reading(6, 10, 10)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 10, Covered: 4, Before: 6},
		},
		{
			name:     "a pause in reading is no gap in knowledge",
			readings: []window.Reading{reading(-1000, 0, 0), reading(-1000, 1, 1), reading(-1000, 9, 49), reading(-1000, 10, 50)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 50, Covered: 10},
		},
		{
			name:     "a restart leaves a gap from the last reading to the new birth",
			readings: []window.Reading{reading(-1000, 0, 0), reading(-1000, 4, 40), reading(7, 10, 3)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 43, Covered: 7},
		},
		{
			name:     "after the newest reading",
			readings: []window.Reading{reading(-1000, 0, 0), reading(-1000, 6, 6)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 6, Covered: 6, After: 4},
		},
		{
			name:     "a counter that fell is a gap, never negative",
			readings: []window.Reading{reading(-1000, 0, 100), reading(-1000, 4, 104), reading(-1000, 6, 2), reading(-1000, 10, 10)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 12, Covered: 8},
		},
		{
			name:     "a clock that went back within a life is refused",
			readings: []window.Reading{reading(-1000, 0, 0), reading(-1000, 10, 30), reading(-1000, 5, 9)},
			end:      10, width: 10 * time.Second, want: window.Span{Sum: 30, Covered: 10},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s window.Series
			for _, r := range tt.readings {
				s.Add(r)
			}
			got := s.Over(at(tt.end), tt.width, 0)
			if !near(got.Sum, tt.want.Sum) || !near(got.Covered, tt.want.Covered) || !near(got.Before, tt.want.Before) || !near(got.After, tt.want.After) {
				t.Errorf("Over = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-3*(1+math.Abs(b)) }

func TestAddRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1} {
		for name, r := range map[string]window.Reading{
			"life": {Life: v, Mono: 1, At: epoch},
			"mono": {Life: 1, Mono: v, At: epoch},
			"sum":  {Life: 1, Mono: 1, Sums: [window.Values]float64{0, v}, At: epoch},
		} {
			var s window.Series
			if s.Add(r) {
				t.Errorf("Add took %v as %s", v, name)
			}
		}
	}
}

// Late answers must not shift the timeline: the source's clock says when it was read.
func TestLateAnswersShiftNothing(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var s window.Series
	for i := range 60 {
		r := reading(-1000, float64(i), 7*float64(i)) // 7 in flight
		r.At = r.At.Add(time.Duration(rng.Float64() * float64(900*time.Millisecond)))
		s.Add(r)
	}
	end, _ := s.Newest()
	if got := s.Over(end, 30*time.Second, 0); !near(got.Sum/30, 7) {
		t.Errorf("mean = %v, want 7", got.Sum/30)
	}
	if lag := end.Sub(at(59)); lag < 0 || lag > 100*time.Millisecond {
		t.Errorf("the newest reading is placed %v after its instant, want at most the least delay seen", lag)
	}
}

// naive keeps every reading of one life and walks them all.
type naive []window.Reading

func (n naive) over(end time.Time, w time.Duration) (sum, covered float64) {
	hi := end.Sub(epoch).Seconds()
	lo := hi - w.Seconds()
	for i := 1; i < len(n); i++ {
		a, b := n[i-1], n[i]
		from, to := a.At.Sub(epoch).Seconds(), b.At.Sub(epoch).Seconds()
		x, y := max(lo, from), min(hi, to)
		if y <= x {
			continue
		}
		sum += (b.Sums[0] - a.Sums[0]) * (y - x) / (to - from)
		covered += y - x
	}
	return sum, covered
}

func TestAgainstNaiveTwin(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var (
			s    window.Series
			twin naive
			sum  float64
			now  float64
		)
		step := []float64{1, 5, 15}[seed%3]
		for range 5000 {
			gap := step * (0.8 + 0.4*rng.Float64())
			now += gap
			sum += gap * float64(rng.IntN(20))
			r := reading(-1e6, now, sum)
			s.Add(r)
			twin = append(twin, r)
		}
		for range 200 {
			w := time.Duration(1+rng.IntN(80)) * time.Second
			end := at(now - rng.Float64()*5)
			wantSum, wantCovered := twin.over(end, w)
			got := s.Over(end, w, 0)
			if !near(got.Sum, wantSum) || !near(got.Covered, wantCovered) {
				t.Fatalf("seed %d: Over(%v) = %+v, want sum %v of %v s", seed, w, got, wantSum, wantCovered)
			}
		}
		// Long windows lose nothing but the edge's position: at most one coarse interval of at most
		// 19 in flight.
		for _, w := range []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour} {
			wantSum, _ := twin.over(at(now), w)
			got := s.Over(at(now), w, 0)
			if math.Abs(got.Sum-wantSum) > 61*19 || !near(got.Covered, w.Seconds()) {
				t.Fatalf("seed %d: Over(%v) = %+v, want sum %v", seed, w, got, wantSum)
			}
		}
	}
}

func TestNoAllocationOnReading(t *testing.T) {
	var s window.Series
	for i := range 600 {
		s.Add(reading(-1000, float64(i), float64(i)))
	}
	end := at(599)
	if n := testing.AllocsPerRun(100, func() { s.Over(end, time.Minute, 0) }); n != 0 {
		t.Errorf("Over allocates %v times, want 0", n)
	}
}

func FuzzSeries(f *testing.F) {
	f.Add(1.0, 1.0, 1.0, 2.0, 2.0, 2.0, int64(1e9))
	f.Add(1.0, 5.0, 9.0, 1.0, 4.0, 8.0, int64(-1e9))
	f.Add(0.0, 5.0, 9.0, 0.0, 1.0, 1.0, int64(0))
	f.Fuzz(func(t *testing.T, life1, mono1, sum1, life2, mono2, sum2 float64, shift int64) {
		var s window.Series
		s.Add(window.Reading{Life: life1, Mono: mono1, Sums: [window.Values]float64{sum1}, At: epoch})
		s.Add(window.Reading{Life: life2, Mono: mono2, Sums: [window.Values]float64{sum2}, At: epoch.Add(time.Duration(shift % int64(time.Hour)))})
		got := s.Over(epoch.Add(time.Second), 30*time.Second, 0)
		if got.Sum < 0 || math.IsNaN(got.Sum) || got.Covered < 0 || got.Before < 0 || got.After < 0 || got.Covered+got.Before+got.After > 30.001 {
			t.Errorf("Over = %+v: want finite parts of the window", got)
		}
	})
}

func BenchmarkOver(b *testing.B) {
	var s window.Series
	for i := range 600 {
		s.Add(reading(-1000, float64(i), float64(i)))
	}
	end := at(599)
	for b.Loop() {
		s.Over(end, time.Minute, 0)
	}
}
