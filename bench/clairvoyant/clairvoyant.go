// Package clairvoyant bounds the cost of the cheapest schedule of pods for a workload whose future
// is known. It is pure.
package clairvoyant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Problem asks for the pod-seconds of the cheapest schedule of pods for a workload whose future is
// known, such that all but a share of the requests wait at most Wait.
//
// The model: a pod is paid from its start to its end; it works from Startup after its start on; it
// works on up to Concurrency requests at once, each for its service time, without slowing down. A
// request is begun within Wait of its arrival, or violates the SLO; those that violate are dropped,
// and cost nothing. A pod may end when it works on nothing; it drains until then, paid but taking
// no more. Pods may be started before the first arrival.
type Problem struct {
	// Concurrency is the slots per pod, ≥ 1.
	Concurrency int
	// Startup is the time from a pod's start until it works, ≥ 0.
	Startup time.Duration
	// Wait is the longest wait that the SLO allows, ≥ 0.
	Wait time.Duration
	// Violations is the share of requests that may violate the SLO, 0 ≤ share < 1.
	Violations float64
	// MaxReplicas bounds the pods of feasible schedules (not the draining ones), ≥ 1. The lower
	// bounds do not know it.
	MaxReplicas int
	// Replays is how often the requests are replayed to find the cheapest feasible schedule of a
	// kind; 0 is 14, at least 3 are made. More come closer, at the price of a pass over the
	// requests each.
	Replays int
	// Steps bounds the steps of time that are looked at; 0 is from 65,536 to 1,048,576, fewer the
	// more pods there are. Memory is about 80 bytes per step. More steps bring the bounds closer to
	// each other.
	Steps int
}

// Schedule is what is known of the cheapest schedule of a kind, in pod-seconds: Lower ≤ it ≤
// Feasible.
type Schedule struct {
	// Lower is a true lower bound: no schedule of the kind that meets the SLO is cheaper, nor any
	// policy that meets it in the model. It is too low by what its relaxations give away, most
	// where a few pods serve requests that last about as long as they may wait, and where the
	// longest requests may be dropped.
	Lower float64 `json:"lower"`
	// Feasible is the cost of a schedule that was found and replayed request by request, with
	// Violated ≤ the share allowed: it can be had, but is not the cheapest, as a rule. It is 0 if
	// Found is false: no schedule within MaxReplicas was found.
	Feasible float64 `json:"feasible"`
	Found    bool    `json:"found"`
	Violated int64   `json:"violated"`
	// Starts are the starts of pods in the feasible one, and Peak the most pods that it may use at
	// once.
	Starts int64 `json:"starts"`
	Peak   int   `json:"peak"`
}

// Bounds are the results of Problem.Bound.
type Bounds struct {
	Requests int64 `json:"requests"`
	// Work is Σ service / Concurrency over all requests, in pod-seconds.
	Work float64 `json:"work"`
	// Prewarmed may start pods at any time, ahead of the arrivals that they serve.
	Prewarmed Schedule `json:"prewarmed"`
	// Reactive starts a pod only at the arrival of a request that finds no free slot, one per such
	// request, but knows the future when it ends it. If Startup > Wait, that request violates the
	// SLO.
	Reactive Schedule `json:"reactive"`
}

// Validate tells all faults.
func (c Problem) Validate() error {
	var errs []error
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("concurrency = %d: want ≥ 1 (requests per pod)", c.Concurrency))
	}
	if c.Startup < 0 {
		errs = append(errs, fmt.Errorf("startup = %v: want ≥ 0", c.Startup))
	}
	if c.Wait < 0 {
		errs = append(errs, fmt.Errorf("wait = %v: want ≥ 0", c.Wait))
	}
	if !(c.Violations >= 0 && c.Violations < 1) {
		errs = append(errs, fmt.Errorf("violations = %v: want a share, at least 0 and below 1", c.Violations))
	}
	if c.MaxReplicas < 1 {
		errs = append(errs, fmt.Errorf("max replicas = %d: want ≥ 1", c.MaxReplicas))
	}
	if c.Replays < 0 || c.Steps < 0 {
		errs = append(errs, fmt.Errorf("replays = %d, steps = %d: want ≥ 0", c.Replays, c.Steps))
	}
	return errors.Join(errs...)
}

