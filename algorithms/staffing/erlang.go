package staffing

import "math"

// Formulas. a is the offered load λS in erlangs (the mean count of busy servers), c a count of
// servers, S the mean service time.
//
//	B(0) = 1,  B(c) = aB(c−1) / (c + aB(c−1))        blocked, Erlang B
//	C = B / (1 − ρ(1 − B)),  ρ = a/c < 1             waits at all, Erlang C
//	Wq = C·S / (c − a)                               mean wait
//	P(W > t) = C·exp(−(c − a)t/S)                    waits longer than t
//
// Source: Erlang 1917; as in Cooper, "Introduction to Queueing Theory". All are pure and safe for
// concurrent use.

// ErlangB is the probability that all c servers are busy when nobody waits. It is exact for a ≥ 0
// and c ≥ 0, in c steps.
func ErlangB(c int, a float64) float64 {
	b := 1.0
	for k := 1; k <= c; k++ {
		b = a * b / (float64(k) + a*b)
	}
	return b
}

// ErlangC is the probability that a request waits at c servers, 1 when they cannot carry the load.
func ErlangC(c int, a float64) float64 { return waits(c, a, ErlangB(c, a)) }

func waits(c int, a, b float64) float64 {
	rho := a / float64(c)
	if !(rho < 1) {
		return 1
	}
	return b / (1 - rho*(1-b))
}

// WaitTail is P(W > t), t in units of the mean service time; 1 when c servers cannot carry the
// load.
func WaitTail(c int, a, t float64) float64 {
	if float64(c) <= a {
		return 1
	}
	return ErlangC(c, a) * math.Exp(-(float64(c)-a)*t)
}

// exactFew is the count of servers up to which WaitShare uses Erlang's recursion.
const exactFew = 64

// WaitShare is WaitTail for frequent calls that need no last digit: exact for up to 64 servers,
// rounded down; beyond, by Halfin and Whitt's limit. It costs 64 steps at most.
func WaitShare(c, a, t float64) float64 {
	switch {
	case !(a > 0):
		return 0
	case !(a < c):
		return 1
	case c >= 1 && c <= exactFew:
		return WaitTail(int(c), a, t)
	}
	return HalfinWhitt((c-a)/math.Sqrt(a)) * math.Exp(-(c-a)*t)
}

// WaitShareWithin is the mean share of requests that wait longer than t until span > 0, in units of
// the mean service time, for a queue that is empty at first. A queue takes time to grow, so that
// for a short while c servers carry even a load above c. burst ≥ 1 is the peakedness of the
// arrivals: the variance of the requests present over that of Poisson arrivals (1). The number of
// requests is approximated by Brownian motion reflected at 0, with drift a − c and variance
// 2a·burst, at four instants of span. For long spans and burst 1 it is WaitShare.
//
// Sources: Harrison, "Brownian Motion and Stochastic Flow Systems", 1985, 1.8; Whitt, "A diffusion
// approximation for the G/GI/n/m queue", 2004.
func WaitShareWithin(c, a, t, span, burst float64) float64 {
	if !(a > 0) {
		return 0
	}
	queue, drift, variance := c*t, a-c, 2*a*burst
	sum := 0.0
	const instants = 4
	for i := range instants {
		sum += reflected(queue, drift, variance, span*(float64(i)+0.5)/instants)
	}
	sum /= instants
	if drift < 0 { // scaled to the exact steady state
		limit := math.Exp(2 * drift * queue / variance)
		if limit == 0 {
			return 0
		}
		ever := 0.0
		if burst > 1 {
			ever = HalfinWhitt(-drift/math.Sqrt(a*burst)) * math.Exp(drift*t/burst)
		} else {
			ever = WaitShare(c, a, t)
		}
		sum = min(sum/limit, 1) * ever
	}
	return sum
}

// reflected is the probability that Brownian motion, started and reflected at 0, is above b > 0 at
// time t > 0; drift and variance are per unit of time.
func reflected(b, drift, variance, t float64) float64 {
	sd := math.Sqrt(variance * t)
	p := normal((drift*t - b) / sd)
	far := (b + drift*t) / sd
	if far > 6 { // Mills' ratio, where the exponential grows as the tail falls
		near := (b - drift*t) / sd
		p += math.Exp(-near*near/2) / (far * math.Sqrt(2*math.Pi))
	} else {
		p += math.Exp(2*drift*b/variance) * normal(-far)
	}
	return min(p, 1)
}

