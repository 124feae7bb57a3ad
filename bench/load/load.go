// Package load sends HTTP requests by plan and keeps a record of each one.
//
// It is an open loop: requests are sent at intended instants, whether or not earlier ones were
// answered. Latency counts from the intended instant, so that a slow server cannot hide behind a
// client that waits for it.
//
// A request is lost when it got no answer, or one outside 200–299.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// LateAfter is how long after its intended instant a request must leave to be counted late.
const LateAfter = 20 * time.Millisecond

// Causes of loss, besides "status 503" and so on. They are a closed set, fit for counting.
const (
	CauseTimeout = "timeout"
	CauseRefused = "connection refused"
	CauseReset   = "connection reset"
	CauseEOF     = "connection closed without an answer"
	CauseOther   = "other error"
	// CauseAborted is the cause of a request that was under way when its run was cancelled. It is
	// not counted as lost.
	CauseAborted = "aborted"
)

// Config says where and how to send. Start from Default.
type Config struct {
	// URL is requested with GET: http or https, with a host.
	URL string
	// Host, unless empty, is sent as the Host header in place of the URL's.
	Host string
	// Header is sent with each request.
	Header http.Header
	// Timeout bounds each request from its sending to the end of its answer, > 0. A longer one
	// waits out slower servers, a shorter one counts them as loss.
	Timeout time.Duration
	// FreshShare is the share (0–1) of requests that open a connection of their own and close it;
	// the others share keep-alive connections. More fresh ones meet newly ready pods sooner and
	// cost a handshake each.
	FreshShare float64
	// MaxInFlight bounds requests in flight at once in an open loop, 1–1000000. A request that
	// meets the bound is sent later, and counted late, never dropped.
	MaxInFlight int
	// Poisson makes the arrivals of an open loop a Poisson process; else they are evenly spaced.
	Poisson bool
	// Seed seeds arrivals and the choice of fresh connections. The same seed plans the same
	// requests.
	Seed uint64
	// RoundTripper, if not nil, sends in place of real connections; for tests.
	RoundTripper http.RoundTripper
}

// Default returns a configuration that lacks the URL only.
func Default() Config {
	return Config{Timeout: 30 * time.Second, MaxInFlight: 10000, Seed: 1}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.URL); err != nil {
		errs = append(errs, fmt.Errorf("url = %q: %w", c.URL, err))
	} else if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, fmt.Errorf("url = %q: want http://HOST/ or https://HOST/", c.URL))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout = %v: want > 0", c.Timeout))
	}
	if !(c.FreshShare >= 0 && c.FreshShare <= 1) {
		errs = append(errs, fmt.Errorf("fresh share = %v: want 0–1", c.FreshShare))
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > 1_000_000 {
		errs = append(errs, fmt.Errorf("max in flight = %d: want 1–1000000 (requests)", c.MaxInFlight))
	}
	return errors.Join(errs...)
}

// Record is what became of one request. Its instants are times since the run's start.
type Record struct {
	// Intended is when the plan wanted it sent; in a closed loop, when it was.
	Intended time.Duration `json:"intended"`
	// Sent is when it was sent, Done when its answer had been read or it had failed.
	Sent time.Duration `json:"sent"`
	Done time.Duration `json:"done"`
	// Status is the answer's code; 0 without an answer.
	Status int `json:"status,omitempty"`
	// Cause is empty for an answer of 200–299, else one of the causes above or "status 503" and the
	// like.
	Cause string `json:"cause,omitempty"`
	// Error is the error's text, if there was one.
	Error string `json:"error,omitempty"`
	// Work is how long the server was asked to work on it, where the plan says so.
	Work time.Duration `json:"work,omitempty"`
	// Fresh says that it had a connection of its own.
	Fresh bool `json:"fresh,omitempty"`
	// Tries is how often it was sent. It is above 1 where a keep-alive connection turned out to be
	// closed before any byte of an answer, and Go's HTTP client sent the request again, as it does
	// for GET.
	Tries int `json:"tries"`
}

// OK tells that it was answered with 200–299.
func (r Record) OK() bool { return r.Cause == "" }

// Lost tells that it got no answer, or another than 200–299. A request that was aborted is neither
// OK nor lost.
func (r Record) Lost() bool { return r.Cause != "" && r.Cause != CauseAborted }

// Latency is the time from the intended instant to the end of the answer.
func (r Record) Latency() time.Duration { return r.Done - r.Intended }

// Counts is a generator's state at an instant, over all its runs.
type Counts struct {
	// Sent = OK + Lost + Aborted + InFlight.
	Sent, OK, Lost, Aborted, InFlight int64
	// Late counts those sent later than LateAfter past their intended instant.
	Late int64
}

// Generator sends requests. Its methods may be called concurrently.
type Generator struct {
	cfg    Config
	reuse  http.RoundTripper
	fresh  http.RoundTripper
	closer []*http.Transport

	sent, ok, lost, aborted, late atomic.Int64
}

// New makes a generator. It starts nothing; Close it when done.
func New(cfg Config) (*Generator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Generator{cfg: cfg, reuse: cfg.RoundTripper, fresh: cfg.RoundTripper}
	if cfg.RoundTripper == nil {
		dialer := &net.Dialer{Timeout: cfg.Timeout}
		reuse := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: cfg.MaxInFlight, IdleConnTimeout: 90 * time.Second}
		fresh := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, DisableKeepAlives: true}
		g.reuse, g.fresh, g.closer = reuse, fresh, []*http.Transport{reuse, fresh}
	}
	return g, nil
}

