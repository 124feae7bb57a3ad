package hold_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
)

// TestBudgetIsShared lets one namespace take all that it can, by a thousand Services at once:
// another one still finds room, and its share grows as the first one's goes.
func TestBudgetIsShared(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	b := hold.NewBudget(most)
	fill := func(s *hold.Share) (n int64) {
		for s.Take(64) {
			n += 64
		}
		return n
	}
	alone := fill(b.Share("attacker", "s0"))
	if alone < most/2 {
		t.Errorf("a lone Service gets %d of %d, want most of it", alone, most)
	}
	for i := range 1000 {
		fill(b.Share("attacker", fmt.Sprint("s", i)))
	}
	victim := b.Share("victim", "web")
	if got := fill(victim); got < most/10 {
		t.Errorf("the victim gets %d of %d beside an attacker that took what it could", got, most)
	}
	for i := range 5 {
		fill(b.Share(fmt.Sprint("attacker-", i), "s"))
	}
	if !b.Share("late", "web").Take(most / 10_000) {
		t.Error("a namespace that comes last gets nothing")
	}
	if b.Share("attacker", "s0").Take(64) {
		t.Error("the one that has most is given more")
	}
}

// FuzzBudget plays takes and gives: the bound holds, what is used is the sum of what was taken, and
// a consumer without anything is refused only when next to nothing is left.
func FuzzBudget(f *testing.F) {
	f.Add(uint64(1), uint8(10))
	f.Add(uint64(7), uint8(250))
	f.Fuzz(func(t *testing.T, seed uint64, size uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		most := 1 + int64(size)*100
		b := hold.NewBudget(most)
		type holding struct {
			*hold.Share
			taken []int64
		}
		all := map[string]*holding{}
		ofNamespace := func(n string) (taken int) {
			for i := range 3 {
				if h := all[n+"/"+fmt.Sprint(i)]; h != nil {
					taken += len(h.taken)
				}
			}
			return taken
		}
		var sum int64
		for range 2000 {
			namespace, service := fmt.Sprint(r.IntN(4)), fmt.Sprint(r.IntN(3))
			key := namespace + "/" + service
			h := all[key]
			if h == nil {
				h = &holding{Share: b.Share(namespace, service)}
				all[key] = h
			}
			n := 1 + r.Int64N(most/10+1)
			switch r.IntN(5) {
			case 0, 1, 2:
				left := most - sum
				if ok := h.Take(n); ok {
					h.taken = append(h.taken, n)
					sum += n
				} else if ofNamespace(namespace) == 0 && n <= left {
					t.Fatalf("a namespace without anything was refused %d of the %d left", n, left)
				}
			case 3:
				if len(h.taken) > 0 {
					i := r.IntN(len(h.taken))
					h.Give(h.taken[i])
					sum -= h.taken[i]
					h.taken = append(h.taken[:i], h.taken[i+1:]...)
				}
			case 4:
				if len(h.taken) == 0 {
					h.Release()
					delete(all, key)
				}
			}
			if b.Used() != sum || sum > most {
				t.Fatalf("used %d, taken %d, at most %d", b.Used(), sum, most)
			}
		}
	})
}

// FuzzQueue plays any history of arrivals, pods, answers and leaves, told by bytes: nobody waits
// twice or for nothing, no pod has more than its limit, what arrived adds up, and the shares are
// given back.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 0, 0, 40, 1, 2, 3, 4, 0, 5, 5, 6})
	f.Add([]byte{0, 41, 0, 50, 3, 60, 4, 70, 2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, history []byte) {
		l := limits()
		l.MaxHeld, l.PodConcurrency = 5, 2
		budget := hold.NewBudget(8)
		q := hold.New(l, budget.Share("shop", "web"), rand.New(rand.NewPCG(1, 2)))
		var open []*hold.Ticket
		gone := map[*hold.Ticket]bool{}
		now := time.Duration(0)
		pick := func(b byte) *hold.Ticket {
			if len(open) == 0 {
				return nil
			}
			return open[int(b)%len(open)]
		}
		for i, b := range history[:min(len(history), 4096)] {
			now += time.Duration(b) * time.Microsecond
			switch x := pick(b / 8); {
			case b%8 < 3:
				open = append(open, q.Arrive(now, int64(b)))
			case b%8 == 3:
				var eps []hold.Endpoint
				for p := range 3 {
					if b>>(3+p)&1 == 1 {
						eps = append(eps, hold.Endpoint{Address: fmt.Sprint("p:", p), Ready: b&128 != 0, Serving: true, Terminating: i%5 == 0})
					}
				}
				for _, x := range open { // a pod that comes again is another one
					gone[x] = gone[x] || x.Address() != "" && !slices.ContainsFunc(eps, func(e hold.Endpoint) bool { return e.Address == x.Address() })
				}
				q.Endpoints(now, eps)
			case b%8 == 4:
				for _, a := range q.Probe() {
					q.Answered(now, a)
				}
			case x == nil:
			case b%8 == 5:
				q.Connected(x)
			case b%8 == 6:
				q.Finish(now, x)
			case b&64 != 0:
				q.Refused(now, x)
				delete(gone, x)
			default:
				q.Leave(now, x, hold.Canceled)
			}
			waiting, perPod := 0, map[string]int{}
			for _, x := range open {
				switch x.State() {
				case hold.Waiting:
					waiting++
				case hold.Granted, hold.Connected:
					if !gone[x] {
						perPod[x.Address()]++
					}
				default:
				}
			}
			c := q.Counts(now)
			if c.Waiting != waiting || budget.Used() != int64(waiting) {
				t.Fatalf("step %d: %d wait, counts %+v, %d places used", i, waiting, c, budget.Used())
			}
			for pod, n := range perPod {
				if n > l.PodConcurrency {
					t.Fatalf("step %d: pod %s has %d, at most %d", i, pod, n, l.PodConcurrency)
				}
			}
			if done := c.Arrived - c.Expired - c.Canceled - c.Rejected - c.Forwarded; done > c.Arrived {
				t.Fatalf("step %d: counts do not add up: %+v", i, c)
			}
		}
		for _, x := range open {
			q.Leave(now, x, hold.Canceled)
			q.Finish(now, x)
		}
		if budget.Used() != 0 || q.Waiting() != 0 || q.Counts(now).Forwarding != 0 {
			t.Fatalf("after all left: %d places used, counts %+v", budget.Used(), q.Counts(now))
		}
	})
}
