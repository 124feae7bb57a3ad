package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy"
	"github.com/sluice-autoscaler/sluice/proxy/drain"
	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/limit"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen soon; only a failing test waits so long.
const patience = 20 * time.Second

// proxied is a proxy before an app.
type proxied struct {
	t        testing.TB
	addr     string
	inFlight inflight.Counter
	limiter  *limit.Limiter
	drain    *drain.Drain
}

// uncounted takes what metrics would count.
type uncounted struct{}

func (uncounted) Finished(int, time.Duration, time.Duration) {}
func (uncounted) Refused(request.Reason)                     {}
func (uncounted) Ignored()                                   {}

// settings are what tests change.
type settings struct {
	limit, queue              int
	response, request, header time.Duration
	lame, drain               time.Duration
}

func proxyTo(t testing.TB, app string, edit func(*settings)) *proxied {
	t.Helper()
	set := settings{header: patience, drain: patience}
	if edit != nil {
		edit(&set)
	}
	start := time.Now()
	now := func() time.Duration { return time.Since(start) }
	p := &proxied{t: t, limiter: limit.New(set.limit, set.queue, 0), drain: drain.New(set.lame, set.drain, 0)}
	log := slog.New(slog.DiscardHandler)
	server := &proxy.Server{
		Address: "127.0.0.1:0",
		Rules: &request.Rules{
			Now: now, InFlight: &p.inFlight, Limiter: p.limiter, Drain: p.drain, Metrics: uncounted{},
			Check: func(context.Context) error { return nil }, Ignore: request.Ignore{Agents: []string{"kube-probe/"}},
			ResponseTimeout: set.response, RequestTimeout: set.request, Log: log,
		},
		App: app, DialTimeout: time.Second, AppIdleTimeout: patience,
		HeaderTimeout: set.header, IdleTimeout: patience, MaxHeaderBytes: 32 << 10, LateDrain: patience, Log: log,
	}
	service := server.Service()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := service.Start(ctx); err != nil {
		t.Fatal(err)
	}
	p.addr = server.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		p.atRest()
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(2 * patience):
			t.Error("the proxy does not end")
		}
	})
	return p
}

// count waits until n requests are in flight.
func (p *proxied) count(n int) {
	p.t.Helper()
	eventually(p.t, func() error {
		if got := p.inFlight.Read(0).InFlight; got != n {
			return fmt.Errorf("%d requests in flight, want %d", got, n)
		}
		return nil
	})
}

// atRest waits until nothing is in flight, and every place under the limit is free.
func (p *proxied) atRest() {
	p.t.Helper()
	p.count(0)
	eventually(p.t, func() error {
		for i := range p.limiter.Limit() {
			if !p.limiter.TryAcquire() {
				for range i {
					p.limiter.Release()
				}
				return fmt.Errorf("%d places of %d are free", i, p.limiter.Limit())
			}
		}
		for range p.limiter.Limit() {
			p.limiter.Release()
		}
		return nil
	})
}

func eventually(t testing.TB, holds func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// appOf serves h by h2c, and returns the address.
func appOf(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l := listen(t)
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-ended
	})
	return l.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// clientOf is net/http's client for h2c.
func clientOf(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// peer speaks frames, as a client or as an app.
type peer struct {
	t     testing.TB
	conn  net.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	_ = conn.SetDeadline(time.Now().Add(patience))
	p := &peer{t: t, conn: conn, fr: http2.NewFramer(conn, conn)}
	p.enc = hpack.NewEncoder(&p.block)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.fr.AllowIllegalWrites = true
	return p
}

// dial connects a client that has sent its preface and settings.
func (p *proxied) dial(set ...http2.Setting) *peer {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	c := newPeer(p.t, conn)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = c.fr.WriteSettings(set...)
	return c
}

// encode returns a header block of name, value pairs.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

// headers sends a header block; request is the four of a request's head.
func (p *peer) headers(id uint32, end bool, fields ...string) {
	block := p.encode(fields...)
	n := min(len(block), 16<<10)
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block)})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), 16<<10)
		_ = p.fr.WriteContinuation(id, n == len(block), block[:n])
	}
}

func requestFields(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "web.example"}, more...)
}

// next reads frames until one is wanted, and answers settings and pings meanwhile.
func (p *peer) next(wanted func(http2.Frame) bool) http2.Frame {
	p.t.Helper()
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatalf("read a frame: %v (%v)", err, p.fr.ErrorDetail())
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() && !wanted(f) {
				_ = p.fr.WritePing(true, f.Data)
			}
		}
		if wanted(f) {
			return f
		}
	}
}

// on waits for a frame of type T on a stream.
func on[T http2.Frame](p *peer, id uint32) T {
	p.t.Helper()
	f := p.next(func(f http2.Frame) bool {
		_, ok := f.(T)
		if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
			return false
		}
		return ok && f.Header().StreamID == id
	})
	return f.(T)
}

