// Package conformal turns a forecast into an upper bound that is exceeded as often as one wants, whatever the forecast is worth and
// whatever the world does. The score of a forecast ŷ is e = y − ŷ: only too low a forecast hurts, so the bounds are one-sided.
//
//	ACI        bound ŷ + Q, Q the 1 − α_t quantile of the last scores;  α_{t+1} = α_t + γ·(α − missed_t)
//	Tracker    bound ŷ + q_t + r_t;  q_{t+1} = q_t + η·(missed_t − α), r_t a saturating integral of missed − α
//	Tail       the scores' distribution with slow forgetting, for those who weigh how far a bound is exceeded
//
// For ACI, whatever the sequence: |share missed − α| ≤ (max(α₁, 1 − α₁) + γ) / (γT), since α_t ≤ 0 gives the bound +∞ (never missed)
// and α_t ≥ 1 gives −∞ (always missed). Scores of different lead times are not to be mixed: keep one of these per lead time (Leads).
//
// Sources: Gibbs and Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021; Angelopoulos, Candès and
// Tibshirani, "Conformal PID control for time series prediction", NeurIPS 2023; Lei et al., "Distribution-free predictive inference for
// regression", 2018 (scores in units of a local spread). Pure; nothing here is safe for concurrent use.
package conformal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

// Config holds the parameters of ACI.
type Config struct {
	// Alpha is the share of bounds that may be exceeded, in (0, 1).
	Alpha float64
	// Gamma is by how much one miss moves α_t, 0–1; 0.005–0.05 are usual. Higher reacts faster and swings more. 0 never adapts.
	Gamma float64
	// Window is how many scores are kept, 1–4096. Less forgets faster.
	Window int
}

// Default allows a tenth, with the paper's step 0.01 and 200 scores.
func Default() Config { return Config{Alpha: 0.1, Gamma: 0.01, Window: 200} }

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if !(c.Alpha > 0 && c.Alpha < 1) {
		errs = append(errs, fmt.Errorf("alpha = %v: want a share in (0, 1)", c.Alpha))
	}
	if !(c.Gamma >= 0 && c.Gamma <= 1) {
		errs = append(errs, fmt.Errorf("gamma = %v: want 0–1", c.Gamma))
	}
	if c.Window < 1 || c.Window > 4096 {
		errs = append(errs, fmt.Errorf("window = %d: want 1–4096 (scores)", c.Window))
	}
	return errors.Join(errs...)
}

// ACI is adaptive conformal inference for one lead time.
type ACI struct {
	cfg    Config
	state  State
	sorted []float64
}

// State is the memory of an ACI.
type State struct {
	// Alpha is α_t; Scores are the last ones, of which Next is the oldest once they are Window many.
	Alpha  float64   `json:"alpha"`
	Scores []float64 `json:"scores,omitempty"`
	Next   int       `json:"next,omitempty"`
}

// New returns an ACI without scores, with α₁ = α.
func New(c Config) (*ACI, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &ACI{cfg: c, state: State{Alpha: c.Alpha}}, nil
}

// Margin is what to add to the forecast: the ⌈(1−α_t)(n+1)⌉-th smallest of the n scores, the largest where that is beyond them and 0
// where there are none; +∞ when α_t ≤ 0 and −∞ when α_t ≥ 1.
func (a *ACI) Margin() float64 {
	switch n := len(a.sorted); {
	case a.state.Alpha <= 0:
		return math.Inf(1)
	case a.state.Alpha >= 1:
		return math.Inf(-1)
	case n == 0:
		return 0
	default:
		return a.Quantile(1 - a.state.Alpha)
	}
}

// Quantile is the ⌈p(n+1)⌉-th smallest of the n scores, within them; 0 when there are none.
func (a *ACI) Quantile(p float64) float64 {
	n := len(a.sorted)
	if n == 0 {
		return 0
	}
	return a.sorted[min(max(int(math.Ceil(p*float64(n+1))), 1), n)-1]
}

// Alpha is α_t.
func (a *ACI) Alpha() float64 { return a.state.Alpha }

// Scores is how many are kept.
func (a *ACI) Scores() int { return len(a.sorted) }

