package sidecar_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Opcodes of RFC 6455, 5.2.
const (
	wsMore   = 0x0
	wsText   = 0x1
	wsBinary = 0x2
	wsClose  = 0x8
	wsPing   = 0x9
	wsPong   = 0xa
	wsFin    = 0x80
)

// wsMask is every client's mask here: what a proxy may not undo.
var wsMask = [4]byte{0xde, 0xad, 0xbe, 0xef}

// wsFrame is one frame, as it is on the wire: the first byte, whether it is masked, and what it
// says.
type wsFrame struct {
	first   byte // FIN, reserved bits, opcode
	masked  bool
	payload string
}

// bytes encodes f.
func (f wsFrame) bytes() []byte {
	out := []byte{f.first, 0}
	switch n := len(f.payload); {
	case n < 126:
		out[1] = byte(n)
	case n < 1<<16:
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(n)) //nolint:gosec // checked
	default:
		out[1] = 127
		out = binary.BigEndian.AppendUint64(out, uint64(n)) //nolint:gosec // a length
	}
	if !f.masked {
		return append(out, f.payload...)
	}
	out[1] |= 0x80
	out = append(out, wsMask[:]...)
	at := len(out)
	out = append(out, f.payload...)
	for i := range out[at:] {
		out[at+i] ^= wsMask[i%4]
	}
	return out
}

// readWS decodes one frame.
func readWS(in io.Reader) (wsFrame, error) {
	var head [14]byte
	if _, err := io.ReadFull(in, head[:2]); err != nil {
		return wsFrame{}, err
	}
	f := wsFrame{first: head[0], masked: head[1]&0x80 != 0}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		if _, err := io.ReadFull(in, head[:2]); err != nil {
			return f, err
		}
		n = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		if _, err := io.ReadFull(in, head[:8]); err != nil {
			return f, err
		}
		n = binary.BigEndian.Uint64(head[:8])
	}
	if n > 64<<20 {
		return f, fmt.Errorf("a frame of %d bytes: the stream was broken", n)
	}
	var mask [4]byte
	if f.masked {
		if _, err := io.ReadFull(in, mask[:]); err != nil {
			return f, err
		}
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(in, p); err != nil {
		return f, err
	}
	for i := range p {
		p[i] ^= mask[i%4]
	}
	f.payload = string(p)
	return f, nil
}

