package limit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/proxy/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(2, 5, 0)
		var order []int
		var mu sync.Mutex
		for i := range 7 {
			go func() {
				if err := l.Acquire(t.Context()); err != nil {
					t.Errorf("Acquire of %d = %v", i, err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Duration(10+i) * time.Second)
				l.Release()
			}()
			synctest.Wait()
		}
		if n := l.Queued(); n != 5 {
			t.Errorf("Queued = %d, want 5", n)
		}
		if err := l.Acquire(t.Context()); !errors.Is(err, limit.ErrFull) {
			t.Errorf("Acquire with a full queue = %v, want %v", err, limit.ErrFull)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6}; !slices.Equal(order, want) {
			t.Errorf("order = %v, want %v", order, want)
		}
	})
}

func TestWhoLeavesGivesThePlaceBack(t *testing.T) {
	cause := errors.New("client left")
	cases := []struct {
		name string
		wait time.Duration
		stay time.Duration // until the client leaves
		want error
		took time.Duration
	}{
		{name: "timeout", wait: 5 * time.Second, stay: time.Minute, want: limit.ErrTimeout, took: 5 * time.Second},
		{name: "client leaves", wait: time.Minute, stay: 3 * time.Second, want: cause, took: 3 * time.Second},
		{name: "no timeout", wait: 0, stay: time.Hour, want: cause, took: time.Hour},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limit.New(1, 1, c.wait)
				if err := l.Acquire(t.Context()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), c.stay, cause)
				defer cancel()
				start := time.Now()
				if err := l.Acquire(ctx); !errors.Is(err, c.want) || time.Since(start) != c.took {
					t.Errorf("Acquire = %v after %v, want %v after %v", err, time.Since(start), c.want, c.took)
				}
				if n := l.Queued(); n != 0 {
					t.Errorf("Queued = %d, want 0", n)
				}
				// The place goes to who comes next, and no place was made up.
				l.Release()
				if err := l.Acquire(t.Context()); err != nil {
					t.Errorf("Acquire of the free place = %v", err)
				}
				done := make(chan error, 1)
				go func() { done <- l.Acquire(t.Context()) }()
				synctest.Wait()
				if l.Queued() != 1 {
					t.Error("a second place was handed out")
				}
				l.Release()
				if err := <-done; err != nil {
					t.Errorf("Acquire = %v", err)
				}
			})
		})
	}
}

// TestNoPlaceIsLostOrMadeUp lets requests leave at the very moment they are granted a place, many times.
func TestNoPlaceIsLostOrMadeUp(t *testing.T) {
	const places = 3
	l := limit.New(places, 1000, 50*time.Microsecond)
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range 2000 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(100))*time.Microsecond)
				if l.Acquire(ctx) == nil {
					n := running.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					for range rng.IntN(2000) {
						_ = rng.Uint64()
					}
					running.Add(-1)
					l.Release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > places {
		t.Errorf("%d ran at once, want at most %d", n, places)
	}
	if n := l.Queued(); n != 0 {
		t.Errorf("Queued = %d at the end, want 0", n)
	}
	for i := range places {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := l.Acquire(ctx); err != nil {
			t.Errorf("place %d is gone: %v", i, err)
		}
		cancel()
	}
	full := limit.New(1, 0, 0)
	_ = full.Acquire(t.Context())
	if err := full.Acquire(t.Context()); !errors.Is(err, limit.ErrFull) {
		t.Errorf("Acquire without a queue = %v, want %v", err, limit.ErrFull)
	}
}

func TestNoLimit(t *testing.T) {
	l := limit.New(0, 0, 0)
	for range 100 {
		if err := l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.Release()
}

func TestAllocatesNothing(t *testing.T) {
	l := limit.New(1, 1, 0)
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		_ = l.Acquire(ctx)
		l.Release()
	}); n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}