// field is a field of a header block.
func field(f *http2.MetaHeadersFrame, name string) string {
	for _, h := range f.Fields {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// ends waits for the end of the connection.
func (p *peer) ends() {
	p.t.Helper()
	for {
		if _, err := p.fr.ReadFrame(); err != nil {
			if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
				p.t.Error("the connection was left open")
			}
			return
		}
	}
}

// rawApp serves connections of the proxy one by one by handle, which gets them after the exchange
// of settings.
func rawApp(t testing.TB, set []http2.Setting, handle func(n int, p *peer)) string {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
					return
				}
				p := newPeer(t, conn)
				_ = p.fr.WriteSettings(set...)
				handle(n, p)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// eachRequest calls answer for each request that a raw app gets whole, until the connection ends.
func (p *peer) eachRequest(answer func(id uint32, head *http2.MetaHeadersFrame, body string)) {
	heads, bodies := map[uint32]*http2.MetaHeadersFrame{}, map[uint32]string{}
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			return
		}
		id, whole := f.Header().StreamID, false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.fr.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if heads[id] == nil {
				c := *f
				heads[id] = &c
			}
			whole = f.StreamEnded()
		case *http2.DataFrame:
			bodies[id] += string(f.Data())
			whole = f.StreamEnded()
		}
		if whole {
			answer(id, heads[id], bodies[id])
		}
	}
}

// pattern is n bytes that differ from place to place.
func pattern(n, seed int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8*13 + seed)
	}
	return p
}

// TestBodiesBothWays sends many bodies at once through windows that are much smaller, and each
// comes back as it was.
func TestBodiesBothWays(t *testing.T) {
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 10000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			if err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	p := proxyTo(t, app, func(s *settings) { s.limit = 100 })
	client := clientOf(t)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			want := pattern(i*i*1000, i)
			// of unknown length
			resp, err := client.Post("http://"+p.addr, "", io.MultiReader(bytes.NewReader(want)))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes sent, %d came back, equal: %v, %v", len(want), len(got), bytes.Equal(got, want), err)
			}
		})
	}
	wg.Wait()
}

// TestSlowReaderStopsNobody has a client that opens its windows wide and reads nothing, one that
// gives one stream no window, and checks that others are served, and that what the app can send to
// the former is bounded.
func TestSlowReaderStopsNobody(t *testing.T) {
	var written atomic.Int64
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			for buf := make([]byte, 8<<10); ; {
				n, err := w.Write(buf)
				written.Add(int64(n))
				if err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
			}
		}
		_, _ = w.Write(pattern(200<<10, 0))
	})
	p := proxyTo(t, app, nil)
	const deaf = 50
	silent := p.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = silent.fr.WriteWindowUpdate(0, 1<<30)
	for i := range deaf {
		silent.headers(uint32(2*i+1), true, requestFields("GET", "/endless")...)
	}
	p.count(deaf)
	// The kernel's buffers fill up, then the proxy's, then the app's.
	last := int64(-1)
	eventually(t, func() error {
		now := written.Load()
		if now == last {
			return nil
		}
		last = now
		time.Sleep(300 * time.Millisecond)
		return errors.New("the app writes on and on")
	})
	if most := int64(deaf*(64<<10+16<<10) + 16<<20); last > most {
		t.Errorf("the app could write %d bytes to a client that reads nothing, want at most %d", last, most)
	}
	client := clientOf(t)
	for range 3 {
		resp, err := client.Get("http://" + p.addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !bytes.Equal(got, pattern(200<<10, 0)) {
			t.Fatalf("another client got %d bytes, %v", len(got), err)
		}
	}
	_ = silent.conn.Close()
	p.count(0)

	half := p.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	half.headers(1, true, requestFields("GET", "/endless")...)
	half.headers(3, true, requestFields("GET", "/")...)
	_ = half.fr.WriteWindowUpdate(0, 1<<30)
	_ = half.fr.WriteWindowUpdate(3, 1<<20)
	got := 0
	half.next(func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		if ok && d.StreamID == 3 {
			got += len(d.Data())
		}
		return ok && d.StreamID == 3 && d.StreamEnded()
	})
	if got != 200<<10 {
		t.Errorf("%d bytes came beside a stream without a window", got)
	}
	_ = half.conn.Close()
}