// wsApp is an app whose connections are served by handle, after their request's head was read, all
// at once.
func wsApp(t *testing.T, handle func(req *http.Request, conn *net.TCPConn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				_ = nc.SetDeadline(time.Now().Add(2 * patience))
				in := bufio.NewReader(nc)
				for { // requests that are not upgraded may follow one another
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if req.Header.Get("Upgrade") == "" || strings.HasPrefix(req.URL.Path, "/refuse") {
						wsRefuse(req, nc)
						continue
					}
					handle(req, nc.(*net.TCPConn), in)
					return
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// wsRefuse answers what is no upgrade, or shall be none.
func wsRefuse(req *http.Request, nc net.Conn) {
	body := fmt.Sprintf("upgrade=%q connection=%q", req.Header.Get("Upgrade"), req.Header.Get("Connection"))
	switch req.URL.Path {
	case "/refuse/403":
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	case "/refuse/chunked":
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case "/refuse/426":
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	case "/refuse/close":
		_ = nc.Close()
	default:
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

const wsAccepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

// wsEcho is the usual app: it sends back messages frame by frame, answers pings, and does its part
// of the close.
func wsEcho(_ *http.Request, conn *net.TCPConn, in *bufio.Reader) {
	_, _ = io.WriteString(conn, wsAccepted+"\r\n")
	for {
		f, err := readWS(in)
		if err != nil || !f.masked {
			return
		}
		f.masked = false
		if f.first&0xf == wsPing {
			f.first = wsFin | wsPong
		}
		if _, err := conn.Write(f.bytes()); err != nil || f.first&0xf == wsClose {
			return
		}
	}
}

// ws is a client's side of an upgraded connection.
type ws struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

const wsRequest = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

// open upgrades a connection; with is sent in the same packet as the request.
func (r *running) open(t *testing.T, with ...byte) *ws {
	t.Helper()
	c := r.connect(t)
	c.send(append([]byte("GET / HTTP/1.1\r\n"+wsRequest+"\r\n"), with...))
	c.accepted()
	return c
}

// connect opens a connection and sends nothing.
func (r *running) connect(t *testing.T) *ws {
	t.Helper()
	conn, in := r.dial()
	t.Cleanup(func() { _ = conn.Close() })
	return &ws{t: t, conn: conn, in: in}
}

// answer reads an answer whole, and nothing behind it.
func (c *ws) answer() (answer, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Proto, resp.Header, resp.Trailer}, string(body)
}

// accepted reads the 101.
func (c *ws) accepted() http.Header {
	c.t.Helper()
	resp, body := c.answer()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("answer %d %q, want 101", resp.StatusCode, body)
	}
	if got := resp.Header.Get("Sec-Websocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		c.t.Errorf("Sec-WebSocket-Accept %q", got)
	}
	if !strings.EqualFold(resp.Header.Get("Connection"), "upgrade") || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		c.t.Errorf("Connection %q, Upgrade %q", resp.Header.Get("Connection"), resp.Header.Get("Upgrade"))
	}
	return resp.Header
}

func (c *ws) send(p []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ws) say(first byte, payload string) {
	c.t.Helper()
	c.send(wsFrame{first, true, payload}.bytes())
}

func (c *ws) want(first byte, payload string) {
	c.t.Helper()
	f, err := readWS(c.in)
	if err != nil {
		c.t.Fatal(err)
	}
	if f != (wsFrame{first: first, payload: payload}) {
		c.t.Fatalf("frame %#x masked %v %.40q (%d bytes), want %#x %.40q (%d bytes)", f.first, f.masked, f.payload, len(f.payload), first, payload, len(payload))
	}
}

// echo says a frame and wants it back.
func (c *ws) echo(first byte, payload string) {
	c.t.Helper()
	c.say(first, payload)
	c.want(first, payload)
}

// end wants the connection to be at its end.
func (c *ws) end() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); isTimeout(err) || len(rest) > 0 {
		c.t.Errorf("%q, %v, want the end", rest, err)
	}
}

func noise(n int) string {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(p)
	return string(p)
}