// normal is the standard normal distribution function.
func normal(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }

// HalfinWhitt is the limit α(β) = 1/(1 + βΦ(β)/φ(β)) of the probability to wait with a + β√a
// servers, for many servers. Source: Halfin and Whitt, "Heavy-traffic limits for queues with many
// exponential servers", 1981.
func HalfinWhitt(beta float64) float64 {
	if beta <= 0 {
		return 1
	}
	if beta > 35 { // φ underflows; α is below 1e−268
		return 0
	}
	cdf := normal(beta)
	pdf := math.Exp(-beta*beta/2) / math.Sqrt(2*math.Pi)
	return 1 / (1 + beta*cdf/pdf)
}

// Beta inverts HalfinWhitt: the β at which the probability to wait is alpha in (0, 1), by bisection
// to 1e−12.
func Beta(alpha float64) float64 {
	lo, hi := 0.0, 35.0
	for hi-lo > 1e-12 {
		mid := lo + (hi-lo)/2
		if mid == lo || mid == hi {
			break
		}
		if HalfinWhitt(mid) > alpha {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

// Goal is what callers are promised. Exactly one promise is set; the others are 0.
type Goal struct {
	// WaitProbability is the largest share of requests that may wait at all, in (0, 1).
	WaitProbability float64
	// MeanWait is the longest mean wait, in units of the mean service time, > 0.
	MeanWait float64
	// Tail and TailWait: at most the share Tail, in (0, 1), may wait longer than TailWait mean
	// service times, > 0.
	Tail, TailWait float64
}

// met tells whether c servers with that probability to wait keep the promise. waiting scales the
// waits.
func (g Goal) met(c, a, wait, waiting float64) bool {
	if c <= a {
		return false
	}
	switch {
	case g.WaitProbability > 0:
		return wait <= g.WaitProbability
	case g.MeanWait > 0:
		return waiting*wait/(c-a) <= g.MeanWait
	default:
		return wait*math.Exp(-(c-a)*g.TailWait/waiting) <= g.Tail
	}
}

// exactBelow is the load up to which Erlang's recursion is walked; beyond, Halfin–Whitt's limit
// plus slack serves: it was found to differ by two servers at most (promises of 0.1 % to 99 %,
// loads of 100 to 20,000), and so never asks for fewer.
const (
	// exactBelow is the load up to which Erlang's recursion is used; beyond, Halfin and Whitt's
	// limit plus slack. The two differ by two servers at most (promises of 0.1 % to 99 %, loads of
	// 100 to 20,000), so it never asks for fewer.
	exactBelow = 20_000
	slack      = 3
)

// Servers is the least count that keeps the promise at load a, by Erlang C. variability is (Ca² +
// Cs²)/2, the Allen–Cunneen factor on waiting times; 1 for Poisson arrivals and exponential
// service. 0 load needs 0 servers. Above 20,000 erlangs it is SquareRoot plus three.
func Servers(a, variability float64, g Goal) float64 {
	if !(a > 0) {
		return 0
	}
	if a > exactBelow {
		return SquareRoot(a, variability, g) + slack
	}
	b := 1.0
	for c := 1; ; c++ {
		b = a * b / (float64(c) + a*b)
		if g.met(float64(c), a, waits(c, a, b), variability) {
			return float64(c)
		}
	}
}

// SquareRoot is the least count a + β√a, rounded up, that keeps the promise by Halfin and Whitt's
// limit.
func SquareRoot(a, variability float64, g Goal) float64 {
	if !(a > 0) {
		return 0
	}
	root := math.Sqrt(a)
	if g.WaitProbability > 0 {
		return math.Ceil(a + Beta(g.WaitProbability)*root)
	}
	lo, hi := 0.0, 1.0
	for hi < 1e6 && !g.met(a+hi*root, a, HalfinWhitt(hi), variability) {
		hi *= 2
	}
	for hi-lo > 1e-9*max(1, hi) {
		mid := (lo + hi) / 2
		if g.met(a+mid*root, a, HalfinWhitt(mid), variability) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return math.Ceil(a + hi*root)
}
