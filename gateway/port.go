package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/gateway/lane"
)

const (
	// What a held request keeps in memory besides its header: the server's read buffer for HTTP/1,
	// and as much of a body as flow control lets a client send unread for HTTP/2.
	http1Buffered  = 4 << 10
	http2Buffered  = 16 << 10
	http2Streams   = 1000
	http2ConnBytes = 4<<20 - 1
	copyBuffer     = 32 << 10
	// Pods' servers close idle connections at will; a request caught by that is lost, so few are
	// kept and not for long.
	idlePod = time.Second
)

// port is one open port of a lane. A lane has another one after its assignment changed, while the
// first drains.
type port struct {
	lane     *lane.Lane
	number   int
	protocol string
	http1    http.RoundTripper
	http2    http.RoundTripper
	fresh1   http.RoundTripper
	fresh2   http.RoundTripper
	dial     func(ctx context.Context, address string) (net.Conn, error)
	health   func(*http.Request) bool
	memory   *hold.Share // bytes
	log      *slog.Logger
	buffers  httputil.BufferPool

	closing atomic.Bool
	active  atomic.Int64 // requests and TCP connections in the works

	// Guarded by Gateway.mu.
	listener net.Listener
	fault    string
	server   *http.Server
	end      context.CancelFunc // cuts all that is left
}

// open listens and serves; an error leaves the port closed, to be tried again.
func (p *port) open(ctx context.Context, host string, work *lane.Workers) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(p.number)))
	if err != nil {
		return err
	}
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	p.listener, p.end = l, end
	if p.protocol == assignment.TCP {
		work.Start(func(context.Context) { p.acceptTCP(base, l) })
		return nil
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: p, FlushInterval: -1, BufferPool: p.buffers,
		ModifyResponse: p.modify, ErrorHandler: p.fail, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	p.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.active.Add(1)
			defer p.active.Add(-1)
			give, ok := p.charge(r)
			if !ok {
				p.lane.CountRefusal()
				w.Header().Set("Connection", "close") // it has the memory, not the request
				answer(w, r, p.lane.NoRoom())
				return
			}
			defer give()
			proxy.ServeHTTP(w, r)
		}),
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: http2Streams, MaxReceiveBufferPerStream: http2Buffered, MaxReceiveBufferPerConnection: http2ConnBytes,
		},
		ReadHeaderTimeout:            30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	work.Start(func(context.Context) {
		if err := p.server.Serve(&boundedListener{l, p}); !errors.Is(err, http.ErrServerClosed) && !p.closing.Load() {
			p.log.Error("serving ended", slog.String("target", p.lane.Target.String()), slog.Any("error", err))
		}
	})
	return nil
}

// stop makes the port accept no more; what it has goes on.
func (p *port) stop() {
	p.closing.Store(true)
	if p.listener != nil {
		_ = p.listener.Close()
	}
}

// drain waits until all that the port has is answered, at most for limit, after a linger in which
// idle connections may bring one request more. Then it cuts the rest.
func (p *port) drain(ctx context.Context, linger, limit time.Duration) {
	if p.listener == nil {
		return
	}
	defer p.end()
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if p.server != nil {
		if err := p.server.Shutdown(ctx); err != nil {
			defer func() { _ = p.server.Close() }()
		}
	}
	// Shutdown knows nothing of upgraded connections, and TCP has no server.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.active.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

type connKey struct{}

// rewrite passes a request on as it came: a client must not be able to tell the gateway from a pod.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "pod"
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Trailer = r.In.Trailer // the server fills it while the body is read
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = slices.Clone(v)
		}
	}
	if ip, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		if prior := r.Out.Header["X-Forwarded-For"]; len(prior) > 0 {
			ip = strings.Join(prior, ", ") + ", " + ip
		}
		r.Out.Header.Set("X-Forwarded-For", ip)
	}
}

var errHealth = errors.New("health check at zero")

// RoundTrip holds the request until a pod has a place for it, and sends it there.
func (p *port) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, l := r.Context(), p.lane
	var (
		t      *hold.Ticket
		gone   func() bool
		err    error
		health = p.health(r)
	)
	if health {
		if t = l.Try(); t == nil {
			return nil, errHealth
		}
	} else {
		if r.ProtoMajor == 1 && r.Body != nil {
			if conn, ok := ctx.Value(connKey{}).(net.Conn); ok {
				gone = lane.GoneCheck(conn)
			}
		}
		if t, err = l.Admit(ctx, buffered(r), gone); err != nil {
			return nil, err
		}
	}
	for {
		res, sent, err := p.send(r, t)
		if err == nil {
			res.Body = release(res.Body, func() { l.Finish(t) })
			return res, nil
		}
		if ctx.Err() != nil {
			if !l.Leave(t, hold.Canceled) {
				l.Finish(t)
			}
			return nil, lane.ErrGone
		}
		if sent {
			l.Finish(t)
			p.log.Debug("pod ended a request", slog.String("target", l.Target.String()), slog.Any("error", err))
			return nil, &lane.RefusalError{
				Code: 502, Reason: "pod-failed",
				Text: fmt.Sprintf("%s: the pod ended the request", l.Target),
			}
		}
		err = l.Refused(ctx, t, gone)
		switch {
		case err != nil && health:
			return nil, errHealth
		case err != nil:
			return nil, err
		}
	}
}

