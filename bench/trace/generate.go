package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Generator describes a kind of load that Generate can make.
type Generator struct {
	// Name is what a specification begins with.
	Name string
	// Usage is the specification with its parameters; those in brackets may be left out.
	Usage string
	// About says what it does, with formula and units.
	About string
	// Sketch draws the rate over time, or the arrivals.
	Sketch string
}

// Generators lists the kinds of load, in a fixed order, for help texts.
//
// Rates are in requests per second (0–1e9), durations as in Go ("90s", "36h") or in days ("7d"),
// shares within 0–1. Arrivals fall at random at the rate (Poisson) unless it says otherwise; [cv=C]
// makes the gaps Gamma distributed with that coefficient of variation in rescaled time.
func Generators() []Generator {
	all := generators()
	out := make([]Generator, len(all))
	for i, g := range all {
		out[i] = g.Generator
	}
	return out
}

// Generate makes a source from a specification NAME:key=value,… as listed by Generators; its Name
// is the specification. The error names every fault, and the parameters or the generators there
// are.
func Generate(text string) (Source, error) {
	s := parseSpec(text)
	all := generators()
	var names []string
	for _, g := range all {
		names = append(names, g.Name)
		if g.Name != s.name {
			continue
		}
		source := g.make(s)
		if err := s.err(); err != nil {
			return nil, fmt.Errorf("generator %q: %s; want %s", clip(text), oneLine(err), g.Usage)
		}
		return source, nil
	}
	return nil, fmt.Errorf("generator %q: no such generator; there are %s", clip(text), strings.Join(names, ", "))
}

type generator struct {
	Generator
	// make reads the parameters; faults stay with s, and then what it returns is not used.
	make func(s *spec) Source
}

func generators() []generator {
	return []generator{
		{Generator{
			Name: "poisson", Usage: "poisson:rate=8,duration=1h",
			About:  "A Poisson process: gaps are exponential with mean 1/rate.",
			Sketch: "· ·· ·   ··  · ···    · ·  ··",
		}, func(s *spec) Source { return steady(s, Model{}) }},
		{Generator{
			Name: "even", Usage: "even:rate=8,duration=1h",
			About:  "A request every 1/rate seconds, the first after half of that.",
			Sketch: "· · · · · · · · · · · · · · ·",
		}, func(s *spec) Source { return steady(s, Model{kind: even}) }},
		{Generator{
			Name: "gamma", Usage: "gamma:rate=8,cv=4,duration=1h",
			About:  "A stationary renewal process whose gaps are Gamma distributed with mean 1/rate and coefficient of variation cv (0.01–100): shape 1/cv², scale cv²/rate.",
			Sketch: "····     ·  ·····       ·· ··",
		}, func(s *spec) Source {
			return steady(s, gammaModel(s.number("cv", "a coefficient of variation", 0.01, 100, math.NaN())))
		}},
		{Generator{
			Name: "weibull", Usage: "weibull:rate=8,cv=4,duration=1h",
			About:  "A stationary renewal process whose gaps are Weibull distributed with mean 1/rate and coefficient of variation cv (0.01–30): shape k solves Γ(1+2/k)/Γ(1+1/k)² = 1+cv², scale 1/(rate·Γ(1+1/k)).",
			Sketch: "···     ·  ····  ·       · ··",
		}, func(s *spec) Source {
			return steady(s, weibullModel(s.number("cv", "a coefficient of variation", 0.01, 30, math.NaN())))
		}},
		{Generator{
			Name: "mmpp", Usage: "mmpp:rates=5/50,holds=60s/10s,duration=1h[,cv=1]",
			About:  "A Markov-modulated Poisson process: the rates in turn, each for an exponential time of mean holds; it starts in a state with probability hold/Σholds. Mean rate Σ rate·hold / Σ hold.",
			Sketch: "▂▂▂▂▂▂█▂▂▂▂▂▂▂▂▂▂██▂▂▂▂█▂▂▂▂▂",
		}, mmpp},
		{Generator{
			Name: "onoff", Usage: "onoff:rate=50,on=10s,off=60s,duration=1h[,cv=1]",
			About:  "The rate for an exponential time of mean on, then nothing for one of mean off. Mean rate rate·on/(on+off).",
			Sketch: "▁▁▁▁▁▁█▁▁▁▁▁▁▁▁▁▁██▁▁▁▁█▁▁▁▁▁",
		}, onOff},
		{Generator{
			Name: "diurnal", Usage: "diurnal:mean=50,amplitude=0.8,duration=7d[,period=24h][,weekly=0][,noise=0][,cv=1]",
			About:  "rate(t) = mean·(1 − amplitude·cos(2πt/period))·w·noise, lowest at t = 0. Of seven periods the last two are lower by the share weekly: w = (1−weekly)/c for them and 1/c for the others, c = 1 − 2·weekly/7. Noise is lognormal with mean 1 and coefficient of variation noise (0–3), drawn anew each 1/288 of a period, with straight lines between.",
			Sketch: "▁▂▄▆▇▆▄▂▁▂▄▆▇▆▄▂▁▂▃▄▄▄▃▂▁▂▃▄▃",
		}, diurnal},
		{Generator{
			Name: "flash", Usage: "flash:base=5,peak=200,at=30m,rise=30s,decay=10m,duration=2h[,cv=1]",
			About:  "A flash crowd: base until at, a straight rise to peak within rise, then base + (peak−base)·exp(−x/decay), x the time since the peak.",
			Sketch: "▁▁▁▁▁▁▁▁▁█▇▅▄▃▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁",
		}, flash},
		{Generator{
			Name: "ramp", Usage: "ramp:from=1,to=100,duration=1h[,cv=1]",
			About:  "rate(t) = from + (to−from)·t/duration.",
			Sketch: "▁▁▁▁▂▂▂▂▃▃▃▃▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇▇█",
		}, ramp},
		{Generator{
			Name: "steps", Usage: "steps:rates=1/10/5,each=60s[,cv=1]",
			About:  "Each rate in turn for the time each.",
			Sketch: "▁▁▁▁▁▁▁▁▁▁█████████▄▄▄▄▄▄▄▄▄▄",
		}, steps},
		{Generator{
			Name: "sparse", Usage: "sparse:idle=pareto:5m,1.5,duration=24h[,burst=1][,gap=1s]   or   idle=lognormal:5m,4",
			About:  "Bursts with heavy-tailed idle times before each: Pareto with a mean and tail index α > 1, P(X > x) = (m/x)^α with m = mean·(α−1)/α, or lognormal with a mean and a coefficient of variation (0–100). The number of requests of a burst is geometric with mean burst (1–1e9), the gaps within are exponential with mean gap. It starts with an idle time.",
			Sketch: "          ·· ·             ·                              ··",
		}, sparse},
	}
}

