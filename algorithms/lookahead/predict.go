package lookahead

import (
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/residual"
)

// Candidates of the forecast, by how long they remember: the faster follow jumps, the slower see
// through noise.
const (
	byLast = iota
	by10s
	by40s
	by160s
	byTrend
	bySeason
	bySteady
	candidates
)

// name is the candidate's, for terms and messages.
func name(candidate int) string {
	return [candidates]string{"last", "mean10s", "mean40s", "mean160s", "trend", "season", "steady"}[candidate]
}

// maxIssued bounds the forecasts per lead time whose time has not come.
const maxIssued = 32

// root is the scale in which loads are compared, u = √(y + 3/8): in it a Poisson load has the same
// variance at any level (Anscombe 1948).
func root(y float64) float64 { return math.Sqrt(y + 0.375) }

// square inverts root.
func square(u float64) float64 {
	if u <= 0 {
		return 0
	}
	return max(u*u-0.375, 0)
}

// averages is what is remembered of the load itself.
type averages struct {
	// Means are exponential ones over 10, 40 and 160 s; Twice is that of 40 s smoothed again, for
	// the trend. Ones and Once are their weights, so that the first minutes are not diluted.
	Means [3]float64 `json:"means"`
	Ones  [3]float64 `json:"ones"`
	Twice float64    `json:"twice"`
	Once  float64    `json:"once"`
	// Last are the newest readings, newest first, each over the short window; Count is how many
	// there are.
	Last  [5]float64 `json:"last"`
	Count int        `json:"count"`
	// Steady is the mean since the last change that noise does not explain, Since over how many
	// readings, of 160 s at most.
	Steady float64 `json:"steady"`
	Since  int     `json:"since"`
	// Off are the mean squared distances, in roots, of the last 1, 2 and 5 readings from the mean
	// of 160 s; Offs is the weight behind them. Begun is how many readings are in that mean, 5 at
	// most.
	Off   [3]float64 `json:"off"`
	Offs  float64    `json:"offs"`
	Begun int        `json:"begun"`
}

const (
	// changeSigmas is how many standard deviations of noise make a change: chance exceeds it once
	// in a thousand.
	changeSigmas = 3.3
	// restartFactor is how many times its usual distance the load must be from the mean of 160 s
	// for that mean to restart. offLife is the time constant, in seconds, of the usual distance.
	restartFactor, offLife = 6.0, 1800.0
)

// spans are the counts of readings in which changes are looked for.
func spans() [3]int { return [...]int{1, 2, 5} }

// observe adds a reading over dt seconds. noise is the variance, in roots, of the mean of so many
// readings.
func (l *averages) observe(y, dt float64, noise func(readings int) float64) {
	dt = min(dt, 600)
	for i, tau := range [...]float64{10, 40, 160} {
		k := 1 - math.Exp(-dt/tau)
		l.Means[i] += k * (y - l.Means[i])
		l.Ones[i] += k * (1 - l.Ones[i])
	}
	k := 1 - math.Exp(-dt/40)
	l.Twice += k * (l.Means[1]/l.Ones[1] - l.Twice)
	l.Once += k * (1 - l.Once)
	copy(l.Last[1:], l.Last[:4])
	l.Last[0] = y
	l.Count = min(l.Count+1, 5)
	var noises [3]float64
	for i, k := range spans() {
		noises[i] = noise(k)
	}
	l.restart(dt, &noises)
	l.Since = min(l.Since+1, max(int(160/dt), 1))
	l.Steady += (y - l.Steady) / float64(l.Since)
	u := root(l.Steady)
	for i, k := range spans() {
		if k > l.Count || k >= l.Since {
			break
		}
		if recent := l.mean(k); math.Abs(root(recent)-u) > changeSigmas*math.Sqrt(noises[i]) {
			l.Steady, l.Since = recent, k
			break
		}
	}
}

// restart begins the mean of 160 s anew where the load has left it as it rarely does: a long mean
// would follow a flash crowd late. noises are the variances of means of spans.
func (l *averages) restart(dt float64, noises *[3]float64) {
	u := root(l.Means[2] / l.Ones[2])
	g := 1 - math.Exp(-dt/offLife)
	was := l.Offs
	l.Offs += g * (1 - l.Offs)
	l.Begun = min(l.Begun+1, len(l.Last))
	for i, k := range spans() {
		if k > l.Begun {
			return
		}
		e := root(l.mean(k)) - u
		usual := noises[i]
		if was > 0 {
			usual = max(usual, l.Off[i]/was)
		}
		l.Off[i] += g * (e*e - l.Off[i])
		if math.Abs(e) > restartFactor*math.Sqrt(usual) {
			l.Ones[2] = 1 - math.Exp(-dt*float64(k)/160)
			l.Means[2], l.Begun = l.mean(k)*l.Ones[2], k
			return
		}
	}
}

