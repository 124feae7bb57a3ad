package sidecar_test

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

// askAs sends GET path to the metrics port at an address, as a peer of another; no header if
// authorization is empty. more are other header fields, Host among them.
func (r *running) askAs(local, peer, path, authorization string, more ...string) *httptest.ResponseRecorder {
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.Host = local
	for i := 0; i < len(more); i += 2 {
		if req.Header.Set(more[i], more[i+1]); more[i] == "Host" {
			req.Host = more[i+1]
			req.Header.Del("Host")
		}
	}
	req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, net.Addr(at)))
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
		local               string // empty: the same address as peer's
		peer, authorization string
		more                []string // header fields
		want                int
	}{
		{name: "the pod itself", peer: "127.0.0.1:4711", want: http.StatusOK},
		{name: "the pod itself by another loopback address", peer: "127.8.9.10:4711", want: http.StatusOK},
		{name: "the pod itself over IPv6", peer: "[::1]:4711", want: http.StatusOK},
		{name: "the pod itself, IPv4 in IPv6", peer: "[::ffff:127.0.0.1]:4711", want: http.StatusOK},
		{name: "the pod itself by localhost", peer: "127.0.0.1:4711", more: []string{"Host", "localhost:9095"}, want: http.StatusOK},
		{name: "the pod itself by an address without a port", peer: "[::1]:4711", more: []string{"Host", "[::1]"}, want: http.StatusOK},
		{name: "the pod itself with the token", token: "secret\n", peer: "127.0.0.1:4711", authorization: "Bearer secret", want: http.StatusOK},
		{name: "the pod itself without the token that there is", token: "secret\n", peer: "127.0.0.1:4711", want: http.StatusForbidden},
		// Through a proxy in the pod that passes requests from the network on to 127.0.0.1:9095.
		{name: "another through a proxy that keeps the host", peer: "127.0.0.1:4711", more: []string{"Host", "web.example"}, want: http.StatusForbidden},
		{name: "another that names no host", peer: "127.0.0.1:4711", more: []string{"Host", ""}, want: http.StatusForbidden},
		{name: "another through a proxy with X-Forwarded-For", peer: "127.0.0.1:4711", more: []string{"X-Forwarded-For", "192.0.2.7"}, want: http.StatusForbidden},
		{name: "another through a proxy with X-Forwarded-Proto", peer: "127.0.0.1:4711", more: []string{"X-Forwarded-Proto", "http"}, want: http.StatusForbidden},
		{name: "another through a proxy with Forwarded", peer: "127.0.0.1:4711", more: []string{"Forwarded", "for=192.0.2.7"}, want: http.StatusForbidden},
		{name: "another through a proxy with Via", peer: "127.0.0.1:4711", more: []string{"Via", "1.1 edge"}, want: http.StatusForbidden},
		{name: "another through nginx", peer: "127.0.0.1:4711", more: []string{"X-Real-Ip", "192.0.2.7"}, want: http.StatusForbidden},
		{name: "another through Envoy", peer: "127.0.0.1:4711", more: []string{"X-Envoy-External-Address", "192.0.2.7"}, want: http.StatusForbidden},
		{name: "the kubelet with the token", token: "secret\n", peer: far, authorization: "Bearer secret", want: http.StatusOK},
		{name: "another without a token", peer: far, want: http.StatusForbidden},
		{name: "another where there is no token", peer: far, authorization: "Bearer ", want: http.StatusForbidden},
		{name: "another that sends none", token: "secret", peer: far, want: http.StatusForbidden},
		{name: "another with a wrong token", token: "secret", peer: far, authorization: "Bearer secre", want: http.StatusForbidden},
		{name: "another with the token in another scheme", token: "secret", peer: far, authorization: "Basic secret", want: http.StatusForbidden},
		{name: "another when the file was emptied", token: "secret", emptied: true, peer: far, authorization: "Bearer ", want: http.StatusForbidden},
		{name: "another through a mesh's proxy in the pod", local: "10.1.2.3:9095", peer: "127.0.0.6:4711", want: http.StatusForbidden},
		{name: "the pod itself by its own address", local: "10.1.2.3:9095", peer: "10.1.2.3:4711", want: http.StatusForbidden},
		{name: "another over IPv6", peer: "[2001:db8::1]:4711", want: http.StatusForbidden},
		{name: "a peer without an address", local: "127.0.0.1:9095", peer: "", want: http.StatusForbidden},
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
			local := cmp.Or(c.local, c.peer)
			if got := r.askAs(local, c.peer, "/drain", c.authorization, c.more...); got.Code != c.want {
				t.Errorf("/drain = %d %q, want %d", got.Code, got.Body, c.want)
			}
			ready := http.StatusServiceUnavailable
			if c.want != http.StatusOK {
				ready = http.StatusOK // who is refused changes nothing
			}
			if got := r.askAs(local, c.peer, "/readyz", ""); got.Code != ready {
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
		if got := r.askAs("192.0.2.1:9095", "192.0.2.7:4711", "/drain", "Bearer "+c.token); got.Code != c.want {
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

// TestExampleDrains holds the token that the example's hook sends against the one that its sidecar
// reads.
func TestExampleDrains(t *testing.T) {
	text, err := os.ReadFile("../deploy/examples/web.yaml")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		found := regexp.MustCompile(pattern).FindSubmatch(text)
		if found == nil {
			t.Fatalf("the example has no %s", pattern)
		}
		return string(found[1])
	}
	if sent, kept := find(`value: Bearer ([^}\n]+)}`), find(`stringData: {drain-token: ([^}\n]+)}`); sent != kept {
		t.Errorf("the hook sends the token %q, the Secret holds %q", sent, kept)
	}
	if file, mount := find(`--drain-token-file=([^\],\s]+)`), find(`mountPath: ([^,\s]+)`); file != mount+"/drain-token" {
		t.Errorf("the sidecar reads %q, the Secret is mounted at %q", file, mount)
	}
}
