package sidecar_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestH2Preface begins connections in odd ways (RFC 9113, 3.4).
func TestH2Preface(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	r := start(t, app, nil)
	impatient := start(t, app, func(c *sidecar.Config) {
		c.HeaderTimeout, c.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond
	})
	cases := []struct {
		name string
		r    *running
		send func(c *h2)
		want h2want
	}{
		{"all in one packet", r, func(c *h2) {
			var all strings.Builder
			c.out = &all
			c.hello()
			c.get(1, "/")
			_, _ = io.WriteString(c.nc, all.String())
			c.out = c.nc
		}, answered(1, "200")},
		{"byte by byte", r, func(c *h2) {
			c.out = writer(func(p []byte) (int, error) {
				for i := range p {
					if n, err := c.nc.Write(p[i : i+1]); err != nil {
						return i + n, err
					}
				}
				return len(p), nil
			})
			c.hello()
			c.get(1, "/")
		}, answered(1, "200")},
		{"no settings but a ping", r, func(c *h2) {
			c.write([]byte(http2.ClientPreface))
			_ = c.fr.WritePing(false, [8]byte{})
		}, broken(protocol)},
		{"no settings but a request", r, func(c *h2) { c.write([]byte(http2.ClientPreface)); c.get(1, "/") }, broken(protocol)},
		{"settings on a stream", r, func(c *h2) {
			c.write([]byte(http2.ClientPreface))
			c.frame(http2.FrameSettings, 0, 1, nil)
		}, broken(protocol)},
		// Whoever goes silent is let go, wherever that is.
		{"half of it", impatient, func(c *h2) { c.begun = true; c.write([]byte(http2.ClientPreface[:20])) }, broken(protocol)},
		{"all of it, but no settings", impatient, func(c *h2) { c.write([]byte(http2.ClientPreface)) }, broken(protocol, http2.ErrCodeSettingsTimeout)},
		{"no request", impatient, func(c *h2) { c.hello() }, broken()},
		{"half a header block", impatient, func(c *h2) {
			c.hello()
			c.frame(http2.FrameHeaders, 0, 1, c.block(asking("GET", "/")...)[:3])
		}, broken(protocol, cancel, calm)},
	}
	for _, cs := range cases {
		t.Run(cs.name, func(t *testing.T) {
			t.Parallel()
			c := cs.r.dialH2(t)
			cs.send(c)
			if cs.name == "half of it" { // unknown what it was: an answer of HTTP/1 will do
				if _, err := io.Copy(io.Discard, c.nc); err != nil && isTimeout(err) {
					t.Error("the connection is open")
				}
				return
			}
			if got := c.outcome(cs.want.stream); !slices.Contains(cs.want.outcomes, got) {
				t.Errorf("%s, want %s", got, strings.Join(cs.want.outcomes, " or "))
			}
		})
	}
}

func isTimeout(err error) bool {
	nerr, ok := errors.AsType[net.Error](err)
	return ok && nerr.Timeout()
}

// TestH2Upgrade asks for HTTP/2 in a way that RFC 9113 has done away with (3.1): the answer comes
// by HTTP/1.1.
func TestH2Upgrade(t *testing.T) {
	r := start(t, serveApp(t, func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.Proto) }), nil)
	resp, body := r.get("/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQAAP__")
	if resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/1.1" {
		t.Errorf("answer %s %d %q, want HTTP/1.1 200", resp.Proto, resp.StatusCode, body)
	}
}

