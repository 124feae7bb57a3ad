package inflight_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
)

// request is one request of the slow, obvious way to the same integral.
type request struct{ begin, end time.Duration }

func naive(requests []request, now time.Duration) (seconds float64, inFlight int) {
	for _, r := range requests {
		if r.begin > now {
			continue
		}
		if r.end > now {
			inFlight++
		}
		seconds += (min(r.end, now) - r.begin).Seconds()
	}
	return seconds, inFlight
}

func TestMatchesNaiveTwin(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var (
			c        inflight.Counter
			requests []request
			open     []int
			now      time.Duration
		)
		for range 2000 {
			now += time.Duration(rng.ExpFloat64() * float64(5*time.Millisecond))
			switch k := rng.IntN(10); {
			case k < 4:
				c.Begin(now)
				open = append(open, len(requests))
				requests = append(requests, request{now, math.MaxInt64})
			case k < 8 && len(open) > 0:
				i := rng.IntN(len(open))
				requests[open[i]].end = now
				open = append(open[:i], open[i+1:]...)
				c.End(now)
			default:
				got := c.Read(now)
				seconds, n := naive(requests, now)
				if math.Abs(got.Seconds-seconds) > 1e-9*seconds+1e-6 || got.InFlight != n || got.Now != now {
					t.Fatalf("seed %d: Read(%v) = %+v, want %v request-seconds, %d in flight", seed, now, got, seconds, n)
				}
			}
		}
	}
}

func TestExactOnAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		now := func() time.Duration { return time.Since(start) }
		var c inflight.Counter
		var want float64
		rng := rand.New(rand.NewPCG(1, 2))
		for range 500 {
			begin := time.Duration(rng.Int64N(int64(time.Minute)))
			took := time.Duration(rng.Int64N(int64(10 * time.Second)))
			want += took.Seconds()
			go func() {
				time.Sleep(begin)
				c.Begin(now())
				time.Sleep(took)
				c.End(now())
			}()
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := c.Read(now()); math.Abs(got.Seconds/want-1) > 0.001 || got.InFlight != 0 {
			t.Errorf("Read = %+v, want %v request-seconds within 0.1 %%, 0 in flight", got, want)
		}
	})
}

func TestOddInstants(t *testing.T) {
	type step struct {
		do  string
		now time.Duration
	}
	cases := []struct {
		name  string
		steps []step
		read  time.Duration
		want  inflight.Reading
	}{
		{name: "nothing yet", read: time.Second, want: inflight.Reading{Now: time.Second}},
		{
			name:  "an older instant counts as the newest",
			steps: []step{{"begin", 2 * time.Second}, {"begin", time.Second}, {"end", time.Second}},
			read:  3 * time.Second, want: inflight.Reading{Now: 3 * time.Second, Seconds: 1, InFlight: 1},
		},
		{
			name:  "an older read is of the newest instant",
			steps: []step{{"begin", 0}, {"begin", 5 * time.Second}},
			read:  time.Second, want: inflight.Reading{Now: 5 * time.Second, Seconds: 5, InFlight: 2},
		},
		{
			name:  "an end too many changes nothing",
			steps: []step{{"end", 0}, {"begin", time.Second}},
			read:  2 * time.Second, want: inflight.Reading{Now: 2 * time.Second, Seconds: 1, InFlight: 1},
		},
		{
			name:  "years at many in flight",
			steps: append(repeat(step{"begin", 0}, 10000), step{"begin", 3 * 365 * 24 * time.Hour}),
			read:  3 * 365 * 24 * time.Hour, want: inflight.Reading{Now: 3 * 365 * 24 * time.Hour, Seconds: 10000 * 3 * 365 * 24 * 3600, InFlight: 10001},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var counter inflight.Counter
			for _, s := range c.steps {
				if s.do == "begin" {
					counter.Begin(s.now)
				} else {
					counter.End(s.now)
				}
			}
			if got := counter.Read(c.read); got != c.want {
				t.Errorf("Read(%v) = %+v, want %+v", c.read, got, c.want)
			}
		})
	}
}

func repeat[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

func TestNeverDecreasesUnderConcurrency(t *testing.T) {
	start := time.Now()
	now := func() time.Duration { return time.Since(start) }
	var c inflight.Counter
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				c.Begin(now())
				c.End(now())
			}
		})
	}
	var last inflight.Reading
	for range 5000 {
		r := c.Read(now())
		if r.Seconds < last.Seconds || r.Now < last.Now {
			t.Fatalf("Read = %+v after %+v", r, last)
		}
		last = r
	}
	wg.Wait()
	r := c.Read(now())
	if r.InFlight != 0 || r.Seconds > 8*r.Now.Seconds() {
		t.Errorf("Read = %+v, want none in flight and at most 8 on average", r)
	}
}

func TestIdle(t *testing.T) {
	var c inflight.Counter
	<-c.Idle()
	c.Begin(0)
	c.Begin(0)
	idle, again := c.Idle(), c.Idle()
	c.End(1)
	select {
	case <-idle:
		t.Error("idle with one in flight")
	default:
	}
	c.End(2)
	<-idle
	<-again
}

func TestAllocatesNothing(t *testing.T) {
	var c inflight.Counter
	var now time.Duration
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Millisecond
		c.Begin(now)
		c.Read(now)
		c.End(now)
	}); n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	var c inflight.Counter
	b.RunParallel(func(pb *testing.PB) {
		start := time.Now()
		for pb.Next() {
			c.Begin(time.Since(start))
			c.End(time.Since(start))
		}
	})
}