// TestUnreadBodyStopsNobody has an app that does not read some bodies. Others pass: on the same
// client's connection as long as the app's own window for it lasts, and beyond on others.
func TestUnreadBodyStopsNobody(t *testing.T) {
	release := make(chan struct{})
	app := appOf(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/deaf" {
			<-release
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	p := proxyTo(t, app, nil)
	deaf := clientOf(t)
	var wg sync.WaitGroup
	post := func(client *http.Client, path string, n int) error {
		resp, err := client.Post("http://"+p.addr+path, "", bytes.NewReader(make([]byte, n)))
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	expect := func(client *http.Client) {
		t.Helper()
		if err := post(client, "/", 2<<20); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range []int{800 << 10, 4 << 20} {
		wg.Go(func() {
			if err := post(deaf, "/deaf", n); err != nil {
				t.Error(err)
			}
		})
		p.count(i + 1)
		if i == 0 {
			expect(deaf)
		}
	}
	// the app's window for the connection, 1 MiB, has run out by now
	time.Sleep(200 * time.Millisecond)
	expect(clientOf(t))
	expect(deaf)
	close(release)
	wg.Wait()
}

// TestForwardedRequest is what a raw app sees of a request, and what a raw client of the answer.
func TestForwardedRequest(t *testing.T) {
	seen := make(chan string, 1)
	app := rawApp(t, nil, func(_ int, p *peer) {
		p.eachRequest(func(id uint32, head *http2.MetaHeadersFrame, body string) {
			var text strings.Builder
			for _, f := range head.Fields {
				fmt.Fprintf(&text, "%s=%s\n", f.Name, f.Value)
			}
			seen <- text.String() + body
			p.headers(id, false, ":status", "103", "link", "</a>")
			p.headers(id, false, ":status", "200", "x-stay", "1", "connection", "close", "keep-alive", "5", "date", "today")
			_ = p.fr.WriteData(id, false, []byte("hello"))
			p.headers(id, true, "grpc-status", "0")
		})
	})
	p := proxyTo(t, app, nil)
	c := p.dial()
	for i := range uint32(2) { // the second from the tables
		id := 2*i + 1
		c.headers(id, false, requestFields("POST", "/a%2Fb?x;y", "te", "trailers", "forwarded", "for=192.0.2.1", "x-forwarded-for", "192.0.2.1", "x-forwarded-for", "192.0.2.2",
			"proxy-authorization", "x", "cookie", "a=1", "cookie", "b=2", "grpc-timeout", strings.Repeat("1", 200)+"S", "content-length", "3")...)
		_ = c.fr.WriteDataPadded(id, false, []byte("ab"), make([]byte, 20))
		_ = c.fr.WriteData(id, true, []byte("c"))
		want := ":method=POST\n:scheme=http\n:path=/a%2Fb?x;y\n:authority=web.example\nte=trailers\ncookie=a=1\ncookie=b=2\ngrpc-timeout=" + strings.Repeat("1", 200) +
			"S\ncontent-length=3\nx-forwarded-for=192.0.2.1, 192.0.2.2, 127.0.0.1\nforwarded=for=192.0.2.1, for=127.0.0.1\nx-forwarded-host=web.example\nx-forwarded-proto=http\nabc"
		if got := <-seen; got != want {
			t.Errorf("at the app:\n%s\nwant\n%s", got, want)
		}
		var got strings.Builder
		c.next(func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				for _, h := range f.Fields {
					fmt.Fprintf(&got, "%s=%s ", h.Name, h.Value)
				}
				return f.StreamEnded()
			case *http2.DataFrame:
				fmt.Fprintf(&got, "%s ", f.Data())
			}
			return false
		})
		if want := ":status=103 link=</a> :status=200 x-stay=1 date=today hello grpc-status=0 "; got.String() != want {
			t.Errorf("at the client: %s, want %s", got.String(), want)
		}
	}
}

// TestHugeHeaders need several frames, both ways.
func TestHugeHeaders(t *testing.T) {
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Back", strings.Repeat("b", 100<<10)+r.Header.Get("X-There"))
	})
	p := proxyTo(t, app, nil)
	client := clientOf(t)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr, nil)
	req.Header.Set("X-There", strings.Repeat("a", 30<<10))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got, want := resp.Header.Get("X-Back"), strings.Repeat("b", 100<<10)+strings.Repeat("a", 30<<10); got != want {
		t.Errorf("%d bytes came, want %d", len(got), len(want))
	}
}