// Bound works it out for arrivals before length. Each call of open gives the same requests anew,
// each with a Service > 0; they are read 2·Replays + 2 times at most; arrivals that are an
// io.Closer are closed if they are not read to their end. Time is about linear in requests and in
// steps × pods; memory holds steps, and the requests in flight, not all requests. A cancelled ctx
// ends it.
//
// The feasible schedules come from a family with one parameter, the price of a violation λ. Let the
// pods be levels, the k-th being used before the k+1-th. On each level a dynamic programme over
// time weighs the pod-seconds of being on and of starting against λ times the requests that would
// find no slot, which it estimates from the requests that would be in service if pods were endless.
// Replaying the requests on these pods, without moving a request once begun, counts the violations,
// and λ is bisected for the cheapest schedule that keeps within the share. For λ → ∞ none violate.
//
// The lower bound is the greatest of several relaxations, see lower.
func (c Problem) Bound(ctx context.Context, length time.Duration, open func() trace.Arrivals) (Bounds, error) {
	if err := c.Validate(); err != nil {
		return Bounds{}, fmt.Errorf("clairvoyant bound: %w", err)
	}
	if length <= 0 {
		return Bounds{}, fmt.Errorf("clairvoyant bound: length %v: want > 0", length)
	}
	if c.Replays == 0 {
		c.Replays = 14
	}
	c.Replays = max(c.Replays, 3)
	l, err := survey(ctx, c, length, open)
	if err != nil {
		return Bounds{}, fmt.Errorf("clairvoyant bound: %w", err)
	}
	b := Bounds{Requests: l.requests, Work: l.work / float64(c.Concurrency)}
	if l.requests == 0 {
		b.Prewarmed.Found, b.Reactive.Found = true, true
		return b, nil
	}
	if b.Prewarmed.Lower, b.Reactive.Lower, err = lower(ctx, c, l); err != nil {
		return Bounds{}, fmt.Errorf("clairvoyant bound: %w", err)
	}
	for _, kind := range []struct {
		s        *Schedule
		reactive bool
	}{{&b.Prewarmed, false}, {&b.Reactive, true}} {
		if err := feasible(ctx, c, l, open, kind.reactive, kind.s); err != nil {
			return Bounds{}, fmt.Errorf("clairvoyant bound: %w", err)
		}
	}
	// A reactive schedule is one that pre-warming allows too.
	if r, p := b.Reactive, &b.Prewarmed; r.Found && (!p.Found || r.Feasible < p.Feasible) {
		p.Feasible, p.Found, p.Violated, p.Starts, p.Peak = r.Feasible, true, r.Violated, r.Starts, r.Peak
	}
	return b, nil
}

// load is what is kept of the requests: sums, and arrays over steps of time.
type load struct {
	requests int64
	// allowed is how many may violate the SLO.
	allowed int64
	// work is Σ service; least the same without the allowed longest ones; chain a sum of services
	// of requests no two of which can be in service at once, whatever the schedule. In seconds.
	work, least, chain float64
	longest            time.Duration
	// sigma is a service time that 9 of 10 do not exceed, in seconds.
	sigma float64

	// step is the width of a step in seconds. The arrays go on after the last arrival until its
	// request is done.
	step float64
	// mean and peak are the requests in service if each is begun as it arrives; arrivals and work
	// are by the step of arrival, each request's work counted up to sigma, in seconds.
	mean, peak, arrivals []float32
	// certain are those in service whenever they are begun, of each up to sigma of its service; nil
	// if sigma is within the wait.
	certain   []float32
	truncated []float64
	// levels is the most pods that such service ever takes.
	levels int
}

// each calls f for every request, until it returns false.
func each(ctx context.Context, length time.Duration, open func() trace.Arrivals, f func(r trace.Request) bool) error {
	a := open()
	var buf [512]trace.Request
	var last time.Duration
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := a.Read(buf[:])
		if n == 0 {
			return trace.Err(a)
		}
		for _, r := range buf[:n] {
			if r.Service <= 0 || r.At < last || r.At >= length {
				return fmt.Errorf("request at %v with service %v after %v of %v: want a service time > 0, in order", r.At, r.Service, last, length)
			}
			last = r.At
			if !f(r) {
				if c, ok := a.(io.Closer); ok {
					return c.Close()
				}
				return nil
			}
		}
	}
}

// survey reads the requests twice: for the sums, and, now that the number of pods is known and with
// it the width of steps, for the arrays.
func survey(ctx context.Context, c Problem, length time.Duration, open func() trace.Arrivals) (*load, error) {
	l, err := sum(ctx, c, length, open)
	if err != nil || l.requests == 0 {
		return l, err
	}
	steps := c.Steps
	if steps == 0 {
		steps = min(max((1<<22)/l.levels, 1<<16), 1<<20)
	}
	total := (length + l.longest + c.Wait).Seconds()
	finest := max(min(c.Wait.Seconds(), c.Startup.Seconds())/8, l.work/float64(l.requests)/16, 1e-6)
	l.step = max(total/float64(steps), finest)
	return l, l.spread(ctx, c, length, open, int(total/l.step)+2)
}

// sum reads the requests for the sums.
func sum(ctx context.Context, c Problem, length time.Duration, open func() trace.Arrivals) (*load, error) {
	l := &load{}
	var services serviceSums
	var busy ends
	var chainEnd time.Duration
	peak := 0
	if err := each(ctx, length, open, func(r trace.Request) bool {
		l.requests++
		l.work += r.Service.Seconds()
		l.longest = max(l.longest, r.Service)
		services.add(r.Service.Seconds())
		if r.At >= chainEnd {
			l.chain += r.Service.Seconds()
			chainEnd = r.At + c.Wait + r.Service
		}
		busy.until(r.At)
		busy.push(end{at: r.At + r.Service})
		peak = max(peak, len(busy))
		return true
	}); err != nil {
		return nil, err
	}
	if l.requests == 0 {
		return l, nil
	}
	l.allowed = int64(math.Floor(c.Violations*float64(l.requests) + 1e-9))
	top := services.top(l.allowed)
	l.least, l.chain = max(l.work-top, 0), max(l.chain-top, 0)
	l.sigma = min(services.quantile(0.9), l.longest.Seconds())
	l.levels = (peak + c.Concurrency - 1) / c.Concurrency
	return l, nil
}