// TestH2Answers looks at answers on the wire: what the app says, and how it fails, must be told
// apart.
func TestH2Answers(t *testing.T) {
	left := make(chan struct{}, 1)
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		flush := http.NewResponseController(w).Flush
		switch req.URL.Path {
		case "/cut":
			_, _ = io.WriteString(w, "half")
			_ = flush()
			panic(http.ErrAbortHandler)
		case "/refuse":
			panic(http.ErrAbortHandler)
		case "/left":
			_ = flush()
			<-req.Context().Done()
			left <- struct{}{}
		case "/trailers":
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Sum", "7")
		case "/early-hints":
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/hop":
			w.Header().Set("X-Kept", "1")
			w.Header()["Date"] = nil
		}
	})
	r := start(t, app, nil)
	c := r.openH2(t)

	c.get(1, "/cut")
	if got := c.outcome(1); got != "stream INTERNAL_ERROR" && got != "stream CANCEL" && got != "stream PROTOCOL_ERROR" {
		t.Errorf("a cut answer ended by %s, want a reset", got)
	}
	c.get(3, "/refuse")
	if a := c.expect(3, "502"); len(field(a.header, "sluice-reason")) != 1 {
		t.Errorf("502 with %v, want one sluice-reason", a.header)
	}
	c.get(5, "/left")
	a := c.answer(5)
	c.until("headers", func() bool { return a.status == "200" })
	_ = c.fr.WriteRSTStream(5, cancel)
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the app was not told that the client reset its stream")
	}
	c.get(7, "/trailers")
	if a := c.expect(7, "200"); string(a.body) != "body" || !slices.Equal(field(a.trailer, "x-sum"), []string{"7"}) {
		t.Errorf("body %q, trailers %v, want body and x-sum 7", a.body, a.trailer)
	}
	c.get(9, "/early-hints")
	if a := c.expect(9, "200"); !slices.Equal(a.interim, []string{"103"}) {
		t.Errorf("interim answers %v, want 103", a.interim)
	}
	c.get(11, "/204")
	if a := c.expect(11, "204"); len(a.body) > 0 {
		t.Errorf("204 with %q", a.body)
	}
	c.get(13, "/hop")
	a = c.expect(13, "200")
	for _, name := range []string{"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"} {
		if v := field(a.header, name); v != nil {
			t.Errorf("%s: %v in an answer (RFC 9113, 8.2.2)", name, v)
		}
	}
	for _, f := range a.header {
		if f.Name != strings.ToLower(f.Name) {
			t.Errorf("field %q (RFC 9113, 8.2)", f.Name)
		}
	}
	if !slices.Equal(field(a.header, "x-kept"), []string{"1"}) {
		t.Errorf("fields %v, want x-kept", a.header)
	}
	r.wait(0, wire.InFlight)
}

// TestH2GoAway reads what a drain says on the wire: GOAWAY without an error, naming a stream that
// covers what runs; that ends well; then the connection is closed.
func TestH2GoAway(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = io.WriteString(w, "ok") })
	r := start(t, app, func(c *sidecar.Config) { c.LameDuck = 10 * time.Millisecond })
	c := r.openH2(t)
	c.get(1, "/")
	c.get(3, "/")
	r.wait(2, wire.InFlight)
	r.stop()
	c.until("GOAWAY", func() bool { return c.goaway != nil })
	if c.goaway.ErrCode != http2.ErrCodeNo || c.goaway.LastStreamID < 3 {
		t.Errorf("GOAWAY %v, last stream %d; want NO_ERROR and at least 3", c.goaway.ErrCode, c.goaway.LastStreamID)
	}
	close(release)
	for _, id := range []uint32{1, 3} {
		if a := c.expect(id, "200"); string(a.body) != "ok" {
			t.Errorf("stream %d: %q", id, a.body)
		}
	}
	c.closes()
}

// pressed is an app that notes how many requests it has at once, and holds each until its client
// leaves.
type pressed struct{ now, most atomic.Int64 }

func (p *pressed) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/free" {
		return
	}
	n := p.now.Add(1)
	defer p.now.Add(-1)
	for {
		most := p.most.Load()
		if n <= most || p.most.CompareAndSwap(most, n) {
			break
		}
	}
	<-req.Context().Done()
}

// streamLimit is what the sidecar says of how many streams it takes.
func (c *h2) streamLimit() int {
	n, ok := c.settings[http2.SettingMaxConcurrentStreams]
	if !ok || n < 100 || n > 10000 {
		c.t.Fatalf("MAX_CONCURRENT_STREAMS = %d, given %v; want a limit of use", n, ok)
	}
	return int(n)
}

// alive asks over a connection of its own.
func (r *running) alive() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if resp, _ := r.do(r.request(http.MethodGet, "/free", nil).WithContext(ctx)); resp.StatusCode != http.StatusOK {
		r.t.Errorf("another client got %d", resp.StatusCode)
	}
}

// TestH2StreamLimit opens one stream more than there may be (RFC 9113, 5.1.2).
func TestH2StreamLimit(t *testing.T) {
	var app pressed
	r := start(t, serveApp(t, app.ServeHTTP), nil)
	c := r.openH2(t)
	limit := c.streamLimit()
	id := uint32(1)
	for range limit {
		c.get(id, "/hold")
		id += 2
	}
	r.wait(float64(limit), wire.InFlight)
	c.get(id, "/hold")
	want := refused(id, protocol, http2.ErrCodeRefusedStream)
	if got := c.outcome(id); !slices.Contains(want.outcomes, got) {
		t.Errorf("stream %d of %d: %s, want %s", limit+1, limit, got, strings.Join(want.outcomes, " or "))
	}
	r.alive()
	if c.ended() == "" { // one that goes makes room
		_ = c.fr.WriteRSTStream(1, cancel)
		r.wait(float64(limit-1), wire.InFlight)
		c.get(id+2, "/free")
		c.expect(id+2, "200")
	}
	_ = c.nc.Close()
	r.wait(0, wire.InFlight)
}

