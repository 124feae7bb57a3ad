package preset_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// course is the requests in flight at a pod over time, of a Poisson stream whose requests take
// exponentially distributed times.
type course struct {
	events []event // by time
}

type event struct {
	at     float64 // seconds
	change float64 // of requests in flight
	took   float64 // of a request that ends, in seconds
}

func newCourse(rng *rand.Rand, rate, mean, length float64) course {
	var c course
	for t := 0.0; t < length; {
		t += rng.ExpFloat64() / rate
		took := rng.ExpFloat64() * mean
		c.events = append(c.events, event{at: t, change: 1}, event{at: t + took, change: -1, took: took})
	}
	slices.SortFunc(c.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return c
}

// errors are the errors of means over a window, root mean square, as shares of the mean: of a gauge
// that is sampled, and of the durations of what has ended, both read each interval.
func (c course) errors(interval, width time.Duration, length float64) (sampled, late float64) {
	var gauge, durations preset.Track
	var gaugeSeries, durationSeries window.Series
	var inFlight, ended, integral, last, reached float64
	exact := []float64{0} // the integral at each reading
	i := 0
	steps := int(length / interval.Seconds())
	perWindow := int(width / interval)
	var n, square, lateSquare, total float64
	for k := 1; k <= steps; k++ {
		end := float64(k) * interval.Seconds()
		for ; i < len(c.events) && c.events[i].at <= end; i++ {
			e := c.events[i]
			integral += inFlight * (e.at - last)
			last, inFlight, ended = e.at, inFlight+e.change, ended+e.took
		}
		reached = integral + inFlight*(end-last)
		exact = append(exact, reached)
		now := at.Add(time.Duration(end * 1e9))
		for _, p := range gauge.Add(now, preset.Reading{Values: []preset.Value{{Kind: preset.Gauge, Value: inFlight}}}, at, time.Hour) {
			gaugeSeries.Add(p.Reading)
		}
		for _, p := range durations.Add(now, preset.Reading{Values: []preset.Value{{Kind: preset.Durations, Value: ended}}}, at, time.Hour) {
			durationSeries.Add(p.Reading)
		}
		if k%perWindow == 0 && k > 3*perWindow {
			want := exact[k] - exact[k-perWindow]
			got, gotLate := gaugeSeries.Over(now, width, 0).Sum, durationSeries.Over(now, width, 0).Sum
			square += (got - want) * (got - want)
			lateSquare += (gotLate - want) * (gotLate - want)
			total += want
			n++
		}
	}
	mean := total / n
	return math.Sqrt(square/n) / mean, math.Sqrt(lateSquare/n) / mean
}

// TestErrorsAreAsDocumented computes the table of errors in docs/presets.md.
// UPDATE_GOLDEN=1 go test -run TestErrorsAreAsDocumented ./adapter/scrape/preset writes it.
func TestErrorsAreAsDocumented(t *testing.T) {
	t.Parallel()
	const length = 6000.0
	var b strings.Builder
	for _, mean := range []float64{0.1, 1, 10} {
		fmt.Fprintf(&b, "| %v s, %v in flight |", mean, 20*mean)
		var late float64
		for _, interval := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second} {
			c := newCourse(rand.New(rand.NewPCG(7, uint64(mean*10))), 20, mean, length)
			sampled, l := c.errors(interval, time.Minute, length)
			if interval == time.Second {
				late = l
			}
			fmt.Fprintf(&b, " %.1f%% |", 100*sampled)
		}
		fmt.Fprintf(&b, " %.1f%% |\n", 100*late)
	}
	const page, begin, end = "../../../docs/presets.md", "<!-- errors -->\n", "<!-- end of errors -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the errors", page)
	}
	const head = "| requests take | gauge, read each 1 s | 5 s | 15 s | durations |\n|---|---|---|---|---|\n"
	want := "\n" + head + b.String() + "\n"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != want {
		t.Errorf("%s has\n%s\nwant\n%s", page, old, want)
	}
}
