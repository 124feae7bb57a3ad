package score

import "math"

// Vector is the elasticity of one run in the sense of the SPEC Research Group (Herbst et al.,
// "Ready for Rain?", SPEC RG technical report 2016-01; ACM ToMPECS 3(4), 2018), as shares, not
// percent. 0 is ideal in all of them. With demand d, supply s, step Δt and length T, and x⁺ =
// max(0, x):
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

// Elasticity sums up a run step by step, in constant memory. The zero value is empty. It is not
// safe for concurrent use.
type Elasticity struct {
	total, first                  float64
	thetaU, thetaO, tauU, tauO, u float64
	demand, supply                float64
	begun                         bool
}

// Add adds a step of dt seconds with a demand and a supply in pods. Steps with dt ≤ 0 and values
// that are not finite or below 0 are skipped.
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
