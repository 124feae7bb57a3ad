// Package forecast holds forecasters of a load in bins of equal length: Holt-Winters and a
// regression on daily and weekly waves. Bins without readings are missing, never zero. Forecasts
// are finite and ≥ 0; state is bounded. Nothing here is safe for concurrent use unless it says so.
//
// Sources: Hyndman and Athanasopoulos, "Forecasting: principles and practice", 3rd ed., chapter 8
// (Holt-Winters, damped trend) and 7 (Fourier terms); Young, Pedregal and Tych, "Dynamic harmonic
// regression", 1999.
package forecast

import (
	"errors"
	"fmt"
	"math"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Most bounds forecasts, so that sums of a few of them stay finite.
const Most = 1e15

// clamp makes a forecast of v: finite, 0–Most.
func clamp(v float64) float64 {
	if !(v > 0) { // NaN too
		return 0
	}
	return min(v, Most)
}

// bound keeps a state finite even where the parameters make it unstable.
func bound(v float64) float64 { return min(max(v, -Most), Most) }

// HoltWinters is additive Holt-Winters with a damped trend, in error-correction form:
//
//	e = y − (l + φb + s_i)
//	l ← l + φb + αe,   b ← φb + αβe,   s_i ← s_i + γe,   i the bin's place in the season
//	ŷ(h) = l + (φ + … + φ^h)·b + s_{i+h}
//
// This is the usual form with β* = β and γ the factor on the error against the previous level. It
// is initialized by two whole seasons: l = mean of the first, b = (mean of the second − mean of the
// first) / m, s_i = the first season less its mean; then it runs over the second. A missing bin in
// them takes the other season's value, or the mean of all.
type HoltWinters struct {
	cfg   HoltWintersConfig
	state HoltWintersState
}

// HoltWintersConfig holds the parameters.
type HoltWintersConfig struct {
	// Alpha, Beta and Gamma are the shares of an error that enter level, trend (of what entered the
	// level) and season, 0–1. Higher follows faster and forgets faster.
	Alpha, Beta, Gamma float64
	// Phi is the factor by which the trend is damped each bin, 0–1; 1 keeps it, 0 has none.
	Phi float64
	// Period is the bins of a season, 1–10080.
	Period int
}

// Validate reports every fault.
func (c HoltWintersConfig) Validate() error {
	var errs []error
	for _, p := range []struct {
		name  string
		value float64
	}{{"alpha", c.Alpha}, {"beta", c.Beta}, {"gamma", c.Gamma}, {"phi", c.Phi}} {
		if !(p.value >= 0 && p.value <= 1) {
			errs = append(errs, fmt.Errorf("%s = %v: want 0–1", p.name, p.value))
		}
	}
	if c.Period < 1 || c.Period > 10080 {
		errs = append(errs, fmt.Errorf("period = %d: want 1–10080 (bins)", c.Period))
	}
	return errors.Join(errs...)
}

// HoltWintersState is the memory. Its zero value has seen nothing.
type HoltWintersState struct {
	// Bins is how many bins have passed, missing ones included.
	Bins int64 `json:"bins"`
	// Level, Trend and Season are those of the formulas; Season is empty until two seasons have
	// passed.
	Level  float64   `json:"level"`
	Trend  float64   `json:"trend"`
	Season []float64 `json:"season,omitempty"`
	// First holds the first two seasons while they are collected, −1 for a missing bin.
	First []float64 `json:"first,omitempty"`
}

// NewHoltWinters returns a forecaster with a validated config.
func NewHoltWinters(c HoltWintersConfig) (*HoltWinters, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &HoltWinters{cfg: c}, nil
}

// Ready tells whether two seasons have passed.
func (f *HoltWinters) Ready() bool { return len(f.state.Season) > 0 }

// Update adds the value of the next bin, finite and ≥ 0; any other value is a missing bin.
func (f *HoltWinters) Update(y float64) {
	if !algorithms.Finite(y) || y < 0 || y > Most {
		f.Miss()
		return
	}
	s, m := &f.state, int64(f.cfg.Period)
	if len(s.Season) == 0 {
		f.addFirst(y)
		return
	}
	i := s.Bins % m
	e := y - (s.Level + f.cfg.Phi*s.Trend + s.Season[i])
	s.Level = bound(s.Level + f.cfg.Phi*s.Trend + f.cfg.Alpha*e)
	s.Trend = bound(f.cfg.Phi*s.Trend + f.cfg.Alpha*f.cfg.Beta*e)
	s.Season[i] = bound(s.Season[i] + f.cfg.Gamma*e)
	s.Bins++
}

// Miss passes a missing bin: level and trend continue as forecast.
func (f *HoltWinters) Miss() {
	s := &f.state
	if len(s.Season) == 0 {
		f.addFirst(-1)
		return
	}
	s.Level = bound(s.Level + f.cfg.Phi*s.Trend)
	s.Trend *= f.cfg.Phi
	s.Bins++
}

// addFirst collects the first two seasons, and initializes the state by them.
func (f *HoltWinters) addFirst(y float64) {
	s, m := &f.state, f.cfg.Period
	s.First = append(s.First, y)
	s.Bins++
	if len(s.First) < 2*m {
		return
	}
	seen, sum := 0, 0.0
	for _, y := range s.First {
		if y >= 0 {
			seen, sum = seen+1, sum+y
		}
	}
	if seen < m { // too few values: drop the older season
		s.First = append(s.First[:0], s.First[m:]...)
		return
	}
	mean, raw := sum/float64(seen), s.First
	fill := func(i, other int) float64 {
		switch {
		case raw[i] >= 0:
			return raw[i]
		case raw[other] >= 0:
			return raw[other]
		}
		return mean
	}
	first, second := 0.0, 0.0
	for i := range m {
		first += fill(i, i+m) / float64(m)
		second += fill(i+m, i) / float64(m)
	}
	season := make([]float64, m)
	for i := range m {
		season[i] = fill(i, i+m) - first
	}
	s.Level, s.Trend, s.Season, s.First = first, (second-first)/float64(m), season, nil
	s.Bins -= int64(m)
	for _, y := range raw[m:] {
		f.Update(y)
	}
}

// Forecast is the value h ≥ 1 bins after the last one; ok is false until Ready.
func (f *HoltWinters) Forecast(h int) (y float64, ok bool) {
	s := &f.state
	if len(s.Season) == 0 {
		return 0, false
	}
	h = max(h, 1)
	damped := float64(h)
	if phi := f.cfg.Phi; phi < 1 {
		damped = phi * (1 - math.Pow(phi, float64(h))) / (1 - phi)
	}
	i := (s.Bins + int64(h) - 1) % int64(f.cfg.Period)
	return clamp(s.Level + damped*s.Trend + s.Season[i]), true
}

// State returns the memory; it shares nothing that changes later.
func (f *HoltWinters) State() HoltWintersState {
	s := f.state
	s.Season = append([]float64(nil), s.Season...)
	s.First = append([]float64(nil), s.First...)
	return s
}

// Load puts back a State of the same period; an error leaves the forecaster as it was.
func (f *HoltWinters) Load(s HoltWintersState) error {
	m := f.cfg.Period
	if len(s.Season) != 0 && len(s.Season) != m || len(s.First) >= 2*m || len(s.Season) != 0 && len(s.First) != 0 || s.Bins < 0 {
		return fmt.Errorf("holt-winters state of %d and %d bins: want a season of %d or less than two", len(s.Season), len(s.First), m)
	}
	f.state = s
	return nil
}
