package fakeplatform

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/scaler/process"
)

// platform runs the instances of its workloads. It is safe for concurrent use.
type platform struct {
	// command starts an instance.
	command []string

	mu        sync.Mutex
	workloads map[string]*workload
	// failWith is the status of the answer to the next write; 0 for a good one.
	failWith int
	closed   bool
	running  sync.WaitGroup
}

type workload struct {
	name      string
	replicas  int
	instances []*instance
	started   int
	held      meter
	// in says that requests wait while there is no instance; changed is closed when one gets
	// ready, or in changes.
	in      bool
	changed chan struct{}
	cold    []process.ColdStart
	// lost counts the requests that an instance did not answer.
	lost int
}

type instance struct {
	id, address             string
	state                   algorithms.PodState
	created, started, ready time.Time
	meter                   meter
	proxy                   *httputil.ReverseProxy
	kill                    func()
}

// meter counts requests and integrates those in flight.
type meter struct {
	began, at   time.Time
	flying, sum float64
	requests    float64
}

func newMeter(now time.Time) meter { return meter{began: now, at: now} }

func (m *meter) add(now time.Time, n float64) {
	m.sum += m.flying * now.Sub(m.at).Seconds()
	m.at = now
	m.flying += n
	if n < 0 {
		m.requests++
	}
}

func (m *meter) read(now time.Time) process.Counters {
	m.add(now, 0)
	return process.Counters{
		StartTime: float64(m.began.UnixNano()) / 1e9, MonotonicSeconds: now.Sub(m.began).Seconds(),
		ConcurrencySeconds: m.sum, Requests: m.requests, InFlight: m.flying,
	}
}

// broadcast wakes up the requests that wait.
func (w *workload) broadcast() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// reconcile starts and ends instances until there are as many as were asked for. Those that first
// names go first, then the youngest. They are killed as they are: whoever names the wrong ones
// loses requests.
func (p *platform) reconcile(w *workload, first []string) {
	var alive []*instance
	for _, i := range w.instances {
		if i.state == algorithms.PodReady || i.state == algorithms.PodStarting {
			alive = append(alive, i)
		}
	}
	for range w.replicas - len(alive) {
		p.start(w)
	}
	rank := func(i *instance) int {
		if at := slices.Index(first, i.id); at >= 0 {
			return at
		}
		return len(first)
	}
	slices.SortStableFunc(alive, func(a, b *instance) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return b.created.Compare(a.created)
	})
	for _, i := range alive[:max(0, len(alive)-w.replicas)] {
		i.state = algorithms.PodTerminating
		i.kill()
	}
}

// start starts the process of an instance.
func (p *platform) start(w *workload) {
	if p.closed {
		return
	}
	w.started++
	ctx, cancel := context.WithCancel(context.Background()) // close ends it
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if inErr != nil || outErr != nil || cmd.Start() != nil {
		cancel()
		return
	}
	now := time.Now()
	i := &instance{
		id: fmt.Sprintf("%s-%d-%d", w.name, w.started, cmd.Process.Pid), state: algorithms.PodStarting, created: now, started: now,
		meter: newMeter(now), kill: cancel,
	}
	w.instances = append(w.instances, i)
	p.running.Go(func() {
		defer cancel()
		defer func() { _ = stdin.Close() }()
		out := bufio.NewReader(stdout)
		if line, err := out.ReadString('\n'); err == nil {
			p.becomeReady(w, i, strings.TrimSpace(line))
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		w.instances = slices.DeleteFunc(w.instances, func(x *instance) bool { return x == i })
		p.reconcile(w, nil)
	})
}

func (p *platform) becomeReady(w *workload, i *instance, address string) {
	host, _, _ := net.SplitHostPort(address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.state != algorithms.PodStarting {
		return
	}
	i.address, i.state, i.ready = host, algorithms.PodReady, time.Now()
	i.proxy = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	i.proxy.ErrorHandler = func(rw http.ResponseWriter, r *http.Request, err error) {
		if r.Context().Err() == nil {
			p.mu.Lock()
			w.lost++
			p.mu.Unlock()
		}
		http.Error(rw, err.Error(), http.StatusBadGateway)
	}
	w.broadcast()
}

// close kills all instances and waits for their ends.
func (p *platform) close() {
	p.mu.Lock()
	p.closed = true
	for _, w := range p.workloads {
		w.replicas = 0
		for _, i := range w.instances {
			i.kill()
		}
	}
	p.mu.Unlock()
	p.running.Wait()
}

// document is what the platform tells of a workload.
func (w *workload) document(now time.Time) process.Document {
	doc := process.Document{
		Replicas: w.replicas, Held: &process.Held{Counters: w.held.read(now)},
		Path: &process.Path{In: w.in, Listening: 1, Waiting: int(w.held.flying), ColdStarts: w.cold},
	}
	for _, i := range w.instances {
		c := i.meter.read(now)
		doc.Instances = append(doc.Instances, process.Instance{
			ID: i.id, Address: i.address, State: i.state, Created: i.created, Started: i.started, Ready: i.ready, Counters: &c,
		})
		if i.state == algorithms.PodReady {
			doc.Path.Ready++
		}
	}
	return doc
}

// acquire finds the ready instance with the fewest requests, and waits for one while the platform
// is in the path; nil where there is none.
func (p *platform) acquire(ctx context.Context, w *workload) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	waits := false
	for {
		var best *instance
		for _, i := range w.instances {
			if i.state == algorithms.PodReady && (best == nil || i.meter.flying < best.meter.flying) {
				best = i
			}
		}
		now := time.Now()
		if waits && (best != nil || !w.in || ctx.Err() != nil) {
			held := int(w.held.flying)
			w.held.add(now, -1)
			if c := &w.cold[len(w.cold)-1]; best != nil && c.Released.IsZero() {
				c.Answering, c.Released, c.Address, c.Held = best.ready, now, best.address, held
			}
		}
		if best != nil {
			best.meter.add(now, 1)
			return best
		}
		if !w.in || ctx.Err() != nil {
			return nil
		}
		if !waits {
			if waits = true; w.held.flying == 0 {
				w.cold = append(w.cold[max(0, len(w.cold)-3):], process.ColdStart{Detected: now})
			}
			w.held.add(now, 1)
		}
		changed := w.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

func (p *platform) release(i *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i.meter.add(time.Now(), -1)
}