// TestH2RapidReset opens streams and has them reset at once, by itself (CVE-2023-44487) or by an
// error of its making that the sidecar must answer so (CVE-2025-8671). The app must not get more
// requests at once than there may be streams, others are served, and nothing stays behind.
func TestH2RapidReset(t *testing.T) {
	for name, reset := range map[string]func(c *h2, id uint32){
		"by the client":  func(c *h2, id uint32) { _ = c.fr.WriteRSTStream(id, cancel) },
		"by the sidecar": func(c *h2, id uint32) { c.frame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)) },
	} {
		t.Run(name, func(t *testing.T) {
			var app pressed
			r := start(t, serveApp(t, app.ServeHTTP), nil)
			c := r.openH2(t)
			limit := c.streamLimit()
			_ = c.nc.SetDeadline(time.Now().Add(3 * patience))
			sent := make(chan struct{})
			w := c.apart()
			go func() {
				defer close(sent)
				for i := range uint32(3000) {
					w.get(2*i+1, "/hold")
					reset(w, 2*i+1)
				}
				_ = w.fr.WritePing(false, [8]byte{'e', 'n', 'd'})
			}()
			for len(c.pongs) == 0 && c.read() == nil {
			}
			if c.err != nil && isTimeout(c.err) {
				t.Error("no end was in sight")
			}
			<-sent
			r.alive()
			_ = c.nc.Close()
			r.wait(0, wire.InFlight)
			eventually(t, func() error {
				if n := app.now.Load(); n > 0 {
					return errors.New("the app still has requests")
				}
				return nil
			})
			// Twice: the app learns a little later of a reset than the sidecar.
			if most := app.most.Load(); most > int64(2*limit) {
				t.Errorf("the app had %d requests at once, the limit is %d streams", most, limit)
			}
			t.Logf("%d requests at once at most; the connection: %q", app.most.Load(), c.ended())
		})
	}
}

// TestH2MadeYouReset opens 20,000 streams and has each reset, in every way in which a client can do
// that or make the sidecar do it (CVE-2023-44487, CVE-2025-8671). There is one budget for all: the
// connection ends. Under a limit of 20 the app has no more than some 20 requests at once, since a
// cancelled one keeps its place until the app knows. On the code before, all 20,000 came through,
// and 1,638 ran at once.
func TestH2MadeYouReset(t *testing.T) {
	const limit, streams = 20, 20_000
	for name, reset := range map[string]func(c *h2, id uint32){
		"by the client":            func(c *h2, id uint32) { _ = c.fr.WriteRSTStream(id, cancel) },
		"by no window":             func(c *h2, id uint32) { c.frame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)) },
		"by too large a window":    func(c *h2, id uint32) { _ = c.fr.WriteWindowUpdate(id, 1<<31-1) },
		"by data after the end":    func(c *h2, id uint32) { _ = c.fr.WriteData(id, true, []byte("x")) },
		"by trailers after an end": func(c *h2, id uint32) { c.frame(http2.FrameHeaders, endHeaders|endStream, id, c.block("x", "y")) },
		"by depending on itself":   func(c *h2, id uint32) { _ = c.fr.WritePriority(id, http2.PriorityParam{StreamDep: id}) },
		"in turns": func(c *h2, id uint32) {
			if id%4 == 1 {
				_ = c.fr.WriteRSTStream(id, cancel)
			} else {
				c.frame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var app pressed
			r := start(t, serveApp(t, app.ServeHTTP), func(c *sidecar.Config) { c.ConcurrencyLimit = limit })
			c := r.openH2(t)
			_ = c.nc.SetDeadline(time.Now().Add(3 * patience))
			opened := make(chan uint32, 1)
			w := c.apart()
			go func() {
				var n uint32
				for ; n < streams && w.err == nil; n++ {
					w.get(2*n+1, "/hold")
					reset(w, 2*n+1)
				}
				_ = w.fr.WritePing(false, [8]byte{'e', 'n', 'd'})
				opened <- n
			}()
			for len(c.pongs) == 0 && c.read() == nil {
			}
			_ = c.nc.Close()
			n := <-opened
			if c.goaway == nil || c.goaway.ErrCode != calm {
				t.Errorf("after %d streams the connection ended by %q, want a GOAWAY %v", n, c.ended(), calm)
			} else if last := c.goaway.LastStreamID / 2; last > streams/4 {
				t.Errorf("%d streams were taken, want a quarter of %d at most", last, streams)
			}
			eventually(t, func() error {
				if n := app.now.Load(); n > 0 {
					return errors.New("the app still has requests")
				}
				return nil
			})
			// A handler at the app ends a moment after the app has read that it is to end.
			if most := app.most.Load(); most > 2*limit {
				t.Errorf("the app had %d requests at once, the limit is %d", most, limit)
			}
			t.Logf("%d streams opened, %d requests at once at most; the connection: %q", n, app.most.Load(), c.ended())
			r.alive()
			r.wait(0, wire.InFlight)
		})
	}
}

