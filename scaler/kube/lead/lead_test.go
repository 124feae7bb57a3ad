package lead_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/sluice-autoscaler/sluice/scaler/kube/lead"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var leases = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

// server holds one lease.
type server struct {
	mu      sync.Mutex
	record  *resourcelock.LeaderElectionRecord
	version int
}

// lock is one replica's view of the server, which it may be cut off from.
type lock struct {
	*server
	name string
	cut  bool
	seen int
}

var errCut = errors.New("connection refused")

func (l *lock) do(ctx context.Context, f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return errCut
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f()
}

func (l *lock) Get(ctx context.Context) (r *resourcelock.LeaderElectionRecord, raw []byte, err error) {
	err = l.do(ctx, func() error {
		if l.record == nil {
			return apierrors.NewNotFound(leases, "sluice")
		}
		l.seen = l.version
		c := *l.record
		r = &c
		raw, err = json.Marshal(r)
		return err
	})
	return r, raw, err
}

func (l *lock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.do(ctx, func() error {
		if l.record != nil {
			return apierrors.NewAlreadyExists(leases, "sluice")
		}
		l.record, l.version = &r, l.version+1
		l.seen = l.version
		return nil
	})
}

func (l *lock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.do(ctx, func() error {
		if l.seen != l.version {
			return apierrors.NewConflict(leases, "sluice", errors.New("changed meanwhile"))
		}
		l.record, l.version = &r, l.version+1
		l.seen = l.version
		return nil
	})
}

func (l *lock) RecordEvent(string) {}
func (l *lock) Identity() string   { return l.name }
func (l *lock) Describe() string   { return "lease of " + l.name }

func (l *lock) set(cut bool) {
	l.mu.Lock()
	l.cut = cut
	l.mu.Unlock()
}

// replica is one that takes part.
type replica struct {
	*lead.Leader
	lock *lock
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, s *server, name string) *replica {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &replica{lock: &lock{server: s, name: name}, stop: stop, done: make(chan error, 1)}
	r.Leader = lead.New(r.lock, slog.New(slog.DiscardHandler))
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(r.end)
	return r
}

func (r *replica) end() {
	r.stop()
	r.done <- <-r.done
}

// writes tells whether a replica's fence lets a write pass.
func (r *replica) writes() bool {
	ok := false
	f := r.Fence(roundTrip(func(*http.Request) (*http.Response, error) { ok = true; return nil, nil }))
	_, _ = f.RoundTrip(httptest.NewRequest(http.MethodPatch, "/apis/apps/v1/namespaces/shop/deployments/web/scale", nil)) //nolint:bodyclose // there is none
	return ok
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestOutageKeepsMemory stops the API server for 90 s and for 10 min: the term ends before others
// could begin one, and the same memory leads again soon after the return.
func TestOutageKeepsMemory(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{90 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, &server{}, "a")
			time.Sleep(3 * time.Second)
			before, ok := r.Term()
			if !ok || !r.writes() {
				t.Fatalf("after 3 s: term %v, writes %v; want both", ok, r.writes())
			}
			bound, cancel, _, _ := r.Bind(t.Context())
			defer cancel()
			r.lock.set(true)
			time.Sleep(lead.RenewDeadline + time.Millisecond)
			if _, ok := r.Term(); ok || r.writes() || bound.Err() == nil {
				t.Errorf("cut off for %v: term %v, writes %v, context %v; want none", lead.RenewDeadline, ok, r.writes(), bound.Err())
			}
			time.Sleep(outage)
			r.lock.set(false)
			time.Sleep(3 * lead.RetryPeriod)
			after, ok := r.Term()
			if !ok || after != before || !r.writes() {
				t.Errorf("%v after the return: term %+v, %v, writes %v; want %+v again", 3*lead.RetryPeriod, after, ok, r.writes(), before)
			}
		})
	}
}

// TestAnotherLedMeanwhile cuts the leader off until another has led: what it remembers is not true
// any more, and epochs grow, whoever was born first.
func TestAnotherLedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		a := start(t, s, "a")
		time.Sleep(time.Second)
		b := start(t, s, "b") // the standby
		time.Sleep(time.Minute)
		first, _ := a.Term()
		a.lock.set(true)
		time.Sleep(lead.LeaseDuration + 6*lead.RetryPeriod)
		second, ok := b.Term()
		if !ok || second.Epoch <= first.Epoch {
			t.Fatalf("the standby's term is %+v, %v; want one with an epoch after %d", second, ok, first.Epoch)
		}
		a.lock.set(false)
		time.Sleep(time.Minute)
		if _, ok := a.Term(); ok {
			t.Fatal("two terms at once")
		}
		b.end()
		time.Sleep(3 * lead.RetryPeriod)
		third, ok := a.Term()
		if !ok || third.Memory == first.Memory || third.Epoch <= second.Epoch {
			t.Errorf("%v after b gave up a's term is %+v, %v; want one with another memory than %d and an epoch after %d",
				3*lead.RetryPeriod, third, ok, first.Memory, second.Epoch)
		}
	})
}

