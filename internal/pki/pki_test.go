package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/pki"
)

func first(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM in %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func count(text []byte) int { return bytes.Count(text, []byte("BEGIN CERTIFICATE")) }

// TestRotation walks two years in steps of half a day, with every holder reading its Secret a step
// late: any two holders believe each other at every instant, nothing has less than a day left, and
// an authority is gone soon after its last certificate.
func TestRotation(t *testing.T) {
	t.Parallel()
	p := pki.DefaultPolicy()
	p.Overlap = 24 * time.Hour
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var authority pki.Authority
	var server, client, lateServer, lateClient pki.Pair
	authorities, leaves := map[string]bool{}, map[string]bool{}
	believes := func(now time.Time, holder, other pki.Pair, usage x509.ExtKeyUsage, name string) {
		t.Helper()
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(holder.CA)
		_, err := first(t, other.Cert).Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}, DNSName: name})
		if err != nil {
			t.Fatalf("at %v: %v", now, err)
		}
	}
	for now := start; now.Before(start.AddDate(2, 0, 0)); now = now.Add(12 * time.Hour) {
		var err error
		if authority, err = authority.Step(now, p, server, client); err != nil {
			t.Fatal(err)
		}
		if server, err = authority.Renew(server, pki.Gateway("ns"), now, p); err != nil {
			t.Fatal(err)
		}
		if client, err = authority.Renew(client, pki.Controller("ns"), now, p); err != nil {
			t.Fatal(err)
		}
		for _, pair := range []struct{ server, client pki.Pair }{{server, client}, {server, lateClient}, {lateServer, client}, {lateServer, lateClient}} {
			if pair.server.Cert == nil || pair.client.Cert == nil {
				continue
			}
			believes(now, pair.client, pair.server, x509.ExtKeyUsageServerAuth, "sluice-gateway.ns.svc")
			believes(now, pair.server, pair.client, x509.ExtKeyUsageClientAuth, "sluice-controller.ns.svc")
			if left := first(t, pair.server.Cert).NotAfter.Sub(now); left < 24*time.Hour {
				t.Fatalf("at %v: a certificate with %v left is in use", now, left)
			}
		}
		authorities[string(authority.Cert)], leaves[string(server.Cert)] = true, true
		if n := count(authority.Trusted); n > 2 {
			t.Fatalf("at %v: %d authorities are trusted, want at most 2", now, n)
		}
		lateServer, lateClient = server, client
	}
	if len(authorities) < 3 || len(leaves) < 8 {
		t.Errorf("%d authorities and %d certificates in two years: nothing was rotated", len(authorities), len(leaves))
	}
	if count(authority.Trusted) != 1 && len(authority.Next) == 0 && start.AddDate(2, 0, 0).Sub(authority.Since) > 3*p.Overlap {
		t.Error("an old authority is still trusted")
	}
}

