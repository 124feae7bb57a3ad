package sidecar_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"

	"github.com/sluice-autoscaler/sluice/wire"
)

// TestLargeBodies sends bodies of many sizes both ways, by length and in chunks, on one connection:
// the bytes and the messages' ends must survive every way that they may take through the proxy.
func TestLargeBodies(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	content := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8(key).Read(content)
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Errorf("at the app: %v", err)
		}
		if req.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		_, _ = w.Write(body)
	})
	r := start(t, app, nil)
	for _, n := range []int{0, 1, 4 << 10, 16<<10 - 1, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 100_000, 1 << 20, 3 << 20} {
		for _, path := range []string{"/length", "/chunks"} {
			for _, chunked := range []bool{false, true} {
				body := io.Reader(bytes.NewReader(content[:n]))
				if chunked {
					body = io.MultiReader(body) // hides the length
				}
				resp, got := r.do(r.request(http.MethodPost, path, body))
				if resp.StatusCode != http.StatusOK || !bytes.Equal([]byte(got), content[:n]) {
					t.Errorf("%d bytes to %s, chunked %v: answer %d with %d bytes", n, path, chunked, resp.StatusCode, len(got))
				}
			}
		}
	}
	r.wait(0, wire.InFlight)
}

// TestHTTP10 is a client that knows neither chunks nor kept connections unless it asks for them.
func TestHTTP10(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, "one")
		if req.URL.Path == "/chunks" {
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "two")
		}
	})
	r := start(t, app, nil)
	cases := []struct{ name, send, connection, body string }{
		{"by length", "GET / HTTP/1.0\r\n\r\n", "close", "one"},
		{"chunks become a body that ends with the connection", "GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "close", "onetwo"},
		{"kept when asked for", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive", "one"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, in := r.dial()
			_, _ = io.WriteString(conn, c.send)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			connection := "keep-alive"
			if resp.Close {
				connection = "close"
			}
			if err != nil || string(body) != c.body || connection != c.connection || resp.TransferEncoding != nil {
				t.Errorf("answer %q, %v, connection %s, coding %v; want %q, %s and no coding", body, err, connection, resp.TransferEncoding, c.body, c.connection)
			}
		})
	}
}

// TestAppClosesKeptConnections is an app that closes each connection after its first answer without
// saying so. Nothing of it may reach clients.
func TestAppClosesKeptConnections(t *testing.T) {
	app := rawApp(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	r := start(t, app, nil)
	for range 50 {
		if resp, body := r.get("/"); resp.StatusCode != http.StatusOK || body != "ok" {
			t.Fatalf("answer %d %q", resp.StatusCode, body)
		}
	}
}
