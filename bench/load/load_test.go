package load_test

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/bench/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const second = time.Second

// rate is the rate of a shape at an instant, by the formula of Segment.
func rate(s load.Shape, t time.Duration) float64 {
	for _, seg := range s {
		length := max(0, seg.Length)
		if t >= 0 && t < length {
			from, to := max(0, seg.From), max(0, seg.To)
			if math.IsNaN(seg.From) {
				from = 0
			}
			return from + (to-from)*t.Seconds()/length.Seconds()
		}
		t -= length
	}
	return 0
}

func TestShapes(t *testing.T) {
	tests := []struct {
		name   string
		shape  load.Shape
		length time.Duration
		total  float64
		rates  map[time.Duration]float64
	}{
		{"constant", load.Constant(10, 3*second), 3 * second, 30, map[time.Duration]float64{-1: 0, 0: 10, 2 * second: 10, 3 * second: 0}},
		{"ramp", load.Ramp(0, 10, 4*second), 4 * second, 20, map[time.Duration]float64{0: 0, second: 2.5, 2 * second: 5}},
		{"burst", load.Burst(50, second/2), second / 2, 50, map[time.Duration]float64{0: 100}},
		{"steps", load.Sequence(load.Constant(1, second), load.Constant(3, second), load.Constant(2, second)), 3 * second, 6, map[time.Duration]float64{second / 2: 1, 3 * second / 2: 3, 5 * second / 2: 2}},
		{
			"sequence with a gap", load.Sequence(load.Constant(5, second), load.Idle(2*second), load.Ramp(4, 0, second)),
			4 * second, 7,
			map[time.Duration]float64{second: 0, 3 * second: 4},
		},
		{"nonsense counts as 0", load.Shape{{Length: second, From: math.NaN(), To: -3}, {Length: -second, From: 9, To: 9}}, second, 0, map[time.Duration]float64{0: 0}},
		{"nothing", nil, 0, 0, map[time.Duration]float64{0: 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.shape.Length(); got != tt.length {
				t.Errorf("Length() = %v, want %v", got, tt.length)
			}
			if got := tt.shape.Requests(tt.length); math.Abs(got-tt.total) > 1e-9 {
				t.Errorf("Requests(Length()) = %v, want %v", got, tt.total)
			}
			for at, want := range tt.rates {
				if got := rate(tt.shape, at); math.Abs(got-want) > 1e-9 {
					t.Errorf("the rate at %v is %v, want %v", at, got, want)
				}
			}
			even := slices.Collect(tt.shape.Even())
			if len(even) != int(math.Round(tt.total)) {
				t.Errorf("Even() yields %d instants, want %v", len(even), tt.total)
			}
			for k, at := range even {
				if got := tt.shape.Requests(at); math.Abs(got-(float64(k)+0.5)) > 1e-5 {
					t.Errorf("Requests(instant %d = %v) = %v, want %v", k, at, got, float64(k)+0.5)
				}
			}
		})
	}
}

// Requests is checked against a slow sum of the rate, on random shapes.
func TestRequestsIsTheIntegralOfRate(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		random := func() load.Shape {
			var s load.Shape
			for range 1 + rng.IntN(4) {
				s = append(s, load.Segment{Length: time.Duration(rng.IntN(3000)) * time.Millisecond, From: 20 * rng.Float64(), To: 20 * rng.Float64()})
			}
			return s
		}
		a, b := random(), random()
		for _, s := range []load.Shape{a, load.Sequence(a, b)} {
			var naive float64
			const step = 100 * time.Microsecond
			for at := time.Duration(0); at < s.Length(); at += step {
				naive += rate(s, at+step/2) * step.Seconds()
			}
			if got := s.Requests(s.Length()); math.Abs(got-naive) > 0.01 {
				t.Fatalf("Requests of %v = %v, want %v", s, got, naive)
			}
		}
	}
}

