package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestPortsForwardOnlyInThePath dials the ports of a workload that is awake, takes the gateway into
// its path and out again: before and after that no pod is reached through it, of HTTP and of TCP.
func TestPortsForwardOnlyInThePath(t *testing.T) {
	for _, protocol := range []string{"http", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			b := start(t, func(c *gateway.Config) { c.PathLinger = 300 * time.Millisecond })
			a := assignment(func(a *wire.Assignment) { a.InPath, a.Protocol = false, protocol })
			p := newPod(t, nil)
			b.source.set(web, up(p.address()))
			address := strings.TrimPrefix(b.assign(a), "http://")
			reached := func() bool {
				conn, err := net.Dial("tcp", address)
				if errors.Is(err, syscall.ECONNRESET) {
					return false
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					return false
				}
				_ = res.Body.Close()
				return true
			}
			if reached() || p.served.Load() != 0 || b.gw.Report().Ports[0].InPath {
				t.Fatalf("before it is in the path a pod is reached, or the report says that it is: %+v", b.gw.Report().Ports[0])
			}
			a.InPath = true
			b.assign(a)
			if !reached() || !b.gw.Report().Ports[0].InPath {
				t.Fatalf("in the path no pod is reached, or the report does not say that it is: %+v", b.gw.Report().Ports[0])
			}
			a.InPath = false
			b.assign(a)
			left := time.Now()
			if !reached() && time.Since(left) < 300*time.Millisecond {
				t.Error("just out of the path no pod is reached, and proxies may still send here")
			}
			for reached() {
				if time.Since(left) > 20*time.Second {
					t.Fatal("long out of the path a pod is reached")
				}
			}
		})
	}
}

// crowd opens connections to a port and writes the same on each, until what it wrote n times.
func crowd(t *testing.T, url, text string, n int) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, text) // it may be refused meanwhile
	}
}

// heap is the live heap and the stacks, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse) //nolint:gosec // of a test's process
}

// victim is another tenant's workload at the same gateway.
var victim = gateway.Target{Namespace: "victim", Service: "api", PortName: "http"}

func victimAssignment() wire.Assignment {
	return assignment(func(a *wire.Assignment) { a.Namespace, a.Service = victim.Namespace, victim.Service })
}

// TestHeldMemoryIsBounded holds requests with heads of 20 kB, until there is no memory for more:
// they are refused with Retry-After, the heap does not grow beyond the bound, and another tenant's
// request is held and served.
func TestHeldMemoryIsBounded(t *testing.T) {
	const most = 16 << 20
	b := start(t, func(c *gateway.Config) { c.MaxMemory = most })
	attack, other := assignment(nil), victimAssignment()
	url := b.assign(attack, other)
	before := heap()
	crowd(t, url, "GET / HTTP/1.1\r\nHost: web\r\nX-Pad: "+strings.Repeat("x", 20_000)+"\r\n\r\n", 800)
	r := b.until("refusals", func(r wire.Report) bool {
		p := port(r, web)
		return p.Arrived >= 800 && p.Rejected > 0
	})
	held := int64(port(r, web).Waiting)
	if grown := heap() - before; held < 50 || held*40_000 > most || grown > 2*most {
		t.Errorf("%d are held, the heap grew by %d MiB: want what fits %d MiB", held, grown>>20, most>>20)
	}
	refused := get(t.Context(), client(t), url, func(r *http.Request) { r.Header.Set("X-Pad", strings.Repeat("x", 20_000)) })
	if refused.code != 503 || refused.header.Get("Retry-After") == "" || refused.header.Get("Sluice-Reason") != "full" {
		t.Errorf("one more = %+v, want 503 full with Retry-After", refused)
	}
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, fmt.Sprintf("http://127.0.0.1:%d", other.Listen)) })
	b.until("the victim's request held", func(r wire.Report) bool { return port(r, victim).Waiting == 1 })
	b.source.set(victim, up(newPod(t, nil).address()))
	if r := wait(); r.code != 200 {
		t.Errorf("the victim's request = %+v, want it served", r)
	}
}

func port(r wire.Report, t gateway.Target) wire.PortReport {
	for _, p := range r.Ports {
		if p.Namespace == t.Namespace && p.Service == t.Service {
			return p
		}
	}
	return wire.PortReport{}
}