// Close closes idle connections.
func (g *Generator) Close() {
	for _, t := range g.closer {
		t.CloseIdleConnections()
	}
}

// Counts returns the present state. The parts are read one after another, InFlight last.
func (g *Generator) Counts() Counts {
	c := Counts{OK: g.ok.Load(), Lost: g.lost.Load(), Aborted: g.aborted.Load(), Late: g.late.Load()}
	c.Sent = g.sent.Load()
	c.InFlight = c.Sent - c.OK - c.Lost - c.Aborted
	return c
}

// Open sends by a shape and returns when every request is answered or has failed. When ctx ends,
// nothing more is sent and what is under way is aborted.
func (g *Generator) Open(ctx context.Context, s Shape) Result {
	arrivals := s.Even()
	if g.cfg.Poisson {
		arrivals = s.Poisson(rand.New(rand.NewPCG(g.cfg.Seed, 1)))
	}
	return g.Follow(ctx, s.Length(), func(yield func(Call) bool) {
		for at := range arrivals {
			if !yield(Call{At: at}) {
				return
			}
		}
	})
}

// Call is one request of a plan.
type Call struct {
	// At is its intended instant since the start; instants do not go backwards.
	At time.Duration
	// URL takes the place of the configuration's; empty is that one.
	URL string
	// Header is sent besides the configuration's; it may be nil.
	Header http.Header
	// Work is kept in the record.
	Work time.Duration
}

// Follow sends the calls of a plan, each at its instant, and returns when length is over and every
// request is answered or has failed. When ctx ends, nothing more is sent and what is under way is
// aborted.
func (g *Generator) Follow(ctx context.Context, length time.Duration, calls iter.Seq[Call]) Result {
	rng := rand.New(rand.NewPCG(g.cfg.Seed, 0))
	run := newRun()
	places := make(chan struct{}, g.cfg.MaxInFlight)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var wg sync.WaitGroup
	for c := range calls {
		fresh := rng.Float64() < g.cfg.FreshShare
		timer.Reset(c.At - time.Since(run.start))
		select {
		case <-ctx.Done():
		case <-timer.C:
			select {
			case <-ctx.Done():
			case places <- struct{}{}:
			}
		}
		if ctx.Err() != nil {
			break
		}
		// Counted here and not by the goroutine, so that a request that is due is in flight at
		// once.
		sent := run.begin(g, c.At)
		wg.Go(func() {
			run.add(g.send(ctx, run.start, c, Record{Intended: c.At, Sent: sent, Work: c.Work, Fresh: fresh}))
			<-places
		})
	}
	// A plan may end with silence, which belongs to the run.
	timer.Reset(length - time.Since(run.start))
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	wg.Wait()
	return run.result()
}

// send sends a request that has begun and completes its record.
func (g *Generator) send(ctx context.Context, start time.Time, c Call, r Record) Record {
	status, tries, err := g.get(ctx, c, r.Fresh)
	r.Done, r.Status, r.Tries = time.Since(start), status, tries
	switch {
	case err != nil && ctx.Err() != nil:
		r.Cause = CauseAborted
		g.aborted.Add(1)
	case err != nil:
		r.Cause, r.Error = cause(err), err.Error()
		g.lost.Add(1)
	case status < 200 || status > 299:
		r.Cause = "status " + strconv.Itoa(status)
		g.lost.Add(1)
	default:
		g.ok.Add(1)
	}
	return r
}

// get does one request and reads its answer to the end.
func (g *Generator) get(ctx context.Context, c Call, fresh bool) (status, tries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { tries++ }})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, cmp.Or(c.URL, g.cfg.URL), nil)
	if err != nil {
		return 0, 0, fmt.Errorf("make request: %w", err)
	}
	if g.cfg.Header != nil {
		request.Header = g.cfg.Header.Clone()
	}
	maps.Copy(request.Header, c.Header)
	request.Host = g.cfg.Host
	via := g.reuse
	if fresh {
		via = g.fresh
	}
	// The transport and not a client, which would follow redirects.
	response, err := via.RoundTrip(request)
	if err != nil {
		return 0, tries, err
	}
	defer response.Body.Close() //nolint:errcheck // it was read to the end, or the error is known
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return response.StatusCode, tries, fmt.Errorf("read answer: %w", err)
	}
	return response.StatusCode, tries, nil
}

// cause classes an error.
func cause(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return CauseTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return CauseRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return CauseReset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return CauseEOF
	default:
		return CauseOther
	}
}

// run gathers the records of one run.
type run struct {
	start time.Time

	mu      sync.Mutex
	records []Record
}

func newRun() *run { return &run{start: time.Now()} }

// begin counts a request as sent now and tells when that is.
func (r *run) begin(g *Generator, intended time.Duration) time.Duration {
	now := time.Since(r.start)
	if now-intended > LateAfter {
		g.late.Add(1)
	}
	g.sent.Add(1)
	return now
}

func (r *run) add(record Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Result{Start: r.start, Records: r.records}.sorted()
}
