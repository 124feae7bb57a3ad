package signal

import (
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// track is the past of one signal. The value of a sample stands for the time since the sample
// before it, unless something in between was unknown. Package window keeps the integral of that, so
// that means and what is known of them are those of all other signals.
type track struct {
	series window.Series
	// epoch is long before the first sample: to the series nothing is known before that.
	epoch time.Time
	// life counts the stretches without a gap, sum is the integral over the present one.
	life, sum float64
	broken    bool
	at        time.Time
	value     float64
}

// unborn is longer than a window reaches back.
const unborn = 2 * window.Longest

// exact is the share of the integral below which an increase would lose digits.
const exact = 1e-6

// add takes a sample. One that is not younger than the one before says nothing new.
func (t *track) add(at time.Time, value float64) {
	if t.epoch.IsZero() {
		t.epoch, t.broken = at.Add(-unborn), true
	}
	if !at.After(t.at) {
		t.broken = false
		t.value = value
		return
	}
	if !t.broken {
		more := value * at.Sub(t.at).Seconds()
		if more > 0 && more < exact*t.sum { // a large past would swallow it
			t.begin(t.at)
		}
		t.sum += more
	} else {
		t.begin(at)
	}
	t.put(at)
	t.at, t.value, t.broken = at, value, false
}

// begin begins a new life at an instant.
func (t *track) begin(at time.Time) {
	t.life++
	t.sum = 0
	t.put(at)
}

func (t *track) put(at time.Time) {
	t.series.Add(window.Reading{Life: t.life, Mono: at.Sub(t.epoch).Seconds(), Sums: [window.Values]float64{t.sum}, At: at})
}

// gap says that the value was unknown: the time until the next sample is not covered.
func (t *track) gap() { t.broken = true }

// over is the mean over a window that ends with the newest sample, and the share of it that is
// known. A width of 0 is the newest sample itself.
func (t *track) over(width time.Duration) (mean, coverage float64) {
	if t.epoch.IsZero() || width < 0 || width > window.Longest {
		return 0, 0
	}
	if width == 0 {
		return t.value, 1
	}
	at, ok := t.series.Newest()
	if !ok {
		return 0, 0
	}
	span := t.series.Over(at, width, 0)
	if span.Covered <= 0 {
		return 0, 0
	}
	return span.Sum / span.Covered, min(1, span.Covered/width.Seconds())
}