// TestWebSocket is what a proxy can break of RFC 6455, with an app that echoes frames.
func TestWebSocket(t *testing.T) {
	r := start(t, wsApp(t, wsEcho), nil)
	cases := []struct {
		name string
		run  func(c *ws)
	}{
		{"1.1 a text", func(c *ws) { c.echo(wsFin|wsText, "Hello") }},
		{"1.2 bytes of all values", func(c *ws) { c.echo(wsFin|wsBinary, noise(4096)) }},
		{"1.3 an empty message", func(c *ws) { c.echo(wsFin|wsText, "") }},
		{"1.4 lengths at their bounds", func(c *ws) {
			for _, n := range []int{1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537} {
				c.echo(wsFin|wsBinary, noise(n))
			}
		}},
		{"1.5 a frame of 16 MiB", func(c *ws) {
			p := noise(16 << 20)
			go func() { _, _ = c.conn.Write(wsFrame{wsFin | wsBinary, true, p}.bytes()) }()
			c.want(wsFin|wsBinary, p)
		}},
		{"1.6 a message of 4 MiB in frames of 1 KiB", func(c *ws) {
			p := noise(1 << 10)
			go func() {
				_, _ = c.conn.Write(wsFrame{wsBinary, true, p}.bytes())
				for range 4094 {
					_, _ = c.conn.Write(wsFrame{wsMore, true, p}.bytes())
				}
				_, _ = c.conn.Write(wsFrame{wsFin | wsMore, true, p}.bytes())
			}()
			c.want(wsBinary, p)
			for range 4094 {
				c.want(wsMore, p)
			}
			c.want(wsFin|wsMore, p)
		}},
		{"2.1 a ping and its content", func(c *ws) { c.say(wsFin|wsPing, "are you there"); c.want(wsFin|wsPong, "are you there") }},
		{"2.2 an empty ping", func(c *ws) { c.say(wsFin|wsPing, ""); c.want(wsFin|wsPong, "") }},
		{"2.3 a ping of 125 bytes", func(c *ws) { c.say(wsFin|wsPing, noise(125)); c.want(wsFin|wsPong, noise(125)) }},
		// the app sends back everything
		{"2.4 a pong nobody asked for", func(c *ws) { c.echo(wsFin|wsPong, "x") }},
		{"2.5 ten pings at once", func(c *ws) {
			var all []byte
			for i := range 10 {
				all = append(all, wsFrame{wsFin | wsPing, true, fmt.Sprint(i)}.bytes()...)
			}
			c.send(all)
			for i := range 10 {
				c.want(wsFin|wsPong, fmt.Sprint(i))
			}
		}},
		{"3.1 reserved bits", func(c *ws) { c.echo(wsFin|0x70|wsText, "compressed, maybe") }},
		{"4.1 reserved opcodes", func(c *ws) { c.echo(wsFin|0x3, "x"); c.echo(wsFin|0xb, "y") }},
		{"5.1 a message in three frames", func(c *ws) {
			c.echo(wsText, "a")
			c.echo(wsMore, "b")
			c.echo(wsFin|wsMore, "c")
		}},
		{"5.2 a ping between the frames of a message", func(c *ws) {
			c.echo(wsText, "a")
			c.say(wsFin|wsPing, "p")
			c.want(wsFin|wsPong, "p")
			c.echo(wsFin|wsMore, "b")
		}},
		{"5.3 three frames in one segment", func(c *ws) {
			c.send(slices.Concat(wsFrame{wsText, true, "a"}.bytes(), wsFrame{wsMore, true, ""}.bytes(), wsFrame{wsFin | wsMore, true, "c"}.bytes()))
			c.want(wsText, "a")
			c.want(wsMore, "")
			c.want(wsFin|wsMore, "c")
		}},
		{"5.4 a frame in segments of one byte", func(c *ws) {
			for _, b := range (wsFrame{wsFin | wsText, true, "byte by byte"}).bytes() {
				c.send([]byte{b})
			}
			c.want(wsFin|wsText, "byte by byte")
		}},
		{"5.5 the length apart from its frame", func(c *ws) {
			p := wsFrame{wsFin | wsBinary, true, noise(70000)}.bytes()
			for _, at := range [][2]int{{0, 1}, {1, 5}, {5, 10}, {10, 14}, {14, 40000}, {40000, len(p)}} {
				c.send(p[at[0]:at[1]])
			}
			c.want(wsFin|wsBinary, noise(70000))
		}},
		{"6.1 text that is no UTF-8", func(c *ws) { c.echo(wsFin|wsText, "\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited") }},
		{"6.2 a character cut by frames", func(c *ws) { c.echo(wsText, "\xce"); c.echo(wsFin|wsMore, "\xba") }},
		{"7.1 the client closes", func(c *ws) { c.echo(wsFin|wsClose, "\x03\xe8bye"); c.end() }},
		{"7.2 the client closes without a reason", func(c *ws) { c.echo(wsFin|wsClose, ""); c.end() }},
		{"7.3 a close with a code nobody knows", func(c *ws) { c.echo(wsFin|wsClose, "\x13\x87"); c.end() }},
		{"7.4 data behind the close are lost, not the close", func(c *ws) {
			c.send(append(wsFrame{wsFin | wsClose, true, "\x03\xe8"}.bytes(), wsFrame{wsFin | wsText, true, "late"}.bytes()...))
			c.want(wsFin|wsClose, "\x03\xe8")
		}},
		{"9.1 a thousand messages in one go", func(c *ws) {
			var all []byte
			for i := range 1000 {
				all = append(all, wsFrame{wsFin | wsText, true, strings.Repeat("m", i)}.bytes()...)
			}
			go func() { _, _ = c.conn.Write(all) }()
			for i := range 1000 {
				c.want(wsFin|wsText, strings.Repeat("m", i))
			}
		}},
	}
	for _, cs := range cases {
		t.Run(cs.name, func(t *testing.T) {
			c := r.open(t)
			cs.run(c)
		})
	}
	r.wait(0, wire.InFlight)
	r.wait(float64(len(cases)), wire.Requests, "code", "1xx")
}

