package forecast

import (
	"errors"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// day is the season of a Daily.
const day = 24 * time.Hour

// DailyConfig holds the parameters of a Daily.
type DailyConfig struct {
	// Bin is the length of a bin, a whole part of a day. Shorter sees sharper edges and costs
	// memory and noise.
	Bin algorithms.Duration `json:"bin"`
	// Alpha, Beta, Gamma and Phi are Holt-Winters': the shares of an error in level, trend and
	// season, and the damping of the trend.
	Alpha float64 `json:"alpha"`
	Beta  float64 `json:"beta"`
	Gamma float64 `json:"gamma"`
	Phi   float64 `json:"phi"`
	// Harmonics of the day and WeekHarmonics of the week enter the regression. HalfLife is after
	// how many days a value counts half in it.
	Harmonics     int     `json:"harmonics"`
	WeekHarmonics int     `json:"weekHarmonics"`
	HalfLife      float64 `json:"halfLife"`
}

// DefaultDaily has bins of 10 minutes; six waves a day and three a week, which suit load with a
// working day; a level that adapts within some bins and a season that adapts within days. Weeks
// count half after two.
func DefaultDaily() DailyConfig {
	return DailyConfig{Bin: algorithms.Duration(10 * time.Minute), Alpha: 0.3, Beta: 0.02, Gamma: 0.3, Phi: 0.9, Harmonics: 6, WeekHarmonics: 3, HalfLife: 14}
}

// DailyParams describes the parameters.
func DailyParams() params.List[DailyConfig] {
	share := params.Between(0, 1)
	waves := params.Between(1, 16)
	return params.List[DailyConfig]{
		params.Of("bin", params.Spans(time.Minute, time.Hour), "", "bin of the forecast",
			func(c *DailyConfig) *algorithms.Duration { return &c.Bin }).Also("a whole part of a day",
			func(c *DailyConfig) bool { return day%time.Duration(c.Bin) == 0 }),
		params.Of("alpha", share, "", "Holt-Winters: share of an error in the level",
			func(c *DailyConfig) *float64 { return &c.Alpha }).Search("0.05..0.8"),
		params.Of("beta", share, "", "of that in the trend",
			func(c *DailyConfig) *float64 { return &c.Beta }),
		params.Of("gamma", share, "", "share of an error in the season",
			func(c *DailyConfig) *float64 { return &c.Gamma }).Search("0.05..0.8"),
		params.Of("phi", share, "", "damping of the trend",
			func(c *DailyConfig) *float64 { return &c.Phi }),
		params.Of("harmonics", waves, "", "waves of a day in the regression",
			func(c *DailyConfig) *int { return &c.Harmonics }).Search("2..12:whole"),
		params.Of("weekHarmonics", waves, "", "waves of a week",
			func(c *DailyConfig) *int { return &c.WeekHarmonics }),
		params.Of("halfLife", params.Above(0), "days", "after how long a value counts half in the regression",
			func(c *DailyConfig) *float64 { return &c.HalfLife }),
	}
}

// Validate reports every fault.
func (c DailyConfig) Validate() error { return DailyParams().Check(&c) }

func (c DailyConfig) holtWinters() HoltWintersConfig {
	return HoltWintersConfig{Alpha: c.Alpha, Beta: c.Beta, Gamma: c.Gamma, Phi: c.Phi, Period: int(day / time.Duration(c.Bin))}
}

func (c DailyConfig) fourier() FourierConfig {
	n := float64(day / time.Duration(c.Bin))
	return FourierConfig{Cycles: []Cycle{{Period: n, Harmonics: c.Harmonics}, {Period: 7 * n, Harmonics: c.WeekHarmonics}}, HalfLife: c.HalfLife * n}
}

// Method is a forecaster of a Daily.
type Method int

// The methods.
const (
	None Method = iota
	ByHoltWinters
	ByHarmonics
)

// String is the method's name for people.
func (m Method) String() string {
	switch m {
	case ByHoltWinters:
		return "Holt-Winters"
	case ByHarmonics:
		return "harmonics"
	case None:
	}
	return "none"
}

// Daily forecasts a load by time of day and week. It sums readings into bins of Unix time, and
// forecasts by Holt-Winters or by a regression on waves, whichever had the lower recent error (mean
// absolute error one bin ahead, half-life a day). A bin with readings for less than half its length
// is missing. After a gap of over two weeks it restarts.
type Daily struct {
	cfg     DailyConfig
	hw      *HoltWinters
	fourier *Fourier
	s       DailyState
	// next[h] are the forecasts of the bins after the last finished one, by method, valid where
	// cached[h].
	cached [ahead + 1]bool
	next   [ahead + 1][3]float64
}

// binWidth is the length of a bin.
func (d *Daily) binWidth() time.Duration { return time.Duration(d.cfg.Bin) }

// ahead is how many bins ahead a Daily forecasts.
const ahead = 8

// DailyState is the memory of a Daily. Its zero value is empty.
type DailyState struct {
	// Bin is the number of the current bin since 1970; Sum and Covered are its unit-seconds and
	// seconds.
	Bin     int64   `json:"bin"`
	Sum     float64 `json:"sum"`
	Covered float64 `json:"covered"`
	// Errors are discounted mean absolute errors by method, Compared the number of bins behind
	// them.
	Errors      [3]float64       `json:"erred"`
	Compared    int              `json:"compared"`
	HoltWinters HoltWintersState `json:"holtWinters"`
	Fourier     FourierState     `json:"fourier"`
}

// NewDaily returns a Daily with a validated config.
func NewDaily(c DailyConfig) (*Daily, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	hw, err := NewHoltWinters(c.holtWinters())
	if err != nil {
		return nil, err
	}
	fourier, err := NewFourier(c.fourier())
	if err != nil {
		return nil, err
	}
	return &Daily{cfg: c, hw: hw, fourier: fourier}, nil
}

// bin is the number of the bin of t since 1970.
func (d *Daily) bin(t time.Time) int64 { return t.Unix() / int64(d.binWidth().Seconds()) }

// Observe adds that the mean over the dt before at was v, finite and ≥ 0; at never goes backwards.
// A part in the previous bin counts there if that bin is not finished.
func (d *Daily) Observe(at time.Time, v float64, dt time.Duration) {
	i := d.bin(at)
	begun := time.Unix(i*int64(d.binWidth().Seconds()), 0)
	dt = min(dt, d.binWidth())
	inside := min(dt, at.Sub(begun))
	if i > d.s.Bin {
		if d.s.Bin > 0 {
			if i == d.s.Bin+1 {
				d.add(v, dt-inside)
			}
			d.finish(i)
		} else {
			// The season begins at midnight.
			d.s.Bin = i
			for range i % int64(d.cfg.holtWinters().Period) {
				d.hw.Miss()
				d.fourier.Miss()
			}
		}
	}
	d.add(v, inside)
}

// maxSampleLength is how long a sample of the past may last; more is a gap.
const maxSampleLength = 2 * time.Hour

// Learn adds the past of one signal: each sample is the mean since the previous one; after a gap of
// over two hours it counts for one bin.
func (d *Daily) Learn(history []algorithms.Sample, signal string) {
	var last time.Time
	for _, s := range history {
		if s.Signal != signal {
			continue
		}
		if v := min(s.Value, Most); !last.IsZero() && s.At.After(last) {
			if s.At.Sub(last) > maxSampleLength {
				last = s.At.Add(-d.binWidth())
			}
			for at := last; at.Before(s.At); { // bin by bin
				next := at.Truncate(d.binWidth()).Add(d.binWidth())
				if next.After(s.At) {
					next = s.At
				}
				d.Observe(next, v, next.Sub(at))
				at = next
			}
		}
		last = s.At
	}
}

func (d *Daily) add(v float64, dt time.Duration) {
	if dt > 0 {
		d.s.Sum = min(d.s.Sum+min(v, Most)*dt.Seconds(), Most*1e6)
		d.s.Covered += dt.Seconds()
	}
}

// finish ends the current bin, and passes the missing ones before bin i.
func (d *Daily) finish(i int64) {
	s := &d.s
	if gap := i - s.Bin; gap > 14*int64(day/d.binWidth()) {
		fresh, err := NewDaily(d.cfg)
		if err == nil { // it was valid before
			*d = *fresh
		}
		d.s.Bin = i
		for range i % int64(d.cfg.holtWinters().Period) {
			d.hw.Miss()
			d.fourier.Miss()
		}
		return
	}
	if s.Covered >= d.binWidth().Seconds()/2 {
		y := s.Sum / s.Covered
		a, okA := d.hw.Forecast(1)
		b, okB := d.fourier.Forecast(1)
		if okA && okB {
			s.Compared++
			keep := math.Exp2(-d.binWidth().Hours() / 24)
			if s.Compared == 1 {
				keep = 0
			}
			s.Errors[ByHoltWinters] = keep*s.Errors[ByHoltWinters] + (1-keep)*math.Abs(y-a)
			s.Errors[ByHarmonics] = keep*s.Errors[ByHarmonics] + (1-keep)*math.Abs(y-b)
		}
		d.hw.Update(y)
		d.fourier.Update(y)
	} else {
		d.hw.Miss()
		d.fourier.Miss()
	}
	for s.Bin++; s.Bin < i; s.Bin++ {
		d.hw.Miss()
		d.fourier.Miss()
	}
	s.Sum, s.Covered = 0, 0
	d.cached = [ahead + 1]bool{}
}

// Best is the method with the lower recent error, None while neither is ready.
func (d *Daily) Best() Method {
	a, b := d.hw.Ready(), d.fourier.Ready()
	switch {
	case a && (!b || d.s.Errors[ByHoltWinters] <= d.s.Errors[ByHarmonics]):
		return ByHoltWinters
	case b:
		return ByHarmonics
	}
	return None
}

// MeanError is the recent mean absolute error of a method, one bin ahead.
func (d *Daily) MeanError(m Method) float64 { return d.s.Errors[m] }

// At is the forecast by the best method for the bin of t: the current one or up to seven later; ok
// is false beyond that, and while no method is ready.
func (d *Daily) At(t time.Time) (y float64, ok bool) {
	m := d.Best()
	h := int(d.bin(t)-d.s.Bin) + 1
	if m == None || h < 1 || h > ahead {
		return 0, false
	}
	if !d.cached[h] {
		d.next[h][ByHoltWinters], _ = d.hw.Forecast(h)
		d.next[h][ByHarmonics], _ = d.fourier.Forecast(h)
		d.cached[h] = true
	}
	return d.next[h][m], true
}

// Max is the largest forecast of the bins that [from, to] touches.
func (d *Daily) Max(from, to time.Time) (y float64, ok bool) {
	for t := from; ; t = t.Add(d.binWidth()) {
		if t.After(to) {
			t = to
		}
		if v, known := d.At(t); known {
			y, ok = max(y, v), true
		}
		if !t.Before(to) {
			return y, ok
		}
	}
}

// State returns the memory; it shares nothing that changes later.
func (d *Daily) State() DailyState {
	s := d.s
	s.HoltWinters, s.Fourier = d.hw.State(), d.fourier.State()
	return s
}

// Load puts back a State of the same config; an error leaves the Daily as it was.
func (d *Daily) Load(s DailyState) error {
	fresh, err := NewDaily(d.cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(fresh.hw.Load(s.HoltWinters), fresh.fourier.Load(s.Fourier)); err != nil {
		return err
	}
	s.HoltWinters, s.Fourier = HoltWintersState{}, FourierState{}
	fresh.s = s
	*d = *fresh
	return nil
}
