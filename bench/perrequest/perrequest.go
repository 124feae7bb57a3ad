// Package perrequest simulates scaling per request, as function platforms do it. A request that
// finds no idle instance starts a new one, and an instance that was idle for long enough ends.
// There is no queue and no policy.
package perrequest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/event"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Params are the parameters. Start from ParseParams.
type Params struct {
	// KeepAlive is how long an idle instance is kept, 0s–24h.
	KeepAlive algorithms.Duration `json:"keepAlive"`
	// ColdService is the time from the arrival of a request that starts an instance to its answer.
	// Absent, it is a start-up of the scenario and then the request's own work.
	ColdService *scenario.Dist `json:"coldService,omitempty"`
}

// ParseParams reads JSON parameters over the default, a keep-alive of ten minutes.
func ParseParams(raw json.RawMessage) (Params, error) {
	p := Params{KeepAlive: algorithms.Duration(10 * time.Minute)}
	if err := algorithms.Strict(raw, &p); err != nil {
		return p, fmt.Errorf("perrequest: %w (parameters: keepAlive, coldService)", err)
	}
	if p.KeepAlive < 0 || time.Duration(p.KeepAlive) > 24*time.Hour {
		return p, fmt.Errorf("perrequest: keepAlive = %v: want 0s–24h", time.Duration(p.KeepAlive))
	}
	return p, nil
}

// instance serves one request at a time.
type instance struct {
	created, idleSince int64
	busy               bool
}

// Config is one run. Progress may be nil.
type Config struct {
	// Source gives the arrivals; Scenario the work, the start-up times and the promise.
	Source   trace.Source
	Scenario scenario.Scenario
	// Name is what results call it.
	Name string
	// Seed of all randomness.
	Seed uint64
	// Progress is called with the share of the trace that is done, from time to time.
	Progress func(share float64)
}

// none is no instance, chunk how many requests are read at once.
const (
	none  = int32(-1)
	chunk = 512
)

// Run simulates. Among idle instances the newest is taken, as SimFaaS does (Mahmoudi and Khazaei,
// 2021), so that old ones can end. The result's ColdStarts are requests that started an instance.
func Run(ctx context.Context, c Config, p Params) (score.Run, error) {
	if err := c.Scenario.Validate(); err != nil {
		return score.Run{}, fmt.Errorf("scenario %s: %w", c.Scenario.Name, err)
	}
	s := newPool(&c, p)
	requests := scenario.Requests(c.Source, &c.Scenario, c.Seed)
	buf := make([]trace.Request, chunk)
	for n := requests.Read(buf); n > 0; n = requests.Read(buf) {
		if ctx.Err() != nil {
			return score.Run{}, context.Cause(ctx)
		}
		if c.Progress != nil {
			c.Progress(float64(s.now) / float64(s.end))
		}
		for _, req := range buf[:n] {
			s.arrive(req)
		}
	}
	if err := trace.Err(requests); err != nil {
		return score.Run{}, err
	}
	if len(s.all) >= 1<<31-1 {
		return score.Run{}, errors.New("more than two thousand million instances")
	}
	s.settle(s.end)
	return s.result(), nil
}

// pool is the instances of a run, and what they did until now. Instants are nanoseconds since its
// beginning.
type pool struct {
	scene  *scenario.Scenario
	params Params
	starts *rand.Rand

	now, end int64
	all      []instance // by creation; ended ones are skipped
	idle     newest
	ends     event.Departures // of work
	expiries event.Departures // of idle times; all are equally long

	waits            score.Histogram
	servers, running event.Gauge
	work             float64
	late             int64
	r                score.Result
}

func newPool(c *Config, p Params) *pool {
	return &pool{
		scene: &c.Scenario, params: p, starts: scenario.Stream(c.Seed, scenario.Starts), end: int64(c.Source.Length()),
		r: score.Result{Policy: c.Name, Trace: c.Source.Name(), Scenario: c.Scenario.Name, Seed: c.Seed},
	}
}