// TestWebSocketHandshake is the way into the upgrade, and the ways beside it.
func TestWebSocketHandshake(t *testing.T) {
	seen := make(chan http.Header, 1)
	r := start(t, wsApp(t, func(req *http.Request, conn *net.TCPConn, in *bufio.Reader) {
		select {
		case seen <- req.Header:
		default:
		}
		switch req.URL.Path {
		case "/headers":
			_, _ = io.WriteString(conn, wsAccepted+"Sec-WebSocket-Protocol: chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n")
		case "/greeting": // in one packet with the 101
			_, _ = conn.Write(append([]byte(wsAccepted+"\r\n"), wsFrame{first: wsFin | wsText, payload: "welcome"}.bytes()...))
		case "/large-greeting":
			_, _ = conn.Write(append([]byte(wsAccepted+"\r\n"), wsFrame{first: wsFin | wsBinary, payload: noise(1 << 20)}.bytes()...))
		case "/slow-head":
			for _, b := range []byte(wsAccepted + "\r\n") {
				_, _ = conn.Write([]byte{b})
			}
		default:
			wsEcho(req, conn, in)
			return
		}
		_, _ = io.Copy(io.Discard, in)
	}), nil)
	ask := func(t *testing.T, head string, with ...byte) *ws {
		c := r.connect(t)
		c.send(append([]byte(head+"\r\n"), with...))
		return c
	}
	hello := wsFrame{wsFin | wsText, true, "hello"}.bytes()

	t.Run("data in the request's packet", func(t *testing.T) {
		c := r.open(t, hello...)
		c.want(wsFin|wsText, "hello")
		c.echo(wsFin|wsText, "more")
	})
	t.Run("much data in the request's packet", func(t *testing.T) {
		c := r.connect(t)
		p := noise(1 << 20)
		go func() {
			_, _ = c.conn.Write(append([]byte("GET / HTTP/1.1\r\n"+wsRequest+"\r\n"), wsFrame{wsFin | wsBinary, true, p}.bytes()...))
		}()
		c.accepted()
		c.want(wsFin|wsBinary, p)
	})
	t.Run("data that hoped for an upgrade are no request", func(t *testing.T) {
		c := ask(t, "GET /refuse/403 HTTP/1.1\r\n"+wsRequest, append(hello, "\r\n\r\n"...)...)
		for _, want := range []int{403, 400} {
			if resp, _ := c.answer(); resp.StatusCode != want {
				t.Fatalf("answer %d, want %d", resp.StatusCode, want)
			}
		}
		c.end()
	})
	t.Run("data right behind the 101", func(t *testing.T) {
		c := ask(t, "GET /greeting HTTP/1.1\r\n"+wsRequest)
		c.accepted()
		c.want(wsFin|wsText, "welcome")
	})
	t.Run("1 MiB right behind the 101", func(t *testing.T) {
		c := ask(t, "GET /large-greeting HTTP/1.1\r\n"+wsRequest)
		c.accepted()
		c.want(wsFin|wsBinary, noise(1<<20))
	})
	t.Run("the 101 byte by byte", func(t *testing.T) {
		ask(t, "GET /slow-head HTTP/1.1\r\n"+wsRequest).accepted()
	})
	t.Run("the request byte by byte", func(t *testing.T) {
		c := r.connect(t)
		for _, b := range []byte("GET / HTTP/1.1\r\n" + wsRequest + "\r\n") {
			c.send([]byte{b})
		}
		c.accepted()
		c.echo(wsFin|wsText, "x")
	})
	t.Run("behind another request in one packet", func(t *testing.T) {
		c := ask(t, "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n"+wsRequest, hello...)
		if resp, _ := c.answer(); resp.StatusCode != http.StatusOK {
			t.Fatalf("answer %d", resp.StatusCode)
		}
		c.accepted()
		c.want(wsFin|wsText, "hello")
	})
	t.Run("fields pass both ways", func(t *testing.T) {
		for len(seen) > 0 {
			<-seen
		}
		c := ask(t, "GET /headers HTTP/1.1\r\n"+wsRequest+"Origin: https://example.com\r\nCookie: s=1\r\nSec-WebSocket-Protocol: chat.v2, chat.v1\r\n"+
			"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Extensions: x-other\r\n")
		got := c.accepted()
		want := http.Header{
			"Sec-Websocket-Protocol":   {"chat.v2"},
			"Sec-Websocket-Extensions": {"permessage-deflate; server_no_context_takeover"},
			"Set-Cookie":               {"a=1", "b=2"},
		}
		for name, values := range want {
			if !slices.Equal(got[name], values) {
				t.Errorf("the client got %s %q, want %q", name, got[name], values)
			}
		}
		asked := <-seen
		for name, value := range map[string]string{
			"Upgrade": "websocket", "Origin": "https://example.com", "Cookie": "s=1", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
			"Sec-Websocket-Version": "13", "Sec-Websocket-Protocol": "chat.v2, chat.v1", "Sec-Websocket-Extensions": "permessage-deflate; client_max_window_bits, x-other",
		} {
			if got := strings.Join(asked[name], ", "); got != value {
				t.Errorf("the app got %s %q, want %q", name, got, value)
			}
		}
		if got := asked.Get("Connection"); !strings.EqualFold(got, "upgrade") {
			t.Errorf("the app got Connection %q", got)
		}
	})
	for name, fields := range map[string]string{
		"Connection of two words":   "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
		"Connection in lower case":  "connection: upgrade\r\nupgrade: websocket\r\n",
		"Connection in capitals":    "CONNECTION: UPGRADE\r\nUPGRADE: websocket\r\n",
		"Connection in two lines":   "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
		"a token in other letters":  "Connection: Upgrade\r\nUpgrade: WebSocket\r\n",
		"blanks around the words":   "Connection:  keep-alive ,  Upgrade \t\r\nUpgrade:  websocket \r\n",
		"an empty body's length":    "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
		"a choice of two protocols": "Connection: Upgrade\r\nUpgrade: websocket, other/2\r\n",
	} {
		t.Run("upgraded: "+name, func(t *testing.T) {
			c := ask(t, "GET / HTTP/1.1\r\nHost: a\r\n"+fields+"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
			c.accepted()
			c.echo(wsFin|wsText, "x")
		})
	}
	for name, head := range map[string]string{
		"no Connection":                  "GET /plain HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n",
		"Connection that does not name":  "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n",
		"Connection that names a part":   "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: upgraded\r\nUpgrade: websocket\r\n",
		"no Upgrade":                     "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n",
		"HTTP/1.0":                       "GET /plain HTTP/1.0\r\nHost: a\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n",
		"Connection: close, and Upgrade": "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\n",
	} {
		t.Run("not upgraded: "+name, func(t *testing.T) {
			c := ask(t, head)
			if resp, body := c.answer(); resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, `upgrade=""`) {
				t.Errorf("answer %d %q, want a plain request at the app", resp.StatusCode, body)
			}
		})
	}
	for path, code := range map[string]int{"/refuse/403": 403, "/refuse/chunked": 400, "/refuse/426": 426, "/refuse/200": 200} {
		t.Run("the app refuses: "+path, func(t *testing.T) {
			c := ask(t, "GET "+path+" HTTP/1.1\r\n"+wsRequest)
			for _, want := range []int{code, 200} { // the connection serves on
				resp, body := c.answer()
				if resp.StatusCode != want || !strings.HasPrefix(body, "upgrade=") {
					t.Errorf("answer %d %q, want %d", resp.StatusCode, body, want)
				}
				if code == 426 && want == 426 && resp.Header.Get("Sec-Websocket-Version") != "13" {
					t.Errorf("fields %v, want the version", resp.Header)
				}
				if want == code {
					c.send([]byte("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"))
				}
			}
		})
	}
	t.Run("the app hangs up instead of an answer", func(t *testing.T) {
		c := ask(t, "GET /refuse/close HTTP/1.1\r\n"+wsRequest)
		if resp, _ := c.answer(); resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("answer %d, want 502", resp.StatusCode)
		}
	})
	t.Run("no app", func(t *testing.T) {
		c := start(t, closedPort(t), nil).connect(t)
		c.send([]byte("GET / HTTP/1.1\r\n" + wsRequest + "\r\n"))
		if resp, _ := c.answer(); resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Sluice-Reason") != "app-unreachable" {
			t.Fatalf("answer %d %v, want 502 app-unreachable", resp.StatusCode, resp.Header)
		}
	})
}

