package sidecar_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

// pair is a certificate's files. Each write makes them a minute younger, because a file system's
// clock may not have moved between two writes.
type pair struct {
	t         *testing.T
	cert, key string
	written   time.Time
}

func newPair(t *testing.T) *pair {
	dir := t.TempDir()
	return &pair{t: t, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), written: time.Unix(1e9, 0)}
}

// renew writes a new certificate, and returns by what it is known.
func (p *pair) renew() *x509.CertPool {
	p.t.Helper()
	roots := writeCertificate(p.t, p.cert, p.key)
	p.touch()
	return roots
}

func (p *pair) touch() {
	p.t.Helper()
	p.written = p.written.Add(time.Minute)
	for _, name := range []string{p.cert, p.key} {
		if err := os.Chtimes(name, p.written, p.written); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.touch()
}

func (p *pair) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// TestCertificateReload goes through the life of a certificate's files, on a clock of its own: they
// are looked at every ten seconds, when a client comes.
func TestCertificateReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := newPair(t)
		first := files.renew()
		var logged bytes.Buffer
		cfg, err := sidecar.Secured(files.cert, files.key, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		// dial connects through a server that echoes.
		dial := func(roots *x509.CertPool) (*tls.Conn, error) {
			here, there := net.Pipe()
			go func() {
				conn := tls.Server(there, cfg)
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
			conn := tls.Client(here, &tls.Config{RootCAs: roots, ServerName: "localhost"})
			if err := conn.Handshake(); err != nil {
				_ = here.Close()
				return nil, err
			}
			return conn, nil
		}
		serves := func(when string, roots *x509.CertPool, others ...*x509.CertPool) {
			t.Helper()
			conn, err := dial(roots)
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			_ = conn.NetConn().Close()
			for _, other := range others {
				if conn, err := dial(other); err == nil {
					_ = conn.NetConn().Close()
					t.Errorf("%s: another certificate is served still", when)
				}
			}
			synctest.Wait()
		}
		told := func(what string) {
			t.Helper()
			if got := logged.String(); strings.Count(got, "certificate not read again") != 1 || !strings.Contains(got, what) {
				t.Errorf("log %q, want one warning of %q", got, what)
			}
			logged.Reset()
		}

		old, err := dial(first)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = old.NetConn().Close() }()
		in := bufio.NewReader(old)
		lives := func(when string) {
			t.Helper()
			if _, err := io.WriteString(old, "hello\n"); err != nil {
				t.Fatalf("%s: the old connection: %v", when, err)
			}
			if got, err := in.ReadString('\n'); err != nil || got != "hello\n" {
				t.Fatalf("%s: the old connection: %q, %v", when, got, err)
			}
		}
		lives("before")

		time.Sleep(time.Minute)
		serves("unchanged", first)

		second := files.renew()
		serves("within ten seconds", first)
		time.Sleep(10 * time.Second)
		serves("renewed", second, first)
		lives("renewed")
		if logged.Len() > 0 {
			t.Errorf("log %q of what went well", logged.String())
		}

		cert, key := files.read(files.cert), files.read(files.key)
		files.write(files.cert, "-----BEGIN CERTIFICATE-----\nhalf of")
		time.Sleep(10 * time.Second)
		serves("half written", second, first)
		told("load certificate")
		time.Sleep(10 * time.Second)
		serves("half written still", second)
		told("load certificate") // again, every ten seconds in which clients come

		third := files.renew()
		whole := files.read(files.cert)
		files.write(files.cert, cert) // the key of another
		time.Sleep(10 * time.Second)
		serves("a key that does not fit", second, third)
		told("private key does not match")
		lives("a key that does not fit")

		if err := os.Remove(files.key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		serves("no key", second)
		told("key.pem")

		files.write(files.key, key)
		time.Sleep(10 * time.Second)
		serves("the second one again", second)
		files.write(files.cert, whole)
		fourth := files.renew()
		time.Sleep(10 * time.Second)
		serves("whole again", fourth, first, second, third)
		lives("whole again")
		if logged.Len() > 0 {
			t.Errorf("log %q of what went well", logged.String())
		}
	})
}

// TestCertificateAtStart refuses to start without one, and says which file it was.
func TestCertificateAtStart(t *testing.T) {
	files := newPair(t)
	files.renew()
	for name, spoil := range map[string]func(){
		"cert.pem":                    func() { _ = os.Remove(files.cert) },
		"key.pem":                     func() { _ = os.Remove(files.key) },
		"failed to find any PEM data": func() { files.write(files.cert, "nothing") },
		"private key does not match":  func() { k := files.read(files.key); files.renew(); files.write(files.key, k) },
	} {
		t.Run(name, func(t *testing.T) {
			files.t = t
			files.renew()
			spoil()
			cfg := sidecar.Default()
			cfg.TLSCert, cfg.TLSKey = files.cert, files.key
			if _, err := sidecar.New(cfg, "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "load certificate") || !strings.Contains(err.Error(), name) {
				t.Errorf("New = %v, want an error of %q", err, name)
			}
		})
	}
}
