package path_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

// owner is one driver with its own, late, cache.
type owner struct {
	name   string
	cache  *cached
	driver *path.Driver
	epoch  int64
	// mine are the workloads that it drives, by Service.
	mine map[string]bool
}

// churn is two owners, one API server and one gateway under random events.
type churn struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	api    *api
	owners []*owner
	table  assignment.Table
	// served is the number under which a Service port was pushed and in effect, until its slice is
	// deleted by hand, or its workload is moved or deleted.
	served map[assignment.Target]int
	ports  map[string][]string
	steps  map[string]int
}

func reference(service string) loop.Ref {
	return loop.Ref{Driver: "kubernetes", Namespace: "shop", Kind: "Deployment.apps", Name: service}
}

func (c *churn) start(o *owner, stale int) {
	o.cache = newCached(c.api, false)
	o.cache.follow(max(0, len(c.api.log)-stale))
	o.epoch++
	o.driver = path.New(path.Options{
		Client: o.cache, Owner: o.name, Epoch: o.epoch, Range: path.Range{From: 1000, To: 1033},
		Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return c.now },
	})
	var refs []loop.Ref
	for s := range o.mine {
		refs = append(refs, reference(s))
	}
	o.driver.Expect(refs)
	c.observe(o)
}

func (c *churn) observe(o *owner) {
	r := &wire.Report{Gateway: "gw", StartTime: 1, Owners: c.table.Owners(), Refused: c.table.Refused()}
	for t, claim := range c.table.InEffect() {
		r.Ports = append(r.Ports, wire.PortReport{
			Namespace: t.Namespace, Service: t.Service, PortName: t.PortName, Owner: claim.Owner, Listen: claim.Listen, Listening: true, InPath: claim.InPath,
		})
	}
	o.driver.Observe([]wire.Gateway{wire.Gateway{Name: "gw", IP: "198.18.0.1", Control: "198.18.0.1:9096", Connected: true}.WithReport(r)})
}

// round does one round of a workload; faults are those of a busy API server.
func (c *churn) round(o *owner, service string, in bool) *loop.Path {
	ref := reference(service)
	o.driver.Register(ref, path.Workload{Service: service, Controller: metav1.OwnerReference{Kind: "Autoscaler", Name: service, UID: types.UID(service)}})
	p, err := o.driver.See(c.t.Context(), ref)
	if err != nil {
		c.t.Fatalf("See(%s): %v", service, err)
	}
	err = o.driver.Put(c.t.Context(), ref, loop.PathState{In: in})
	if err != nil && !errors.Is(err, scaler.ErrConflict) && !errors.Is(err, errBusy) && !strings.Contains(err.Error(), "no gateway port is left") {
		c.t.Fatalf("Put(%s): %v", service, err)
	}
	return p
}

var errBusy = errors.New("timeout after the write")

// push brings the gateway what an owner has assigned.
func (c *churn) push(o *owner) {
	set, ok := o.driver.Set()
	if !ok {
		return
	}
	if _, err := c.table.Put(o.name, set); err != nil {
		c.t.Fatalf("push of %s: %v", o.name, err)
	}
	c.check("a push")
	for _, p := range set.Ports {
		target := assignment.TargetOf(p)
		if c.table.InEffect()[target].Owner == o.name && c.api.confirmed(p.Service, p.Listen) && c.owner(p.Service) == o {
			c.served[target] = p.Listen
		}
	}
	c.observe(o)
}

func (c *churn) forget(o *owner, service string) {
	o.driver.Forget(reference(service))
	delete(o.mine, service)
	for _, p := range c.ports[service] {
		delete(c.served, assignment.Target{Namespace: "shop", Service: service, PortName: p})
	}
}

func (c *churn) check(what string) {
	if fault := c.api.twice(); fault != "" {
		c.t.Fatalf("after %s: %s", what, fault)
	}
	effect := c.table.InEffect()
	for target, number := range c.served {
		if claim, ok := effect[target]; !ok || claim.Listen != number {
			c.t.Fatalf("after %s: %s had number %d and has %+v: its listener was lost", what, target, number, claim)
		}
	}
}

