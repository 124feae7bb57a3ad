package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// kind is a kind of request.
type kind struct {
	name, app, path string
	upload, grpc    bool
}

func kinds() []kind {
	return []kind{
		{name: "small", app: staticAddress, path: "/small"},
		{name: "64KiB", app: staticAddress, path: "/64k"},
		{name: "upload-1MiB", app: uploadAddress, path: "/", upload: true},
		{name: "grpc", app: grpcAddress, grpc: true},
	}
}

// measurement is one target under one load in one round.
type measurement struct {
	Target      string  `json:"target"`
	Kind        string  `json:"kind"`
	Connections int     `json:"connections"`
	Round       int     `json:"round"`
	Requests    int64   `json:"requests"`
	Failed      int64   `json:"failed"`
	Rate        float64 `json:"requests_per_second"`
	CPU         float64 `json:"cpu_seconds"` // the proxy's
	PerRequest  float64 `json:"cpu_microseconds_per_request"`
	Share       float64 `json:"cpu_share_of_a_core"`
	IdleRSS     int64   `json:"rss_idle_bytes"`
	RSS         int64   `json:"rss_after_bytes"`
}

// latency is one target under an open loop of small requests, from the intended instants.
type latency struct {
	Target string        `json:"target"`
	Round  int           `json:"round"`
	Rate   float64       `json:"requests_per_second"`
	P50    time.Duration `json:"p50_nanoseconds"`
	P99    time.Duration `json:"p99_nanoseconds"`
	Failed int64         `json:"failed"`
	// Share is the proxy's CPU, as a share of one core.
	Share float64 `json:"cpu_share_of_a_core"`
}

// result is all of a run; what is printed and drawn derives from it.
type result struct {
	When         time.Time     `json:"when"`
	Machine      string        `json:"machine"`
	Go           string        `json:"go"`
	Length       time.Duration `json:"length_nanoseconds"`
	Rounds       int           `json:"rounds"`
	Measurements []measurement `json:"measurements"`
	Latencies    []latency     `json:"latencies"`
	// Capacities are what the client of the open loop reaches when it never waits.
	Capacities []latency `json:"capacities"`
	// Observer is observe mode beside 10,000 requests per second on 64 connections.
	Observer *latency `json:"observer_at_10000,omitempty"`
	Skipped  []string `json:"skipped,omitempty"`
}

// bench is a run under way.
type bench struct {
	options
	work string
	out  io.Writer
}

// openConnections is the number of connections of the open loop, and of the figures that are
// compared.
const openConnections = 32

func (b *bench) run(ctx context.Context) (*result, error) {
	r := &result{When: time.Now().UTC(), Machine: fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), Go: runtime.Version(), Length: b.length, Rounds: b.rounds}
	upload := filepath.Join(b.work, "upload.lua")
	if err := os.WriteFile(upload, []byte("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", 1048576)\n"), 0o644); err != nil {
		return nil, err
	}
	cmd, err := static(ctx, b)
	if err != nil {
		return nil, err
	}
	nginxApp, err := launch(ctx, cmd, staticAddress)
	if err != nil {
		return nil, err
	}
	defer nginxApp.stop()
	cmd = command(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), appEnv+"=1")
	goApp, err := launch(ctx, cmd, uploadAddress)
	if err != nil {
		return nil, err
	}
	defer goApp.stop()

	all := b.available(ctx, r)
	for round := range b.rounds {
		if err := b.closedRound(ctx, r, all, round); err != nil {
			return nil, err
		}
		if round == 0 {
			if err := b.capacities(ctx, r, all); err != nil {
				return nil, err
			}
		}
		if err := b.openRound(ctx, r, all, round); err != nil {
			return nil, err
		}
	}
	for _, t := range all {
		if t.name == "sluice-observe" {
			l, err := b.open(ctx, t, 10000, 64, 0)
			if err != nil {
				return nil, err
			}
			r.Observer = &l
		}
	}
	return r, nil
}

// available returns the targets that this build has, and notes the others in r.
func (b *bench) available(ctx context.Context, r *result) []target {
	return slices.DeleteFunc(targets(), func(t target) bool {
		if t.start == nil {
			return false
		}
		cmd, err := t.start(ctx, b, staticAddress, false)
		if cmd == nil && err == nil {
			r.Skipped = append(r.Skipped, t.name)
			fmt.Fprintf(b.out, "%s: not in this build, left out\n", t.name)
			return true
		}
		return false
	})
}

