package sim

import (
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// instant is the time of the run's clock.
func (e *engine) instant(at int64) time.Time { return e.meter.epoch.Add(time.Duration(at)) }

// round does one round of the loop. While a wake-up goes on the gateway reports without being
// asked.
func (e *engine) round() {
	e.expire()
	if e.wanted == 0 || e.loop.Phase() == loop.Waking {
		e.meter.hear(e.now)
	}
	c := e.step(e.view())
	e.account.decisions++
	e.plan(min(max(e.nextRound, e.now+1), e.now+int64(c.Next)), evRound, none)
}

// step has the loop decide about a view, and carries out what it says.
func (e *engine) step(v loop.View) loop.Commands {
	c := e.loop.Step(v)
	if c.Scale != nil {
		e.scale(*c.Scale, &c.Record)
	}
	if p := c.Path; p != nil {
		if e.inPath && !p.In {
			e.pathUntil = e.now + int64(e.sc.SliceLag)
		}
		e.inPath = p.In
	}
	e.loop.Done(v.Now, c, nil)
	return c
}

// view is what the scaler would see at this instant.
func (e *engine) view() loop.View {
	now := e.instant(e.now)
	e.instances = e.instances[:0]
	for _, i := range e.live {
		p := &e.pods[i]
		if p.id == "" {
			p.id = strconv.Itoa(int(i))
		}
		in := loop.Instance{ID: p.id, State: algorithms.PodStarting, Created: e.instant(p.created), InFlight: float64(p.held())}
		if p.state == ready {
			in.State, in.Ready = algorithms.PodReady, e.instant(p.readyAt)
		}
		e.instances = append(e.instances, in)
	}
	for range e.account.ending.Value {
		e.instances = append(e.instances, loop.Instance{State: algorithms.PodTerminating})
	}
	return loop.View{
		Now: now, Signals: e.meter.read(e, now), Replicas: e.wanted, Instances: e.instances,
		Path: &loop.Path{In: e.inPath, Ready: len(e.ready), Listening: e.sc.Gateways, Waiting: e.hold.Len()},
	}
}
