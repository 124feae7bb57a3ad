package queue_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sluice-autoscaler/sluice/scaler/kube/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(namespace string, n int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: fmt.Sprint("web-", n)}}
}

func newQueue() *queue.Queue {
	return queue.New(workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 5*time.Second))
}

// work runs the workers of a controller: each round takes as long as its key says, and asks for the
// next one a tick later, as rounds do. It returns how long keys waited for their rounds.
func work(q *queue.Queue, takes func(reconcile.Request) time.Duration, began func(reconcile.Request)) (stop func()) {
	var all sync.WaitGroup
	for range queue.Workers {
		all.Go(func() {
			for {
				k, closed := q.Get()
				if closed {
					return
				}
				began(k)
				time.Sleep(takes(k))
				q.AddAfter(k, 2*time.Second)
				q.Done(k)
			}
		})
	}
	return func() { q.ShutDown(); all.Wait() }
}

var urgent = priorityqueue.AddOpts{Priority: new(queue.Urgent)}

// TestOneNamespaceDelaysNoOther has tenants with many and with slow rounds beside a victim whose
// wake-up, and whose ordinary round, is asked for again and again.
func TestOneNamespaceDelaysNoOther(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		// tenants attack with rounds each, which take so long. Urgent says that somebody waits for
		// all of them.
		tenants, rounds int
		takes           time.Duration
		urgent          bool
		// wake and plain bound how long the victim's rounds may wait.
		wake, plain time.Duration
	}{
		{name: "1,000 Autoscalers of one tenant", tenants: 1, rounds: 1000, takes: 10 * time.Millisecond, plain: 0},
		{name: "40 rounds that hang", tenants: 1, rounds: 40, takes: 10 * time.Second, plain: 0},
		{name: "400 wake-ups that hang", tenants: 1, rounds: 400, takes: 10 * time.Second, urgent: true, plain: 0},
		{name: "50 tenants with 100 each", tenants: 50, rounds: 100, takes: 10 * time.Millisecond, wake: 0, plain: 40 * time.Millisecond},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueue()
				victim, asleep := key("victim", 1), key("victim", 2)
				var mu sync.Mutex
				asked, waited := map[reconcile.Request]time.Time{}, map[reconcile.Request]time.Duration{}
				stop := work(q, func(k reconcile.Request) time.Duration {
					if k.Namespace == "victim" {
						return time.Millisecond
					}
					return c.takes
				}, func(k reconcile.Request) {
					mu.Lock()
					defer mu.Unlock()
					if at, ok := asked[k]; ok {
						waited[k] = max(waited[k], time.Since(at))
						delete(asked, k)
					}
				})
				defer stop()
				for n := range c.tenants {
					for i := range c.rounds {
						if k := key(fmt.Sprint("tenant-", n), i); c.urgent {
							q.AddWithOpts(urgent, k)
						} else {
							q.Add(k)
						}
					}
				}
				for range 100 {
					time.Sleep(137 * time.Millisecond)
					mu.Lock()
					asked[victim], asked[asleep] = time.Now(), time.Now()
					mu.Unlock()
					q.Add(victim)
					q.AddWithOpts(urgent, asleep)
				}
				time.Sleep(10 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				if len(asked) > 0 {
					t.Errorf("no round of %v", asked)
				}
				if waited[asleep] > c.wake || waited[victim] > c.plain {
					t.Errorf("a wake-up waited up to %v, a plain round %v; want at most %v, %v", waited[asleep], waited[victim], c.wake, c.plain)
				}
			})
		})
	}
}

// TestWakeUpsGoFirst sees that a key which stands in line is moved when somebody begins to wait.
func TestWakeUpsGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.ShutDown()
		for i := range 3 {
			q.Add(key("shop", i))
		}
		q.AddWithOpts(urgent, key("shop", 2))
		var got []string
		for range 3 {
			k, priority, _ := q.GetWithPriority()
			got = append(got, fmt.Sprint(k.Name, " ", priority))
			q.Done(k)
		}
		if want := "[web-2 1 web-0 0 web-1 0]"; fmt.Sprint(got) != want || q.Len() != 0 {
			t.Errorf("order %v with %d left, want %s with none", got, q.Len(), want)
		}
	})
}

// TestDelays has a key asked for at several instants: the soonest counts, and a round that runs is
// followed by one more.
func TestDelays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		defer q.ShutDown()
		began := time.Now()
		next := func() string {
			k, _ := q.Get()
			return fmt.Sprint(k.Name, " ", time.Since(began))
		}
		q.AddAfter(key("shop", 1), 5*time.Second)
		q.AddAfter(key("shop", 1), 3*time.Second)
		q.AddAfter(key("shop", 1), 4*time.Second)
		q.AddAfter(key("shop", 2), 9*time.Second)
		q.Add(key("shop", 2)) // now, and not again
		if got := next(); got != "web-2 0s" {
			t.Errorf("first %s, want web-2 0s", got)
		}
		q.Done(key("shop", 2))
		if got := next(); got != "web-1 3s" {
			t.Errorf("second %s, want web-1 3s", got)
		}
		q.Add(key("shop", 1)) // while its round runs
		q.AddAfter(key("shop", 1), time.Second)
		synctest.Wait()
		if n := q.Len(); n != 0 {
			t.Errorf("%d keys are ready while the round runs, want none: rounds of one key never overlap", n)
		}
		q.Done(key("shop", 1))
		if got := next(); got != "web-1 3s" {
			t.Errorf("third %s, want web-1 3s", got)
		}
		q.Done(key("shop", 1))
		for n, want := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond} {
			q.AddRateLimited(key("shop", 3))
			at := time.Now()
			for { // the delayed round of web-1 may come in between
				k, _ := q.Get()
				q.Done(k)
				if k == key("shop", 3) {
					break
				}
			}
			if took := time.Since(at); took != want {
				t.Errorf("failure %d comes again after %v, want %v", n+1, took, want)
			}
		}
	})
}