func steady(s *spec, m Model) Source {
	rate, d := s.rate("rate"), s.duration("duration", 0)
	return shaped(s, d, m, func(*rand.Rand) profile { return &pieces{list: []segment{straight(0, d, rate, rate)}} })
}

// shaped is a plan called by the specification.
func shaped(s *spec, length time.Duration, m Model, rate func(rng *rand.Rand) profile) Source {
	return &plan{name: s.text, length: length, model: m, rate: rate}
}

// gapsOf reads the optional coefficient of variation.
func gapsOf(s *spec) Model {
	if cv := s.number("cv", "a coefficient of variation", 0.01, 100, 1); cv != 1 {
		return gammaModel(cv)
	}
	return Model{}
}

// pieces is a profile that is known in advance.
type pieces struct {
	list []segment
	i    int
}

func (p *pieces) next() (segment, bool) {
	if p.i == len(p.list) {
		return segment{}, false
	}
	p.i++
	return p.list[p.i-1], true
}

// curve is a profile through knots: lines between rates at instants that rise from 0.
type curve struct {
	length time.Duration
	// knot gives the next instant after t and the rate there.
	knot func(t time.Duration) (time.Duration, float64)
	at   time.Duration
	rate float64
}

func (c *curve) next() (segment, bool) {
	if c.at >= c.length {
		return segment{}, false
	}
	t, r := c.knot(c.at)
	t = max(t, c.at+1)
	s := straight(c.at, t, c.rate, r)
	c.at, c.rate = t, r
	if t > c.length {
		s = straight(s.start, c.length, s.rate, s.rate+s.slope*(c.length-s.start).Seconds())
	}
	return s, true
}