// closedRound measures every target under every kind of request in a closed loop.
func (b *bench) closedRound(ctx context.Context, r *result, all []target, round int) error {
	connections := []int{1, openConnections, 64}
	if b.quick {
		connections = []int{openConnections}
	}
	for _, k := range kinds() {
		for _, n := range connections {
			for i := range all {
				t := all[(i+round)%len(all)]
				m, err := b.closed(ctx, t, k, n, round)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					return fmt.Errorf("%s, %s, %d connections: %w", t.name, k.name, n, err)
				}
				fmt.Fprintf(b.out, "round %d  %-11s %2d connections  %-14s %8.0f requests/s  %8.1f µs CPU/request  %5.1f MiB  %d failed\n",
					round+1, k.name, n, t.name, m.Rate, m.PerRequest, float64(m.RSS)/(1<<20), m.Failed)
				r.Measurements = append(r.Measurements, m)
			}
		}
	}
	return nil
}

// capacities measures what every target can do with the client of the open loop.
func (b *bench) capacities(ctx context.Context, r *result, all []target) error {
	for _, t := range all {
		l, err := b.open(ctx, t, math.Inf(1), openConnections, 0)
		if err != nil {
			return fmt.Errorf("%s, capacity: %w", t.name, err)
		}
		r.Capacities = append(r.Capacities, l)
	}
	return nil
}

// openRound measures every target in an open loop, at half of its capacity, but at most at half of
// haproxy's: at the same rate for all that can keep up.
func (b *bench) openRound(ctx context.Context, r *result, all []target, round int) error {
	half := func(name string) float64 {
		for _, c := range r.Capacities {
			if c.Target == name {
				return c.Rate / 2
			}
		}
		return math.Inf(1)
	}
	for i := range all {
		t := all[(i+round)%len(all)]
		l, err := b.open(ctx, t, min(half(t.name), half("haproxy")), openConnections, round)
		if err != nil {
			return fmt.Errorf("%s, open loop: %w", t.name, err)
		}
		fmt.Fprintf(b.out, "round %d  open loop %8.0f requests/s  %-14s p50 %v  p99 %v\n", round+1, l.Rate, t.name, l.P50, l.P99)
		r.Latencies = append(r.Latencies, l)
	}
	return nil
}

// begin starts a target for an app and returns where to send; p is nil when nothing runs.
func (b *bench) begin(ctx context.Context, t target, k kind) (p *process, address string, err error) {
	if t.start == nil {
		return nil, k.app, nil
	}
	cmd, err := t.start(ctx, b, k.app, k.grpc)
	if err != nil {
		return nil, "", err
	}
	if t.aside {
		p, err = launch(ctx, cmd, "127.0.0.1:7102")
		return p, k.app, err
	}
	p, err = launch(ctx, cmd, proxyAddress)
	return p, proxyAddress, err
}

// closed measures a target with n connections, each of which sends the next request when the last
// is answered.
func (b *bench) closed(ctx context.Context, t target, k kind, n, round int) (measurement, error) {
	m := measurement{Target: t.name, Kind: k.name, Connections: n, Round: round}
	p, address, err := b.begin(ctx, t, k)
	if err != nil {
		return m, err
	}
	var before usage
	if p != nil {
		defer p.stop()
		before = p.used()
	}
	began := time.Now()
	if k.grpc {
		m.Requests, m.Failed, err = unary(ctx, address, n, b.length)
	} else {
		m.Requests, m.Failed, err = b.wrk(ctx, address, k, n)
	}
	took := time.Since(began)
	if err != nil {
		return m, err
	}
	m.Rate = float64(m.Requests) / took.Seconds()
	if p != nil {
		after := p.used()
		m.CPU, m.IdleRSS, m.RSS = (after.cpu - before.cpu).Seconds(), before.rss, after.rss
		m.PerRequest = m.CPU / float64(max(m.Requests, 1)) * 1e6
		m.Share = m.CPU / took.Seconds()
	}
	return m, nil
}