// Observe takes in a score, and whether the bound that was issued for it was exceeded. A score that is not finite is counted for α
// only. It costs one move within the window.
func (a *ACI) Observe(score float64, missed bool) {
	s := &a.state
	err := 0.0
	if missed {
		err = 1
	}
	s.Alpha += a.cfg.Gamma * (a.cfg.Alpha - err)
	if !algorithms.Finite(score) {
		return
	}
	if len(s.Scores) < a.cfg.Window {
		s.Scores = append(s.Scores, score)
	} else {
		old := s.Scores[s.Next]
		s.Scores[s.Next] = score
		s.Next = (s.Next + 1) % a.cfg.Window
		i, _ := slices.BinarySearch(a.sorted, old)
		a.sorted = slices.Delete(a.sorted, i, i+1)
	}
	i, _ := slices.BinarySearch(a.sorted, score)
	a.sorted = slices.Insert(a.sorted, i, score)
}

// State returns the memory; it shares nothing that changes later.
func (a *ACI) State() State {
	s := a.state
	s.Scores = slices.Clone(s.Scores)
	return s
}

// Load puts back a State; an error leaves the ACI as it was.
func (a *ACI) Load(s State) error {
	if len(s.Scores) > a.cfg.Window || s.Next < 0 || s.Next >= max(len(s.Scores), 1) || !algorithms.Finite(s.Alpha) {
		return fmt.Errorf("conformal state of %d scores at %d, alpha %v: want at most %d", len(s.Scores), s.Next, s.Alpha, a.cfg.Window)
	}
	a.state = s
	a.sorted = slices.Clone(s.Scores)
	slices.Sort(a.sorted)
	return nil
}

// Leads keeps one ACI for each lead time.
type Leads struct {
	leads []time.Duration
	sets  []*ACI
}

// NewLeads returns one ACI per lead time; there must be 1–32, rising.
func NewLeads(c Config, leads ...time.Duration) (*Leads, error) {
	if len(leads) < 1 || len(leads) > 32 || !slices.IsSorted(leads) {
		return nil, fmt.Errorf("lead times %v: want 1–32, rising", leads)
	}
	l := &Leads{leads: slices.Clone(leads)}
	for range leads {
		a, err := New(c)
		if err != nil {
			return nil, err
		}
		l.sets = append(l.sets, a)
	}
	return l, nil
}

// For is the ACI of the least lead time that is not below lead, or of the longest: a longer lead errs more, so its bound is safe.
func (l *Leads) For(lead time.Duration) *ACI {
	i, _ := slices.BinarySearch(l.leads, lead)
	return l.sets[min(i, len(l.sets)-1)]
}

// State returns the memories in the order of the lead times.
func (l *Leads) State() []State {
	out := make([]State, 0, len(l.sets))
	for _, a := range l.sets {
		out = append(out, a.State())
	}
	return out
}

// Load puts back a State of as many lead times; an error leaves all as they were.
func (l *Leads) Load(states []State) error {
	if len(states) != len(l.sets) {
		return fmt.Errorf("conformal state of %d lead times: want %d", len(states), len(l.sets))
	}
	fresh := make([]*ACI, 0, len(states))
	for _, s := range states {
		a := &ACI{cfg: l.sets[0].cfg}
		if err := a.Load(s); err != nil {
			return err
		}
		fresh = append(fresh, a)
	}
	l.sets = fresh
	return nil
}

// Tracker is conformal PI control: it needs no score set, only a step η in the units of the scores.
type Tracker struct {
	// Alpha is the share of bounds that may be exceeded, in (0, 1); Eta the step, > 0 in the score's unit.
	Alpha, Eta float64
	// Integral is the gain of the integrator in the score's unit, ≥ 0; 0 leaves it out. Saturation is how many misses beyond α in a
	// row make the bound infinite when it is in, > 0.
	Integral, Saturation float64
	// Q is q_t, Sum is Σ (missed − α) and Steps t: the memory. Their zero values begin.
	Q, Sum float64
	Steps  int64
}

// Margin is what to add to the forecast: q_t + K·tan(Σ(missed − α)·ln(t+1)/(C·(t+1))), ±∞ where the tangent's argument reaches ±π/2.
func (t *Tracker) Margin() float64 {
	if t.Integral <= 0 || t.Saturation <= 0 {
		return t.Q
	}
	n := float64(t.Steps + 1)
	switch x := t.Sum * math.Log(n+1) / (t.Saturation * n); {
	case x >= math.Pi/2:
		return math.Inf(1)
	case x <= -math.Pi/2:
		return math.Inf(-1)
	default:
		return t.Q + t.Integral*math.Tan(x)
	}
}

// Observe takes in whether the bound was exceeded.
func (t *Tracker) Observe(missed bool) {
	e := -t.Alpha
	if missed {
		e++
	}
	t.Q += t.Eta * e
	t.Sum += e
	t.Steps++
}