// TestFaultsOfStreams sends requests that are none. The connection serves others still.
func TestFaultsOfStreams(t *testing.T) {
	app := appOf(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	with := func(more ...string) func(*peer) {
		return func(c *peer) { c.headers(1, true, requestFields("GET", "/", more...)...) }
	}
	only := func(fields ...string) func(*peer) {
		return func(c *peer) { c.headers(1, true, fields...) }
	}
	post := func(more ...string) func(*peer) {
		return func(c *peer) { c.headers(1, false, requestFields("POST", "/", more...)...) }
	}
	cases := []struct {
		name   string
		send   func(*peer)
		status int           // of an answer, or
		code   http2.ErrCode // of a reset
	}{
		{"a capital", with("X-Big", "1"), 0, http2.ErrCodeProtocol},
		{"no name", with("", "1"), 0, http2.ErrCodeProtocol},
		{"a space in a name", with("a b", "1"), 0, http2.ErrCodeProtocol},
		{"a line feed in a value", with("a", "1\n2"), 0, http2.ErrCodeProtocol},
		{"a pseudo-field behind", with("a", "1", ":path", "/"), 0, http2.ErrCodeProtocol},
		{"a pseudo-field twice", with(":path", "/"), 0, http2.ErrCodeProtocol},
		{"an unknown pseudo-field", with(":protocol", "websocket"), 0, http2.ErrCodeProtocol},
		{"a response's pseudo-field", with(":status", "200"), 0, http2.ErrCodeProtocol},
		{"no method", only(":scheme", "http", ":path", "/"), 0, http2.ErrCodeProtocol},
		{"no scheme", only(":method", "GET", ":path", "/"), 0, http2.ErrCodeProtocol},
		{"no path", only(":method", "GET", ":scheme", "http"), 0, http2.ErrCodeProtocol},
		{"an empty path", only(":method", "GET", ":scheme", "http", ":path", ""), 0, http2.ErrCodeProtocol},
		{"a relative path", only(":method", "GET", ":scheme", "http", ":path", "x"), 0, http2.ErrCodeProtocol},
		{"a space in the path", only(":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1"), 0, http2.ErrCodeProtocol},
		{"a method that is none", only(":method", "G T", ":scheme", "http", ":path", "/"), 0, http2.ErrCodeProtocol},
		{"two lengths", post("content-length", "1", "content-length", "2"), 0, http2.ErrCodeProtocol},
		{"a length that is none", post("content-length", "+1"), 0, http2.ErrCodeProtocol},
		{"a body that is too long", func(c *peer) {
			post("content-length", "1")(c)
			_ = c.fr.WriteData(1, false, []byte("ab"))
		}, 0, http2.ErrCodeProtocol},
		{"a body that is too short", func(c *peer) {
			post("content-length", "3")(c)
			_ = c.fr.WriteData(1, true, []byte("ab"))
		}, 0, http2.ErrCodeProtocol},
		{"trailers in the middle", func(c *peer) {
			post()(c)
			c.headers(1, false, "a", "1")
		}, 0, http2.ErrCodeProtocol},
		{"pseudo-fields in trailers", func(c *peer) {
			post()(c)
			c.headers(1, true, ":path", "/")
		}, 0, http2.ErrCodeProtocol},
		{"a stream that depends on itself", func(c *peer) {
			_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("GET", "/")...), EndStream: true, EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 1}})
		}, 0, http2.ErrCodeProtocol},
		{"more than the window", func(c *peer) {
			post()(c)
			_ = c.fr.WriteWindowUpdate(1, 1<<31-1)
		}, 0, http2.ErrCodeFlowControl},
		{"a window update of nothing", func(c *peer) {
			post()(c)
			_ = c.fr.WriteWindowUpdate(1, 0)
		}, 0, http2.ErrCodeProtocol},
		{"connection", with("connection", "close"), 400, 0},
		{"transfer-encoding", with("transfer-encoding", "chunked"), 400, 0},
		{"te", with("te", "gzip"), 400, 0},
		{"a length without a body", with("content-length", "1"), 400, 0},
		{"CONNECT", only(":method", "CONNECT", ":authority", "a:1"), 405, 0},
		{"headers past the bound", with("a", strings.Repeat("x", 40<<10)), 431, 0},
		{"many headers past the bound", with(strings.Split(strings.Repeat("a,1,", 1500)+"a,1", ",")...), 431, 0},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			p := proxyTo(t, app, nil)
			c := p.dial()
			test.send(c)
			f := c.next(func(f http2.Frame) bool {
				_, reset := f.(*http2.RSTStreamFrame)
				_, head := f.(*http2.MetaHeadersFrame)
				return (reset || head) && f.Header().StreamID == 1
			})
			switch f := f.(type) {
			case *http2.RSTStreamFrame:
				if f.ErrCode != test.code || test.status != 0 {
					t.Errorf("reset by %v, want %v %d", f.ErrCode, test.code, test.status)
				}
			case *http2.MetaHeadersFrame:
				if got := field(f, ":status"); got != strconv.Itoa(test.status) {
					t.Errorf("answer %s, want %v %d", got, test.code, test.status)
				}
			}
			p.count(0)
			c.headers(3, true, requestFields("GET", "/")...)
			if got := field(on[*http2.MetaHeadersFrame](c, 3), ":status"); got != "200" {
				t.Errorf("the next answer is %s", got)
			}
		})
	}
}