// TestSlowHeadsAreBounded sends heads that never end, and connections that say nothing: they cost
// the tenant its own share, and another's request is served.
func TestSlowHeadsAreBounded(t *testing.T) {
	const most = 4 << 20
	b := start(t, func(c *gateway.Config) { c.MaxMemory = most })
	attack, other := assignment(nil), victimAssignment()
	url := b.assign(attack, other)
	before := heap()
	crowd(t, url, "GET / HTTP/1.1\r\nHost: web\r\nX-Pad: "+strings.Repeat("x", 900<<10), 20)
	crowd(t, url, "", 500)
	b.until("refusals", func(r wire.Report) bool { return port(r, web).Rejected > 0 })
	if grown := heap() - before; grown > 4*most { // a buffer doubles as it grows
		t.Errorf("the heap grew by %d MiB, want the bound of %d MiB to hold", grown>>20, most>>20)
	}
	b.source.set(victim, up(newPod(t, nil).address()))
	if r := get(t.Context(), client(t), fmt.Sprintf("http://127.0.0.1:%d", other.Listen)); r.code != 200 {
		t.Errorf("the victim's request = %+v, want it served", r)
	}
}

// TestMemoryIsGivenBack sends requests in every way that they can end: nothing stays charged, so
// that all that fits once fits again.
func TestMemoryIsGivenBack(t *testing.T) {
	b := start(t, func(c *gateway.Config) { c.MaxMemory = 1 << 20 })
	url := b.assign(assignment(nil))
	p := newPod(t, nil)
	head := func(r *http.Request) { r.Header.Set("X-Pad", strings.Repeat("x", 50_000)) }
	for range 200 {
		b.source.set(web)
		ctx, leave := context.WithCancel(t.Context())
		c := client(t)
		wait := async(func() reply { return get(ctx, c, url, head) })
		b.untilWaiting(1)
		leave()
		wait()
		b.source.set(web, up(p.address()))
		if r := get(t.Context(), c, url, head); r.code != 200 {
			t.Fatalf("a request = %+v, want it served: what left is still charged", r)
		}
		c.CloseIdleConnections()
	}
}

// TestAnswersNameNoPod has a pod break off a request: what the client is told names no address.
func TestAnswersNameNoPod(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	p := newPod(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	b.source.set(web, up(p.address()))
	r := get(t.Context(), client(t), url, func(r *http.Request) { r.Method = http.MethodPost })
	host, number, err := net.SplitHostPort(p.address())
	if err != nil {
		t.Fatal(err)
	}
	if r.code != 502 || strings.Contains(r.body, host) || strings.Contains(r.body, number) {
		t.Errorf("answer = %+v, want 502 that names no address", r)
	}
}

// FuzzFirstBytes sends what a TCP client may begin with, in pieces of any size, while it is held:
// not a byte is lost or doubled, no more than the buffer is read, and the client's end is noticed.
func FuzzFirstBytes(f *testing.F) {
	f.Add([]byte("hello"), uint16(2), true)
	f.Add([]byte{}, uint16(1), true)
	f.Add(bytes.Repeat([]byte("x"), 20_000), uint16(700), false)
	f.Fuzz(func(t *testing.T, sent []byte, piece uint16, end bool) {
		near, far := net.Pipe()
		defer func() { _ = near.Close() }()
		defer func() { _ = far.Close() }()
		var left atomic.Bool
		gone := make(chan struct{}, 1)
		stop := gateway.ReadFirst(near, func() { left.Store(true); gone <- struct{}{} })
		wrote := make(chan struct{})
		begun := min(len(sent), gateway.TCPBuffered)
		go func() {
			defer close(wrote)
			for rest := sent[:begun]; len(rest) > 0; {
				n := min(len(rest), 1+int(piece))
				if _, err := far.Write(rest[:n]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				rest = rest[n:]
			}
			if end {
				_ = far.Close()
			}
		}()
		<-wrote
		if end && begun < gateway.TCPBuffered && begun == 0 {
			<-gone
		}
		got, _ := stop()
		if !bytes.Equal(got, sent[:begun]) {
			t.Fatalf("%d bytes of %d, or others", len(got), begun)
		}
		if left.Load() && begun > 0 {
			t.Error("a client that sent something counts as gone")
		}
	})
}