// settle goes through the ends of work and of idle times up to an instant.
func (s *pool) settle(until int64) {
	keep := int64(s.params.KeepAlive)
	for {
		done, gone := s.ends.Next(), s.expiries.Next()
		if min(done, gone) > until {
			return
		}
		if done <= gone {
			i := s.ends[0].Pod
			s.ends.Drop()
			s.all[i].busy, s.all[i].idleSince = false, done
			s.running.Set(min(done, s.end), s.running.Value-1)
			s.idle.push(i)
			s.expiries.Push(event.Departure{At: done + keep, Pod: i})
			continue
		}
		i := s.expiries[0].Pod
		s.expiries.Drop()
		if in := &s.all[i]; !in.busy && in.idleSince >= 0 && in.idleSince+keep == gone {
			in.idleSince = -1
			s.servers.Set(min(gone, s.end), s.servers.Value-1)
		}
	}
}

// arrive serves a request by the newest idle instance, or by one that starts for it.
func (s *pool) arrive(req trace.Request) {
	s.now = max(s.now, int64(req.At))
	s.settle(s.now)
	s.r.Requests++
	takes := int64(req.Service)
	s.work += float64(takes)
	i, warm := s.idle.pop(s.all)
	wait := int64(0)
	if !warm {
		s.r.ColdStarts++
		s.r.Starts++
		i = int32(len(s.all))
		s.all = append(s.all, instance{created: s.now})
		s.servers.Set(s.now, s.servers.Value+1)
		s.r.PeakReplicas = max(s.r.PeakReplicas, s.servers.Value)
		if s.params.ColdService != nil {
			takes = int64(s.params.ColdService.Draw(s.starts))
		} else {
			wait = int64(s.scene.Startup.Draw(s.starts))
		}
	}
	s.waits.Add(time.Duration(wait))
	if wait > int64(s.scene.SLO.Wait) {
		s.late++
	}
	s.all[i].busy = true
	s.running.Set(s.now, s.running.Value+1)
	s.ends.Push(event.Departure{At: s.now + wait + takes, Pod: i})
}

// result is the run in numbers, after settle.
func (s *pool) result() score.Run {
	r, w := s.r, &s.waits
	r.Length = float64(s.end) * 1e-9
	r.PodSeconds, r.WorkSeconds = s.servers.Until(s.end), s.work*1e-9
	r.ReadySeconds, r.IdleSeconds = r.PodSeconds, max(0, r.PodSeconds-s.running.Until(s.end))
	r.WaitMean, r.WaitP50, r.WaitP90 = w.MeanSeconds(), w.Quantile(0.5).Seconds(), w.Quantile(0.9).Seconds()
	r.WaitP99, r.WaitP999, r.WaitMax = w.Quantile(0.99).Seconds(), w.Quantile(0.999).Seconds(), w.Max().Seconds()
	if r.Requests > 0 {
		r.ColdStartShare, r.SLOViolations = float64(r.ColdStarts)/float64(r.Requests), float64(s.late)/float64(r.Requests)
	}
	r.SlowdownP50, r.SlowdownP99 = 1, 1
	return score.Run{Result: r, Waits: w.Buckets()}
}

// newest is a heap of idle instances, the newest first. Those that ended while idle are dropped
// when they come up.
type newest []int32

func (h *newest) push(i int32) {
	s := append(*h, i)
	k := len(s) - 1
	for k > 0 && s[(k-1)/2] < i {
		s[k] = s[(k-1)/2]
		k = (k - 1) / 2
	}
	s[k] = i
	*h = s
}

// pop takes the newest idle instance; ok is false when there is none.
func (h *newest) pop(all []instance) (i int32, ok bool) {
	for len(*h) > 0 {
		s := *h
		i, n := s[0], len(s)-1
		last := s[n]
		s = s[:n]
		k := 0
		for {
			c := 2*k + 1
			if c >= n {
				break
			}
			if c+1 < n && s[c+1] > s[c] {
				c++
			}
			if s[c] <= last {
				break
			}
			s[k] = s[c]
			k = c
		}
		if n > 0 {
			s[k] = last
		}
		*h = s
		if in := &all[i]; !in.busy && in.idleSince >= 0 {
			return i, true
		}
	}
	return none, false
}