// TestFaultsOfConnections ends each connection by GOAWAY, and leaves nothing in flight.
func TestFaultsOfConnections(t *testing.T) {
	release := make(chan struct{})
	app := appOf(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	cases := []struct {
		name string
		send func(*peer)
		code http2.ErrCode
	}{
		{"a frame that is too large", func(c *peer) { _ = c.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 16<<10+1)) }, http2.ErrCodeFrameSize},
		{"a body on an idle stream", func(c *peer) { _ = c.fr.WriteData(1, true, []byte("a")) }, http2.ErrCodeProtocol},
		{"a body on no stream", func(c *peer) { _ = c.fr.WriteData(0, true, []byte("a")) }, http2.ErrCodeProtocol},
		{"padding that is too long", func(c *peer) { _ = c.fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{9, 1}) }, http2.ErrCodeProtocol},
		{"a reset of an idle stream", func(c *peer) { _ = c.fr.WriteRSTStream(1, http2.ErrCodeCancel) }, http2.ErrCodeProtocol},
		{"a window of an idle stream", func(c *peer) { _ = c.fr.WriteWindowUpdate(1, 1) }, http2.ErrCodeProtocol},
		{"a window update of nothing", func(c *peer) { _ = c.fr.WriteWindowUpdate(0, 0) }, http2.ErrCodeProtocol},
		{"more than the window", func(c *peer) { _ = c.fr.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
		{"an even stream", func(c *peer) { c.headers(2, true, requestFields("GET", "/")...) }, http2.ErrCodeProtocol},
		{"an older stream", func(c *peer) {
			c.headers(5, true, requestFields("GET", "/")...)
			c.headers(3, true, requestFields("GET", "/")...)
		}, http2.ErrCodeProtocol},
		{"a push", func(c *peer) {
			_ = c.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, http2.ErrCodeProtocol},
		{"a continuation of nothing", func(c *peer) { _ = c.fr.WriteContinuation(1, true, nil) }, http2.ErrCodeProtocol},
		{"something in the middle of headers", func(c *peer) {
			_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("GET", "/")...)})
			_ = c.fr.WritePing(false, [8]byte{})
		}, http2.ErrCodeProtocol},
		{"a flood of continuations", func(c *peer) {
			_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("GET", "/")...)})
			for range 200 {
				_ = c.fr.WriteContinuation(1, false, c.encode("a", "b"))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"headers that cannot be decoded", func(c *peer) {
			_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}, http2.ErrCodeCompression},
		{"settings of a wrong size", func(c *peer) { _ = c.fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, http2.ErrCodeFrameSize},
		{"settings on a stream", func(c *peer) { _ = c.fr.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }, http2.ErrCodeProtocol},
		{"a window past all bounds", func(c *peer) { _ = c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) }, http2.ErrCodeFlowControl},
		{"a ping of a wrong size", func(c *peer) { _ = c.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, http2.ErrCodeFrameSize},
		{"streams that are taken back", func(c *peer) {
			for i := range uint32(4000) {
				c.headers(2*i+1, true, requestFields("GET", "/")...)
				if c.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
					return
				}
			}
		}, http2.ErrCodeEnhanceYourCalm},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			p := proxyTo(t, app, func(s *settings) { s.limit, s.queue = 10, 100 })
			c := p.dial()
			test.send(c)
			f := c.next(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
			if f.ErrCode != test.code {
				t.Errorf("GOAWAY with %v, want %v", f.ErrCode, test.code)
			}
			c.ends()
			p.count(0)
		})
	}
	for _, first := range []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x06\x00\x00\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n"} {
		p := proxyTo(t, app, nil)
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, first)
		c := newPeer(t, conn)
		c.ends()
		_ = conn.Close()
	}
}

// TestResets go from either side to the other.
func TestResets(t *testing.T) {
	gone := make(chan http2.ErrCode, 100)
	app := rawApp(t, nil, func(_ int, p *peer) {
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				return
			}
			id := f.Header().StreamID
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				switch f.PseudoValue("path") {
				case "/early":
					_ = p.fr.WriteRSTStream(id, http2.ErrCodeInternal)
				case "/late":
					p.headers(id, false, ":status", "200")
					_ = p.fr.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm)
				case "/enough": // a whole answer to half a request
					p.headers(id, true, ":status", "200")
					_ = p.fr.WriteRSTStream(id, http2.ErrCodeNo)
				case "/body": // before the head
					_ = p.fr.WriteData(id, true, []byte("x"))
				case "/bad":
					p.headers(id, true, ":status", "20")
				case "/short":
					p.headers(id, false, ":status", "200", "content-length", "5")
					_ = p.fr.WriteData(id, true, []byte("x"))
				}
			case *http2.RSTStreamFrame:
				gone <- f.ErrCode
			case *http2.PingFrame:
				_ = p.fr.WritePing(true, f.Data)
			}
		}
	})
	p := proxyTo(t, app, func(s *settings) { s.limit = 1 })
	c := p.dial()
	id := uint32(1)
	for path, want := range map[string]string{
		"/early": "502", "/late": "200 ENHANCE_YOUR_CALM", "/enough": "200 NO_ERROR", "/body": "502", "/bad": "502", "/short": "200 INTERNAL_ERROR",
	} {
		c.headers(id, path != "/enough", requestFields("POST", path)...)
		f := on[*http2.MetaHeadersFrame](c, id)
		got := field(f, ":status")
		if strings.Contains(want, " ") {
			got += " " + on[*http2.RSTStreamFrame](c, id).ErrCode.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		p.count(0)
		id += 2
	}
	for len(gone) > 0 {
		<-gone
	}
	c.headers(id, false, requestFields("POST", "/hang")...)
	p.count(1)
	_ = c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
	for code := range gone { // resets of the cases before may come yet
		if code == http2.ErrCodeCancel {
			break
		}
	}
	p.count(0)
}