// chain is a rate that stays for exponential times in states, one after the other.
type chain struct {
	rng    *rand.Rand
	length time.Duration
	rates  []float64
	holds  []time.Duration
	state  int
	at     time.Duration
}

func newChain(rng *rand.Rand, length time.Duration, rates []float64, holds []time.Duration) *chain {
	c := &chain{rng: rng, length: length, rates: rates, holds: holds}
	var sum float64
	for _, h := range holds {
		sum += float64(h)
	}
	// As the times are exponential, this start is the stationary one.
	x := rng.Float64() * sum
	for c.state < len(holds)-1 && x >= float64(holds[c.state]) {
		x -= float64(holds[c.state])
		c.state++
	}
	return c
}

func (c *chain) next() (segment, bool) {
	if c.at >= c.length {
		return segment{}, false
	}
	hold := scaled(c.holds[c.state], c.rng.ExpFloat64(), c.length)
	end := min(c.at+hold, c.length)
	s := straight(c.at, end, c.rates[c.state], c.rates[c.state])
	c.at, c.state = end, (c.state+1)%len(c.rates)
	return s, true
}

// scaled is d·f, at least 1 ns and at most just above the limit.
func scaled(d time.Duration, f float64, limit time.Duration) time.Duration {
	x := float64(d) * f
	if !(x < float64(limit)) {
		return limit
	}
	return max(time.Duration(x), 1)
}

func rates(s *spec) []float64 {
	var out []float64
	for _, v := range s.list("rates", "want rates such as 5/50, in requests per second") {
		out = append(out, s.parseNumber("rates", v, "requests per second", 0, maxRate))
	}
	return out
}

func mmpp(s *spec) Source {
	r := rates(s)
	var holds []time.Duration
	for _, v := range s.list("holds", "want mean times such as 60s/10s, one per rate") {
		holds = append(holds, s.parseDuration("holds", v, time.Millisecond))
	}
	if len(r) != len(holds) {
		s.fault("holds: want as many as rates (%d), have %d", len(r), len(holds))
	}
	d := s.duration("duration", 0)
	return shaped(s, d, gapsOf(s), func(rng *rand.Rand) profile { return newChain(rng, d, r, holds) })
}

func onOff(s *spec) Source {
	rate, d := s.rate("rate"), s.duration("duration", 0)
	holds := []time.Duration{s.durationFrom("on", time.Millisecond, 0), s.durationFrom("off", time.Millisecond, 0)}
	return shaped(s, d, gapsOf(s), func(rng *rand.Rand) profile { return newChain(rng, d, []float64{rate, 0}, holds) })
}

func diurnal(s *spec) Source {
	mean, amplitude := s.rate("mean"), s.number("amplitude", "a share", 0, 1, math.NaN())
	period, d := s.durationFrom("period", time.Second, 24*time.Hour), s.duration("duration", 0)
	weekly := s.number("weekly", "a share", 0, 1, 0)
	noise := s.number("noise", "a coefficient of variation", 0, 3, 0)
	sigma := math.Sqrt(math.Log1p(noise * noise))
	const steps = 288
	step := max(period/steps, 1)
	return shaped(s, d, gapsOf(s), func(rng *rand.Rand) profile {
		at := func(t time.Duration) float64 {
			w := 1.0
			if t/period%7 >= 5 {
				w = 1 - weekly
			}
			w /= 1 - 2*weekly/7
			r := mean * w * (1 - amplitude*math.Cos(2*math.Pi*float64(t%period)/float64(period)))
			if noise > 0 {
				r *= math.Exp(sigma*rng.NormFloat64() - sigma*sigma/2)
			}
			return min(max(r, 0), maxRate)
		}
		return &curve{length: d, rate: at(0), knot: func(t time.Duration) (time.Duration, float64) { return t + step, at(t + step) }}
	})
}

func flash(s *spec) Source {
	base, peak := s.rate("base"), s.rate("peak")
	at, rise, decay, d := s.duration("at", 0), s.duration("rise", 0), s.duration("decay", 0), s.duration("duration", 0)
	top := at + rise
	if top < 0 {
		s.fault("at + rise are longer than 292 years")
	}
	// The decay is followed by lines of 1/32 of it, off by at most 1.3e-4 of the way, and ends
	// after 16 of it (1e-7 of the way).
	return shaped(s, d, gapsOf(s), func(*rand.Rand) profile {
		return &curve{length: d, rate: base, knot: func(t time.Duration) (time.Duration, float64) {
			switch {
			case t < at:
				return at, base
			case t < top:
				return top, peak
			case t-top >= 16*decay:
				return d, base
			default:
				next := t + max(decay/32, 1)
				return next, base + (peak-base)*math.Exp(-float64(next-top)/float64(decay))
			}
		}}
	})
}