// TestEpochGrowsOverClocks takes the lease over from a holder whose clock was an hour ahead.
func TestEpochGrowsOverClocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := metav1.NewTime(time.Now().Add(time.Hour))
		s := &server{record: &resourcelock.LeaderElectionRecord{HolderIdentity: "gone", AcquireTime: ahead, RenewTime: ahead, LeaseDurationSeconds: 8}, version: 1}
		r := start(t, s, "a")
		time.Sleep(lead.LeaseDuration + 6*lead.RetryPeriod)
		if term, ok := r.Term(); !ok || term.Epoch <= ahead.UnixNano() {
			t.Errorf("term %+v, %v; want an epoch after %d", term, ok, ahead.UnixNano())
		}
	})
}

// TestEachTerm counts the terms, and sees that f has ended before the next begins.
func TestEachTerm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &server{}, "a")
		ctx, stop := context.WithCancel(t.Context())
		terms, running := 0, 0
		done := make(chan error, 1)
		go func() {
			done <- r.Each(ctx, func(ctx context.Context, _ lead.Term) error {
				if terms++; running != 0 {
					t.Error("two calls at once")
				}
				running++
				<-ctx.Done()
				running--
				return errors.New("cut short")
			})
		}()
		for range 3 {
			time.Sleep(20 * time.Second)
			r.lock.set(true)
			time.Sleep(20 * time.Second)
			r.lock.set(false)
		}
		time.Sleep(20 * time.Second)
		stop()
		if err := <-done; err != nil || terms != 4 {
			t.Errorf("%d terms, error %v; want 4, nil", terms, err)
		}
	})
}

// TestOneWriter cuts replicas off at random: never may two write.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := &server{}
		var all []*replica
		for i := range 3 {
			all = append(all, start(t, s, fmt.Sprint("replica-", i)))
		}
		led := 0
		for range 3000 {
			if rng.IntN(20) == 0 {
				all[rng.IntN(len(all))].lock.set(rng.IntN(3) > 0)
			}
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
			writers := 0
			for _, r := range all {
				if r.writes() {
					writers++
				}
			}
			if writers > 1 {
				t.Fatalf("seed %d: %d writers at once", seed, writers)
			}
			led += writers
		}
		if led == 0 {
			t.Errorf("seed %d: nobody ever led", seed)
		}
	})
}

// TestFence lets reads and events pass without a term.
func TestFence(t *testing.T) {
	t.Parallel()
	cases := []struct {
		method, path string
		passes       bool
	}{
		{http.MethodGet, "/api/v1/pods", true},
		{http.MethodPost, "/apis/events.k8s.io/v1/namespaces/shop/events", true},
		{http.MethodPatch, "/apis/events.k8s.io/v1/namespaces/shop/events/web.1", true},
		{http.MethodPatch, "/apis/apps/v1/namespaces/shop/deployments/web/scale", false},
		{http.MethodPatch, "/apis/apps/v1/namespaces/events/deployments/events/scale", false},
		{http.MethodPut, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-sluice", false},
		{http.MethodPost, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", false},
		{http.MethodDelete, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-sluice", false},
	}
	l := lead.New(&lock{server: &server{}, name: "a"}, slog.New(slog.DiscardHandler))
	for _, c := range cases {
		passed := false
		f := l.Fence(roundTrip(func(*http.Request) (*http.Response, error) { passed = true; return nil, nil }))
		_, err := f.RoundTrip(httptest.NewRequest(c.method, c.path, nil)) //nolint:bodyclose // there is none
		if passed != c.passes || errors.Is(err, lead.ErrNotLeading) == c.passes {
			t.Errorf("%s %s passed: %v, error %v; want %v", c.method, c.path, passed, err, c.passes)
		}
	}
	always := lead.Always(7)
	if term, ok := always.Term(); !ok || term.Epoch != 7 {
		t.Errorf("without an election the term is %+v, %v; want epoch 7", term, ok)
	}
}
