package trace

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRate is the highest rate that is believed, in requests per second: one per nanosecond.
const maxRate = 1e9

// longest is the longest duration that is taken, 274 years: sums of two do not overflow unnoticed.
const longest = 100_000 * 24 * time.Hour

// spec is a parsed specification NAME[:key=value,…]. A piece after a comma that has no "=" belongs
// to the value before it, so that a value may hold commas: idle=pareto:60s,1.5. Its getters collect
// the faults; err gives them all.
type spec struct {
	text, name string
	values     map[string]string
	keys       []string
	read       []string
	errs       []error
}

func parseSpec(text string) *spec {
	s := &spec{text: text, values: map[string]string{}}
	name, rest, found := strings.Cut(text, ":")
	s.name = strings.TrimSpace(name)
	if !found || strings.TrimSpace(rest) == "" {
		return s
	}
	last := ""
	for piece := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(piece, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok && last == "":
			s.fault("%q: want key=value", piece)
		case !ok:
			s.values[last] += "," + piece
		case key == "":
			s.fault("%q: want key=value", piece)
		default:
			if _, twice := s.values[key]; twice {
				s.fault("%s is given twice", key)
			}
			s.values[key], last = strings.TrimSpace(value), key
			s.keys = append(s.keys, key)
		}
	}
	return s
}

func (s *spec) fault(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// text gets a raw value; ok is false when it is absent.
func (s *spec) get(key string) (string, bool) {
	s.read = append(s.read, key)
	v, ok := s.values[key]
	return v, ok
}

func (s *spec) need(key, what string) (string, bool) {
	v, ok := s.get(key)
	if !ok {
		s.fault("%s is missing: %s", key, what)
	}
	return v, ok
}

// number gets a finite number within [lo, hi]; absent, it is def, or a fault if def is NaN.
func (s *spec) number(key, unit string, lo, hi, def float64) float64 {
	v, ok := s.get(key)
	if !ok {
		if math.IsNaN(def) {
			s.fault("%s is missing: want %s within %g–%g", key, unit, lo, hi)
		}
		return def
	}
	return s.parseNumber(key, v, unit, lo, hi)
}

func (s *spec) parseNumber(key, v, unit string, lo, hi float64) float64 {
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil || math.IsNaN(f) || f < lo || f > hi {
		s.fault("%s = %s: want %s within %g–%g", key, v, unit, lo, hi)
		return lo
	}
	return f
}

func (s *spec) rate(key string) float64 {
	return s.number(key, "requests per second", 0, maxRate, math.NaN())
}

// duration gets a duration > 0; absent, it is def, or a fault if def is 0.
func (s *spec) duration(key string, def time.Duration) time.Duration {
	return s.durationFrom(key, 1, def)
}

func (s *spec) durationFrom(key string, least, def time.Duration) time.Duration {
	v, ok := s.get(key)
	if !ok {
		if def == 0 {
			s.fault("%s is missing: want a duration > 0, such as 90s, 15m, 36h or 7d", key)
		}
		return def
	}
	return s.parseDuration(key, v, least)
}

func (s *spec) parseDuration(key, v string, least time.Duration) time.Duration {
	d, err := ParseDuration(v)
	if err != nil || d < least || d > longest {
		s.fault("%s = %s: want a duration within %v–100000d, such as 90s, 15m, 36h or 7d", key, v, least)
		return least
	}
	return d
}

// list gets values separated by "/".
func (s *spec) list(key, what string) []string {
	v, ok := s.need(key, what)
	if !ok {
		return nil
	}
	return strings.Split(v, "/")
}

// err gives all faults, unknown keys among them.
func (s *spec) err() error {
	for _, k := range s.keys {
		if !slices.Contains(s.read, k) {
			s.fault("%s is no parameter of %s", k, s.name)
		}
	}
	return errors.Join(s.errs...)
}

// ParseDuration reads what time.ParseDuration does and days ("7d", "1.5d"), which must stand alone.
// The result may be negative.
func ParseDuration(v string) (time.Duration, error) {
	v = strings.TrimSpace(v)
	if days, ok := strings.CutSuffix(v, "d"); ok {
		f, err := strconv.ParseFloat(days, 64)
		if err != nil || math.Abs(f) > 100_000 || math.IsNaN(f) {
			return 0, fmt.Errorf("%q: want a number of days within ±100,000, such as 7d", v)
		}
		return time.Duration(math.Round(f * 24 * float64(time.Hour))), nil
	}
	return time.ParseDuration(v)
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const long = 120
	if len(s) <= long {
		return s
	}
	return strings.ToValidUTF8(s[:long], "") + "…"
}
