package lookahead

import (
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/forecast"
	"github.com/sluice-autoscaler/sluice/algorithms/residual"
)

// Candidates of the forecast, by how long they remember: the faster follow jumps, the slower see through noise.
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

// names of the candidates, for terms and messages.
func name(candidate int) string {
	return [candidates]string{"last", "mean10s", "mean40s", "mean160s", "trend", "season", "steady"}[candidate]
}

// pending bounds the forecasts that wait for their time to come, per lead time.
const pending = 32

// roots is the scale in which loads are compared, u = √(y + 3/8): in it a Poisson load is equally noisy at any height (Anscombe 1948).
func root(y float64) float64 { return math.Sqrt(y + 0.375) }

func square(u float64) float64 {
	if u <= 0 {
		return 0
	}
	return max(u*u-0.375, 0)
}

// levels is what is remembered of the load itself.
type levels struct {
	// Means are exponential ones over 10, 40 and 160 s; Twice is that of 40 s taken again, for the trend. Ones are the weights they
	// rest on, so that the first minutes are not diluted.
	Means [3]float64 `json:"means"`
	Ones  [3]float64 `json:"ones"`
	Twice float64    `json:"twice"`
	Once  float64    `json:"once"`
	// Last are the newest readings, newest first, each over the short window; Count is how many there are.
	Last  [5]float64 `json:"last"`
	Count int        `json:"count"`
	// Steady is the mean since the last change that noise does not explain, Since how many readings that were, of 160 s at most.
	Steady float64 `json:"steady"`
	Since  int     `json:"since"`
	// Off are the mean squared distances, in roots, of the last 1, 2 and 5 readings from the mean of 160 s; Offs is the weight they rest on. Begun is how
	// many readings are in that mean, 5 at most.
	Off   [3]float64 `json:"off"`
	Offs  float64    `json:"offs"`
	Begun int        `json:"begun"`
}

const (
	// change is how many standard deviations of noise make a change: chance does it once in a thousand.
	change = 3.3
	// rare is how many times further from the mean of 160 s than usual the load must be for that mean to begin anew; offLife is the time, in seconds,
	// in which it is learnt what is usual.
	rare, offLife = 6.0, 1800.0
)

// spans are the counts of readings that changes are looked for in.
func spans() [3]int { return [...]int{1, 2, 5} }

// observe takes in a reading over dt seconds; noise is the variance of the mean of as many readings as the index says, in roots.
func (l *levels) observe(y, dt float64, noise func(readings int) float64) {
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
		if recent := l.mean(k); math.Abs(root(recent)-u) > change*math.Sqrt(noises[i]) {
			l.Steady, l.Since = recent, k
			break
		}
	}
}

// restart begins the mean of 160 s anew where the load has left it as it rarely does: who remembers for long would answer a flash crowd late. noises are
// the variances of means of spans.
func (l *levels) restart(dt float64, noises *[3]float64) {
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
		if math.Abs(e) > rare*math.Sqrt(usual) {
			l.Ones[2] = 1 - math.Exp(-dt*float64(k)/160)
			l.Means[2], l.Begun = l.mean(k)*l.Ones[2], k
			return
		}
	}
}

// mean of the last k readings.
func (l *levels) mean(k int) float64 {
	k = min(max(k, 1), max(l.Count, 1))
	sum := 0.0
	for _, y := range l.Last[:k] {
		sum += y
	}
	return sum / float64(k)
}

// at fills the candidates' forecasts for lead seconds ahead. factor is what the season says of the change until then; noise is the variance of
// one reading in roots.
func (l *levels) at(lead, factor, noise float64, out *[candidates]float64) {
	out[byLast] = l.mean(1)
	out[by10s] = l.Means[0] / max(l.Ones[0], 1e-9)
	out[by40s] = within(within(l.Means[1]/max(l.Ones[1], 1e-9), l.mean(2), noise/2), l.mean(1), noise)
	out[by160s] = l.Means[2] / max(l.Ones[2], 1e-9)
	m, t := l.Means[1]/max(l.Ones[1], 1e-9), l.Twice/max(l.Once, 1e-9)
	// double exponential smoothing: level 2m − t, slope (m − t)/τ; the slope is believed for one τ ahead
	out[byTrend] = max(2*m-t+min(lead, 40)*(m-t)/40, 0)
	out[bySeason] = out[by40s] * factor
	out[bySteady] = l.Steady
}

// within moves a slow mean as far towards a recent one as noise does not explain their difference: it follows jumps and nothing else.
func within(slow, recent, noise float64) float64 {
	d := quiet * math.Sqrt(noise)
	u, v := root(slow), root(recent)
	switch {
	case u < v-d:
		return square(v - d)
	case u > v+d:
		return square(v + d)
	}
	return slow
}

// promise is a forecast that waits for its time.
type promise struct {
	Due time.Time           `json:"due"`
	Y   [candidates]float64 `json:"y"`
	// Best is the candidate believed, Spread the spread at that time.
	Best   int     `json:"best"`
	Spread float64 `json:"spread"`
	// Weight is for how many seconds it stands.
	Weight float64 `json:"weight"`
}