func ramp(s *spec) Source {
	from, to, d := s.rate("from"), s.rate("to"), s.duration("duration", 0)
	return shaped(s, d, gapsOf(s), func(*rand.Rand) profile { return &pieces{list: []segment{straight(0, d, from, to)}} })
}

func steps(s *spec) Source {
	r, each := rates(s), s.duration("each", 0)
	if float64(each)*float64(len(r)) > float64(longest) {
		s.fault("each = %v: %d steps are longer than 100000d", each, len(r))
		return nil
	}
	d := each * time.Duration(len(r))
	return shaped(s, d, gapsOf(s), func(*rand.Rand) profile {
		p := &pieces{}
		for i, v := range r {
			start := each * time.Duration(i)
			p.list = append(p.list, straight(start, start+each, v, v))
		}
		return p
	})
}

// sparseSource makes bursts with long idle times between.
type sparseSource struct {
	name   string
	length time.Duration
	// idle draws an idle time in units of nanoseconds.
	idle  func(rng *rand.Rand) float64
	burst float64
	gap   time.Duration
}

func sparse(s *spec) Source {
	p := &sparseSource{name: s.text}
	if v, ok := s.need("idle", "want pareto:mean,alpha or lognormal:mean,cv"); ok {
		p.idle = idle(s, v)
	}
	p.length = s.duration("duration", 0)
	p.burst = s.number("burst", "mean requests per burst", 1, 1e9, 1)
	p.gap = s.duration("gap", time.Second)
	return p
}

func idle(s *spec, text string) func(rng *rand.Rand) float64 {
	name, rest, _ := strings.Cut(text, ":")
	first, second, ok := strings.Cut(rest, ",")
	if !ok {
		s.fault("idle = %s: want pareto:mean,alpha or lognormal:mean,cv", text)
		return nil
	}
	mean := float64(s.parseDuration("idle", first, time.Microsecond))
	switch name {
	case "pareto":
		alpha := s.parseNumber("idle", second, "a tail index alpha", 1.01, 100)
		least := mean * (alpha - 1) / alpha
		return func(rng *rand.Rand) float64 { return least * math.Exp(rng.ExpFloat64()/alpha) }
	case "lognormal":
		cv := s.parseNumber("idle", second, "a coefficient of variation", 0, 100)
		sigma := math.Sqrt(math.Log1p(cv * cv))
		return func(rng *rand.Rand) float64 { return mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2) }
	}
	s.fault("idle = %s: want pareto:mean,alpha or lognormal:mean,cv", text)
	return nil
}

// Name implements Source.
func (p *sparseSource) Name() string { return p.name }

// Length implements Source.
func (p *sparseSource) Length() time.Duration { return p.length }

// Open implements Source.
func (p *sparseSource) Open(rng *rand.Rand) Arrivals { return &sparseArrivals{plan: p, rng: fork(rng)} }

type sparseArrivals struct {
	plan *sparseSource
	rng  *rand.Rand
	at   time.Duration
	left int64
	done bool
}

// Read implements Arrivals.
func (a *sparseArrivals) Read(dst []Request) int {
	for n := range dst {
		if a.done {
			return n
		}
		var step float64
		if a.left > 0 {
			step = float64(a.plan.gap) * a.rng.ExpFloat64()
			a.left--
		} else {
			step = a.plan.idle(a.rng)
			// Geometric on 1, 2, … with mean burst: 1 + ⌊E / −ln(1 − 1/burst)⌋, of which the first
			// is this one.
			if a.plan.burst > 1 {
				a.left = int64(a.rng.ExpFloat64() / -math.Log1p(-1/a.plan.burst))
			}
		}
		if !(step < float64(a.plan.length-a.at)) {
			a.done = true
			return n
		}
		a.at += time.Duration(step)
		dst[n] = Request{At: a.at}
	}
	return len(dst)
}
