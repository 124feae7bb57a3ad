package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// TestWhatTheAppSees sends bytes to the proxy and compares the bytes that reach the app.
func TestWhatTheAppSees(t *testing.T) {
	forwarded := "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: web.example\r\nX-Forwarded-Proto: http\r\n"
	cases := []struct{ name, send, want string }{
		{
			name: "as it is: odd path and query, no User-Agent made up",
			send: "GET //a%2Fb/../c?q=1;x=%zz&&y HTTP/1.1\r\nHost: web.example\r\n\r\n",
			want: "GET //a%2Fb/../c?q=1;x=%zz&&y HTTP/1.1\r\nHost: web.example\r\n" + forwarded + "\r\n",
		},
		{
			name: "hop-by-hop headers end here",
			send: "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nX-Stay: 2\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers, deflate\r\n\r\n",
			want: "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: TE\r\nTE: trailers\r\n" + forwarded + "X-Stay: 2\r\n\r\n",
		},
		{
			name: "what proxies before have said stays",
			send: "GET / HTTP/1.1\r\nHost: web.example\r\nForwarded: for=192.0.2.1;proto=https\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\r\n",
			want: "GET / HTTP/1.1\r\nHost: web.example\r\nForwarded: for=192.0.2.1;proto=https, for=127.0.0.1\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2, 127.0.0.1\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Proto: https\r\n\r\n",
		},
		{
			name: "an upgrade to h2c is not offered",
			send: "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
			want: "GET / HTTP/1.1\r\nHost: web.example\r\n" + forwarded + "\r\n",
		},
		{
			name: "a body by length",
			send: "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n\r\nabc",
			want: "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n" + forwarded + "\r\nabc",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			seen := make(chan string, 2)
			app := rawApp(t, func(conn net.Conn) {
				text, _ := readMessage(conn)
				seen <- text
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			})
			r := start(t, app, nil)
			conn, in := r.dial()
			if _, err := io.WriteString(conn, c.send); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				t.Errorf("answer %d", resp.StatusCode)
			}
			if d := cmp.Diff(sortHeader(c.want), sortHeader(<-seen)); d != "" {
				t.Errorf("at the app (-want +got):\n%s", d)
			}
		})
	}
}

// readMessage reads one request as bytes, framed by its own headers, with no help of net/http.
func readMessage(conn net.Conn) (string, error) {
	in := bufio.NewReader(conn)
	var text strings.Builder
	length, chunked := 0, false
	for {
		line, err := in.ReadString('\n')
		text.WriteString(line)
		if err != nil {
			return text.String(), err
		}
		if _, err := fmt.Sscanf(line, "Content-Length: %d", &length); err == nil {
			continue
		}
		chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
		if line == "\r\n" {
			break
		}
	}
	if chunked {
		for !strings.HasSuffix(text.String(), "\r\n0\r\n\r\n") {
			b, err := in.ReadByte()
			if err != nil {
				return text.String(), err
			}
			text.WriteByte(b)
		}
		return text.String(), nil
	}
	body := make([]byte, length)
	_, err := io.ReadFull(in, body)
	text.Write(body)
	return text.String(), err
}