// horizon is one lead time: what was promised for it, how each candidate errs, and the distribution of errors of the one believed.
type horizon struct {
	state horizonState
	// all is of all errors; at of those of forecasts of one level each: loads jump up from where they are low, and down from where they are high
	// (the categories of Mondrian conformal prediction).
	all book
	at  [heights]*book
	// byAll and byLevel are what expect prepared.
	byAll, byLevel excess
}

// heights is how many levels there are, a factor of two each, from half a slot.
const heights = 24

// level is that of a forecast, and how far it is from there to the next, 0–1.
func level(y float64) (int, float64) {
	x := min(math.Log2(max(2*y, 1)), heights-1.001)
	return int(x), x - math.Floor(x)
}

// book is a distribution of errors: tail of errors in spreads, which knows calm times from wild ones; plain of the errors themselves, which
// knows how large they get.
type book struct{ tail, plain residual.Tail }

// bin is a mean load of the past, over the time since the bin before.
type bin struct {
	at time.Time
	y  float64
}

// excess is, by a book, the load that comes in seconds in which it is above something.
type excess struct {
	tail, plain residual.Excess
	// size is how many seconds of errors there are; lead how many of them one jump makes.
	size, lead float64
}

// enough is after how many seconds of errors a book is believed as much as what stands in for it.
const enough = 600

func (b *book) add(e, spread, weight, keep float64) {
	b.tail.Add(e/spread, weight, keep)
	b.plain.Add(e, weight, keep)
}

// sum fills x for a forecast of u roots at that spread. b may be nil.
func (b *book) sum(x *excess, u, spread, lead float64) {
	x.size, x.lead = 0, lead
	if b == nil {
		return
	}
	if x.size = b.tail.Size(); x.size > 0 {
		b.tail.Sum(&x.tail, func(z float64) float64 { return square(u + z*spread) })
		b.plain.Sum(&x.plain, func(e float64) float64 { return square(u + e) })
	}
}

// above is the load of errors over e, less one jump's; the lesser of what the errors in spreads say and, once there are enough of them, of what
// the errors themselves say: a wild time does not make errors larger than any that was.
func (x *excess) above(e, spread float64) float64 {
	if x.size == 0 {
		return 0
	}
	load, share := x.tail.Above(e / spread)
	if x.size >= enough {
		l, s := x.plain.Above(e)
		load, share = min(load, l), min(share, s)
	}
	if e > 0 && load > 0 {
		load *= max(1-x.lead/(share*x.size), 0)
	}
	return load
}

type horizonState struct {
	Promises []promise `json:"promises,omitempty"`
	// Asked is when the last promise was made.
	Asked time.Time `json:"asked,omitzero"`
	// Erred are the means of squared errors in roots, Weighed the seconds that they rest on, both discounted; Spread2 is that of the candidate
	// believed, beyond noise.
	Erred   [candidates]float64 `json:"erred"`
	Weighed float64             `json:"weighed"`
	Best    int                 `json:"best"`
	Spread2 float64             `json:"spread2"`
	// All and At, by level, are for snapshots.
	All bookState         `json:"all"`
	At  map[int]bookState `json:"at,omitempty"`
}

type bookState struct {
	Tail  residual.TailState `json:"tail"`
	Plain residual.TailState `json:"plain"`
}

const (
	// choice is after how many seconds an error counts half in the choice of a candidate; spreadLife the same for the spread.
	choice, spreadLife = 1800.0, 600.0
	// quiet is how many standard deviations of noise an error must exceed to be one: what pure chance does in 1 of 100 cases
	// is the queueing formula's matter, not the forecast's.
	quiet = 2.33
	// unstable is the share by which another candidate must err less to be believed instead.
	unstable = 0.9
	// longest is how many lead times a bin of the past may last to tell of jumps.
	longest = 10.0
)

// beyond is the part of an error that noise of that variance does not explain.
func beyond(e, noise float64) float64 {
	v := e*e - quiet*quiet*noise
	if v <= 0 {
		return 0
	}
	return math.Copysign(math.Sqrt(v), e)
}

// settle compares what was promised for now, lead seconds ago, with what came: the mean of the last k readings, whose variance is noise in roots. Errors count
// half after life seconds. jumps are counted unless it is nil.
func (h *horizon) settle(now time.Time, l *levels, k int, noise, lead, life float64, jumps *clock) {
	s := &h.state
	due := 0
	for due < len(s.Promises) && !s.Promises[due].Due.After(now) {
		p := &s.Promises[due]
		due++
		if now.Sub(p.Due) > 10*time.Second {
			continue // a gap: nobody saw what came
		}
		u := root(l.mean(k))
		kept := math.Exp2(-p.Weight/choice) * s.Weighed
		s.Weighed = kept + p.Weight
		forget := kept / s.Weighed
		for i, y := range p.Y {
			e := u - root(y)
			s.Erred[i] = forget*s.Erred[i] + (1-forget)*e*e
		}
		y := p.Y[p.Best]
		e := beyond(u-root(y), noise)
		if jumps != nil && e > 0 && square(u) > jumped*y {
			jumps.add(p.Due, p.Weight/max(lead, p.Weight)) // a jump is an error for as long as the lead
		}
		h.enter(y, e, p.Spread, p.Weight, life)
	}
	if due == 0 {
		return
	}
	s.Promises = s.Promises[:copy(s.Promises, s.Promises[due:])]
	best := s.Best
	for i := range s.Erred {
		if s.Erred[i] < s.Erred[best] {
			best = i
		}
	}
	if s.Erred[best] < unstable*s.Erred[s.Best] {
		s.Best = best
	}
}

