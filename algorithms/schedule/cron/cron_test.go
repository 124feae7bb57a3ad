package cron_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/sluice-autoscaler/sluice/algorithms/schedule/cron"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, expr, zone, from, want string }{
		{"every minute", "* * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"},
		{"workdays", "0 8 * * 1-5", "UTC", "2026-11-20T08:00:00Z", "2026-11-23T08:00:00Z"},
		{"names", "0 8 * nov MON", "UTC", "2026-11-24T08:00:00Z", "2026-11-30T08:00:00Z"},
		{"Sunday as 7", "0 0 * * 7", "UTC", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"steps", "*/20 6-8/2 * * *", "UTC", "2026-11-23T06:40:00Z", "2026-11-23T08:00:00Z"},
		{"step from a number", "50/4 * * * *", "UTC", "2026-11-23T06:54:30Z", "2026-11-23T06:58:00Z"},
		{"leap day over 2100", "0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"either day field", "0 0 13 * 5", "UTC", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"},
		{"a starred step does not make it either", "0 0 */2 * 1", "UTC", "2026-11-23T00:00:00Z", "2026-12-07T00:00:00Z"},
		{"short form", "@monthly", "UTC", "2026-11-23T00:00:00Z", "2026-12-01T00:00:00Z"},
		{"skipped time falls due after the gap", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"},
		{"the day after", "30 2 * * *", "Europe/Berlin", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"},
		{"repeated time falls due first", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{"and not again", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		{"repeated, west of Greenwich", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00-04:00", "2026-11-01T01:30:00-04:00"},
		{"skipped, west of Greenwich", "15 2 * * *", "America/New_York", "2026-03-07T12:00:00-05:00", "2026-03-08T03:00:00-04:00"},
		{"midnight that is skipped", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{"half-hour change", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", "2026-04-05T01:45:00+11:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := cron.Parse(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			from, err := time.Parse(time.RFC3339, c.from)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := s.Next(from.In(zone(t, c.zone)))
			if !ok || got.Format(time.RFC3339) != c.want {
				t.Errorf("Next(%s) of %q = %s, want %s", c.from, c.expr, got.Format(time.RFC3339), c.want)
			}
			if back, ok := s.Prev(got); !ok || !back.Equal(got) {
				t.Errorf("Prev(%s) = %s, want itself", got, back)
			}
			if back, ok := s.Prev(got.Add(-1)); ok && back.After(from) {
				t.Errorf("Prev just before %s = %s, between it and %s", got, back, from)
			}
		})
	}
}

// In St. John's clocks used to go from 00:01 on Sunday back to 23:01 on Saturday.
func TestClocksThatGoBackOverMidnight(t *testing.T) {
	t.Parallel()
	s, err := cron.Parse("0 0 * * *")
	if err != nil {
		t.Fatal(err)
	}
	saturday := time.Date(2010, 11, 7, 2, 45, 0, 0, time.UTC).In(zone(t, "America/St_Johns"))
	if got := saturday.Format("Mon 15:04"); got != "Sat 23:15" {
		t.Fatalf("the test's instant is %s", got)
	}
	if got, ok := s.Prev(saturday); !ok || got.UTC().Format(time.RFC3339) != "2010-11-07T02:30:00Z" {
		t.Errorf("Prev = %s, want Sunday's midnight, which has been", got)
	}
	if got, ok := s.Next(saturday); !ok || got.Format(time.RFC3339) != "2010-11-08T00:00:00-03:30" {
		t.Errorf("Next = %s, want Monday's midnight", got)
	}
}

// Next against the slow way: walk minute by minute and look at the wall clock.
func TestNextAgainstWalking(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(41, 42))
	loc := zone(t, "Europe/Berlin")
	changes := []time.Time{time.Date(2026, 3, 28, 20, 0, 0, 0, loc), time.Date(2026, 10, 24, 20, 0, 0, 0, loc), time.Date(2026, 7, 1, 0, 0, 0, 0, loc)}
	for range 300 {
		hour, minute := r.IntN(24), r.IntN(60)
		s, err := cron.Parse(strings.Join([]string{itoa(minute), itoa(hour), "*", "*", "*"}, " "))
		if err != nil {
			t.Fatal(err)
		}
		from := changes[r.IntN(len(changes))].Add(time.Duration(r.IntN(600)) * time.Minute)
		want, before := time.Time{}, clock(from)
		for at := from.Add(time.Minute); want.IsZero(); at = at.Add(time.Minute) {
			now, asked := clock(at), hour*60+minute
			jumped := now > before+1 && before < asked && asked < now // the clock skipped over it
			first := now == asked && clock(at.Add(-time.Hour)) != asked
			if jumped || first {
				want = at
			}
			before = now
		}
		if got, ok := s.Next(from); !ok || !got.Equal(want) {
			t.Fatalf("Next(%s) of %s = %s, want %s", from, s, got, want)
		}
	}
}

func clock(t time.Time) int { return t.Hour()*60 + t.Minute() }

func itoa(n int) string { return string([]byte{byte('0' + n/10), byte('0' + n%10)}) }

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		"":               "0 fields",
		"* * * *":        "4 fields",
		"60 * * * *":     "minute \"60\": want 0–59",
		"* 24 * * *":     "hour",
		"* * 0 * *":      "day of month",
		"* * * foo *":    "month \"foo\"",
		"* * * * 8":      "day of week",
		"5-1 * * * *":    "want it to rise",
		"*/0 * * * *":    "step",
		"1,,2 * * * *":   "minute \"\"",
		"0 0 30 2 *":     "never falls due",
		"@fortnightly":   "@hourly",
		"-1 * * * *":     "minute",
		"0 0 * * mon-xx": "\"xx\"",
	} {
		if _, err := cron.Parse(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", expr, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("*/5 0-6/2 1,15 jan-mar sun", int64(1_700_000_000))
	f.Add("30 2 * * *", int64(1_774_700_000))
	f.Fuzz(func(t *testing.T, expr string, unix int64) {
		s, err := cron.Parse(expr)
		if err != nil {
			return
		}
		from := time.Unix(unix%4_000_000_000, 0).In(zone(t, "Europe/Berlin"))
		next, ok := s.Next(from)
		if !ok || !next.After(from) {
			t.Fatalf("Next(%s) of %q = %s, %v", from, expr, next, ok)
		}
		if back, ok := s.Prev(next); !ok || !back.Equal(next) {
			t.Errorf("Prev(%s) of %q = %s", next, expr, back)
		}
		again, err := cron.Parse(s.String())
		if err != nil || again != s {
			t.Errorf("%q does not read back: %v", s, err)
		}
	})
}