// TestWebSocketRaw has an app that looks at bytes, not at frames.
func TestWebSocketRaw(t *testing.T) {
	got := make(chan []byte, 1)
	ended := make(chan error, 1)
	r := start(t, wsApp(t, func(req *http.Request, conn *net.TCPConn, in *bufio.Reader) {
		_, _ = io.WriteString(conn, wsAccepted+"\r\n")
		switch req.URL.Path {
		case "/bytes":
			p := make([]byte, 300)
			_, _ = io.ReadFull(in, p)
			got <- p
		case "/ping":
			_, _ = conn.Write(wsFrame{first: wsFin | wsPing, payload: "app"}.bytes())
			f, err := readWS(in)
			if err == nil && (!f.masked || f.first != wsFin|wsPong || f.payload != "app") {
				err = fmt.Errorf("frame %+v", f)
			}
			ended <- err
		case "/close":
			_, _ = conn.Write(wsFrame{first: wsFin | wsClose, payload: "\x03\xe9going"}.bytes())
			f, err := readWS(in)
			if err == nil && f.payload != "\x03\xe9going" {
				err = fmt.Errorf("frame %+v", f)
			}
			ended <- err
		case "/leave":
			_, _ = conn.Write(wsFrame{first: wsFin | wsText, payload: "last"}.bytes())
		case "/reset":
			_ = conn.SetLinger(0)
		case "/half": // says all it has to say, and listens on
			_, _ = conn.Write(wsFrame{first: wsFin | wsText, payload: "last"}.bytes())
			_ = conn.CloseWrite()
			p, err := io.ReadAll(in)
			got <- p
			ended <- err
		case "/listen":
			p, err := io.ReadAll(in)
			got <- p
			_, _ = conn.Write(wsFrame{first: wsFin | wsText, payload: "after your end"}.bytes())
			ended <- err
		case "/slowly": // byte by byte
			for _, b := range (wsFrame{first: wsFin | wsText, payload: "byte by byte"}).bytes() {
				_, _ = conn.Write([]byte{b})
			}
		case "/large":
			_, _ = conn.Write(wsFrame{first: wsFin | wsBinary, payload: noise(16 << 20)}.bytes())
		case "/both": // sends and reads 8 MiB at the same time
			var sent sync.WaitGroup
			sent.Go(func() { _, _ = io.WriteString(conn, noise(8<<20)) })
			p := make([]byte, 8<<20)
			_, err := io.ReadFull(in, p)
			sent.Wait()
			if err == nil && string(p) != noise(8<<20) {
				err = errors.New("other bytes came")
			}
			ended <- err
		}
	}), nil)
	open := func(t *testing.T, path string) *ws {
		c := r.connect(t)
		c.send([]byte("GET " + path + " HTTP/1.1\r\n" + wsRequest + "\r\n"))
		c.accepted()
		return c
	}
	within := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("masked bytes are not touched", func(t *testing.T) {
		c := open(t, "/bytes")
		want := append(wsFrame{wsFin | wsBinary, true, noise(200)}.bytes(), noise(300)...)[:300]
		c.send(want)
		if p := <-got; !bytes.Equal(p, want) {
			t.Errorf("the app got %x, want %x", p, want)
		}
		c.end()
	})
	t.Run("the app pings", func(t *testing.T) {
		c := open(t, "/ping")
		c.want(wsFin|wsPing, "app")
		c.say(wsFin|wsPong, "app")
		within(t, <-ended)
	})
	t.Run("the app closes", func(t *testing.T) {
		c := open(t, "/close")
		c.want(wsFin|wsClose, "\x03\xe9going")
		c.say(wsFin|wsClose, "\x03\xe9going")
		within(t, <-ended)
		c.end()
	})
	t.Run("the app hangs up", func(t *testing.T) {
		c := open(t, "/leave")
		c.want(wsFin|wsText, "last")
		c.end()
		_ = c.conn.Close()
	})
	t.Run("the app resets", func(t *testing.T) {
		c := open(t, "/reset")
		c.end()
		_ = c.conn.Close()
	})
	t.Run("the client hangs up", func(t *testing.T) {
		c := open(t, "/listen")
		c.say(wsFin|wsText, "bye")
		_ = c.conn.Close()
		if p := <-got; !bytes.Equal(p, wsFrame{wsFin | wsText, true, "bye"}.bytes()) {
			t.Errorf("the app got %q", p)
		}
		within(t, <-ended)
	})
	t.Run("the client resets", func(t *testing.T) {
		c := open(t, "/listen")
		if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = c.conn.Close()
		<-got
		t.Log("the app: ", <-ended) // whichever it is: the app is not left waiting
	})
	t.Run("the client half-closes", func(t *testing.T) {
		c := open(t, "/listen")
		c.say(wsFin|wsText, "bye")
		within(t, c.conn.(*net.TCPConn).CloseWrite())
		if p := <-got; !bytes.Equal(p, wsFrame{wsFin | wsText, true, "bye"}.bytes()) {
			t.Errorf("the app got %q", p)
		}
		c.want(wsFin|wsText, "after your end")
		within(t, <-ended)
		c.end()
	})
	t.Run("the app half-closes", func(t *testing.T) {
		c := open(t, "/half")
		c.want(wsFin|wsText, "last")
		c.end()
		c.say(wsFin|wsText, "still here")
		within(t, c.conn.(*net.TCPConn).CloseWrite())
		if p := <-got; !bytes.Equal(p, wsFrame{wsFin | wsText, true, "still here"}.bytes()) {
			t.Errorf("the app got %q", p)
		}
		within(t, <-ended)
	})
	t.Run("the app's frame byte by byte", func(t *testing.T) { open(t, "/slowly").want(wsFin|wsText, "byte by byte") })
	t.Run("16 MiB from the app", func(t *testing.T) { open(t, "/large").want(wsFin|wsBinary, noise(16<<20)) })
	t.Run("8 MiB both ways at once", func(t *testing.T) {
		c := open(t, "/both")
		var sent sync.WaitGroup
		sent.Go(func() { _, _ = io.WriteString(c.conn, noise(8<<20)) })
		p := make([]byte, 8<<20)
		_, err := io.ReadFull(c.in, p)
		within(t, err)
		if string(p) != noise(8<<20) {
			t.Error("other bytes came")
		}
		sent.Wait()
		within(t, <-ended)
	})
	t.Run("who does not read holds nobody else", func(t *testing.T) {
		held := open(t, "/large") // more than the sockets hold
		open(t, "/slowly").want(wsFin|wsText, "byte by byte")
		held.want(wsFin|wsBinary, noise(16<<20))
	})
	r.wait(0, wire.InFlight)
}