func (b *bench) wrk(ctx context.Context, address string, k kind, n int) (requests, failed int64, err error) {
	args := []string{"-t1", "-c" + strconv.Itoa(n), fmt.Sprintf("-d%.0fs", max(b.length.Seconds(), 1))}
	if k.upload {
		args = append(args, "-s", filepath.Join(b.work, "upload.lua"))
	}
	out, err := command(ctx, "wrk", append(args, "http://"+address+k.path)...).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	number := func(pattern string) int64 {
		found := regexp.MustCompile(pattern).FindStringSubmatch(string(out))
		if found == nil {
			return 0
		}
		var sum int64
		for _, f := range found[1:] {
			n, _ := strconv.ParseInt(strings.TrimSpace(f), 10, 64)
			sum += n
		}
		return sum
	}
	return number(`(\d+) requests in`), number(`Non-2xx or 3xx responses: (\d+)`) + number(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`), nil
}

// unary does gRPC calls for d, on n connections with one call at a time each.
func unary(ctx context.Context, address string, n int, d time.Duration) (requests, failed int64, err error) {
	began := time.Now()
	var done, lost atomic.Int64
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			client := grpc_health_v1.NewHealthClient(c)
			for ctx.Err() == nil && time.Since(began) < d {
				switch _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); {
				case err == nil:
					done.Add(1)
				case ctx.Err() == nil:
					lost.Add(1)
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return done.Load(), lost.Load(), err
}

// open measures a target with small requests at intended instants, evenly over n connections. A
// request whose connection is still waiting for an answer is sent when that is there; its latency
// counts from when it should have been. At an infinite rate it sends one after another, and the
// rate becomes what was reached.
func (b *bench) open(ctx context.Context, t target, rate float64, n, round int) (latency, error) {
	l := latency{Target: t.name, Round: round, Rate: rate}
	p, address, err := b.begin(ctx, t, kinds()[0])
	if err != nil {
		return l, err
	}
	var before usage
	if p != nil {
		defer p.stop()
		before = p.used()
	}
	var mu sync.Mutex
	var all []time.Duration
	var failed atomic.Int64
	period := time.Duration(float64(n) / rate * float64(time.Second))
	start := time.Now().Add(50 * time.Millisecond)
	length := 2 * b.length
	// Each connection has a thread and a processor of the runtime to itself, and nothing stops the
	// world.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n + 4))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var g errgroup.Group
	for i := range n {
		g.Go(func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c, err := dial(address)
			if err != nil {
				return err
			}
			defer func() { _ = syscall.Close(c) }()
			latencies := make([]time.Duration, 0, 1<<14)
			buf := make([]byte, 4096)
			next := func(at time.Time) time.Time { return at.Add(period) }
			if period == 0 {
				next = func(time.Time) time.Time { return time.Now() }
			}
			for at := start.Add(period * time.Duration(i) / time.Duration(n)); at.Sub(start) < length && ctx.Err() == nil; at = next(at) {
				for wait := time.Until(at); wait > 0; wait = time.Until(at) {
					sleep(wait)
				}
				if !exchange(c, buf) {
					failed.Add(1)
					continue
				}
				latencies = append(latencies, time.Since(at))
			}
			mu.Lock()
			all = append(all, latencies...)
			mu.Unlock()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return l, err
	}
	if p != nil {
		l.Share = (p.used().cpu - before.cpu).Seconds() / time.Since(start).Seconds()
	}
	if period == 0 {
		l.Rate = float64(len(all)) / length.Seconds()
	}
	slices.Sort(all)
	if len(all) > 0 {
		l.P50, l.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	l.Failed = failed.Load()
	return l, nil
}

// dial connects a blocking socket: the runtime's poller would add its own delays.
func dial(address string) (int, error) {
	_, port, _ := strings.Cut(address, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	for _, set := range []func() error{
		func() error { return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) },
		func() error {
			return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5})
		},
		func() error { return syscall.Connect(fd, &syscall.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}) },
	} {
		if err := set(); err != nil {
			_ = syscall.Close(fd)
			return 0, err
		}
	}
	return fd, nil
}

// sleep is the kernel's, as the runtime's wakes up to a millisecond late. Like read and write below
// it keeps its processor of the runtime, of which open sees to it that there are enough: to hand it
// over and back would cost more than the request.
func sleep(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	// cut short at worst
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

func raw(call uintptr, fd int, b []byte) int {
	for {
		n, _, e := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch e {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			return -1
		}
	}
}

// exchange sends a small request and reads its answer, which is known to end in a word of its own.
func exchange(fd int, buf []byte) bool {
	request := []byte("GET /small HTTP/1.1\r\nHost: bench\r\n\r\n")
	if raw(syscall.SYS_WRITE, fd, request) != len(request) {
		return false
	}
	for n := 0; n < len(buf); {
		m := raw(syscall.SYS_READ, fd, buf[n:])
		if m <= 0 {
			return false
		}
		if n += m; bytes.HasSuffix(buf[:n], []byte("less.\n")) {
			return bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200"))
		}
	}
	return false
}
