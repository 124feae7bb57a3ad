package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/testbed/internal/pki"
)

func authority(t *testing.T, name string) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *pki.Authority, id pki.Identity) tls.Certificate {
	t.Helper()
	pair, err := a.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// handshake returns the identity that a server sees, or the error of either side.
func handshake(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close() //nolint:errcheck // a pipe in memory
	defer b.Close() //nolint:errcheck // a pipe in memory
	deadline := time.Now().Add(5 * time.Second)
	if err := a.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if err := b.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	clientErr := make(chan error, 1)
	go func() {
		conn := tls.Client(b, client)
		err := conn.Handshake()
		if err == nil {
			// TLS 1.3 tells of a refused client certificate only now
			_, err = conn.Read(make([]byte, 1))
		}
		clientErr <- err
	}()
	conn := tls.Server(a, server)
	err := conn.Handshake()
	if err == nil {
		_, err = conn.Write([]byte{1})
	} else {
		_ = a.Close() // frees the client
	}
	if cerr := <-clientErr; cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestHandshake(t *testing.T) {
	ours, other := authority(t, "ours"), authority(t, "other")
	addr := netip.MustParseAddr("198.18.0.1")
	serving := pki.Identity{Name: "server", Hosts: []string{"kubernetes"}, Addrs: []netip.Addr{addr}}
	admin := pki.Identity{Name: "admin", Groups: []string{"system:masters"}}
	for _, tc := range []struct {
		name     string
		serverBy *pki.Authority
		server   pki.Identity
		clientBy *pki.Authority
		dialed   string
		wantOK   bool
	}{
		{name: "by address", serverBy: ours, server: serving, clientBy: ours, dialed: "198.18.0.1", wantOK: true},
		{name: "by name", serverBy: ours, server: serving, clientBy: ours, dialed: "kubernetes", wantOK: true},
		{name: "by an address it has not", serverBy: ours, server: serving, clientBy: ours, dialed: "198.18.0.2"},
		{name: "server of another authority", serverBy: other, server: serving, clientBy: ours, dialed: "kubernetes"},
		{name: "client of another authority", serverBy: ours, server: serving, clientBy: other, dialed: "kubernetes"},
		{name: "client certificate that serves", serverBy: ours, server: admin, clientBy: ours, dialed: "admin"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen, err := handshake(t,
				&tls.Config{Certificates: []tls.Certificate{issue(t, tc.serverBy, tc.server)}, ClientCAs: ours.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
				&tls.Config{Certificates: []tls.Certificate{issue(t, tc.clientBy, admin)}, RootCAs: ours.Pool(), ServerName: tc.dialed},
			)
			if (err == nil) != tc.wantOK {
				t.Fatalf("handshake error = %v, want success: %v", err, tc.wantOK)
			}
			if err != nil {
				return
			}
			got := []string{seen.Subject.CommonName, seen.Subject.Organization[0]}
			if diff := cmp.Diff([]string{"admin", "system:masters"}, got); diff != "" {
				t.Errorf("client seen by the server (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKubeconfigIsSelfContained(t *testing.T) {
	a := authority(t, "ours")
	pair, err := a.Issue(pki.Identity{Name: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := pki.Kubeconfig("https://198.18.0.1:6443", a.PEM(), pair)
	if err != nil {
		t.Fatal(err)
	}
	got, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "https://198.18.0.1:6443" {
		t.Errorf("server = %q, want https://198.18.0.1:6443", got.Host)
	}
	if diff := cmp.Diff([][]byte{a.PEM(), pair.Cert, pair.Key}, [][]byte{got.CAData, got.CertData, got.KeyData}); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
}

func TestWriteKeepsKeysPrivate(t *testing.T) {
	pair, err := authority(t, "ours").Issue(pki.Identity{Name: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := pair.Write(t.TempDir(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Errorf("load what was written: %v", err)
	}
	info, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of key = %o, want 600", got)
	}
}