// TestWebSocketOutlivesTimeouts sets every timeout far below the time that the app lets pass before
// it speaks.
func TestWebSocketOutlivesTimeouts(t *testing.T) {
	const short = 50 * time.Millisecond
	r := start(t, wsApp(t, func(_ *http.Request, conn *net.TCPConn, in *bufio.Reader) {
		_, _ = io.WriteString(conn, wsAccepted+"\r\n")
		quiet := time.NewTimer(10 * short)
		defer quiet.Stop()
		<-quiet.C
		_, _ = conn.Write(wsFrame{first: wsFin | wsText, payload: "at last"}.bytes())
		_, _ = io.Copy(io.Discard, in)
	}), func(c *sidecar.Config) {
		c.IdleTimeout, c.HeaderTimeout, c.RequestTimeout, c.ResponseTimeout, c.AppIdleTimeout = short, short, short, short, short
	})
	c := r.open(t)
	c.want(wsFin|wsText, "at last")
	r.wait(1, wire.InFlight)
	_ = c.conn.Close()
	r.wait(0, wire.InFlight)
}

// TestWebSocketsAreCounted opens many at once: each is in flight, and holds its place under the
// limit, for as long as it is open.
func TestWebSocketsAreCounted(t *testing.T) {
	const n = 100
	r := start(t, wsApp(t, wsEcho), func(c *sidecar.Config) { c.ConcurrencyLimit, c.QueueLimit = n, 0 })
	all := make([]*ws, n)
	for i := range all {
		all[i] = r.open(t)
	}
	r.wait(n, wire.InFlight)
	for i, c := range all { // all are written to before one is read
		c.say(wsFin|wsText, fmt.Sprint("message ", i))
	}
	for i, c := range all {
		c.want(wsFin|wsText, fmt.Sprint("message ", i))
	}
	one := r.connect(t)
	one.send([]byte("GET / HTTP/1.1\r\n" + wsRequest + "\r\n"))
	if resp, _ := one.answer(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("answer %d %v past the limit, want 503 with Retry-After", resp.StatusCode, resp.Header)
	}
	for i, c := range all[:n/2] {
		if i%2 == 0 {
			c.echo(wsFin|wsClose, "\x03\xe8")
			c.end()
		}
		_ = c.conn.Close()
	}
	r.wait(n/2, wire.InFlight)
	r.open(t).echo(wsFin|wsText, "there is room again")
	for _, c := range all[n/2:] {
		c.echo(wsFin|wsText, "still open")
		_ = c.conn.Close()
	}
}