// mean is that of the last k readings.
func (l *averages) mean(k int) float64 {
	k = min(max(k, 1), max(l.Count, 1))
	sum := 0.0
	for _, y := range l.Last[:k] {
		sum += y
	}
	return sum / float64(k)
}

// forecasts fills the candidates' forecasts for lead seconds ahead. factor is the seasonal change
// until then; noise is the variance of one reading in roots.
func (l *averages) forecasts(lead, factor, noise float64, out *[candidates]float64) {
	out[byLast] = l.mean(1)
	out[by10s] = l.Means[0] / max(l.Ones[0], 1e-9)
	out[by40s] = pullTowards(pullTowards(l.Means[1]/max(l.Ones[1], 1e-9), l.mean(2), noise/2), l.mean(1), noise)
	out[by160s] = l.Means[2] / max(l.Ones[2], 1e-9)
	m, t := l.Means[1]/max(l.Ones[1], 1e-9), l.Twice/max(l.Once, 1e-9)
	// Double exponential smoothing: level 2m − t, slope (m − t)/τ, for one τ ahead at most.
	out[byTrend] = max(2*m-t+min(lead, 40)*(m-t)/40, 0)
	out[bySeason] = out[by40s] * factor
	out[bySteady] = l.Steady
}

// pullTowards moves a slow mean towards a recent one, as far as noise does not explain their
// difference: it follows jumps and nothing else.
func pullTowards(slow, recent, noise float64) float64 {
	d := noiseSigmas * math.Sqrt(noise)
	u, v := root(slow), root(recent)
	switch {
	case u < v-d:
		return square(v - d)
	case u > v+d:
		return square(v + d)
	}
	return slow
}

// issued is a forecast whose time has not come.
type issued struct {
	Due time.Time           `json:"due"`
	Y   [candidates]float64 `json:"y"`
	// Best is the candidate chosen then, Spread the spread then.
	Best   int     `json:"best"`
	Spread float64 `json:"spread"`
	// Weight is for how many seconds it counts.
	Weight float64 `json:"weight"`
}

// horizon is one lead time: its issued forecasts, the error of each candidate, and the distribution
// of residuals of the chosen one.
type horizon struct {
	state horizonState
	// all holds the residuals of all forecasts, byCategory those of forecasts of one level each:
	// loads jump up from low levels, and down from high ones (the categories of Mondrian conformal
	// prediction).
	all        residuals
	byCategory [categories]*residuals
	// overAll and overCategory are filled by prepare.
	overAll, overCategory exceedance
}

// categories is how many levels there are, a factor of two each, from half a slot.
const categories = 24

// category is the level of a forecast, and how far it is from there to the next, 0–1.
func category(y float64) (int, float64) {
	x := min(math.Log2(max(2*y, 1)), categories-1.001)
	return int(x), x - math.Floor(x)
}

// residuals is a distribution of residuals: tail of residuals in spreads, which tells calm times
// from wild ones; plain of the residuals themselves, which bounds how large they get.
type residuals struct{ tail, plain residual.Tail }

// bin is a mean load of the past, over the time since the previous bin.
type bin struct {
	at time.Time
	y  float64
}

// exceedance is, by a distribution of residuals, the load in seconds in which the load exceeds a
// bound.
type exceedance struct {
	tail, plain residual.Excess
	// size is how many seconds of residuals there are, lead how many of them one jump makes.
	size, lead float64
}

// minResidualSeconds is after how many seconds of residuals a distribution weighs as much as its
// prior.
const minResidualSeconds = 600

func (b *residuals) add(e, spread, weight, keep float64) {
	b.tail.Add(e/spread, weight, keep)
	b.plain.Add(e, weight, keep)
}

// sum fills x for a forecast of u roots at that spread. b may be nil.
func (b *residuals) sum(x *exceedance, u, spread, lead float64) {
	x.size, x.lead = 0, lead
	if b == nil {
		return
	}
	if x.size = b.tail.Size(); x.size > 0 {
		b.tail.Sum(&x.tail, func(z float64) float64 { return square(u + z*spread) })
		b.plain.Sum(&x.plain, func(e float64) float64 { return square(u + e) })
	}
}

