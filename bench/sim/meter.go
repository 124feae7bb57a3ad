package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/bench/event"
)

const (
	// staleAfter is the adapter's rule: a pod that was not read for three intervals, or five
	// seconds, makes the value unknown.
	staleAfter = 5 * time.Second
	// graceAfter is how much longer than an interval a new pod may be unread.
	graceAfter = time.Second
	// positions of the counters
	concurrencySum, servedSum, waitingSum = 0, 1, 0
)

// meter is what the adapter knows: it reads the pods' and the gateway's integrals, late, and makes
// signals of them.
//
// As long as every reading succeeds, all pods are read at the same instants, and the sum of their
// means is the mean of their sum: then one series stands for all of them. With losses or a sample
// each pod has its own.
type meter struct {
	epoch time.Time
	// atPods counts the requests at pods, queued those of them that wait there, held those at the
	// gateway.
	atPods, queued, held event.Gauge
	served               int64

	all, gateway               window.Series
	allPending, gatewayPending window.Reading

	own     bool
	widest  time.Duration
	stale   time.Duration
	dead    []ended
	sampled float64 // pods for each one read, ≥ 1
	order   []int32

	signals []algorithms.Signal
}

// ended is the memory of a pod that is gone.
type ended struct {
	series *window.Series
	at     int64
}

func (m *meter) init(e *engine) {
	m.epoch = e.cfg.Start
	m.own = e.sc.Scrape.Loss > 0 || e.sc.Scrape.Sample > 0
	m.sampled = 1
	m.stale = max(3*time.Duration(e.sc.Scrape.Interval), staleAfter)
	for _, n := range e.loop.Needs() {
		m.widest = max(m.widest, n.Window)
	}
	// What the sources say at their start is known: nothing yet.
	first := window.Reading{Life: 1, At: m.epoch}
	m.gateway.Add(first)
	if !m.own {
		m.all.Add(first)
	}
}

func (m *meter) came(e *engine, p *pod) {
	if m.own {
		m.touch(e.now, p)
	}
	m.atPods.Set(e.now, m.atPods.Value+1)
}

func (m *meter) left(e *engine, p *pod) {
	if m.own {
		m.touch(e.now, p)
		p.served++
	}
	m.served++
	m.atPods.Set(e.now, m.atPods.Value-1)
}

// leave takes n requests that were lost with their pod.
func (m *meter) leave(e *engine, p *pod, n int) {
	if m.own {
		m.touch(e.now, p)
	}
	m.atPods.Set(e.now, m.atPods.Value-n)
}

func (m *meter) touch(now int64, p *pod) {
	p.integral += float64(p.held()) * float64(now-p.last) * 1e-9
	p.last = now
}

func (m *meter) appear(e *engine, p *pod) {
	if !m.own && len(e.ready) == 0 && e.now > 0 { // the first one is read at once
		m.allPending.Mono = 0
		r := window.Reading{Life: 1, Mono: float64(e.now) * 1e-9, At: m.epoch.Add(time.Duration(e.now))}
		r.Sums[concurrencySum], r.Sums[servedSum] = m.atPods.Until(e.now), float64(m.served)
		m.all.Add(r)
	}
	if m.own {
		p.series, p.last, p.integral, p.served = &window.Series{}, e.now, 0, 0
		p.pending = window.Reading{}
		if e.now > 0 { // a new pod is read at once
			p.series.Add(window.Reading{Life: 1 + float64(p.born)*1e-9, Mono: 1e-6, At: m.epoch.Add(time.Duration(e.now))})
		}
	}
}

func (m *meter) vanish(e *engine, p *pod) {
	if p.series != nil {
		m.dead = append(m.dead, ended{p.series, e.now})
		p.series = nil
	}
}

// scrape reads every source; the policy will see it a lag later. What was read before is seen by
// then.
func (m *meter) scrape(e *engine) {
	m.deliver(e.now)
	at := m.epoch.Add(time.Duration(e.now) + time.Duration(e.sc.Scrape.Lag))
	mono := float64(e.now) * 1e-9
	m.gatewayPending = window.Reading{Life: 1, Mono: mono, At: at}
	m.gatewayPending.Sums[waitingSum] = m.held.Until(e.now)
	if !m.own {
		m.allPending = window.Reading{Life: 1, Mono: mono, At: at}
		m.allPending.Sums[concurrencySum], m.allPending.Sums[servedSum] = m.atPods.Until(e.now), float64(m.served)
		return
	}
	m.order = append(m.order[:0], e.ready...)
	if n := e.sc.Scrape.Sample; n > 0 && len(m.order) > n {
		slices.SortFunc(m.order, func(a, b int32) int { return cmp.Compare(e.pods[a].rank, e.pods[b].rank) })
		m.sampled = float64(len(m.order)) / float64(n)
		m.order = m.order[:n]
	} else {
		m.sampled = 1
	}
	for i := range e.pods {
		p := &e.pods[i]
		if p.series != nil && p.pending.Mono > 0 && !p.pending.At.After(m.epoch.Add(time.Duration(e.now))) {
			p.series.Add(p.pending)
			p.pending = window.Reading{}
		}
	}
	for _, i := range m.order {
		m.readPod(e, i, at)
	}
	for _, i := range e.live { // what answers is read, whatever the cluster says of it
		if e.pods[i].state == answering && e.sc.Scrape.Sample == 0 {
			m.readPod(e, i, at)
		}
	}
	for i := range e.pods { // what drains is read on
		if s := e.pods[i].state; s == draining && e.sc.Scrape.Sample == 0 {
			m.readPod(e, int32(i), at)
		}
	}
	kept := m.dead[:0]
	for _, d := range m.dead {
		if time.Duration(e.now-d.at) <= m.widest {
			kept = append(kept, d)
		}
	}
	clear(m.dead[len(kept):])
	m.dead = kept
}