// TestH2HeaderBounds sends more headers than --max-header-bytes allows, in the ways there are.
func TestH2HeaderBounds(t *testing.T) {
	var app pressed
	r := start(t, serveApp(t, app.ServeHTTP), func(c *sidecar.Config) { c.MaxHeaderBytes = 32 << 10 })
	long := strings.Repeat("v", 1<<10)
	cases := map[string]func(c *h2){
		"one large field": func(c *h2) {
			block := c.block(asking("GET", "/free", "x", strings.Repeat("v", 100<<10))...)
			c.pieces(block)
		},
		"many fields": func(c *h2) {
			fields := asking("GET", "/free")
			for range 100 {
				fields = append(fields, "x", long+string(rune('a'+len(fields)%26)))
			}
			c.pieces(c.block(fields...))
		},
		// One entry of the table, named again and again: few bytes that stand for many (an HPACK
		// bomb).
		"one field by index": func(c *h2) {
			c.get(1, "/free", "x", long)
			c.expect(1, "200")
			fields := asking("GET", "/free")
			for range 12000 {
				fields = append(fields, "x", long)
			}
			c.frame(http2.FrameHeaders, endHeaders|endStream, 3, c.block(fields...))
		},
		// CVE-2023-45288: a block that never ends.
		"endless": func(c *h2) {
			piece := c.block("x", long)
			c.frame(http2.FrameHeaders, endStream, 3, c.block(asking("GET", "/free")...))
			for range 4096 {
				if c.fr.WriteRawFrame(http2.FrameContinuation, 0, 3, piece) != nil {
					return
				}
			}
			c.frame(http2.FrameContinuation, endHeaders, 3, nil)
		},
		"endless, without content": func(c *h2) {
			c.frame(http2.FrameHeaders, endStream, 3, c.block(asking("GET", "/free")...))
			for range 100000 {
				if c.fr.WriteRawFrame(http2.FrameContinuation, 0, 3, nil) != nil {
					return
				}
			}
			c.frame(http2.FrameContinuation, endHeaders, 3, nil)
		},
	}
	for name, send := range cases {
		t.Run(name, func(t *testing.T) {
			c := r.openH2(t)
			sent := make(chan struct{})
			if strings.HasPrefix(name, "endless") {
				w := c.apart()
				go func() { defer close(sent); send(w) }()
			} else {
				send(c)
				close(sent)
			}
			got := c.outcome(3)
			// Pieces without content are within all bounds: that they did not hold others up is
			// enough.
			if got == "nothing" || got == "answer 200" && name != "endless, without content" {
				t.Errorf("%s, want an end", got)
			}
			_ = c.nc.Close()
			<-sent
			r.alive()
			t.Log(got)
		})
	}
	r.wait(0, wire.InFlight)
}

// pieces sends a request's block on stream 3 in frames of the size that is always allowed.
func (c *h2) pieces(block []byte) {
	typ, flags := http2.FrameHeaders, endStream
	for len(block) > 0 {
		n := min(len(block), 16384)
		if n == len(block) {
			flags |= endHeaders
		}
		c.frame(typ, flags, 3, block[:n])
		block, typ, flags = block[n:], http2.FrameContinuation, 0
	}
}

// TestH2Floods sends frames that ask for an answer, and reads none. The sidecar may close, read no
// more, or give no answer; it may not gather answers. 64 MiB are more than what sockets hold.
func TestH2Floods(t *testing.T) {
	var app pressed
	r := start(t, serveApp(t, app.ServeHTTP), nil)
	for name, one := range map[string]func(c *h2) error{
		"PING":  func(c *h2) error { return c.fr.WritePing(false, [8]byte{'x'}) },
		"reset": func(c *h2) error { return c.fr.WriteRawFrame(http2.FrameData, 0, 1, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := r.openH2(t)
			c.get(1, "/free")
			c.expect(1, "200")
			var batch strings.Builder
			c.out = &batch
			for range 4096 {
				_ = one(c)
			}
			c.out = c.nc
			for sent := 0; ; sent += batch.Len() {
				if sent > 64<<20 {
					_ = c.nc.SetDeadline(time.Now().Add(patience))
					_ = c.fr.WritePing(false, [8]byte{'e', 'n', 'd'})
					got := 0
					for c.read() == nil && (len(c.pongs) == 0 || c.pongs[len(c.pongs)-1][0] != 'e') {
						got++
					}
					if got > 1<<20 {
						t.Errorf("%d answers were gathered while none was read", got)
					}
					break
				}
				_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
				if _, err := io.WriteString(c.nc, batch.String()); err != nil {
					t.Logf("after %d KiB: %v", sent>>10, err)
					break
				}
			}
			r.alive()
		})
	}
}
