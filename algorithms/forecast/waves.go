package forecast

import (
	"errors"
	"fmt"
	"math"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Cycle is a period of a Fourier regression.
type Cycle struct {
	// Period is in bins, > 1; Harmonics is how many waves of it, from the whole period on, 1–16.
	Period    float64
	Harmonics int
}

// FourierConfig holds the parameters of a Fourier regression.
type FourierConfig struct {
	// Cycles are the periods, shortest first, at most 4. One takes part once twice its length has
	// passed.
	Cycles []Cycle
	// HalfLife is after how many bins a value counts half, > 0.
	HalfLife float64
}

// Validate reports every fault.
func (c FourierConfig) Validate() error {
	var errs []error
	if len(c.Cycles) == 0 || len(c.Cycles) > 4 {
		errs = append(errs, fmt.Errorf("cycles: %d: want 1–4", len(c.Cycles)))
	}
	for i, y := range c.Cycles {
		if !(y.Period > 1 && y.Period <= 1e6) || y.Harmonics < 1 || y.Harmonics > 16 || 2*float64(y.Harmonics) > y.Period {
			errs = append(errs, fmt.Errorf("cycles[%d] = %+v: want a period > 1 (bins) and 1–16 harmonics of at least two bins", i, y))
		}
		if i > 0 && !(y.Period > c.Cycles[i-1].Period) {
			errs = append(errs, fmt.Errorf("cycles[%d] = %+v: want the shortest first", i, y))
		}
	}
	if !(c.HalfLife > 0 && c.HalfLife <= 1e9) {
		errs = append(errs, fmt.Errorf("half life = %v: want a number > 0 (bins)", c.HalfLife))
	}
	return errors.Join(errs...)
}

// Fourier is a regression on waves of known periods with forgetting: the coefficients θ of x_t =
// (1, cos 2πjt/P, sin 2πjt/P, …) that minimise Σ 2^(−(T−t)/halfLife)·(y_t − θ·x_t)² + |θ_waves|².
// The last term keeps waves with little data small. An update costs about d² steps and a fit d³/6,
// d = 1 + 2·Σ harmonics.
type Fourier struct {
	cfg    FourierConfig
	decay  float64
	state  FourierState
	theta  []float64
	fitted bool
	x      []float64
	chol   []float64
}

// FourierState is the memory. Its zero value has seen nothing.
type FourierState struct {
	Bins int64 `json:"bins"`
	Seen int64 `json:"seen"`
	// Products is the lower triangle of Σ w·x·xᵀ, row by row; With is Σ w·x·y.
	Products []float64 `json:"products,omitempty"`
	With     []float64 `json:"with,omitempty"`
}

// NewFourier returns a regression with a validated config.
func NewFourier(c FourierConfig) (*Fourier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := 1
	for _, y := range c.Cycles {
		d += 2 * y.Harmonics
	}
	return &Fourier{
		cfg: c, decay: math.Exp2(-1 / c.HalfLife), theta: make([]float64, d), x: make([]float64, d), chol: make([]float64, d*(d+1)/2),
		state: FourierState{Products: make([]float64, d*(d+1)/2), With: make([]float64, d)},
	}, nil
}

// waves fills x for the bin t.
func (f *Fourier) waves(t float64) {
	f.x[0] = 1
	i := 1
	for _, y := range f.cfg.Cycles {
		sin, cos := math.Sincos(2 * math.Pi * math.Mod(t/y.Period, 1))
		c, s := cos, sin
		for range y.Harmonics {
			f.x[i], f.x[i+1] = c, s
			i += 2
			c, s = c*cos-s*sin, s*cos+c*sin
		}
	}
}

// Update adds the value of the next bin, finite and ≥ 0; any other value is a missing bin.
func (f *Fourier) Update(y float64) {
	if !algorithms.Finite(y) || y < 0 || y > Most {
		f.Miss()
		return
	}
	f.waves(float64(f.state.Bins))
	k := 0
	for i, xi := range f.x {
		for _, xj := range f.x[:i+1] {
			f.state.Products[k] = f.decay*f.state.Products[k] + xi*xj
			k++
		}
		f.state.With[i] = f.decay*f.state.With[i] + xi*y
	}
	f.state.Bins++
	f.state.Seen++
	f.fitted = false
}

// Miss passes a missing bin.
func (f *Fourier) Miss() { f.state.Bins++ }

// Ready tells whether twice the shortest period has passed, with values for half of it.
func (f *Fourier) Ready() bool {
	need := 2 * f.cfg.Cycles[0].Period
	return float64(f.state.Bins) >= need && float64(f.state.Seen) >= need/2
}

// Forecast is the value h ≥ 1 bins after the last one; ok is false until Ready.
func (f *Fourier) Forecast(h int) (y float64, ok bool) {
	if !f.Ready() {
		return 0, false
	}
	if !f.fitted {
		f.fit()
	}
	f.waves(float64(f.state.Bins) + float64(max(h, 1)-1))
	for i, c := range f.theta {
		y += c * f.x[i]
	}
	return clamp(y), true
}

// fit solves the normal equations by Cholesky's decomposition, for the cycles that take part.
func (f *Fourier) fit() {
	d := 1
	for _, y := range f.cfg.Cycles {
		if float64(f.state.Bins) >= 2*y.Period {
			d += 2 * y.Harmonics
		}
	}
	at := func(i, j int) int { return i*(i+1)/2 + j }
	l, a := f.chol, f.state.Products
	for i := range d {
		for j := range i + 1 {
			v := a[at(i, j)]
			if i == j && i > 0 {
				v++ // the penalty of one bin's weight
			}
			for k := range j {
				v -= l[at(i, k)] * l[at(j, k)]
			}
			if i == j {
				l[at(i, i)] = math.Sqrt(max(v, 1e-9))
			} else {
				l[at(i, j)] = v / l[at(j, j)]
			}
		}
	}
	for i := range d {
		v := f.state.With[i]
		for k := range i {
			v -= l[at(i, k)] * f.theta[k]
		}
		f.theta[i] = v / l[at(i, i)]
	}
	for i := d - 1; i >= 0; i-- {
		v := f.theta[i]
		for k := i + 1; k < d; k++ {
			v -= l[at(k, i)] * f.theta[k]
		}
		f.theta[i] = v / l[at(i, i)]
	}
	for i := d; i < len(f.theta); i++ {
		f.theta[i] = 0
	}
	f.fitted = true
}

// State returns the memory; it shares nothing that changes later.
func (f *Fourier) State() FourierState {
	s := f.state
	s.Products = append([]float64(nil), s.Products...)
	s.With = append([]float64(nil), s.With...)
	return s
}

// Load puts back a State of the same cycles; an error leaves the regression as it was.
func (f *Fourier) Load(s FourierState) error {
	if len(s.Products) == 0 && len(s.With) == 0 && s.Bins == 0 && s.Seen == 0 { // the zero value
		s.Products, s.With = make([]float64, len(f.state.Products)), make([]float64, len(f.state.With))
	}
	if len(s.Products) != len(f.state.Products) || len(s.With) != len(f.state.With) || s.Bins < 0 || s.Seen < 0 || s.Seen > s.Bins {
		return fmt.Errorf("fourier state of %d terms: want %d", len(s.With), len(f.state.With))
	}
	f.state, f.fitted = s, false
	return nil
}