func (m *meter) readPod(e *engine, i int32, at time.Time) {
	if e.sc.Scrape.Loss > 0 && e.read.Float64() < e.sc.Scrape.Loss {
		return
	}
	p := &e.pods[i]
	m.touch(e.now, p)
	mono := float64(e.now-p.born) * 1e-9
	if mono <= 0 {
		return
	}
	p.pending = window.Reading{Life: 1 + float64(p.born)*1e-9, Mono: mono, At: at}
	p.pending.Sums[concurrencySum], p.pending.Sums[servedSum] = p.integral, float64(p.served)
}

// hear reads the gateway now: while it holds requests it reports without being asked.
func (m *meter) hear(now int64) {
	m.gatewayPending.Mono = 0
	r := window.Reading{Life: 1, Mono: float64(now) * 1e-9, At: m.epoch.Add(time.Duration(now))}
	r.Sums[waitingSum] = m.held.Until(now)
	m.gateway.Add(r)
}

// deliver hands over the readings whose lag has passed.
func (m *meter) deliver(now int64) {
	seen := m.epoch.Add(time.Duration(now))
	if r := &m.gatewayPending; r.Mono > 0 && !r.At.After(seen) {
		m.gateway.Add(*r)
		r.Mono = 0
	}
	if r := &m.allPending; r.Mono > 0 && !r.At.After(seen) {
		m.all.Add(*r)
		r.Mono = 0
	}
}

// read answers the loop's needs at this instant.
func (m *meter) read(e *engine, now time.Time) []algorithms.Signal {
	m.deliver(e.now)
	m.signals = m.signals[:0]
	for _, n := range e.loop.Needs() {
		switch {
		case n.Name == algorithms.Concurrency, n.Name == algorithms.Waiting, n.Name == algorithms.Rate && n.Window > 0:
		default:
			m.signals = append(m.signals, algorithms.Signal{Name: n.Name, Window: n.Window})
			continue
		}
		t, more := m.total(e, n, now)
		m.signals = append(m.signals, algorithms.Signal{
			Name: n.Name, Window: n.Window, Value: t.Value() + more, Known: t.Known(), Age: t.Age(), Coverage: t.Coverage(), Source: "simulation",
		})
	}
	return m.signals
}

// total adds up one need.
func (m *meter) total(e *engine, n algorithms.Need, now time.Time) (window.Total, float64) {
	t := window.Total{Now: now, Width: n.Window}
	if n.Name == algorithms.Waiting {
		t.Add(&m.gateway, waitingSum, true, float64(e.hold.Len()))
		return t, 0
	}
	k := concurrencySum
	if n.Name == algorithms.Rate {
		k = servedSum
	}
	if m.own {
		for i := range e.pods {
			if p := &e.pods[i]; p.series != nil {
				m.addPod(e, p, &t, k)
			}
		}
		for _, d := range m.dead {
			t.Add(d.series, k, false, 0)
		}
	} else {
		// Without a pod there is no source whose readings could be old.
		t.Add(&m.all, k, len(e.ready) > 0 || e.levels.pick() != none, float64(m.atPods.Value))
	}
	factor := m.sampled
	if n.Name == algorithms.Concurrency {
		before := t.Value()
		t.Add(&m.gateway, waitingSum, true, float64(e.hold.Len()))
		return t, before * (factor - 1)
	}
	return t, t.Value() * (factor - 1)
}

// addPod adds one pod's own series, and misses it as the adapter does.
func (m *meter) addPod(e *engine, p *pod, t *window.Total, k int) {
	if p.pending.Mono > 0 && !p.pending.At.After(t.Now) {
		p.series.Add(p.pending)
		p.pending.Mono = 0
	}
	at, read := p.series.Newest()
	live := read && t.Now.Sub(at) <= m.stale
	t.Add(p.series, k, live, float64(p.held()))
	if p.state != ready || e.sc.Scrape.Sample > 0 {
		return
	}
	born := m.epoch.Add(time.Duration(p.born))
	switch {
	case !read && t.Now.Sub(born) > time.Duration(e.sc.Scrape.Interval)+graceAfter:
		t.Miss(born, false)
	case read && !live:
		t.Miss(at, true)
	}
}