// spread reads the requests for the arrays, of n steps.
func (l *load) spread(ctx context.Context, c Problem, length time.Duration, open func() trace.Arrivals, n int) error {
	l.mean, l.peak = make([]float32, n), make([]float32, n)
	l.arrivals, l.truncated = make([]float32, n), make([]float64, n)
	var busy ends
	var always []float64
	if l.sigma > c.Wait.Seconds() {
		always = make([]float64, n+2)
	}
	change := make([]float64, n+2) // of the occupancy from step to step
	edge := func(change []float64, seconds, weight float64) {
		x := seconds / l.step
		i := int(x)
		f := x - float64(i)
		change[i] += weight * (1 - f)
		change[i+1] += weight * f
	}
	// at is the step up to which peak is done; within a step the peak is the greatest number after
	// an arrival or at its start.
	at := 0
	pass := func(until int) {
		for at < until {
			at++
			busy.until(time.Duration(float64(at) * l.step * 1e9))
			l.peak[at] = float32(len(busy))
		}
	}
	if err := each(ctx, length, open, func(r trace.Request) bool {
		i := int(r.At.Seconds() / l.step)
		pass(i)
		busy.until(r.At)
		busy.push(end{at: r.At + r.Service})
		l.peak[i] = max(l.peak[i], float32(len(busy)))
		l.arrivals[i]++
		l.truncated[i] += min(r.Service.Seconds(), l.sigma)
		edge(change, r.At.Seconds(), 1)
		edge(change, (r.At + r.Service).Seconds(), -1)
		if s := min(r.Service.Seconds(), l.sigma); s > c.Wait.Seconds() {
			edge(always, (r.At + c.Wait).Seconds(), 1)
			edge(always, r.At.Seconds()+s, -1)
		}
		return true
	}); err != nil {
		return err
	}
	pass(n - 1)
	var occupied float64
	for i := range l.mean {
		occupied += change[i]
		l.mean[i] = float32(min(max(occupied, 0), float64(l.peak[i])))
	}
	if always != nil {
		l.certain = make([]float32, n)
		occupied = 0
		for i := range l.certain {
			occupied += always[i]
			l.certain[i] = float32(max(occupied, 0))
		}
	}
	return nil
}

// serviceSums holds counts and sums of service times by logarithmic buckets, 64 per octave, for the
// sum of the longest ones.
type serviceSums struct {
	count [64 * 80]int64
	most  [64 * 80]float64
}

func (s *serviceSums) add(x float64) {
	i := min(max(int((math.Log2(x)+32)*64), 0), len(s.count)-1)
	s.count[i]++
	s.most[i] = max(s.most[i], x)
}

// top is at least the sum of the n longest, and at most 1.1 % more.
func (s *serviceSums) top(n int64) float64 {
	var sum float64
	for i := len(s.count) - 1; i >= 0 && n > 0; i-- {
		k := min(s.count[i], n)
		sum += float64(k) * s.most[i]
		n -= k
	}
	return sum
}

// quantile is at least the q-quantile, and at most 1.1 % more.
func (s *serviceSums) quantile(q float64) float64 {
	var total, sum int64
	for _, k := range s.count {
		total += k
	}
	for i, k := range s.count {
		if sum += k; float64(sum) >= q*float64(total) {
			return s.most[i]
		}
	}
	return 0
}

// end is when something ends: a request's service on a pod, or another event of the pod.
type end struct {
	at time.Duration
	// pod is the level, life counts its lives; kind tells what ends.
	pod  int32
	life int32
	kind kind
}

type kind uint8

const (
	serviceEnds kind = iota
	startupEnds
	runEnds
	runBegins
)

// before orders by time, then so that what frees slots and begins runs comes in a fixed order.
func (e end) before(o end) bool {
	if e.at != o.at {
		return e.at < o.at
	}
	if e.kind != o.kind {
		return e.kind < o.kind
	}
	return e.pod < o.pod
}

// ends is a binary heap by time.
type ends []end

func (h *ends) push(e end) {
	s := append(*h, e)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !s[i].before(s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
	*h = s
}

func (h *ends) pop() end {
	s := *h
	first := s[0]
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && s[child+1].before(s[child]) {
			child++
		}
		if !s[child].before(s[i]) {
			break
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
	*h = s
	return first
}

// until drops the ends up to an instant.
func (h *ends) until(at time.Duration) {
	for len(*h) > 0 && (*h)[0].at <= at {
		h.pop()
	}
}
