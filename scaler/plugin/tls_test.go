package plugin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

// certificate makes one that signs itself and names policy.test, and the files that hold it.
func certificate(t *testing.T) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "policy"}, DNSNames: []string{"policy.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return cert, certFile, keyFile
}

// The server shows its certificate and asks for the client's; a client that trusts another one, or
// shows none, holds.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, certFile, keyFile := certificate(t)
	_, otherFile, _ := certificate(t)
	trusted := x509.NewCertPool()
	trusted.AddCert(cert.Leaf)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, MinVersion: tls.VersionTLS12})))
	policy.RegisterPolicyServer(s, &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		return &policy.DecideResponse{Valid: true, Replicas: 7}, nil
	}})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for name, c := range map[string]struct {
		tls  *plugin.TLS
		want bool
	}{
		"both":           {&plugin.TLS{CAFile: certFile, ServerName: "policy.test", CertFile: certFile, KeyFile: keyFile}, true},
		"other ca":       {&plugin.TLS{CAFile: otherFile, ServerName: "policy.test", CertFile: certFile, KeyFile: keyFile}, false},
		"other name":     {&plugin.TLS{CAFile: certFile, ServerName: "other.test", CertFile: certFile, KeyFile: keyFile}, false},
		"no certificate": {&plugin.TLS{CAFile: certFile, ServerName: "policy.test"}, false},
		"in the clear":   {nil, false},
	} {
		cfg := config(l.Addr().String())
		cfg.TLS = c.tls
		if d := open(t, cfg).Decide(at(0, 1)); d.Valid != c.want || (c.want && d.Replicas != 7) {
			t.Errorf("%s: %+v, want valid %t", name, d, c.want)
		}
	}
}

// A file that is missing, half written or of another pair may be mended while the parameters stay
// as they are; a wrong parameter may not.
func TestFileFaultsAreTemporary(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := certificate(t)
	_, otherFile, _ := certificate(t)
	good, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(t.TempDir(), "ca.pem")
	policies := catalog.Default(plugin.Entry())
	try := func(tls plugin.TLS, more string) error {
		raw, err := json.Marshal(tls)
		if err != nil {
			t.Fatal(err)
		}
		p, err := policies.New(plugin.Name, 10, json.RawMessage(`{"address":"127.0.0.1:1","tls":`+string(raw)+more+`}`))
		if closer, ok := p.(*plugin.Policy); ok {
			return errors.Join(err, closer.Close())
		}
		return err
	}
	for name, c := range map[string]struct {
		tls       plugin.TLS
		more      string
		temporary bool
		want      string
	}{
		"no such ca":     {plugin.TLS{CAFile: late}, "", true, "tls.caFile: open " + late},
		"no such pair":   {plugin.TLS{CertFile: late, KeyFile: keyFile}, "", true, "tls.certFile, tls.keyFile"},
		"another key":    {plugin.TLS{CertFile: otherFile, KeyFile: keyFile}, "", true, "tls.certFile, tls.keyFile"},
		"no key":         {plugin.TLS{CertFile: certFile}, "", false, "both or neither"},
		"a wrong number": {plugin.TLS{CAFile: late}, `,"timeout":"1h"`, false, "timeout"},
		"a wrong name":   {plugin.TLS{CAFile: late}, `,"time":"1s"`, false, "unknown parameter"},
	} {
		err := try(c.tls, c.more)
		if err == nil || errors.Is(err, catalog.ErrTemporary) != c.temporary || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to name %q and to be temporary: %t", name, err, c.want, c.temporary)
		}
	}

	for step, content := range [][]byte{nil, good[:len(good)/2], good} {
		if content != nil {
			if err := os.WriteFile(late, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := try(plugin.TLS{CAFile: late}, "")
		if last := step == 2; last != (err == nil) || !last && !errors.Is(err, catalog.ErrTemporary) {
			t.Errorf("with %d bytes of the file: %v, want a temporary fault until it is whole", len(content), err)
		}
	}
}