// send makes one attempt at the ticket's pod. sent says that the pod may have seen the request.
func (p *port) send(r *http.Request, t *hold.Ticket) (res *http.Response, sent bool, err error) {
	address, fresh := p.lane.Where(t)
	var connected atomic.Bool
	out := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			connected.Store(true)
			p.lane.Connected(t)
		},
	}))
	to := *r.URL
	to.Host = address
	out.URL = &to
	if r.Body != nil {
		out.Body = unclosed{r.Body}
	}
	transport := p.http1
	switch {
	case r.ProtoMajor == 2 && fresh:
		transport = p.fresh2
	case r.ProtoMajor == 2:
		transport = p.http2
	case fresh:
		transport = p.fresh1
	}
	res, err = transport.RoundTrip(out)
	if err != nil {
		// The transport dials a second time only when it knows that the first attempt did not
		// count.
		dial, ok := errors.AsType[*net.OpError](err)
		return nil, connected.Load() && (!ok || dial.Op != "dial"), err
	}
	return res, true, nil
}

// modify sends clients on to the pods once the gateway is out of the path.
func (p *port) modify(res *http.Response) error {
	trailGRPC(res)
	if res.StatusCode != http.StatusSwitchingProtocols && p.parting() {
		res.Header.Set("Connection", "close") // HTTP/2 makes a GOAWAY of it
	}
	return nil
}

// trailGRPC turns a gRPC answer of headers only into one with trailers. ReverseProxy flushes
// headers at once, and a status in headers that do not end the stream is none.
func trailGRPC(res *http.Response) {
	if _, only := res.Header["Grpc-Status"]; !only || res.ProtoMajor != 2 {
		return
	}
	if res.Trailer == nil {
		res.Trailer = http.Header{}
	}
	for _, k := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} {
		if v, ok := res.Header[k]; ok {
			res.Trailer[k] = v
			delete(res.Header, k)
		}
	}
}

func (p *port) parting() bool {
	return p.closing.Load() || !p.lane.Admits() || !p.lane.Assigned().InPath && p.lane.ReadyPods() > 0
}

// fail answers what no pod answered.
func (p *port) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errHealth) {
		answerHealth(w, r)
		return
	}
	if errors.Is(err, lane.ErrGone) {
		panic(http.ErrAbortHandler) // nobody reads an answer: cut the connection
	}
	ref, ok := errors.AsType[*lane.RefusalError](err)
	if !ok {
		p.log.Debug("request not passed on", slog.String("target", p.lane.Target.String()), slog.Any("error", err))
		ref = &lane.RefusalError{Code: 502, Reason: "pod-failed", Text: p.lane.Target.String() + ": the request could not be passed on"}
	}
	if p.closing.Load() {
		w.Header().Set("Connection", "close")
	}
	answer(w, r, ref)
}

// buffered is what a request keeps buffered while it is held, in bytes: its head, and what may be
// read ahead of its body.
func buffered(r *http.Request) int64 {
	if r.ProtoMajor == 1 {
		return headBytes(r) + http1Buffered
	}
	return headBytes(r) + bodyMemory(r)
}

func headBytes(r *http.Request) int64 {
	n := int64(len(r.URL.RawPath) + len(r.URL.Path) + len(r.URL.RawQuery) + len(r.Host))
	for k, vs := range r.Header {
		for _, v := range vs {
			n += int64(len(k) + len(v))
		}
	}
	return n
}

// bodyMemory is what flow control lets a client send of a body that nobody reads. The read buffer
// of HTTP/1 is its connection's.
func bodyMemory(r *http.Request) int64 {
	switch {
	case r.ProtoMajor == 1:
		return 0
	case r.ContentLength >= 0:
		return min(r.ContentLength, http2Buffered)
	}
	return http2Buffered
}

// unclosed keeps a transport that could not connect from closing the body that another attempt
// needs. The body is the server's, which closes it.
type unclosed struct {
	body interface{ Read([]byte) (int, error) }
}

// Read implements io.Reader.
func (u unclosed) Read(b []byte) (int, error) { return u.body.Read(b) }

// Close implements io.Closer and does nothing.
func (unclosed) Close() error { return nil }

type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{pool: sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}}
}

// Get implements httputil.BufferPool.
func (b *bufferPool) Get() []byte { return *b.pool.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (b *bufferPool) Put(x []byte) { b.pool.Put(&x) }

// newTransport returns a transport to pods, for HTTP/1.1 or HTTP/2 without TLS.
func newTransport(dial func(context.Context, string) (net.Conn, error), http2, fresh bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
		Protocols:   protocols, DisableCompression: true, DisableKeepAlives: fresh,
		MaxIdleConnsPerHost: 100, IdleConnTimeout: idlePod, ExpectContinueTimeout: time.Second,
		WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
	}
}