// sortHeader makes the order of header lines, which means nothing, the same.
func sortHeader(message string) string {
	head, body, _ := strings.Cut(message, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n\n" + body
}

// TestRefusedFraming sends requests whose end two readers could see in two places. None of them may
// reach the app whole, nor may the bytes behind them be read as another request.
func TestRefusedFraming(t *testing.T) {
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	cases := []struct{ name, send string }{
		{"the same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
		{"a length and chunks", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"},
		{"a folded header", "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: a\r\n  Content-Length: 5\r\n\r\n"},
		{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"},
		{"a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc"},
		{"a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"},
		{"a hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc"},
		{"an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		{"a coding after chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
		{"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		{"a vertical tab before chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"},
		{"a chunk size that is none", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"},
		{"a signed chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n"},
		{"a chunk size of more than 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n"},
		{"a chunk that is longer than it says", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"},
		{"a line that is no header", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"},
		{"a header that begins with a fold", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
		{"a zero byte", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n"},
		{"a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
		{"no host", "GET / HTTP/1.1\r\n\r\n"},
		{"a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"another version", "GET / HTTP/3.7\r\nHost: a\r\n\r\n"},
		{"headers past the bound", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"},
		{"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			whole := make(chan string, 10)
			app := serveApp(t, func(_ http.ResponseWriter, req *http.Request) {
				if _, err := io.Copy(io.Discard, req.Body); err == nil {
					whole <- req.Method + " " + req.URL.Path
				}
			})
			r := start(t, app, func(c *sidecar.Config) { c.MaxHeaderBytes = 32 << 10 })
			conn, in := r.dial()
			go func() { _, _ = io.WriteString(conn, c.send+smuggled) }()
			for first := true; ; first = false {
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					// A malformed body may close the connection without an answer. Running into the
					// deadline is not that.
					if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
						t.Error("the connection was left open")
					}
					break
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if !first || resp.StatusCode < 400 {
					t.Errorf("answer %d, want one of 4xx or 5xx only", resp.StatusCode)
				}
			}
			select {
			case got := <-whole:
				t.Errorf("%s reached the app", got)
			default:
			}
			r.wait(0, wire.InFlight)
		})
	}
}

func TestAnswersPassUnchanged(t *testing.T) {
	cases := []struct {
		name, method, answer string
		code                 int
		header               http.Header
		body                 string
	}{
		{
			name: "no type is made up", answer: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", code: 200, body: "<html>",
			header: http.Header{"Content-Length": {"6"}},
		},
		{
			name: "repeated headers, and an encoded body", answer: "HTTP/1.1 418 Teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\nzzz",
			code: 418, body: "zzz", header: http.Header{"Set-Cookie": {"a=1", "b=2"}, "Content-Encoding": {"gzip"}, "Content-Length": {"3"}},
		},
		{
			name: "the answer to HEAD keeps its length", method: http.MethodHead, answer: "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", code: 200,
			header: http.Header{"Content-Length": {"1000"}},
		},
		{name: "304", answer: "HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n", code: 304, header: http.Header{"Etag": {"x"}}},
		{name: "until the close", answer: "HTTP/1.0 200 OK\r\n\r\nall there is", code: 200, body: "all there is", header: http.Header{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			app := rawApp(t, func(conn net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, c.answer)
			})
			r := start(t, app, nil)
			got, body := r.do(r.request(c.method, "/", nil))
			got.Header.Del("Date")
			if got.StatusCode != c.code || body != c.body {
				t.Errorf("answer %d %q, want %d %q", got.StatusCode, body, c.code, c.body)
			}
			if d := cmp.Diff(c.header, got.Header); d != "" {
				t.Errorf("header (-want +got):\n%s", d)
			}
		})
	}
}

// TestStreams proves over HTTP/1.1 and h2c that nothing waits for a whole body: each side answers
// what the other sent before it goes on.
func TestStreams(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
				if req.Proto != proto {
					t.Errorf("the app was asked by %s", req.Proto)
				}
				rc := http.NewResponseController(w)
				_ = rc.EnableFullDuplex()
				w.Header().Set("Trailer", "X-Announced")
				_ = rc.Flush() // headers go out before any byte of the body
				in := bufio.NewReader(req.Body)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						break
					}
					_, _ = io.WriteString(w, "data: "+line)
					_ = rc.Flush()
				}
				w.Header().Set("X-Announced", req.Trailer.Get("X-Sum"))
				w.Header().Set(http.TrailerPrefix+"X-Sudden", "yes")
			})
			r := start(t, app, nil)
			r.client.Transport = &http.Transport{Protocols: protocols(proto == "HTTP/1.1", proto == "HTTP/2.0"), DisableCompression: true}
			body, send := io.Pipe()
			req := r.request(http.MethodPost, "/", body)
			req.Trailer = http.Header{"X-Sum": nil}
			// returns when the headers have come, with no byte of the body sent
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			in := bufio.NewReader(resp.Body)
			for _, line := range []string{"one\n", "two\n", "three\n"} {
				if _, err := io.WriteString(send, line); err != nil {
					t.Fatal(err)
				}
				if got, err := in.ReadString('\n'); err != nil || got != "data: "+line {
					t.Fatalf("got %q, %v after sending %q", got, err, line)
				}
			}
			if got := r.metricApart(wire.InFlight); got != 1 {
				t.Errorf("%v in flight while streaming, want 1", got)
			}
			req.Trailer.Set("X-Sum", "11")
			_ = send.Close()
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("rest of the body %q, %v", rest, err)
			}
			if d := cmp.Diff(http.Header{"X-Announced": {"11"}, "X-Sudden": {"yes"}}, resp.Trailer); d != "" {
				t.Errorf("trailers (-want +got):\n%s", d)
			}
		})
	}
}

// metricApart reads a metric over a client of its own, for tests whose client speaks HTTP/2 only.
func (r *running) metricApart(name string, labels ...string) float64 {
	r.t.Helper()
	own := *r
	own.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return own.metric(name, labels...)
}

func TestInterimAnswers(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		if req.Header.Get("Expect") != "100-continue" {
			t.Errorf("the app saw Expect %q", req.Header.Get("Expect"))
		}
		if req.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		b, _ := io.ReadAll(req.Body)
		_, _ = w.Write(b)
	})
	r := start(t, app, nil)
	for path, want := range map[string]struct {
		code    int
		interim []int
	}{
		"/":       {http.StatusOK, []int{103, 100}},
		"/refuse": {http.StatusExpectationFailed, []int{103}},
	} {
		t.Run(path, func(t *testing.T) {
			conn, in := r.dial()
			_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
			var interim []int
			for {
				line, err := textproto.NewReader(in).ReadLine()
				if err != nil {
					t.Fatal(err)
				}
				var code int
				if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &code); err != nil {
					t.Fatalf("status line %q", line)
				}
				header, err := textproto.NewReader(in).ReadMIMEHeader()
				if err != nil {
					t.Fatal(err)
				}
				if code >= 200 {
					if code != want.code {
						t.Errorf("answer %d, want %d", code, want.code)
					}
					break
				}
				interim = append(interim, code)
				switch code {
				case http.StatusContinue:
					_, _ = io.WriteString(conn, "abc")
				case http.StatusEarlyHints:
					if got := header.Get("Link"); got != "</style.css>; rel=preload" {
						t.Errorf("103 with Link %q", got)
					}
				}
			}
			if d := cmp.Diff(want.interim, interim); d != "" {
				t.Errorf("interim answers (-want +got):\n%s", d)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Sec-Websocket-Key") != "k" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\nhello")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // until the client half-closes
		_, _ = io.WriteString(conn, "bye")
	})
	r := start(t, app, nil)
	conn, in := r.dial()
	// Bytes sent right behind the request are for the app, too.
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "yes" {
		t.Fatalf("answer %d %v", resp.StatusCode, resp.Header)
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	expect("helloearly")
	for _, frame := range []string{"ping", "pong"} {
		_, _ = io.WriteString(conn, frame)
		expect(frame)
	}
	if got := r.metric(wire.InFlight); got != 1 {
		t.Errorf("%v in flight while upgraded, want 1", got)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect("bye")
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
	r.wait(0, wire.InFlight)
	r.wait(1, wire.Requests, "code", "1xx")
}

func TestGRPC(t *testing.T) {
	service := health.NewServer()
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("app: %v", err)
		}
	}()
	r := start(t, l.Addr().String(), nil)
	conn, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := healthpb.NewHealthClient(conn)

	got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check = %v, %v", got, err)
	}
	// An error's status comes in trailers.
	_, err = client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	if want := "rpc error: code = NotFound desc = unknown service"; err == nil || err.Error() != want {
		t.Errorf("Check of an unknown service = %v, want %s", err, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		if i > 0 {
			service.SetServingStatus("", want)
		}
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("Watch = %v, %v, want %v", got, err, want)
		}
	}
	r.wait(1, wire.InFlight)
	cancel()
	r.wait(0, wire.InFlight) // a client that cancels its stream leaves nothing behind
	r.wait(3, wire.Requests, "code", "2xx")
}

