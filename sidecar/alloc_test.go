package sidecar_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

// exchangeBytes answers each request of a fixed length with the answer, without allocating.
func exchangeBytes(t *testing.T, answer []byte) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		buf := make([]byte, 4<<10)
		for n := 0; ; {
			m, err := conn.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
			if end := buf[:n]; bytes.HasSuffix(end, []byte("\r\n\r\n")) || bytes.HasSuffix(end, []byte("body!")) {
				n = 0
				if _, err := conn.Write(answer); err != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String()
}

// TestAllocationsPerRequest counts what the whole process allocates for a request in the steady
// state, client and app of this test (which allocate nothing) included.
func TestAllocationsPerRequest(t *testing.T) {
	const head = "Host: web.example\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\nCookie: session=0123456789abcdef\r\nX-Forwarded-For: 192.0.2.1\r\n"
	cases := []struct{ name, request, answer string }{
		{"GET", "GET /some/path?query=1 HTTP/1.1\r\n" + head + "\r\n", "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhello"},
		{"POST", "POST / HTTP/1.1\r\n" + head + "Content-Length: 5\r\n\r\nbody!", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhello"},
		{"chunked answer", "GET / HTTP/1.1\r\n" + head + "\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, exchangeBytes(t, []byte(c.answer)), func(c *sidecar.Config) { c.ConcurrencyLimit = 10 })
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			request, buf := []byte(c.request), make([]byte, len(c.answer))
			ask := func() {
				if _, err := conn.Write(request); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 { // buckets of histograms are made when first used
				ask()
			}
			if got := testing.AllocsPerRun(2000, ask); got != 0 {
				t.Errorf("%v allocations per request, want none", got)
			}
		})
	}
}