// TestWebSocketDrain stops the sidecar with connections open: they live on, and it ends as soon as
// they have.
func TestWebSocketDrain(t *testing.T) {
	r := start(t, wsApp(t, wsEcho), func(c *sidecar.Config) { c.LameDuck = 10 * time.Millisecond })
	c := r.open(t)
	c.echo(wsFin|wsText, "before")
	r.stop()
	r.wait(1, "sluice_sidecar_draining")
	late := r.open(t) // as an app whose clients have not yet heard of it
	for range 20 {
		c.echo(wsFin|wsText, "while draining")
		late.echo(wsFin|wsText, "likewise")
	}
	select {
	case err := <-r.ended:
		t.Fatalf("it ended with connections open: %v", err)
	default:
	}
	for _, c := range []*ws{c, late} {
		c.echo(wsFin|wsClose, "\x03\xe9")
		c.end()
		_ = c.conn.Close()
	}
	if err := <-r.ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	r.ended <- nil
}

// TestWebSocketTLS goes through TLS at the sidecar.
func TestWebSocketTLS(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	roots := writeCertificate(t, cert, key)
	r := start(t, wsApp(t, wsEcho), func(c *sidecar.Config) { c.TLSCert, c.TLSKey = cert, key })
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &ws{t: t, conn: conn, in: bufio.NewReader(conn)}
	c.send(append([]byte("GET / HTTP/1.1\r\n"+wsRequest+"\r\n"), wsFrame{wsFin | wsText, true, "early"}.bytes()...))
	c.accepted()
	c.want(wsFin|wsText, "early")
	p := noise(1 << 20)
	go func() { _, _ = conn.Write(wsFrame{wsFin | wsBinary, true, p}.bytes()) }()
	c.want(wsFin|wsBinary, p)
	c.echo(wsFin|wsClose, "\x03\xe8")
	c.end()
	_ = conn.Close()
	r.wait(0, wire.InFlight)
}