// TestEarlyAnswer is an app that answers without reading the body. The client gets the answer
// before it has sent all, and the connection ends, since what follows on it could be the rest of
// the body.
func TestEarlyAnswer(t *testing.T) {
	app := rawApp(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		_, _ = http.ReadRequest(in)
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		_, _ = io.Copy(io.Discard, in)
	})
	r := start(t, app, nil)
	conn, in := r.dial()
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "no" || !resp.Close {
		t.Errorf("answer %d %q, close %v, %v; want 413 no, close", resp.StatusCode, body, resp.Close, err)
	}
	_, _ = io.WriteString(conn, "0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	if rest, err := io.ReadAll(in); len(rest) > 0 {
		t.Errorf("behind the last answer came %q, %v", rest, err)
	}
	r.wait(0, wire.InFlight)
}

func TestCutAnswer(t *testing.T) {
	app := rawApp(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	})
	r := start(t, app, nil)
	resp, err := r.client.Do(r.request(http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	// The client must be able to tell that half is missing.
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("body %q came whole", body)
	}
	r.wait(0, wire.InFlight)
	r.wait(1, wire.Requests, "code", "2xx")
}

func TestClientLeaves(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	app := serveApp(t, func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done() // the app learns of it
		close(left)
	})
	r := start(t, app, nil)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		resp, err := r.client.Do(r.request(http.MethodGet, "/", nil).WithContext(ctx))
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	<-arrived
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the app was not told that the client left")
	}
	r.wait(0, wire.InFlight)
	r.wait(1, wire.Requests, "code", "4xx")
	r.wait(1, "sluice_sidecar_refused_requests_total", "reason", "client-left")
}

// TestConnectionsAreKept proves that requests one after another use one connection on both sides.
func TestConnectionsAreKept(t *testing.T) {
	peers := map[string]bool{}
	app := serveApp(t, func(_ http.ResponseWriter, req *http.Request) { peers[req.RemoteAddr] = true })
	r := start(t, app, nil)
	reused := 0
	for range 10 {
		req := r.request(http.MethodGet, "/", nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}}))
		r.do(req)
	}
	if reused != 9 || len(peers) != 1 {
		t.Errorf("%d of 10 reused a client connection, %d connections to the app; want 9 and 1", reused, len(peers))
	}
}
