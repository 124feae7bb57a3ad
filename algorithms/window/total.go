package window

import "time"

// trusted is the greatest share of the sources' time in a window that may be unknown while the
// value counts as known. The time since a source's newest reading does not count as unknown until
// the caller says that it is missed.
const trusted = 0.5

// Total adds up the means of several sources over one window, and what is not known of them. The
// zero value with Now and Width set is empty. It is not safe for concurrent use.
type Total struct {
	// Now is the window's end.
	Now time.Time
	// Width is the window; 0 adds up readings of the instant.
	Width time.Duration

	value float64
	// Source-seconds (sources, for an instant): all there could be, those that count, and those of
	// them that are unknown.
	total, expected, gap float64
	newest, stalest      time.Time
	missed               bool
}

// Add takes counter k of one source. A live source's window ends at its newest reading, so that the
// time since does not thin its mean out; one that is gone contributed nothing after it. instant is
// the source's newest reading of the gauge, for a Width of 0.
func (t *Total) Add(series *Series, k int, live bool, instant float64) {
	at, ok := series.Newest()
	if !ok {
		return
	}
	if live {
		if t.newest.IsZero() || at.After(t.newest) {
			t.newest = at
		}
		if t.stalest.IsZero() || at.Before(t.stalest) {
			t.stalest = at
		}
	}
	if t.Width == 0 {
		if live {
			t.value += instant
			t.total++
			t.expected++
		}
		return
	}
	end, width := t.Now, t.Width.Seconds()
	if live && at.Before(end) {
		end = at
	}
	sp := series.Over(end, t.Width, k)
	gap := sp.Gap(t.Width)
	t.total += width
	t.gap += gap
	t.expected += sp.Covered + gap
	if sp.Covered > 0 {
		t.value += sp.Sum / sp.Covered * (sp.Covered + gap) / width
	}
}

// Miss takes a source that is needed and was not heard of since an instant: the value is not known.
// Counted says that Add took it too.
func (t *Total) Miss(since time.Time, counted bool) {
	v := 1.0
	if t.Width != 0 {
		v = max(0, min(t.Now.Sub(since), t.Width).Seconds())
	}
	t.missed = true
	if !counted || t.Width == 0 {
		t.total += v
	}
	t.expected += v
	t.gap += v
}

// Value is the sum of the sources' means, in the counter's unit per second; it is to be believed
// only if Known.
func (t *Total) Value() float64 { return t.value }

// Known is false when a source is missed, or less than half of the sources' time in the window was
// covered.
func (t *Total) Known() bool { return !t.missed && t.gap <= trusted*t.expected }

// Coverage is the share of the sources' time in the window that is known, 0–1. Nothing to report is
// wholly known.
func (t *Total) Coverage() float64 {
	if t.total > 0 {
		// what came after the newest readings is told by the age
		return min(max(0, 1-t.gap/t.total), 1)
	}
	return 1
}

// Age is how old the newest reading of the stalest live source is.
func (t *Total) Age() time.Duration {
	if t.stalest.IsZero() {
		return 0
	}
	return max(0, t.Now.Sub(t.stalest))
}

// Newest is the instant of the newest reading of all live sources, the zero time when there is
// none.
func (t *Total) Newest() time.Time { return t.newest }
