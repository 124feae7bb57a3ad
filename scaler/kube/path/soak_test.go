package path_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path/slice"
	"github.com/sluice-autoscaler/sluice/wire"
)

// noPods is a cluster without pods.
type noPods struct{}

func (noPods) Subscribe(_ gateway.Target, update func([]hold.Endpoint)) func() {
	update(nil)
	return func() {}
}
func (noPods) Synced() bool { return true }

// soak is two controllers and two gateways, all running, over one API server.
type soak struct {
	t        *testing.T
	api      *api
	gateways []*gateway.Gateway
	servers  []*httptest.Server
	hosts    []string
	drivers  map[string]*path.Driver
}

// observe shows a driver what the gateways report.
func (s *soak) observe(d *path.Driver) {
	var list []wire.Gateway
	for i, g := range s.gateways {
		r := g.Report()
		list = append(list, wire.Gateway{
			Name: fmt.Sprint("gw", i), IP: s.hosts[i], Control: strings.TrimPrefix(s.servers[i].URL, "http://"), Connected: true,
		}.WithReport(&r))
	}
	d.Observe(list)
}

// churn drives the workloads of one owner until ctx ends: rounds, and now and then a workload that
// is deleted and made again. The first half of them stays, and must keep its listeners.
func (s *soak) churn(ctx context.Context, name string, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	d := s.drivers[name]
	listening := map[string]int{}
	late := time.Now().Add(time.Minute)
	// On a busy machine the time may be too short for every workload to have had its rounds.
	for ctx.Err() == nil || len(listening) < 10 && time.Now().Before(late) {
		i := rng.IntN(20)
		service := fmt.Sprint(name, "-", i)
		ref := reference(service)
		if i >= 10 && rng.IntN(10) == 0 {
			d.Forget(ref)
			s.api.remove(types.NamespacedName{Namespace: "shop", Name: slice.Name(service)})
			continue
		}
		d.Register(ref, workload(service, 0))
		p, err := d.See(s.t.Context(), ref)
		if err != nil {
			s.t.Errorf("See(%s): %v", service, err)
			return
		}
		if err := d.Put(s.t.Context(), ref, loop.PathState{In: rng.IntN(2) == 0}); err != nil && !errors.Is(err, scaler.ErrConflict) {
			s.t.Errorf("Put(%s): %v", service, err)
			return
		}
		if i < 10 && p.Listening == len(s.gateways) {
			number := s.number(service)
			if was, ok := listening[service]; ok && was != number {
				s.t.Errorf("%s had number %d and has %d", service, was, number)
			}
			listening[service] = number
		}
		if number, ok := listening[service]; ok {
			s.dial(ctx, service, number)
		}
		if fault := s.api.twice(); fault != "" {
			s.t.Error(fault)
			return
		}
	}
	if len(listening) != 10 {
		s.t.Errorf("%d of the 10 workloads of %s that stay got listeners: %v", len(listening), name, listening)
	}
}

func (s *soak) number(service string) int {
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	return int(*s.api.head[types.NamespacedName{Namespace: "shop", Name: slice.Name(service)}].Ports[0].Port)
}

// dial connects to a workload's port at each gateway: it must never be closed again.
func (s *soak) dial(ctx context.Context, service string, number int) {
	for _, host := range s.hosts {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.WithoutCancel(ctx), "tcp", net.JoinHostPort(host, fmt.Sprint(number)))
		if errors.Is(err, syscall.ECONNRESET) { // it listens, and is not in the path
			continue
		}
		if err != nil {
			s.t.Errorf("%s lost its listener: %v", service, err)
			continue
		}
		_ = conn.Close()
	}
}

// TestTwoControllersChurn runs two controllers against two real gateways, for three seconds, or for
// $SLUICE_SOAK: no number is given twice, and no listener of a workload that stays is lost.
func TestTwoControllersChurn(t *testing.T) {
	t.Parallel()
	length := 3 * time.Second
	if text := os.Getenv("SLUICE_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SLUICE_SOAK = %q: want a duration", text)
		}
	}
	s := &soak{t: t, api: newAPI(time.Now), drivers: map[string]*path.Driver{}}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range 2 {
		cfg := gateway.Default()
		cfg.Name, cfg.LameDuck, cfg.Drain = fmt.Sprint("gw", i), 0, time.Second
		// Addresses of its own, so that another run on this machine has the same numbers free.
		cfg.ListenHost = fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%250, os.Getpid()/250%250, 2+i)
		g := gateway.New(cfg, noPods{}, slog.New(slog.DiscardHandler))
		s.gateways, s.hosts, s.servers = append(s.gateways, g), append(s.hosts, cfg.ListenHost), append(s.servers, httptest.NewServer(g.Control()))
		running.Go(func() {
			if err := g.Run(ctx); err != nil {
				t.Errorf("gateway: %v", err)
			}
		})
	}
	churning, end := context.WithTimeout(ctx, length)
	defer end()
	var churns sync.WaitGroup
	for i, name := range []string{"shard-0", "shard-1"} {
		for j := range 20 {
			s.api.addService(fmt.Sprint(name, "-", j), "http")
		}
		c := newCached(s.api, false)
		d := path.New(path.Options{
			Client: c, Owner: name, Epoch: time.Now().UnixNano(), Range: path.Range{From: 21000, To: 21050}, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
		})
		s.drivers[name] = d
		d.Expect(nil)
		running.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Errorf("driver: %v", err)
			}
		})
		running.Go(func() { // a watch that is some milliseconds late, and the report streams
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				c.follow(rng.IntN(10))
				s.observe(d)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	for i, name := range []string{"shard-0", "shard-1"} {
		churns.Go(func() { s.churn(churning, name, uint64(i)) })
	}
	churns.Wait()
	stop()
	running.Wait()
	for _, srv := range s.servers {
		srv.Close()
	}
}