// TestCancelledKeepsItsPlace cancels a request under a limit of one. The next one is sent to the
// app when that shows that it has read the cancellation, or is gone, or shows nothing for 5 s.
func TestCancelledKeepsItsPlace(t *testing.T) {
	for _, how := range []string{"acknowledged", "lost", "silent"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			asked, told, goOn := make(chan string, 10), make(chan struct{}, 10), make(chan struct{})
			app := rawApp(t, nil, func(_ int, p *peer) {
				for {
					f, err := p.fr.ReadFrame()
					if err != nil {
						return
					}
					switch f := f.(type) {
					case *http2.MetaHeadersFrame:
						if asked <- f.PseudoValue("path"); f.PseudoValue("path") == "/next" {
							p.headers(f.StreamID, true, ":status", "200")
						}
					case *http2.PingFrame: // it comes behind the reset
						told <- struct{}{}
						if how == "silent" {
							continue
						}
						if <-goOn; how == "lost" {
							return
						}
						_ = p.fr.WritePing(true, f.Data)
					}
				}
			})
			p := proxyTo(t, app, func(s *settings) { s.limit, s.queue = 1, 10 })
			c := p.dial()
			c.headers(1, true, requestFields("GET", "/first")...)
			if got := <-asked; got != "/first" {
				t.Fatalf("asked for %s", got)
			}
			_ = c.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			<-told
			p.count(0) // it is no demand any more
			began := time.Now()
			c.headers(3, true, requestFields("GET", "/next")...)
			eventually(t, func() error {
				if p.limiter.Queued() != 1 || len(asked) > 0 {
					return fmt.Errorf("%d wait, %d more were asked", p.limiter.Queued(), len(asked))
				}
				return nil
			})
			close(goOn)
			if got := field(on[*http2.MetaHeadersFrame](c, 3), ":status"); got != "200" {
				t.Errorf("the next request was answered %s", got)
			}
			if took := time.Since(began); (took >= 4*time.Second) != (how == "silent") {
				t.Errorf("the next request took %v", took)
			}
		})
	}
}

// TestRefusedByTheApp asks again what the app has not worked on: past the last stream of its
// GOAWAY, or by REFUSED_STREAM.
func TestRefusedByTheApp(t *testing.T) {
	const n = 5
	app := rawApp(t, nil, func(conn int, p *peer) {
		got := 0
		p.eachRequest(func(id uint32, _ *http2.MetaHeadersFrame, body string) {
			got++
			switch {
			case conn == 0 && got < n:
			case conn == 0: // only the first is answered here
				_ = p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
				p.headers(1, true, ":status", "200", "x-conn", "0")
			case got == 1:
				_ = p.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			case body != "body":
				p.headers(id, true, ":status", "400")
			default:
				p.headers(id, true, ":status", "200", "x-conn", "1")
			}
		})
	})
	p := proxyTo(t, app, nil)
	c := p.dial()
	for i := range uint32(n) {
		c.headers(2*i+1, false, requestFields("POST", "/")...)
		_ = c.fr.WriteData(2*i+1, false, []byte("bo"))
		_ = c.fr.WriteData(2*i+1, true, []byte("dy"))
	}
	got := map[string]int{}
	for range n {
		f := c.next(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok }).(*http2.MetaHeadersFrame)
		got[field(f, ":status")+" of "+field(f, "x-conn")]++
	}
	if got["200 of 0"] != 1 || got["200 of 1"] != n-1 {
		t.Errorf("answers %v", got)
	}
}

// TestStreamsOfTheApp: an app that allows few streams gets more connections.
func TestStreamsOfTheApp(t *testing.T) {
	var conns atomic.Int64
	release := make(chan struct{})
	app := rawApp(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 2}}, func(_ int, p *peer) {
		conns.Add(1)
		p.eachRequest(func(id uint32, _ *http2.MetaHeadersFrame, _ string) {
			<-release
			p.headers(id, true, ":status", "200")
		})
	})
	p := proxyTo(t, app, nil)
	c := p.dial()
	for i := range uint32(5) {
		c.headers(2*i+1, true, requestFields("GET", "/")...)
	}
	p.count(5)
	eventually(t, func() error {
		if got := conns.Load(); got != 3 {
			return fmt.Errorf("%d connections, want 3", got)
		}
		return nil
	})
	close(release)
	for range 5 {
		c.next(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok })
	}
}

// TestAppsThatSpeakNoHTTP2 give 502.
func TestAppsThatSpeakNoHTTP2(t *testing.T) {
	l := listen(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// HTTP/1.1 only
		_ = (&http.Server{ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}).Serve(l)
	}()
	none := listen(t)
	_ = none.Close()
	zero := rawApp(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, func(_ int, p *peer) { p.eachRequest(nil) })
	for app, want := range map[string]string{l.Addr().String(): "app-error", none.Addr().String(): "app-unreachable", zero: "app-error"} {
		p := proxyTo(t, app, nil)
		c := p.dial()
		c.headers(1, false, requestFields("POST", "/")...)
		f := on[*http2.MetaHeadersFrame](c, 1)
		if got := field(f, ":status") + " " + field(f, "sluice-reason"); got != "502 "+want {
			t.Errorf("answer %s, want %s", got, want)
		}
		if got := on[*http2.RSTStreamFrame](c, 1).ErrCode; got != http2.ErrCodeNo {
			t.Errorf("the rest of the request is refused by %v", got)
		}
	}
	_ = l.Close()
	<-ended
}

