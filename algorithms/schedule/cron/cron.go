// Package cron reads cron expressions of five fields and tells when they are due, in a time zone
// and by wall clock: minute (0–59), hour (0–23), day of month (1–31), month (1–12 or JAN–DEC), day
// of week (0–7 or SUN–SAT, 0 and 7 being Sunday). A field is *, a number, a range a-b, either with
// a step /n, or a comma list of these. When day of month and day of week are both restricted
// (neither begins with *), a day matches if either does, as in Vixie cron. @hourly, @daily,
// @midnight, @weekly, @monthly, @yearly and @annually are short forms.
//
// When clocks change, a time that is skipped is due at the first instant after the gap, and a time
// that occurs twice is due the first time only. So every day has exactly one 02:30, and a window
// opened and closed by wall clock never stays open.
package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Schedule is a parsed expression. The zero value is never due. It is immutable and safe for
// concurrent use.
type Schedule struct {
	minute, hour, dom, month, dow uint64
	// anyDay says that both day fields are restricted, so that either suffices.
	anyDay bool
	text   string
}

// String returns the expression as it was given.
func (s Schedule) String() string { return s.text }

type field struct {
	name     string
	min, max int
	names    []string
}

func fields() [5]field {
	return [5]field{
		{name: "minute", min: 0, max: 59},
		{name: "hour", min: 0, max: 23},
		{name: "day of month", min: 1, max: 31},
		{name: "month", min: 1, max: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
		{name: "day of week", min: 0, max: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
	}
}

func alias(name string) (string, bool) {
	switch name {
	case "@yearly", "@annually":
		return "0 0 1 1 *", true
	case "@monthly":
		return "0 0 1 * *", true
	case "@weekly":
		return "0 0 * * 0", true
	case "@daily", "@midnight":
		return "0 0 * * *", true
	case "@hourly":
		return "0 * * * *", true
	}
	return "", false
}

// Parse reads an expression. It refuses one that can never be due, such as 30 February.
func Parse(expr string) (Schedule, error) {
	text := expr
	if strings.HasPrefix(expr, "@") {
		full, ok := alias(strings.ToLower(expr))
		if !ok {
			return Schedule{}, fmt.Errorf("cron %q: want @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually", expr)
		}
		expr = full
	}
	parts := strings.Fields(expr)
	if len(parts) != 5 {
		return Schedule{}, fmt.Errorf("cron %q: %d fields: want 5 (minute hour day-of-month month day-of-week)", text, len(parts))
	}
	var sets [5]uint64
	var errs []error
	for i, f := range fields() {
		set, err := f.parse(parts[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("cron %q: %s %w", text, f.name, err))
		}
		sets[i] = set
	}
	if err := errors.Join(errs...); err != nil {
		return Schedule{}, err
	}
	if sets[4]&(1<<7) != 0 {
		sets[4] = sets[4]&^(1<<7) | 1
	}
	s := Schedule{
		minute: sets[0], hour: sets[1], dom: sets[2], month: sets[3], dow: sets[4], text: text,
		anyDay: !strings.HasPrefix(parts[2], "*") && !strings.HasPrefix(parts[4], "*"),
	}
	if _, ok := s.Next(time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return Schedule{}, fmt.Errorf("cron %q: never falls due", text)
	}
	return s, nil
}

func (f field) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.max {
				return 0, fmt.Errorf("step %q: want 1–%d", stepText, f.max)
			}
		}
		lo, hi := f.min, f.max
		if f.max == 7 {
			hi = 6 // * is each day once
		}
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			if lo, err = f.number(from); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if hi, err = f.number(to); err != nil {
					return 0, err
				}
			case !stepped:
				hi = lo
			}
			if lo > hi {
				return 0, fmt.Errorf("range %q: want it to rise", span)
			}
		}
		for v := lo; v <= hi; v += step {
			set |= 1 << v
		}
	}
	return set, nil
}

func (f field) number(text string) (int, error) {
	for i, n := range f.names {
		if strings.EqualFold(n, text) {
			return i + f.min, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < f.min || v > f.max || strings.HasPrefix(text, "+") {
		return 0, fmt.Errorf("%q: want %d–%d", text, f.min, f.max)
	}
	return v, nil
}

// maxDays is how many days Next and Prev search: 29 February may be 8 years away, and a weekday on
// it (both by *-steps) 40.
const maxDays = 366 * 41

func (s Schedule) day(d time.Time) bool {
	if s.month&(1<<uint(d.Month())) == 0 {
		return false
	}
	dom, dow := s.dom&(1<<uint(d.Day())) != 0, s.dow&(1<<uint(d.Weekday())) != 0
	if s.anyDay {
		return dom || dow
	}
	return dom && dow
}

// Next returns the first instant after t at which the schedule is due, in t's location; ok is false
// when there is none.
func (s Schedule) Next(t time.Time) (at time.Time, ok bool) {
	for k := range maxDays {
		d := date(t, k)
		if !s.day(d) {
			continue
		}
		for h := s.hour; h != 0; h &= h - 1 {
			for m := s.minute; m != 0; m &= m - 1 {
				if at := wall(d, bits.TrailingZeros64(h), bits.TrailingZeros64(m), t.Location()); at.After(t) {
					return at, true
				}
			}
		}
	}
	return time.Time{}, false
}

// Prev returns the last instant at or before t at which the schedule was due, in t's location; ok
// is false when there is none.
func (s Schedule) Prev(t time.Time) (at time.Time, ok bool) {
	// Where clocks went back over midnight, a time of the next calendar day may have fallen due
	// already.
	for k := 1; k > -maxDays; k-- {
		d := date(t, k)
		if !s.day(d) {
			continue
		}
		for h := s.hour; h != 0; {
			top := 63 - bits.LeadingZeros64(h)
			h &^= 1 << top
			for m := s.minute; m != 0; {
				low := 63 - bits.LeadingZeros64(m)
				m &^= 1 << low
				if at := wall(d, top, low, t.Location()); !at.After(t) {
					return at, true
				}
			}
		}
	}
	return time.Time{}, false
}

// date is the calendar day of t moved by k days, at noon in UTC, which only names the day.
func date(t time.Time, k int) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+k, 12, 0, 0, 0, time.UTC)
}

// wall is the instant at which clocks in loc first show that time of day d, or the end of the gap
// if they never do.
func wall(d time.Time, hour, minute int, loc *time.Location) time.Time {
	at := time.Date(d.Year(), d.Month(), d.Day(), hour, minute, 0, 0, loc)
	start, end := at.ZoneBounds()
	// in a gap; Go may take either side
	if at.Hour() != hour || at.Minute() != minute || at.Day() != d.Day() {
		if asked := naive(d, hour, minute); naive(at, at.Hour(), at.Minute()).After(asked) && !start.IsZero() {
			return start
		}
		return end
	}
	if !start.IsZero() { // does the offset before give the same wall clock earlier?
		_, now := at.Zone()
		_, was := start.Add(-1).Zone()
		if early := at.Add(time.Duration(now-was) * time.Second); early.Before(start) {
			return early
		}
	}
	return at
}

// naive is a wall clock as if it were UTC, to compare wall clocks.
func naive(d time.Time, hour, minute int) time.Time {
	return time.Date(d.Year(), d.Month(), d.Day(), hour, minute, 0, 0, time.UTC)
}