func TestPoisson(t *testing.T) {
	s := load.Sequence(load.Constant(100, 50*second), load.Idle(50*second), load.Ramp(0, 200, 50*second))
	draw := func() []time.Duration { return slices.Collect(s.Poisson(rand.New(rand.NewPCG(3, 1)))) }
	got := draw()
	if diff := cmp.Diff(got, draw()); diff != "" {
		t.Errorf("the same seed draws other instants:\n%s", diff)
	}
	if n := float64(len(got)); math.Abs(n-10000) > 4*100 { // 4 standard deviations
		t.Errorf("%v instants, want about 10000", n)
	}
	first := 0
	var squares, sum float64
	for i, at := range got {
		if at >= 50*second && at < 100*second {
			t.Fatalf("instant %v falls into the silence", at)
		}
		if at < 50*second {
			first++
			if i > 0 {
				gap := (at - got[i-1]).Seconds()
				sum += gap
				squares += gap * gap
			}
		}
	}
	if math.Abs(float64(first)-5000) > 4*math.Sqrt(5000) {
		t.Errorf("%d instants in the constant part, want about 5000", first)
	}
	// Exponential gaps have a standard deviation as large as their mean.
	n := float64(first - 1)
	mean := sum / n
	if cv := math.Sqrt(squares/n-mean*mean) / mean; math.Abs(cv-1) > 0.1 {
		t.Errorf("coefficient of variation of gaps = %v, want about 1", cv)
	}
}

// server answers after a delay, in the bubble's time.
type server struct {
	delay   func(n int64) time.Duration
	status  int
	err     error
	n       atomic.Int64
	running atomic.Int64
	most    atomic.Int64
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	n := s.n.Add(1)
	running := s.running.Add(1)
	defer s.running.Add(-1)
	for most := s.most.Load(); running > most && !s.most.CompareAndSwap(most, running); most = s.most.Load() {
	}
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(s.delay(n)):
	}
	if s.err != nil {
		return nil, s.err
	}
	return &http.Response{StatusCode: s.status, Body: io.NopCloser(strings.NewReader("ok")), Request: r}, nil
}

func always(d time.Duration) func(int64) time.Duration {
	return func(int64) time.Duration { return d }
}

func generator(t *testing.T, s *server, change func(*load.Config)) *load.Generator {
	t.Helper()
	cfg := load.Default()
	cfg.URL, cfg.RoundTripper = "http://web/", s
	if s.status == 0 {
		s.status = 200
	}
	if change != nil {
		change(&cfg)
	}
	g, err := load.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestOpenLoopCountsFromTheIntendedInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// One place, requests of 300 ms wanted every 100 ms: the kth leaves 200·k ms late.
		s := &server{delay: always(300 * time.Millisecond)}
		g := generator(t, s, func(c *load.Config) { c.MaxInFlight = 1 })
		r := g.Open(t.Context(), load.Constant(10, second))
		if len(r.Records) != 10 {
			t.Fatalf("%d records, want 10: a request that finds no place is sent later, not dropped", len(r.Records))
		}
		for k, record := range r.Records {
			intended := 50*time.Millisecond + time.Duration(k)*100*time.Millisecond
			sent := 50*time.Millisecond + time.Duration(k)*300*time.Millisecond
			want := load.Record{Intended: intended, Sent: sent, Done: sent + 300*time.Millisecond, Status: 200}
			if diff := cmp.Diff(want, record); diff != "" {
				t.Errorf("record %d (-want +got):\n%s", k, diff)
			}
		}
		want := load.Summary{Sent: 10, OK: 10, Causes: map[string]int{}, Late: 9, P50: 1100 * time.Millisecond, P90: 1900 * time.Millisecond, P99: 2100 * time.Millisecond, Max: 2100 * time.Millisecond}
		if diff := cmp.Diff(want, r.Summary()); diff != "" {
			t.Errorf("Summary (-want +got):\n%s", diff)
		}
		if c := g.Counts(); c != (load.Counts{Sent: 10, OK: 10, Late: 9}) {
			t.Errorf("Counts = %+v", c)
		}
	})
}

func TestOpenLoopDoesNotWaitForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{delay: always(2 * second)}
		g := generator(t, s, nil)
		done := make(chan load.Result)
		go func() { done <- g.Open(t.Context(), load.Sequence(load.Constant(10, second), load.Idle(5*second))) }()
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if c := g.Counts(); c.Sent != 10 || c.InFlight != 10 {
			t.Errorf("Counts after 1.5 s = %+v, want 10 in flight", c)
		}
		r := <-done
		if took := time.Since(r.Start); took != 6*second {
			t.Errorf("the run took %v, want its silence included: 6s", took)
		}
	})
}

