// Package appcheck checks whether the app beside the sidecar is ready, with at most one check at a
// time.
package appcheck

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// fresh is how long a success is cached: long enough that a gateway's probes every few milliseconds
// cost few dials, short compared with any reaction to an app's death.
const fresh = 100 * time.Millisecond

// agent is the User-Agent of probes.
const agent = "sluice-probe/1"

// Checker checks the app, with at most one check under way, whose result concurrent callers share.
// Dial, HTTP and GRPC make it. It is safe for concurrent use.
type Checker struct {
	ask     func(ctx context.Context) error
	timeout time.Duration

	mu     sync.Mutex
	flight *flight
	good   time.Time // of the last good answer
}

type flight struct {
	done chan struct{}
	err  error // written before done is closed
}

// Dial returns a Checker that holds when the app accepts a connection on address, of network "tcp"
// or "unix", within timeout.
func Dial(network, address string, timeout time.Duration) *Checker {
	return &Checker{timeout: timeout, ask: func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}}
}

// HTTP returns a Checker that holds when GET path at address is answered within timeout with
// 200–399. It follows no redirect, and uses a connection of its own each time, as a kubelet does.
func HTTP(network, address, path string, timeout time.Duration) *Checker {
	client := &http.Client{
		Transport:     transport(network, address),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Checker{timeout: timeout, ask: func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host(network, address)+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", agent)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("%s answered %d", path, resp.StatusCode)
		}
		return nil
	}}
}

// transport opens a connection to the app for each request.
func transport(network, address string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, Proxy: nil, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// host is what requests name as their host.
func host(network, address string) string {
	if network == "unix" {
		return "localhost"
	}
	return address
}

// Check returns nil when the app answers, or did within the last 100 ms, else why it does not. It
// returns early when ctx ends.
func (c *Checker) Check(ctx context.Context) error {
	c.mu.Lock()
	if time.Since(c.good) < fresh {
		c.mu.Unlock()
		return nil
	}
	f := c.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flight = f
		// The question outlives a caller that leaves, because others may wait for the same answer;
		// timeout bounds it.
		go c.run(context.WithoutCancel(ctx), f)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Checker) run(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.ask(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.good = time.Now()
	}
	f.err = err
	c.flight = nil
	close(f.done)
}