// above is the load of residuals over e, less one jump's. It is the lesser of what residuals in
// spreads say and, once there are enough of them, of what residuals themselves say: a wild time
// makes no residual larger than any seen.
func (x *exceedance) above(e, spread float64) float64 {
	if x.size == 0 {
		return 0
	}
	load, share := x.tail.Above(e / spread)
	if x.size >= minResidualSeconds {
		l, s := x.plain.Above(e)
		load, share = min(load, l), min(share, s)
	}
	if e > 0 && load > 0 {
		load *= max(1-x.lead/(share*x.size), 0)
	}
	return load
}

type horizonState struct {
	Issued []issued `json:"promises,omitempty"`
	// IssuedAt is when the last forecast was issued.
	IssuedAt time.Time `json:"asked,omitzero"`
	// Errors are the means of squared errors in roots, ErrorWeight the seconds behind them, both
	// discounted; Spread2 is that of the chosen candidate, beyond noise.
	Errors      [candidates]float64 `json:"erred"`
	ErrorWeight float64             `json:"weighed"`
	Best        int                 `json:"best"`
	Spread2     float64             `json:"spread2"`
	// All and At, by level, are set in snapshots only.
	All residualsState         `json:"all"`
	At  map[int]residualsState `json:"at,omitempty"`
}

type residualsState struct {
	Tail  residual.TailState `json:"tail"`
	Plain residual.TailState `json:"plain"`
}

const (
	// choiceHalfLife and spreadHalfLife are after how many seconds an error counts half in the
	// choice of a candidate and in the spread.
	choiceHalfLife, spreadHalfLife = 1800.0, 600.0
	// noiseSigmas is how many standard deviations of noise a residual must exceed: what chance
	// exceeds in 1 of 100 cases is left to the queueing formula.
	noiseSigmas = 2.33
	// switchShare is the share of the chosen candidate's error below which another one is chosen.
	switchShare = 0.9
	// maxBinLeads is the length, in lead times, up to which a bin of the past tells of jumps.
	maxBinLeads = 10.0
)

// unexplained is the part of a residual that noise of that variance does not explain.
func unexplained(e, noise float64) float64 {
	v := e*e - noiseSigmas*noiseSigmas*noise
	if v <= 0 {
		return 0
	}
	return math.Copysign(math.Sqrt(v), e)
}

// verify compares the forecasts for now, issued lead seconds ago, with the load: the mean of the
// last k readings, whose variance is noise in roots. Residuals count half after life seconds. jumps
// counts jumps unless it is nil.
func (h *horizon) verify(now time.Time, l *averages, k int, noise, lead, life float64, jumps *jumpProfile) {
	s := &h.state
	due := 0
	for due < len(s.Issued) && !s.Issued[due].Due.After(now) {
		p := &s.Issued[due]
		due++
		if now.Sub(p.Due) > 10*time.Second {
			continue // a gap in the readings
		}
		u := root(l.mean(k))
		kept := math.Exp2(-p.Weight/choiceHalfLife) * s.ErrorWeight
		s.ErrorWeight = kept + p.Weight
		forget := kept / s.ErrorWeight
		for i, y := range p.Y {
			e := u - root(y)
			s.Errors[i] = forget*s.Errors[i] + (1-forget)*e*e
		}
		y := p.Y[p.Best]
		e := unexplained(u-root(y), noise)
		if jumps != nil && e > 0 && square(u) > jumpThreshold*y {
			// a jump is an error for as long as the lead
			jumps.add(p.Due, p.Weight/max(lead, p.Weight))
		}
		h.record(y, e, p.Spread, p.Weight, life)
	}
	if due == 0 {
		return
	}
	s.Issued = s.Issued[:copy(s.Issued, s.Issued[due:])]
	best := s.Best
	for i := range s.Errors {
		if s.Errors[i] < s.Errors[best] {
			best = i
		}
	}
	if s.Errors[best] < switchShare*s.Errors[s.Best] {
		s.Best = best
	}
}

