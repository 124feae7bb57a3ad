package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// ServerConfig returns the configuration of a server that shows a pair's certificate and serves
// only clients whose certificate carries a name. Load is called at each handshake, so that a new
// pair needs no restart; connections that stand stay. When it fails, the handshake fails.
func ServerConfig(load func() (Pair, error), clientName string) *tls.Config {
	return serverConfig(load, func(c *tls.Config, pool *x509.CertPool) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool
		c.SessionTicketsDisabled = true // who comes again shows a certificate again
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err := s.PeerCertificates[0].VerifyHostname(clientName); err != nil {
				return fmt.Errorf("check the client's certificate: %w", err)
			}
			return nil
		}
	})
}

// AnyClientConfig is ServerConfig for a server that serves any client.
func AnyClientConfig(load func() (Pair, error)) *tls.Config {
	return serverConfig(load, func(*tls.Config, *x509.CertPool) {})
}

// serverConfig loads a pair at each handshake; edit sets what clients must show.
func serverConfig(load func() (Pair, error), edit func(c *tls.Config, authorities *x509.CertPool)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			p, err := load()
			if err != nil {
				return nil, err
			}
			cert, pool, err := p.read()
			if err != nil {
				return nil, err
			}
			c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
			edit(c, pool)
			return c, nil
		},
	}
}

// ClientConfig returns the configuration of a client that shows a pair's certificate and believes
// only a server whose certificate carries a name, whatever its address.
func ClientConfig(p Pair, serverName string) (*tls.Config, error) {
	cert, pool, err := p.read()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: serverName}, nil
}

// read decodes the pair.
func (p Pair) read() (tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return cert, nil, fmt.Errorf("read the certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(p.CA) {
		return cert, nil, errors.New("read the trusted authorities: no certificate in them")
	}
	return cert, pool, nil
}

// Files are a pair in files, such as a mounted Secret's.
type Files struct{ Cert, Key, CA string }

// Loader returns a function that reads the files again whenever one has changed. A pair that cannot
// be read, or does not match, as while files are being replaced, leaves the last good one in use.
// It is safe for concurrent use.
func (f Files) Loader() func() (Pair, error) {
	type stamp struct {
		at   time.Time
		size int64
	}
	var (
		mu   sync.Mutex
		seen [3]stamp
		pair Pair
		good bool
	)
	read := func() error {
		var now [3]stamp
		var next Pair
		for i, x := range []struct {
			path string
			into *[]byte
		}{{f.Cert, &next.Cert}, {f.Key, &next.Key}, {f.CA, &next.CA}} {
			info, err := os.Stat(x.path)
			if err != nil {
				return err
			}
			now[i] = stamp{info.ModTime(), info.Size()}
			if now[i] == seen[i] && good {
				*x.into = [][]byte{pair.Cert, pair.Key, pair.CA}[i]
				continue
			}
			if *x.into, err = os.ReadFile(x.path); err != nil {
				return err
			}
		}
		if now == seen && good {
			return nil
		}
		if _, _, err := next.read(); err != nil {
			return err
		}
		seen, pair, good = now, next, true
		return nil
	}
	return func() (Pair, error) {
		mu.Lock()
		defer mu.Unlock()
		if err := read(); err != nil && !good {
			return Pair{}, err
		}
		return pair, nil
	}
}
