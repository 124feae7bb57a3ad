package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

type kind uint8

const (
	poisson kind = iota
	even
	exact
	gamma
	weibull
)

// Model says how requests fall within a bin of which only the count is known. It is declared, as it
// decides about the waits: real traffic within a minute is burstier than Poisson, and even arrivals
// are the kindest possible. The zero value is Poisson.
//
//	poisson         at random at the bin's rate; the count is Poisson with the bin's value as its mean   · ·· ·   ··  ·
//	even            evenly spaced; the bin's count exactly, if it is whole                               · · · · · · · ·
//	exact           at random, but the bin's count exactly (uniform order statistics)                    · ·· ·   ··  ·
//	gamma:cv=C      gaps are Gamma distributed, with coefficient of variation C (0.01–100)               ···    ··    ·
//	weibull:cv=C    gaps are Weibull distributed, with coefficient of variation C (0.01–30)              ···    ··    ·
//
// gamma and weibull are stationary renewal processes of the bins' rate, carried across bins by time
// rescaling; CVs of 4–9 were measured for single clients (ServeGen). The index of dispersion of
// their counts tends to C² within a bin of many requests.
type Model struct {
	kind  kind
	cv    float64
	shape float64
}

// ParseModel reads a model as listed at Model. Its error names the fault and all models.
func ParseModel(text string) (Model, error) {
	s := parseSpec(text)
	m := Model{}
	switch s.name {
	case "poisson":
		m.kind = poisson
	case "even":
		m.kind = even
	case "exact":
		m.kind = exact
	case "gamma":
		m = gammaModel(s.number("cv", "a coefficient of variation", 0.01, 100, math.NaN()))
	case "weibull":
		m = weibullModel(s.number("cv", "a coefficient of variation", 0.01, 30, math.NaN()))
	default:
		s.fault("no such model")
	}
	if err := s.err(); err != nil {
		return Model{}, fmt.Errorf("arrival model %q: %s; models are poisson, even, exact, gamma:cv=C, weibull:cv=C", text, oneLine(err))
	}
	return m, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// String is the model's specification, as ParseModel reads it.
func (m Model) String() string {
	switch m.kind {
	case even:
		return "even"
	case exact:
		return "exact"
	case gamma:
		return fmt.Sprintf("gamma:cv=%g", m.cv)
	case weibull:
		return fmt.Sprintf("weibull:cv=%g", m.cv)
	default:
		return "poisson"
	}
}

func gammaModel(cv float64) Model { return Model{kind: gamma, cv: cv, shape: 1 / (cv * cv)} }

func weibullModel(cv float64) Model {
	return Model{kind: weibull, cv: cv, shape: weibullShape(cv)}
}

// weibullShape solves Γ(1+2/k)/Γ(1+1/k)² − 1 = cv² for the shape k. The left side falls with k, so
// it is bisected.
func weibullShape(cv float64) float64 {
	want := math.Log1p(cv * cv)
	lo, hi := 0.05, 200.0
	for range 100 {
		k := math.Sqrt(lo * hi)
		two, _ := math.Lgamma(1 + 2/k)
		one, _ := math.Lgamma(1 + 1/k)
		if two-2*one > want {
			lo = k
		} else {
			hi = k
		}
	}
	return math.Sqrt(lo * hi)
}

// gaps makes the times between arrivals, of mean 1.
type gaps interface {
	// first is the time from a random instant to the next arrival: the equilibrium distribution of
	// the residual gap.
	first() float64
	fill(dst *[batch]float64)
}

func (m Model) gaps(rng *rand.Rand) gaps {
	switch m.kind {
	case even:
		return evenGaps{}
	case gamma:
		return &gammaGaps{rng: rng, shape: m.shape}
	case weibull:
		k := m.shape
		return &weibullGaps{rng: rng, inverse: 1 / k, scale: 1 / math.Gamma(1+1/k)}
	default:
		return &poissonGaps{rng: rng}
	}
}

type poissonGaps struct{ rng *rand.Rand }

func (g *poissonGaps) first() float64 { return g.rng.ExpFloat64() }

func (g *poissonGaps) fill(dst *[batch]float64) {
	for i := range dst {
		dst[i] = g.rng.ExpFloat64()
	}
}

// evenGaps start in the middle of a gap, so that a bin of n holds n.
type evenGaps struct{}

func (evenGaps) first() float64 { return 0.5 }

func (evenGaps) fill(dst *[batch]float64) {
	for i := range dst {
		dst[i] = 1
	}
}

// gammaGaps have shape k and scale 1/k.
type gammaGaps struct {
	rng   *rand.Rand
	shape float64
}

// first is U·X with X of the length-biased distribution, which is Gamma with shape k+1.
func (g *gammaGaps) first() float64 {
	return g.rng.Float64() * GammaVariate(g.rng, g.shape+1) / g.shape
}

func (g *gammaGaps) fill(dst *[batch]float64) {
	for i := range dst {
		dst[i] = GammaVariate(g.rng, g.shape) / g.shape
	}
}

// weibullGaps are scale·E^(1/k), E exponential.
type weibullGaps struct {
	rng            *rand.Rand
	inverse, scale float64
}

// first is U·X with X of the length-biased distribution: E is Gamma with shape 1+1/k there.
func (g *weibullGaps) first() float64 {
	return g.rng.Float64() * g.scale * math.Pow(GammaVariate(g.rng, 1+g.inverse), g.inverse)
}

func (g *weibullGaps) fill(dst *[batch]float64) {
	for i := range dst {
		dst[i] = g.scale * math.Pow(g.rng.ExpFloat64(), g.inverse)
	}
}

// GammaVariate draws from Gamma(shape, 1), shape > 0, by Marsaglia and Tsang, "A simple method for
// generating gamma variables" (ACM TOMS 26, 2000); below shape 1 by Gamma(shape+1)·U^(1/shape).
func GammaVariate(rng *rand.Rand, shape float64) float64 {
	boost := 1.0
	if shape < 1 {
		boost = math.Exp(-rng.ExpFloat64() / shape)
		shape++
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		u := 1 - rng.Float64()
		if u < 1-0.0331*x*x*x*x || math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return boost * d * v
		}
	}
}
