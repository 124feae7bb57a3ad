package loop

import "time"

// slew is by which part of the time that passes the loop's time may run faster or slower than that,
// to come back to a clock that was set.
const slew = 10

// clock makes the loop's own time of the instants of views. It runs as time passes, whatever others
// set the clock of the wall to: a step moves no timer, of the loop or of its policy. Its instants
// carry no monotonic reading, so that they mean the same when they are serialized.
//
// A shell whose instants carry a monotonic reading, as time.Now's do, is safe from steps in both
// directions. Without one a step forward looks like time that passed; a step back makes the loop's
// time stand still for a moment.
type clock struct {
	// seen is the instant of the last view, and at the loop's time then.
	seen, at time.Time
	// born is View.Born as it was last seen, and bornAt the same in the loop's time.
	born, bornAt time.Time
}

// step returns the clock at a view. The loop's time never goes back.
func (c clock) step(now time.Time) clock {
	if c.at.IsZero() {
		c.seen, c.at = now, now.Round(0)
		return c
	}
	passed := max(0, now.Sub(c.seen))
	c.seen, c.at = now, c.at.Add(passed)
	gap := now.Round(0).Sub(c.at)
	c.at = c.at.Add(min(max(gap, -passed/slew), passed/slew))
	return c
}

// instant is the loop's time at an instant after the last view.
func (c clock) instant(now time.Time) time.Time { return c.at.Add(max(0, now.Sub(c.seen))) }

// birth notes when the workload was first to be scaled. An age is measured once, so that no later
// step of the clock changes it.
func (c clock) birth(born time.Time) clock {
	if !born.Equal(c.born) {
		c.born, c.bornAt = born, c.at.Add(-max(0, c.seen.Sub(born)))
	}
	return c
}