// enter books an error e of a forecast y that was made at that spread. It stands for weight seconds, and counts half after life seconds.
func (h *horizon) enter(y, e, spread, weight, life float64) {
	keep := math.Exp2(-weight / life)
	h.all.add(e, spread, weight, keep)
	at, part := level(y)
	for i, share := range [...]float64{1 - part, part} {
		if h.at[at+i] == nil {
			h.at[at+i] = new(book)
		}
		h.at[at+i].add(e, spread, weight*max(share, 1e-9), keep)
	}
	calm := math.Exp2(-weight / spreadLife)
	h.state.Spread2 = calm*h.state.Spread2 + (1-calm)*e*e
}

// recall puts the errors that the forecast of no change would have made in the past, lead seconds ahead, in the place of those that there are; they count half
// after life seconds. floor and noise are variances in roots: of a forecast, and of a mean over so many seconds. A jump between two bins makes errors for as
// long as the lead. Bins of more than longest leads tell nothing: what is a step in them may have taken all their time. jumps are those counted then.
func (h *horizon) recall(past []bin, lead, life, floor float64, noise func(seconds float64) float64) (jumps clock) {
	h.all, h.at, h.state.Spread2 = book{}, [heights]*book{}, 0
	from := 0 // the bin that was the newest when the forecast was made
	for i := 1; i < len(past); i++ {
		w := past[i].at.Sub(past[i-1].at).Seconds()
		if w <= 0 || w > longest*lead {
			from = i // a gap: nobody saw what came
			continue
		}
		for from+1 < i && past[i].at.Sub(past[from+1].at).Seconds() >= lead {
			from++
		}
		jump := min(lead, w)
		e := beyond(root(past[i].y)-root(past[from].y), 2*noise(w))
		if e > 0 && past[i].y > jumped*past[from].y {
			jumps.spread(past[i-1].at, past[i].at, jump/lead)
		}
		h.enter(past[from].y, e, h.spread(floor), jump, life)
		if w > jump {
			h.enter(past[i].y, 0, h.spread(floor), w-jump, life)
		}
	}
	return jumps
}

// spread is in roots: what errors beyond noise were lately, never below floor, a variance.
func (h *horizon) spread(floor float64) float64 { return math.Sqrt(h.state.Spread2 + floor) }

// expect prepares late for a forecast y at that spread, lead seconds ahead.
func (h *horizon) expect(y, spread, lead float64) {
	h.all.sum(&h.byAll, root(y), spread, lead)
	at, part := level(y)
	if part >= 0.5 {
		at++
	}
	h.at[at].sum(&h.byLevel, root(y), spread, lead)
}

// late is the load, in slots, that is expected to come in seconds in which it is above load, for the forecast of expect. Errors at its
// level count for as much as there are of them, all errors for one jump's worth, a minute at least; and a minute's worth of a prior, e^−z
// beyond the middle, stands in while there are few.
func (h *horizon) late(load, y, spread float64) float64 {
	e := root(load) - root(y)
	prior := max(load, y)
	if e > 0 {
		prior *= 0.5 * math.Exp(-e/spread)
	}
	late := (h.byAll.size*h.byAll.above(e, spread) + 60*prior) / (h.byAll.size + 60)
	others := max(h.byLevel.lead, 60)
	return (h.byLevel.size*h.byLevel.above(e, spread) + others*late) / (h.byLevel.size + others)
}

// promise records a forecast for now + lead, unless the last one is too young for the bound on their number.
func (h *horizon) promise(now time.Time, lead time.Duration, y *[candidates]float64, floor float64) {
	s := &h.state
	weight := 1.0
	if !s.Asked.IsZero() {
		since := now.Sub(s.Asked)
		if since < lead/(pending-2) {
			return
		}
		weight = min(since, max(lead, time.Minute)).Seconds()
	}
	if len(s.Promises) >= pending { // the lead time grew
		return
	}
	s.Promises = append(s.Promises, promise{Due: now.Add(lead), Y: *y, Best: s.Best, Spread: h.spread(floor), Weight: max(weight, 1e-3)})
	s.Asked = now
}

// ratio is by which factor the season says that the load changes from now to then, within 1/16–16; 1 where it says nothing.
func ratio(d *forecast.Daily, now, then time.Time) float64 {
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
