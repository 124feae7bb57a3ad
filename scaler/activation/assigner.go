package activation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// owner is the controller's name on the wire.
const owner = "controller"

// Gateway is one gateway as the controller sees it.
type Gateway struct {
	// Name is the pod's name, IP its address, Control its control address ("host:port").
	Name, IP, Control string
	// Connected says whether its report stream is up; Report is the last one, nil before the first.
	Connected bool
	Report    *wire.Report
	// Leaving says that its pod does not run, or is told to go: it still serves, but no slice may name it.
	Leaving bool
}

// Assigner keeps every gateway's assignments equal to what was set. Set and Observe may be called at any rate from any
// goroutine; Run pushes.
type Assigner struct {
	client *http.Client
	token  func() string
	log    *slog.Logger
	epoch  int64

	mu      sync.Mutex
	ports   map[string][]wire.Assignment
	pending map[string]bool
	gen     uint64
	wake    chan struct{}
	known   map[string]Gateway
}

// NewAssigner returns an Assigner. Epoch is the controller's start in Unix nanoseconds; token may be nil.
func NewAssigner(client *http.Client, epoch int64, token func() string, log *slog.Logger) *Assigner {
	if token == nil {
		token = func() string { return "" }
	}
	return &Assigner{
		client: client, token: token, log: log, epoch: epoch, gen: 1,
		ports: map[string][]wire.Assignment{}, pending: map[string]bool{"start": true}, known: map[string]Gateway{},
		wake: make(chan struct{}, 1),
	}
}

// Expect names the keys that must have been Set once before anything is pushed: pushing a part of them after a restart would
// take the others' listeners away.
func (a *Assigner) Expect(keys []string) {
	a.mu.Lock()
	for _, k := range keys {
		if _, ok := a.ports[k]; !ok {
			a.pending[k] = true
		}
	}
	delete(a.pending, "start")
	a.mu.Unlock()
	a.poke()
}

// Set gives key its ports; nil takes them away.
func (a *Assigner) Set(key string, ports []wire.Assignment) {
	a.mu.Lock()
	delete(a.pending, key)
	if slices.Equal(a.ports[key], ports) {
		a.mu.Unlock()
		a.poke()
		return
	}
	if len(ports) == 0 {
		delete(a.ports, key)
	} else {
		a.ports[key] = slices.Clone(ports)
	}
	a.gen++
	a.mu.Unlock()
	a.poke()
}

// Ports returns what key was last given.
func (a *Assigner) Ports(key string) []wire.Assignment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ports[key])
}

// Used returns the gateway ports of all keys but one.
func (a *Assigner) Used(except string) map[int]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	used := map[int]bool{}
	for k, ports := range a.ports {
		if k == except {
			continue
		}
		for _, p := range ports {
			used[p.Listen] = true
		}
	}
	return used
}

// Observe tells the Assigner which gateways there are and what they report; those that are behind get the assignments.
func (a *Assigner) Observe(gateways []Gateway) {
	a.mu.Lock()
	clear(a.known)
	for _, g := range gateways {
		a.known[g.Control] = g
	}
	a.mu.Unlock()
	a.poke()
}

func (a *Assigner) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run pushes until ctx ends. A gateway that refuses or cannot be reached is tried again every half second.
func (a *Assigner) Run(ctx context.Context) error {
	retry := time.NewTicker(500 * time.Millisecond)
	defer retry.Stop()
	pushed := map[string]push{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-retry.C:
		}
		a.round(ctx, pushed)
	}
}

// push is what a gateway's life was last given.
type push struct {
	start float64
	gen   uint64
}

func (a *Assigner) round(ctx context.Context, pushed map[string]push) {
	a.mu.Lock()
	if len(a.pending) > 0 {
		a.mu.Unlock()
		return
	}
	body := wire.Assignments{Epoch: a.epoch, Generation: a.gen, Ports: []wire.Assignment{}}
	for _, ports := range a.ports {
		body.Ports = append(body.Ports, ports...)
	}
	var todo []Gateway
	for _, g := range a.known {
		if !g.Connected || g.Report == nil {
			continue
		}
		mine, _ := g.Report.Owner(owner)
		if mine.Epoch > a.epoch {
			continue
		}
		done := pushed[g.Control]
		inEffect := mine.Epoch == a.epoch && mine.Generation >= a.gen
		if !inEffect && (done.gen != a.gen || done.start != g.Report.StartTime) {
			todo = append(todo, g)
		}
	}
	for control := range pushed {
		if _, ok := a.known[control]; !ok {
			delete(pushed, control)
		}
	}
	a.mu.Unlock()
	if len(todo) == 0 {
		return
	}
	slices.SortFunc(body.Ports, func(x, y wire.Assignment) int { return x.Listen - y.Listen })
	raw, err := json.Marshal(body)
	if err != nil {
		a.log.ErrorContext(ctx, "assignments cannot be encoded", slog.Any("error", err))
		return
	}
	var wg sync.WaitGroup
	errs := make([]error, len(todo))
	for i, g := range todo {
		wg.Go(func() { errs[i] = a.put(ctx, g, raw) })
	}
	wg.Wait()
	for i, g := range todo {
		if errs[i] != nil {
			a.log.WarnContext(ctx, "gateway not assigned, will retry", slog.String("gateway", g.Name), slog.Any("error", errs[i]))
			continue
		}
		pushed[g.Control] = push{start: g.Report.StartTime, gen: body.Generation}
	}
}

func (a *Assigner) put(ctx context.Context, g Gateway, raw []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+g.Control+wire.OwnerPath(owner), bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("address gateway %s: %w", g.Control, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if t := a.token(); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("assign ports to gateway %s: %w", g.Name, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	if res.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
		return fmt.Errorf("assign ports to gateway %s: %s: %s", g.Name, res.Status, strings.TrimSpace(string(said)))
	}
	return nil
}

// Listening returns the gateways that accept on every one of the ports, and the first reason why one does not.
func Listening(gateways []Gateway, ports []wire.Assignment) (ok []Gateway, fault string) {
	for _, g := range gateways {
		if g.Leaving {
			fault = "gateway " + g.Name + " is leaving"
			continue
		}
		if !g.Connected || g.Report == nil {
			fault = "gateway " + g.Name + " is not connected"
			continue
		}
		missing := ""
		for _, p := range ports {
			if why := listens(g.Report, p); why != "" {
				missing = "gateway " + g.Name + ": " + why
				break
			}
		}
		if missing == "" {
			ok = append(ok, g)
		} else {
			fault = missing
		}
	}
	return ok, fault
}

func listens(r *wire.Report, p wire.Assignment) string {
	for i := range r.Ports {
		got := &r.Ports[i]
		if got.Namespace == p.Namespace && got.Service == p.Service && got.PortName == p.PortName {
			if got.Listening {
				return ""
			}
			return fmt.Sprintf("port %d is not open: %s", p.Listen, got.Error)
		}
	}
	return fmt.Sprintf("port %d is not assigned yet", p.Listen)
}