// TestOldAuthorityStaysWhileInUse: the one before is trusted as long as a certificate of it is in
// use.
func TestOldAuthorityStaysWhileInUse(t *testing.T) {
	t.Parallel()
	p := pki.DefaultPolicy()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	step := func(a pki.Authority, issued ...pki.Pair) pki.Authority {
		t.Helper()
		next, err := a.Step(now, p, issued...)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	authority := step(pki.Authority{})
	old, err := authority.Renew(pki.Pair{}, pki.Gateway("ns"), now, p)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(p.CALife - p.CARenew)
	authority = step(authority, old)
	if len(authority.Next) == 0 || count(authority.Trusted) != 2 {
		t.Fatal("the next authority is not trusted ahead")
	}
	if again := step(authority, old); !bytes.Equal(again.Cert, authority.Cert) {
		t.Fatal("the next authority signs before it was trusted for the overlap")
	}
	now = now.Add(p.Overlap)
	authority = step(authority, old)
	now = now.Add(2 * p.Overlap)
	if authority = step(authority, old); count(authority.Trusted) != 2 {
		t.Fatal("the old authority is not trusted any more while a certificate of it is in use")
	}
	fresh, err := authority.Renew(old, pki.Gateway("ns"), now, p)
	if err != nil || bytes.Equal(fresh.Cert, old.Cert) {
		t.Fatalf("the certificate of the old authority was kept: %v", err)
	}
	if authority = step(authority, fresh); count(authority.Trusted) != 1 {
		t.Error("the old authority is trusted although nothing of it is in use")
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	p := pki.DefaultPolicy()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	authority, err := pki.Authority{}.Step(now, p)
	if err != nil {
		t.Fatal(err)
	}
	good, err := authority.Renew(pki.Pair{}, pki.Gateway("ns"), now, p)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := pki.Authority{}.Step(now, p)
	foreign, _ := other.Renew(pki.Pair{}, pki.Gateway("ns"), now, p)
	elsewhere, _ := authority.Renew(pki.Pair{}, pki.Gateway("elsewhere"), now, p)
	client, _ := authority.Renew(pki.Pair{}, pki.Controller("ns"), now, p)
	torn := good
	torn.Key = foreign.Key
	for name, tc := range map[string]struct {
		have pki.Pair
		at   time.Duration
		kept bool
	}{
		"young":             {good, 0, true},
		"in its last month": {good, p.LeafLife - p.LeafRenew, false},
		"of another CA":     {foreign, 0, false},
		"of another name":   {elsewhere, 0, false},
		"of another use":    {client, 0, false},
		"not its key":       {torn, 0, false},
		"rubbish":           {pki.Pair{Cert: []byte("x")}, 0, false},
	} {
		got, err := authority.Renew(tc.have, pki.Gateway("ns"), now.Add(tc.at), p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if kept := bytes.Equal(got.Cert, tc.have.Cert); kept != tc.kept {
			t.Errorf("%s: kept %v, want %v", name, kept, tc.kept)
		}
		if _, err := tls.X509KeyPair(got.Cert, got.Key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLoader reads files again when they change, and keeps the last good pair while they are at
// fault.
func TestLoader(t *testing.T) {
	t.Parallel()
	p := pki.DefaultPolicy()
	now := time.Now()
	authority, err := pki.Authority{}.Step(now, p)
	if err != nil {
		t.Fatal(err)
	}
	issue := func() pki.Pair {
		pair, err := authority.Renew(pki.Pair{}, pki.Gateway("ns"), now, p)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	dir := t.TempDir()
	f := pki.Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
	at := time.Unix(1000, 0)
	write := func(path string, data []byte) {
		t.Helper()
		at = at.Add(time.Second)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	load := f.Loader()
	if _, err := load(); err == nil {
		t.Error("no files: want an error")
	}
	a, b := issue(), issue()
	write(f.Cert, a.Cert)
	write(f.Key, a.Key)
	write(f.CA, a.CA)
	holds := func(what string, want pki.Pair) {
		t.Helper()
		if got, err := load(); err != nil || !bytes.Equal(got.Cert, want.Cert) {
			t.Errorf("%s: another pair, %v", what, err)
		}
	}
	holds("at first", a)
	write(f.Cert, b.Cert)
	holds("half replaced", a)
	write(f.Key, b.Key)
	holds("replaced", b)
	_ = os.Remove(f.CA)
	holds("without a file", b)
}

// TestServerChecks dials a server of ServerConfig with every kind of client.
func TestServerChecks(t *testing.T) {
	t.Parallel()
	p := pki.DefaultPolicy()
	now := time.Now()
	authority, _ := pki.Authority{}.Step(now, p)
	server, _ := authority.Renew(pki.Pair{}, pki.Gateway("ns"), now, p)
	client, _ := authority.Renew(pki.Pair{}, pki.Controller("ns"), now, p)
	elsewhere, _ := authority.Renew(pki.Pair{}, pki.Controller("elsewhere"), now, p)
	for name, tc := range map[string]struct {
		pair pki.Pair
		want bool
	}{"controller": {client, true}, "controller of another namespace": {elsewhere, false}, "gateway": {server, false}} {
		a, b := net.Pipe()
		done := make(chan error, 1)
		go func() {
			conn := tls.Server(a, pki.ServerConfig(func() (pki.Pair, error) { return server, nil }, "sluice-controller.ns.svc"))
			err := conn.Handshake()
			_ = a.Close()
			done <- err
		}()
		config, err := pki.ClientConfig(tc.pair, "sluice-gateway.ns.svc")
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(b, config)
		_ = conn.Handshake() // in TLS 1.3 the client may be done before it is refused
		_, _ = conn.Read(make([]byte, 1))
		if err := <-done; (err == nil) != tc.want {
			t.Errorf("%s: handshake %v, want success %v", name, err, tc.want)
		}
		_ = b.Close()
	}
}
