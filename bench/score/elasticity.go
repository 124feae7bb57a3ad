package score

import "math"

// Vector is the elasticity of one run in the sense of the SPEC Research Group (Herbst et al., "Ready for Rain?", SPEC RG technical
// report 2016-01; ACM ToMPECS 3(4), 2018), as shares, not percent. 0 is ideal in all of them. With demand d, supply s, step Δt and
// length T, and x⁺ = max(0, x):
//
//	θ_U = 1/T · Σ (d−s)⁺/max(d,1) · Δt     how much was missing, of what was needed; 0–1
//	θ_O = 1/T · Σ (s−d)⁺/max(d,1) · Δt     how much was too much; unbounded
//	τ_U = 1/T · Σ [s < d] · Δt             share of the time with too little; 0–1
//	τ_O = 1/T · Σ [s > d] · Δt             share of the time with too much; 0–1
//	υ   = 1/(T−Δt₁) · Σ [sgn(s−s′) ≠ sgn(d−d′)] · Δt     share of the time in which they do not move the same way, s′ and d′ being
//	                                       those of the step before; 0–1. It depends on Δt: keep that fixed in comparisons.
//
// Without demand θ is undefined in the original; here it is normalised by max(d, 1).
type Vector struct {
	ThetaU  float64 `json:"thetaU"`
	ThetaO  float64 `json:"thetaO"`
	TauU    float64 `json:"tauU"`
	TauO    float64 `json:"tauO"`
	Upsilon float64 `json:"upsilon"`
}

// Elasticity sums up a run step by step, in constant memory. The zero value is empty. It is not safe for concurrent use.
type Elasticity struct {
	total, first, idle            float64
	thetaU, thetaO, tauU, tauO, u float64
	demand, supply                float64
	begun                         bool
}

// Add adds a step of dt seconds with a demand and a supply in pods. Steps with dt ≤ 0 and values that are not finite or below 0
// are skipped.
func (e *Elasticity) Add(demand, supply, dt float64) {
	if !(dt > 0) || !(demand >= 0) || !(supply >= 0) || math.IsInf(dt+demand+supply, 0) {
		return
	}
	e.total += dt
	unit := max(demand, 1)
	switch {
	case supply < demand:
		e.thetaU += (demand - supply) / unit * dt
		e.tauU += dt
	case supply > demand:
		e.thetaO += (supply - demand) / unit * dt
		e.tauO += dt
	}
	if demand == 0 {
		e.idle += supply * dt
	}
	if !e.begun {
		e.begun, e.first = true, dt
	} else if sign(supply-e.supply) != sign(demand-e.demand) {
		e.u += dt
	}
	e.demand, e.supply = demand, supply
}

func sign(x float64) int {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// Vector is the elasticity so far, all 0 if nothing was added.
func (e *Elasticity) Vector() Vector {
	if e.total == 0 {
		return Vector{}
	}
	v := Vector{ThetaU: e.thetaU / e.total, ThetaO: e.thetaO / e.total, TauU: e.tauU / e.total, TauO: e.tauO / e.total}
	if rest := e.total - e.first; rest > 0 {
		v.Upsilon = e.u / rest
	}
	return v
}

// ZeroDemand is the supply at times without demand, in pod-seconds.
func (e *Elasticity) ZeroDemand() float64 { return e.idle }

// Speedup is the elastic speedup of v against a base: the geometric mean of base/v over θ_U, θ_O, τ_U, τ_O, and υ if asked. Above 1
// v is better. Components are at least epsilon (> 0, for example 1e-4), since 0 would make the product 0 or infinite.
func Speedup(v, base Vector, epsilon float64, withUpsilon bool) float64 {
	a, b := v.list(), base.list()
	n := 4
	if withUpsilon {
		n = 5
	}
	var sum float64
	for i := range n {
		sum += math.Log(max(b[i], epsilon) / max(a[i], epsilon))
	}
	return math.Exp(sum / float64(n))
}

// Deviation is the distance from the ideal (0, …, 0) in the Lₙ norm, n ≥ 1: (Σ componentⁿ)^(1/n); n = +Inf gives the largest.
// Chameleon (Bauer et al., TPDS 2019) takes n = 5, the number of components.
func (v Vector) Deviation(n float64) float64 { return norm(v.list(), n) }

// Excess is, for each of a field of vectors, the Lₙ norm of what its components have above the field's mean: how far it falls behind
// the field where it does. n as for Deviation.
func Excess(field []Vector, n float64) []float64 {
	var mean [5]float64
	for _, v := range field {
		for i, x := range v.list() {
			mean[i] += x / float64(len(field))
		}
	}
	out := make([]float64, len(field))
	for j, v := range field {
		over := v.list()
		for i := range over {
			over[i] = max(over[i]-mean[i], 0)
		}
		out[j] = norm(over, n)
	}
	return out
}

func (v Vector) list() [5]float64 { return [5]float64{v.ThetaU, v.ThetaO, v.TauU, v.TauO, v.Upsilon} }

func norm(x [5]float64, n float64) float64 {
	var most, sum float64
	for _, v := range x {
		most = max(most, v)
	}
	if most == 0 || math.IsInf(n, 1) {
		return most
	}
	for _, v := range x {
		sum += math.Pow(v/most, n)
	}
	return most * math.Pow(sum, 1/n)
}