func (c *churn) owner(service string) *owner {
	for _, o := range c.owners {
		if o.mine[service] {
			return o
		}
	}
	return nil
}

func (c *churn) step() string {
	o := c.owners[c.rng.IntN(len(c.owners))]
	service := fmt.Sprint("s", c.rng.IntN(20))
	key := types.NamespacedName{Namespace: "shop", Name: slice.Name(service)}
	switch n := c.rng.IntN(1000); {
	case n < 450:
		if holder := c.owner(service); holder != nil {
			c.round(holder, service, c.rng.IntN(2) == 0)
			return "a round"
		}
		o.mine[service] = true
		return "an Autoscaler created"
	case n < 750:
		o.cache.follow(1 + c.rng.IntN(4))
		return "a watch event"
	case n < 950:
		c.push(o)
		return "a push"
	case n < 972:
		if holder := c.owner(service); holder != nil {
			c.forget(holder, service)
			c.api.remove(key)
			return "an Autoscaler deleted"
		}
	case n < 984:
		if holder := c.owner(service); holder != nil && holder != o {
			c.forget(holder, service)
			o.mine[service] = true
			return "a workload moved to another shard"
		}
	case n < 992:
		if holder := c.owner(service); holder != nil && c.api.head[key] != nil {
			c.api.remove(key)
			for _, p := range c.ports[service] {
				delete(c.served, assignment.Target{Namespace: "shop", Service: service, PortName: p})
			}
			return "a slice deleted by hand"
		}
	default:
		c.start(o, c.rng.IntN(10))
		return "a restart with an old cache"
	}
	return "nothing"
}

// settleDown lets everything catch up, and checks that every workload has a listener for every
// port.
func (c *churn) settleDown() {
	for range 200 {
		c.now = c.now.Add(100 * time.Millisecond)
		for _, o := range c.owners {
			o.cache.follow(1 << 30)
			for s := range o.mine {
				c.round(o, s, true)
				c.check("a round while settling down")
			}
			c.push(o)
		}
	}
	for _, o := range c.owners {
		c.observe(o)
		for s := range o.mine {
			if p := c.round(o, s, true); p.Listening != 1 || !p.In {
				c.t.Errorf("%s of %s in the end: %+v, want it in at one gateway", s, o.name, p)
			}
		}
	}
	if r := c.table.Refused(); len(r) > 0 {
		c.t.Errorf("refused in the end: %+v", r)
	}
}

// TestTwoOwnersAgree drives two owners with late caches over one API server: rounds, moves between
// the owners, deletions, restarts and writes whose answers are lost. No number is confirmed twice
// at any time, and a Service that was listened for stays so.
func TestTwoOwnersAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			c := &churn{
				t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_000_000, 0), served: map[assignment.Target]int{},
				ports: map[string][]string{}, steps: map[string]int{},
			}
			c.api = newAPI(func() time.Time { return c.now })
			c.api.fault = func() error {
				if c.rng.IntN(30) == 0 {
					return errBusy
				}
				return nil
			}
			for i := range 20 {
				service, ports := fmt.Sprint("s", i), []string{"http", "admin"}[:1+i%2]
				c.ports[service] = ports
				c.api.addService(service, ports...)
			}
			for _, name := range []string{"shard-0", "shard-1"} {
				o := &owner{name: name, mine: map[string]bool{}}
				c.owners = append(c.owners, o)
				c.start(o, 0)
			}
			for range 3000 {
				c.now = c.now.Add(time.Duration(c.rng.IntN(100)) * time.Millisecond)
				what := c.step()
				c.steps[what]++
				c.check(what)
			}
			c.settleDown()
			for _, what := range []string{"a round", "a push", "a restart with an old cache", "a workload moved to another shard", "a slice deleted by hand"} {
				if c.steps[what] == 0 {
					t.Errorf("%s never happened: the test shows nothing", what)
				}
			}
		})
	}
}