// record adds a residual e of a forecast y that was issued at that spread. It counts for weight
// seconds, and half after life seconds.
func (h *horizon) record(y, e, spread, weight, life float64) {
	keep := math.Exp2(-weight / life)
	h.all.add(e, spread, weight, keep)
	at, part := category(y)
	for i, share := range [...]float64{1 - part, part} {
		if h.byCategory[at+i] == nil {
			h.byCategory[at+i] = new(residuals)
		}
		h.byCategory[at+i].add(e, spread, weight*max(share, 1e-9), keep)
	}
	calm := math.Exp2(-weight / spreadHalfLife)
	h.state.Spread2 = calm*h.state.Spread2 + (1-calm)*e*e
}

// replay replaces the residuals by those that the forecast of no change would have had in the past,
// lead seconds ahead; they count half after life seconds. floor and noise are variances in roots:
// of a forecast, and of a mean over so many seconds. A jump between two bins makes residuals for as
// long as the lead time. Bins longer than maxBinLeads lead times are skipped: a step between them
// may have taken all their time. It returns the jumps.
func (h *horizon) replay(past []bin, lead, life, floor float64, noise func(seconds float64) float64) (jumps jumpProfile) {
	h.all, h.byCategory, h.state.Spread2 = residuals{}, [categories]*residuals{}, 0
	from := 0 // the bin that was the newest when the forecast was made
	for i := 1; i < len(past); i++ {
		w := past[i].at.Sub(past[i-1].at).Seconds()
		if w <= 0 || w > maxBinLeads*lead {
			from = i // a gap in the history
			continue
		}
		for from+1 < i && past[i].at.Sub(past[from+1].at).Seconds() >= lead {
			from++
		}
		jump := min(lead, w)
		e := unexplained(root(past[i].y)-root(past[from].y), 2*noise(w))
		if e > 0 && past[i].y > jumpThreshold*past[from].y {
			jumps.addBetween(past[i-1].at, past[i].at, jump/lead)
		}
		h.record(past[from].y, e, h.spread(floor), jump, life)
		if w > jump {
			h.record(past[i].y, 0, h.spread(floor), w-jump, life)
		}
	}
	return jumps
}

// spread is the recent residual beyond noise, in roots; never below floor, a variance.
func (h *horizon) spread(floor float64) float64 { return math.Sqrt(h.state.Spread2 + floor) }

// prepare prepares lateLoad for a forecast y at that spread, lead seconds ahead.
func (h *horizon) prepare(y, spread, lead float64) {
	h.all.sum(&h.overAll, root(y), spread, lead)
	at, part := category(y)
	if part >= 0.5 {
		at++
	}
	h.byCategory[at].sum(&h.overCategory, root(y), spread, lead)
}

// lateLoad is the load, in slots, that is expected to come in seconds in which the load exceeds
// load, for the forecast of prepare. Residuals of its level weigh as much as there are of them, all
// residuals as much as one jump and a minute at least, and a prior, e^−z beyond the middle, as much
// as a minute.
func (h *horizon) lateLoad(load, y, spread float64) float64 {
	e := root(load) - root(y)
	prior := max(load, y)
	if e > 0 {
		prior *= 0.5 * math.Exp(-e/spread)
	}
	late := (h.overAll.size*h.overAll.above(e, spread) + 60*prior) / (h.overAll.size + 60)
	others := max(h.overCategory.lead, 60)
	return (h.overCategory.size*h.overCategory.above(e, spread) + others*late) / (h.overCategory.size + others)
}

// issue records a forecast for now + lead, unless the last one is too recent for the bound on their
// number.
func (h *horizon) issue(now time.Time, lead time.Duration, y *[candidates]float64, floor float64) {
	s := &h.state
	weight := 1.0
	if !s.IssuedAt.IsZero() {
		since := now.Sub(s.IssuedAt)
		if since < lead/(maxIssued-2) {
			return
		}
		weight = min(since, max(lead, time.Minute)).Seconds()
	}
	if len(s.Issued) >= maxIssued { // the lead time grew
		return
	}
	s.Issued = append(s.Issued, issued{Due: now.Add(lead), Y: *y, Best: s.Best, Spread: h.spread(floor), Weight: max(weight, 1e-3)})
	s.IssuedAt = now
}

// seasonFactor is the factor by which the season changes the load from now to then, within 1/16–16;
// 1 where it is unknown.
func seasonFactor(d *forecast.Daily, now, then time.Time) float64 {
	if d == nil {
		return 1
	}
	a, okA := d.At(now)
	b, okB := d.At(then)
	if !okA || !okB || a <= 0 {
		return 1
	}
	return min(max(b/a, 1.0/16), 16)
}
