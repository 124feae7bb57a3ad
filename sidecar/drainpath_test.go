package sidecar_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

// askAs sends GET path to the metrics port as a peer of the address; no header if authorization is
// empty.
func (r *running) askAs(peer, path, authorization string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.RemoteAddr = peer
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	rec := httptest.NewRecorder()
	r.sidecar.MetricsHandler().ServeHTTP(rec, req)
	return rec
}

func TestWhoMayDrain(t *testing.T) {
	const far = "192.0.2.7:4711"
	cases := []struct {
		name                string
		token               string // of the file; empty: no file
		emptied             bool
		peer, authorization string
		want                int
	}{
		{name: "the pod itself", peer: "127.0.0.1:4711", want: http.StatusOK},
		{name: "the pod itself by another loopback address", peer: "127.8.9.10:4711", want: http.StatusOK},
		{name: "the pod itself over IPv6", peer: "[::1]:4711", want: http.StatusOK},
		{name: "the pod itself, IPv4 in IPv6", peer: "[::ffff:127.0.0.1]:4711", want: http.StatusOK},
		{name: "the pod itself where there is a token", token: "secret\n", peer: "127.0.0.1:4711", want: http.StatusOK},
		{name: "the kubelet with the token", token: "secret\n", peer: far, authorization: "Bearer secret", want: http.StatusOK},
		{name: "another without a token", peer: far, want: http.StatusForbidden},
		{name: "another where there is no token", peer: far, authorization: "Bearer ", want: http.StatusForbidden},
		{name: "another that sends none", token: "secret", peer: far, want: http.StatusForbidden},
		{name: "another with a wrong token", token: "secret", peer: far, authorization: "Bearer secre", want: http.StatusForbidden},
		{name: "another with the token in another scheme", token: "secret", peer: far, authorization: "Basic secret", want: http.StatusForbidden},
		{name: "another when the file was emptied", token: "secret", emptied: true, peer: far, authorization: "Bearer ", want: http.StatusForbidden},
		{name: "another over IPv6", peer: "[2001:db8::1]:4711", want: http.StatusForbidden},
		{name: "a peer without an address", peer: "", want: http.StatusForbidden},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
			file := filepath.Join(t.TempDir(), "token")
			if c.token != "" {
				if err := os.WriteFile(file, []byte(c.token), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := start(t, app, func(cfg *sidecar.Config) {
				if c.token != "" {
					cfg.DrainTokenFile = file
				}
			})
			if c.emptied {
				if err := os.Truncate(file, 0); err != nil {
					t.Fatal(err)
				}
			}
			if got := r.askAs(c.peer, "/drain", c.authorization); got.Code != c.want {
				t.Errorf("/drain = %d %q, want %d", got.Code, got.Body, c.want)
			}
			ready := http.StatusServiceUnavailable
			if c.want != http.StatusOK {
				ready = http.StatusOK // who is refused changes nothing
			}
			if got := r.askAs(c.peer, "/readyz", ""); got.Code != ready {
				t.Errorf("/readyz after it = %d %q, want %d", got.Code, got.Body, ready)
			}
		})
	}
}

func TestDrainTokenIsRotated(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	r := start(t, app, func(cfg *sidecar.Config) { cfg.DrainTokenFile = file })
	write("new")
	for _, c := range []struct {
		token string
		want  int
	}{{"old", http.StatusForbidden}, {"new", http.StatusOK}} {
		if got := r.askAs("192.0.2.7:4711", "/drain", "Bearer "+c.token); got.Code != c.want {
			t.Errorf("/drain with the %s token = %d %q, want %d", c.token, got.Code, got.Body, c.want)
		}
	}
}

func TestDrainTokenMustBeThere(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{filepath.Join(dir, "none"): "no such file", empty: "is empty"} {
		cfg := sidecar.Default()
		cfg.DrainTokenFile = file
		_, err := sidecar.New(cfg, "test", nil)
		if err == nil || !strings.Contains(err.Error(), "read the drain token: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
}
