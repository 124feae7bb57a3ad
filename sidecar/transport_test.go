package sidecar_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// writeCertificate writes a new self-signed certificate for localhost.
func writeCertificate(t *testing.T, cert, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

func TestTLS(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, req.Proto+" "+req.Header.Get("X-Forwarded-Proto"))
	})
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	roots := writeCertificate(t, cert, key)
	r := start(t, app, func(c *sidecar.Config) { c.TLSCert, c.TLSKey = cert, key })
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		p := new(http.Protocols)
		p.SetHTTP1(proto == "HTTP/1.1")
		p.SetHTTP2(proto == "HTTP/2.0")
		client := &http.Client{Transport: &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}}
		for range 2 {
			resp, err := client.Get("https://" + r.addr)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got, want := string(body), proto+" https"; got != want {
				t.Errorf("the app was asked by %q, want %q", got, want)
			}
		}
		client.CloseIdleConnections()
	}
	r.wait(4, wire.Requests, "code", "2xx")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	defer func() {
		_ = srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("app: %v", err)
		}
	}()
	r := start(t, "unix:"+path, func(c *sidecar.Config) { c.AppReadyPath = "/" })
	if resp, body := r.get("/"); resp.StatusCode != http.StatusOK || body != "ok" {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	if resp, body := r.get("metrics:/readyz"); resp.StatusCode != http.StatusOK {
		t.Errorf("readyz = %d %s", resp.StatusCode, body)
	}
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/stream":
			_ = http.NewResponseController(w).Flush()
		case "/begun":
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "o")
			_ = http.NewResponseController(w).Flush()
		}
		<-release
		_, _ = io.WriteString(w, "k")
	})
	expect504 := func(r *running) {
		t.Helper()
		resp, _ := r.get("/")
		if resp.StatusCode != http.StatusGatewayTimeout || resp.Header.Get("Sluice-Reason") != "app-timeout" {
			t.Errorf("answer %d %v, want 504 app-timeout", resp.StatusCode, resp.Header)
		}
		r.wait(1, "sluice_sidecar_refused_requests_total", "reason", "app-timeout")
		r.wait(0, wire.InFlight)
	}
	expect504(start(t, app, func(c *sidecar.Config) { c.ResponseTimeout = 100 * time.Millisecond }))
	r := start(t, app, func(c *sidecar.Config) { c.RequestTimeout = 100 * time.Millisecond })
	expect504(r)

	// An answer that has begun is cut, so that the client can tell.
	resp, err := r.client.Do(r.request(http.MethodGet, "/begun", nil))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("body %q came whole", body)
	}
	_ = resp.Body.Close()

	// A stream may take as long as it likes.
	began := time.Now()
	resp, err = r.client.Do(r.request(http.MethodGet, "/stream", nil))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if time.Since(began) < 500*time.Millisecond {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	close(release)
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "k" {
		t.Errorf("stream %q, %v", body, err)
	}
	_ = resp.Body.Close()

	// A head that does not come is not waited for.
	slow := start(t, app, func(c *sidecar.Config) { c.HeaderTimeout, c.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond })
	conn, in := slow.dial()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n")
	late, err := http.ReadResponse(in, nil)
	if err != nil || late.StatusCode != http.StatusRequestTimeout {
		t.Fatalf("answer %v, %v, want 408", late, err)
	}
	_ = late.Body.Close()
	_, in = slow.dial()
	expectEnd(t, in)
	conn, in = slow.dial()
	_, _ = io.WriteString(conn, "GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err = http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	expectEnd(t, in)
}