// TestLimitOverHTTP2: places, queue, and who leaves it.
func TestLimitOverHTTP2(t *testing.T) {
	release := make(chan struct{})
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		_, _ = io.Copy(w, r.Body)
	})
	p := proxyTo(t, app, func(s *settings) { s.limit, s.queue = 1, 2 })
	c := p.dial()
	c.headers(1, true, requestFields("GET", "/")...)
	p.count(1)
	for id := uint32(3); id <= 5; id += 2 {
		c.headers(id, false, requestFields("POST", "/")...)
		_ = c.fr.WriteData(id, false, []byte("wait"))
		eventually(t, func() error {
			if got := p.limiter.Queued(); got != int(id)/2 {
				return fmt.Errorf("%d wait", got)
			}
			return nil
		})
	}
	c.headers(7, true, requestFields("GET", "/")...)
	if f := on[*http2.MetaHeadersFrame](c, 7); field(f, ":status") != "503" || field(f, "sluice-reason") != "queue-full" || field(f, "retry-after") != "1" {
		t.Errorf("with a full queue: %v", f.Fields)
	}
	// no demand: it passes
	c.headers(9, true, requestFields("GET", "/", "user-agent", "kube-probe/1")...)
	c.headers(11, true, requestFields("GET", request.ReadyPath)...)
	if f := on[*http2.MetaHeadersFrame](c, 11); field(f, ":status") != "200" {
		t.Errorf("readiness: %v", f.Fields)
	}
	p.count(3)
	_ = c.fr.WriteRSTStream(3, http2.ErrCodeCancel)
	p.count(2)
	eventually(t, func() error {
		if got := p.limiter.Queued(); got != 1 {
			return fmt.Errorf("%d wait", got)
		}
		return nil
	})
	_ = c.fr.WriteData(5, true, []byte("ed"))
	close(release)
	body := ""
	c.next(func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		if ok && d.StreamID == 5 {
			body += string(d.Data())
		}
		return ok && d.StreamID == 5 && d.StreamEnded()
	})
	if body != "waited" {
		t.Errorf("who waited got %q", body)
	}
}

// TestTimeoutsOverHTTP2: an app that does not begin, and one that does not end.
func TestTimeoutsOverHTTP2(t *testing.T) {
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/begun":
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "o")
			_ = http.NewResponseController(w).Flush()
		case "/stream":
			_ = http.NewResponseController(w).Flush()
			time.Sleep(300 * time.Millisecond)
			return
		}
		<-r.Context().Done()
	})
	const short = 100 * time.Millisecond
	for _, edit := range []func(*settings){func(s *settings) { s.response = short }, func(s *settings) { s.request = short }} {
		p := proxyTo(t, app, edit)
		c := p.dial()
		c.headers(1, true, requestFields("GET", "/")...)
		if f := on[*http2.MetaHeadersFrame](c, 1); field(f, ":status") != "504" || field(f, "sluice-reason") != "app-timeout" {
			t.Errorf("answer %v", f.Fields)
		}
	}
	p := proxyTo(t, app, func(s *settings) { s.request = short })
	c := p.dial()
	c.headers(1, true, requestFields("GET", "/begun")...)
	on[*http2.RSTStreamFrame](c, 1)
	c.headers(3, true, requestFields("GET", "/stream")...)
	if f := on[*http2.DataFrame](c, 3); !f.StreamEnded() {
		t.Error("a stream was cut")
	}
	// A head that does not come whole is not waited for.
	slow := proxyTo(t, app, func(s *settings) { s.header = short })
	c = slow.dial()
	_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("GET", "/")...)})
	c.ends()
	conn, err := net.Dial("tcp", slow.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, http2.ClientPreface) // and no settings
	newPeer(t, conn).ends()
	_ = conn.Close()
}

// TestDrainInTwoSteps: a client is told to open no more, and only then which stream was the last.
func TestDrainInTwoSteps(t *testing.T) {
	release := make(chan struct{})
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	p := proxyTo(t, app, nil)
	c := p.dial()
	c.headers(1, true, requestFields("GET", "/hold")...)
	p.count(1)
	p.drain.Begin()
	first := on[*http2.GoAwayFrame](c, 0)
	if first.LastStreamID != 1<<31-1 || first.ErrCode != http2.ErrCodeNo {
		t.Errorf("the first GOAWAY is %v", first)
	}
	ping := c.next(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing }).(*http2.PingFrame)
	c.headers(3, true, requestFields("GET", "/")...) // was under way
	if f := on[*http2.MetaHeadersFrame](c, 3); field(f, ":status") != "200" {
		t.Errorf("a stream between the two: %v", f.Fields)
	}
	_ = c.fr.WritePing(true, ping.Data)
	if last := on[*http2.GoAwayFrame](c, 0); last.LastStreamID != 3 || last.ErrCode != http2.ErrCodeNo {
		t.Errorf("the last GOAWAY is %v", last)
	}
	c.headers(5, false, requestFields("POST", "/")...) // nobody answers it
	_ = c.fr.WriteData(5, true, []byte("x"))
	_ = c.fr.WriteWindowUpdate(5, 1)
	close(release)
	if f := c.next(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok }); f.Header().StreamID != 1 {
		t.Errorf("answer on %d", f.Header().StreamID)
	}
	on[*http2.DataFrame](c, 1)
	c.ends()
	select {
	case <-p.drain.Done():
	case <-time.After(patience):
		t.Error("the drain does not end")
	}
	late := p.dial() // late ones are served all the same
	late.headers(1, true, requestFields("GET", "/")...)
	on[*http2.DataFrame](late, 1)
	on[*http2.GoAwayFrame](late, 0)
	_ = late.conn.Close()
}