// TestNothingIsLost asks for rounds at random from many sides: each request is followed by a round
// that begins after it, and rounds of one key never overlap.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		var mu sync.Mutex
		open, running := map[reconcile.Request]bool{}, map[reconcile.Request]bool{}
		var all sync.WaitGroup
		for w := range queue.Workers {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			all.Go(func() {
				for {
					k, closed := q.Get()
					if closed {
						return
					}
					mu.Lock()
					if running[k] {
						t.Errorf("seed %d: two rounds of %v at once", seed, k)
					}
					running[k] = true
					delete(open, k)
					mu.Unlock()
					time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
					mu.Lock()
					running[k] = false
					mu.Unlock()
					q.Done(k)
				}
			})
		}
		for s := range 8 {
			rng := rand.New(rand.NewPCG(seed, 100+uint64(s)))
			all.Go(func() {
				for range 500 {
					k := key(fmt.Sprint("ns-", rng.IntN(5)), rng.IntN(20))
					mu.Lock()
					open[k] = true
					switch rng.IntN(3) {
					case 0:
						q.Add(k)
					case 1:
						q.AddWithOpts(urgent, k)
					case 2:
						q.AddAfter(k, time.Duration(rng.IntN(500))*time.Millisecond)
					}
					mu.Unlock()
					time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Minute)
		mu.Lock()
		if len(open) > 0 || q.Len() > 0 {
			t.Errorf("seed %d: %d requests without a round, %d keys left; want none", seed, len(open), q.Len())
		}
		mu.Unlock()
		q.ShutDown()
		all.Wait()
	})
}

// TestRequestsGiveTheirPlace has as many rounds of a namespace as may work wait for the API server:
// others of the namespace run, up to the namespace's share of the workers.
func TestRequestsGiveTheirPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		answer := make(chan struct{})
		api := queue.Transport(roundTripper(func(*http.Request) (*http.Response, error) {
			<-answer
			return nil, errors.New("away")
		}))
		var waiting, quick atomic.Int64
		var all sync.WaitGroup
		for range queue.Workers {
			all.Go(func() {
				for {
					k, closed := q.Get()
					if closed {
						return
					}
					if k.Namespace == "asks" {
						waiting.Add(1)
						req, err := http.NewRequestWithContext(q.Round(t.Context(), k), http.MethodPatch, "http://api/", http.NoBody)
						if err != nil {
							t.Error(err)
						}
						_, _ = api.RoundTrip(req) //nolint:bodyclose // there is none
						waiting.Add(-1)
					} else {
						quick.Add(1)
					}
					q.Done(k)
				}
			})
		}
		const more = 10
		for n := range queue.WorkersPerNamespace + more {
			q.Add(key("asks", n))
		}
		synctest.Wait()
		if n := waiting.Load(); n != queue.WorkersPerNamespace {
			t.Errorf("%d rounds of a namespace wait for the API server, want %d", n, queue.WorkersPerNamespace)
		}
		for n := range more {
			q.Add(key("quick", n))
		}
		synctest.Wait()
		if n := quick.Load(); n != more {
			t.Errorf("%d rounds of another namespace ran meanwhile, want %d", n, more)
		}
		close(answer)
		synctest.Wait()
		if n := q.Len() + int(waiting.Load()); n != 0 {
			t.Errorf("%d rounds are left after the API server answered, want 0", n)
		}
		// the places are free again
		for n := range more {
			q.Add(key("quick", n))
		}
		synctest.Wait()
		if n := quick.Load(); n != 2*more {
			t.Errorf("%d rounds ran, want %d", n, 2*more)
		}
		q.ShutDown()
		all.Wait()
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestSpread sees that rounds that end together come at instants of their own, each within a tick
// and then once in a tick.
func TestSpread(t *testing.T) {
	t.Parallel()
	const tick = 2 * time.Second
	now := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	var buckets [20]int
	for i := range 10000 {
		phase := queue.Phase(types.NamespacedName{Namespace: "shop", Name: fmt.Sprintf("web-%05d", i)}, tick)
		d := queue.Spread(now, tick, phase)
		if d <= 0 || d > tick {
			t.Fatalf("Spread of phase %v = %v, want within the tick", phase, d)
		}
		for _, late := range []time.Duration{0, time.Millisecond, 700 * time.Millisecond} {
			if got, want := queue.Spread(now.Add(d+late), tick, phase), tick-late; got != want {
				t.Fatalf("a round %v late is followed after %v, want %v", late, got, want)
			}
		}
		buckets[int(int64(len(buckets))*int64(d-1)/int64(tick))]++
	}
	for i, n := range buckets {
		if n < 400 || n > 600 {
			t.Errorf("%d of 10,000 rounds in twentieth %d of the tick, want about 500", n, i)
		}
	}
}