func TestLossByCause(t *testing.T) {
	timeout := func(c *load.Config) { c.Timeout = second }
	tests := []struct {
		name   string
		server *server
		cause  string
		lost   bool
	}{
		{"204 is an answer", &server{delay: always(0), status: 204}, "", false},
		{"unavailable", &server{delay: always(0), status: 503}, "status 503", true},
		{"redirect is not followed", &server{delay: always(0), status: 302}, "status 302", true},
		{"slow", &server{delay: always(2 * second)}, load.CauseTimeout, true},
		{"refused", &server{delay: always(0), err: syscall.ECONNREFUSED}, load.CauseRefused, true},
		{"reset", &server{delay: always(0), err: syscall.ECONNRESET}, load.CauseReset, true},
		{"closed", &server{delay: always(0), err: io.ErrUnexpectedEOF}, load.CauseEOF, true},
		{"other", &server{delay: always(0), err: errors.New("odd")}, load.CauseOther, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := generator(t, tt.server, timeout).Open(t.Context(), load.Burst(1, second))
				if len(r.Records) != 1 || r.Records[0].Cause != tt.cause || r.Records[0].Lost() != tt.lost || r.Records[0].OK() == tt.lost {
					t.Errorf("records = %+v, want one with cause %q, lost %t", r.Records, tt.cause, tt.lost)
				}
			})
		})
	}
}

func TestCancelAbortsAndIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := generator(t, &server{delay: always(time.Minute)}, func(c *load.Config) { c.Timeout = time.Hour })
		done := make(chan load.Result)
		go func() { done <- g.Open(ctx, load.Constant(1, 10*second)) }()
		time.Sleep(3 * second)
		cancel()
		r := <-done
		if got := r.Summary().String(); got != "3 sent, 0 answered, 0 lost, 3 aborted" {
			t.Errorf("Summary = %s", got)
		}
		if took := time.Since(r.Start); took != 3*second {
			t.Errorf("ended %v after the start, want at once: 3s", took)
		}
	})
}

func TestJoin(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	late := load.Result{Start: start.Add(second), Records: []load.Record{{Intended: 1, Sent: 2, Done: 3, Cause: "status 500"}}}
	early := load.Result{Start: start, Records: []load.Record{{Intended: 5, Sent: 6, Done: 7}}}
	want := load.Result{Start: start, Records: []load.Record{{Intended: 5, Sent: 6, Done: 7}, {Intended: second + 1, Sent: second + 2, Done: second + 3, Cause: "status 500"}}}
	if diff := cmp.Diff(want, load.Join(late, load.Result{}, early)); diff != "" {
		t.Errorf("Join (-want +got):\n%s", diff)
	}
}

// Over real connections: keep-alive ones are shared, fresh ones are not, and Host and headers
// arrive.
func TestConnections(t *testing.T) {
	for _, tt := range []struct {
		name       string
		freshShare float64
		most       int64
	}{{"keep-alive", 0, 1}, {"fresh", 1, 20}} {
		t.Run(tt.name, func(t *testing.T) {
			var connections atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Host != "web.example" || r.Header.Get("X-Test") != "1" {
					w.WriteHeader(http.StatusBadRequest)
				}
			}))
			s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { connections.Add(1); return ctx }
			s.Start()
			defer s.Close()
			cfg := load.Default()
			cfg.URL, cfg.Host, cfg.Header, cfg.FreshShare, cfg.MaxInFlight = s.URL, "web.example", http.Header{"X-Test": {"1"}}, tt.freshShare, 1
			g, err := load.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			r := g.Open(t.Context(), load.Burst(20, 20*time.Millisecond))
			if sum := r.Summary(); sum.OK != 20 || connections.Load() != tt.most {
				t.Errorf("%v over %d connections, want 20 answered over %d", sum, connections.Load(), tt.most)
			}
			for _, record := range r.Records {
				if record.Tries != 1 || record.Fresh != (tt.freshShare == 1) {
					t.Errorf("record = %+v, want 1 try, fresh %t", record, tt.freshShare == 1)
				}
			}
		})
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := load.New(load.Config{URL: "web", FreshShare: math.NaN()})
	if err == nil {
		t.Fatal("New(zero Config) = nil error")
	}
	for _, want := range []string{"url", "timeout", "fresh share", "max in flight"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q named", err, want)
		}
	}
}