// TestNothingIsLostOverHTTP2 keeps sending through a drain, over connections that are told to end
// all the time.
func TestNothingIsLostOverHTTP2(t *testing.T) {
	app := appOf(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p := proxyTo(t, app, func(s *settings) { s.lame, s.limit, s.queue = 500*time.Millisecond, 3, 10 })
	ctx, gone := context.WithCancel(t.Context())
	defer gone()
	var sent atomic.Int64
	var wg sync.WaitGroup
	client := clientOf(t)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Post("http://"+p.addr, "", strings.NewReader("hello"))
				if err != nil {
					t.Errorf("after %d requests: %v", sent.Load(), err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello" {
					t.Errorf("answer %d %q, %v", resp.StatusCode, body, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		until := sent.Load() + 100
		eventually(t, func() error {
			if now := sent.Load(); now < until {
				return fmt.Errorf("%d requests, want %d", now, until)
			}
			return nil
		})
	}
	more()
	p.drain.Begin()
	more()
	gone()
	wg.Wait()
	client.CloseIdleConnections()
	select {
	case <-p.drain.Done():
	case <-time.After(patience):
		t.Error("the drain does not end")
	}
}

// TestAllocationsPerCall counts what the whole process allocates for a call in the steady state,
// client and app of this test (which allocate nothing) included.
func TestAllocationsPerCall(t *testing.T) {
	if raced {
		t.Skip("pools forget under the race detector")
	}
	l := listen(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		app := newPeer(t, conn)
		_ = conn.SetDeadline(time.Time{})
		_ = app.fr.WriteSettings()
		answers := [][]byte{nil, nil}
		for i := range answers { // as literals, and then from the table
			var b bytes.Buffer
			fr := http2.NewFramer(&b, nil)
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: app.encode(":status", "200", "content-type", "application/grpc", "date", "today"), EndHeaders: true})
			_ = fr.WriteData(1, false, []byte("hello"))
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: app.encode("grpc-status", "0"), EndHeaders: true, EndStream: true})
			answers[i] = b.Bytes()
		}
		_, _ = io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
		calls := 0
		eachFrame(conn, func(kind http2.FrameType, flags http2.Flags, id uint32) bool {
			if kind == http2.FrameData && flags.Has(http2.FlagDataEndStream) {
				answer := answers[min(calls, 1)]
				calls++
				number(answer, id)
				_, err := conn.Write(answer)
				return err == nil
			}
			return true
		})
	}()
	t.Cleanup(func() { <-ended })
	p := proxyTo(t, l.Addr().String(), func(s *settings) { s.limit = 10 })
	c := p.dial()
	_ = c.conn.SetDeadline(time.Time{})
	var calls [2][]byte
	for i := range calls {
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(requestFields("POST", "/service/Method", "te", "trailers", "content-type", "application/grpc", "user-agent", "x")...), EndHeaders: true})
		_ = fr.WriteData(1, true, []byte("hello"))
		calls[i] = b.Bytes()
	}
	id, answered := uint32(1), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		eachFrame(c.conn, func(kind http2.FrameType, flags http2.Flags, _ uint32) bool {
			if kind == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream) {
				answered <- struct{}{}
			}
			return true
		})
	}()
	call := func() {
		b := calls[min(id/2, 1)]
		number(b, id)
		id += 2
		if _, err := c.conn.Write(b); err != nil {
			t.Error(err)
		}
		<-answered
	}
	for range 200 { // buckets of histograms are made when first used
		call()
	}
	if got := testing.AllocsPerRun(2000, call); got != 0 {
		t.Errorf("%v allocations per call, want none", got)
	}
	_ = c.conn.Close()
	<-done
	_ = l.Close()
	p.count(0)
}

// number gives all frames in b the stream.
func number(b []byte, id uint32) {
	for len(b) > 0 {
		binary.BigEndian.PutUint32(b[5:], id)
		b = b[9+int(b[0])<<16+int(b[1])<<8+int(b[2]):]
	}
}

// eachFrame reads frames without allocating, until the end or until f says so.
func eachFrame(conn net.Conn, f func(http2.FrameType, http2.Flags, uint32) bool) {
	buf := make([]byte, 64<<10)
	for n := 0; ; {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		p := buf[:n]
		for len(p) >= 9 {
			length := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
			if len(p) < 9+length {
				break
			}
			if !f(http2.FrameType(p[3]), http2.Flags(p[4]), binary.BigEndian.Uint32(p[5:])) {
				return
			}
			p = p[9+length:]
		}
		n = copy(buf, p)
	}
}
