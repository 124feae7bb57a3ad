package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// maxAnswer is what a client may get for one request of the fuzz targets below, in bytes.
const maxAnswer = 4 << 10

// appOfBoth serves h by HTTP/1.1 and by h2c, and returns the address.
func appOfBoth(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l := listen(t)
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	srv.Protocols.SetHTTP1(true)
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

// converse sends parts, one write each, half closes if told to, and returns what came until the
// end of the connection.
func (p *proxied) converse(t *testing.T, halfClose bool, parts ...[]byte) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	got := make(chan []byte, 1)
	go func() {
		b, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // net's own
			t.Errorf("the connection is open after %v", patience)
		}
		got <- b
	}()
	for _, part := range parts {
		if _, err := conn.Write(part); err != nil {
			break
		}
	}
	if halfClose {
		_ = conn.(*net.TCPConn).CloseWrite()
	} else {
		_ = conn.Close()
	}
	return <-got
}

// FuzzHTTP1States takes a client's connection through its states in any order: requests whole and
// in pieces, with bodies that come, do not come or are not read, upgrades, and answers that the app
// breaks off. Nothing may panic, every connection ends, nothing stays in flight, the app gets no
// request that was not sent, and what is answered is bounded.
func FuzzHTTP1States(f *testing.F) {
	pieces := []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
		"hello",
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"5\r\nhello\r\n",
		"0\r\n\r\n",
		"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /half HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
		"GET /.well-known/sluice/ready HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\n", "GET", "X: ", ":", "\x00", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
	}
	for i := range pieces {
		f.Add([]byte{byte(i)}, true)
		f.Add([]byte{0, byte(i), 0, byte(i) | 0x80}, i%2 == 0)
	}
	f.Add([]byte{3, 4, 5, 6, 7, 0}, true)
	f.Add([]byte{8, 4, 0}, true)
	var sent, seen atomic.Int64
	app := appOfBoth(f, func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		flush := http.NewResponseController(w).Flush
		switch r.URL.Path {
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/cut":
			panic(http.ErrAbortHandler)
		case "/half":
			_, _ = io.WriteString(w, "half")
			_ = flush()
			panic(http.ErrAbortHandler)
		case "/stream":
			_, _ = io.WriteString(w, "one")
			_ = flush()
			_, _ = io.WriteString(w, "two")
		case "/up":
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			_ = conn.Close()
		}
	})
	p := proxyTo(f, app, func(s *settings) { s.limit, s.queue = 3, 2 })
	f.Fuzz(func(t *testing.T, ops []byte, halfClose bool) {
		var parts [][]byte
		for _, op := range ops[:min(len(ops), 64)] {
			piece := []byte(pieces[int(op&0x7f)%len(pieces)])
			if op&0x80 != 0 {
				piece = piece[:len(piece)/2]
			}
			parts = append(parts, piece)
		}
		heads := strings.Count(string(bytes.Join(parts, nil)), " HTTP/1.")
		sent.Add(int64(heads))
		got := p.converse(t, halfClose, parts...)
		p.t = t
		p.atRest()
		p.t = f
		// In all: what a client that has left had sent may come to the app a little later. A
		// request without a body is sent again once when a kept connection proves closed.
		if got, sent := seen.Load(), sent.Load(); got > 2*sent {
			t.Errorf("the app got %d requests, %d were sent", got, sent)
		}
		if most := (heads + 1) * maxAnswer; len(got) > most {
			t.Errorf("%d bytes were answered to %d requests, want %d at most", len(got), heads, most)
		}
	})
}

// FuzzFirstBytes sends anything as the first bytes of a connection, by which HTTP/1.1 is told from
// HTTP/2. How the network cuts them into pieces changes nothing.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n",
		"PRI / HTTP/1.1\r\nHost: a\r\n\r\n", "P", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n", "", "\x00",
	} {
		f.Add([]byte(s), uint8(3))
		f.Add([]byte(s), uint8(len(s)))
	}
	app := appOfBoth(f, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p := proxyTo(f, app, func(s *settings) { s.limit, s.queue = 3, 2 })
	f.Fuzz(func(t *testing.T, first []byte, cut uint8) {
		n := min(int(cut), len(first))
		whole, pieces := p.converse(t, true, first), p.converse(t, true, first[:n], first[n:])
		p.t = t
		p.atRest()
		p.t = f
		if a, b := kindOf(whole), kindOf(pieces); a != b {
			t.Errorf("%q at once is answered %s, cut after %d bytes %s", first, a, n, b)
		}
		if most := (1 + bytes.Count(first, []byte(" HTTP/"))) * maxAnswer; len(whole) > most+len(first) {
			t.Errorf("%d bytes were answered, want %d at most", len(whole), most+len(first))
		}
	})
}

// kindOf names an answer by what it begins with.
func kindOf(answer []byte) string {
	switch {
	case len(answer) == 0:
		return "nothing"
	case bytes.HasPrefix(answer, []byte("HTTP/1.")):
		return fmt.Sprintf("HTTP/1 %.3s", answer[min(len(answer), len("HTTP/1.1 ")):])
	case len(answer) > 3 && answer[3] == 4: // settings
		return "HTTP/2"
	}
	return fmt.Sprintf("%.20q", answer)
}
