// Package pki issues the certificates by which Sluice's parts know one another, and makes the TLS
// configurations that check them. A certificate authority and all that it issues are values; the
// instant is an argument. Package secrets keeps them in a cluster.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Identity says whom a certificate is for.
type Identity struct {
	// Names are DNS names. The first is the one that the other side checks.
	Names []string
	// Usage is ServerAuth or ClientAuth, never both: a server's certificate is none of a client.
	Usage x509.ExtKeyUsage
}

// Adapter is the identity of the metrics APIs, which the API server calls.
func Adapter(namespace string) Identity { return server("sluice-adapter", namespace) }

// Gateway is the identity of all gateways of a namespace.
func Gateway(namespace string) Identity { return server("sluice-gateway", namespace) }

// Controller is the identity of controllers when they call gateways.
func Controller(namespace string) Identity {
	return Identity{Names: []string{"sluice-controller." + namespace + ".svc"}, Usage: x509.ExtKeyUsageClientAuth}
}

func server(name, namespace string) Identity {
	host := name + "." + namespace + ".svc"
	return Identity{Names: []string{host, name + "." + namespace, host + ".cluster.local"}, Usage: x509.ExtKeyUsageServerAuth}
}

// Pair is a certificate with its key and the authorities that its holder trusts, all PEM: what a
// Secret of type kubernetes.io/tls holds as tls.crt, tls.key and ca.crt.
type Pair struct{ Cert, Key, CA []byte }

// Policy says how long certificates live. The zero value is not of use; start from DefaultPolicy.
type Policy struct {
	// CALife is how long an authority is valid. CARenew before its end the next one is made; more
	// than LeafLife + 2 Overlap, so that no certificate outlives its authority.
	CALife, CARenew time.Duration
	// LeafLife is how long a certificate is valid; LeafRenew before its end it is replaced.
	LeafLife, LeafRenew time.Duration
	// Overlap is how long a new authority is trusted before it signs, and an old one after it has
	// signed its last. Longer than Secrets take to reach every pod: a kubelet's minute or two.
	Overlap time.Duration
}

// DefaultPolicy is authorities of a year, replaced in its last 120 days, certificates of 90 days,
// replaced in the last 30, and an hour of overlap.
func DefaultPolicy() Policy {
	const day = 24 * time.Hour
	return Policy{CALife: 365 * day, CARenew: 120 * day, LeafLife: 90 * day, LeafRenew: 30 * day, Overlap: time.Hour}
}

// Authority is a certificate authority with its past and its future. The zero value has none yet.
type Authority struct {
	// Cert and Key sign. Next and NextKey will; they are nil unless a change is under way.
	Cert, Key, Next, NextKey []byte
	// Trusted are all certificates to trust: that which signs, the next, and the one before.
	Trusted []byte
	// Since is when the last step of a change was done.
	Since time.Time
}

// Step makes the authority what it ought to be at an instant, one step of a change at a time: the next
// authority is trusted before it signs, and the one before until nothing of it is left in issued and
// has not been for the overlap. It returns the authority itself when there is nothing to do.
func (a Authority) Step(now time.Time, p Policy, issued ...Pair) (Authority, error) {
	current, err := parse(a.Cert)
	if err != nil || len(a.Key) == 0 || !now.Before(current.NotAfter) {
		cert, key, err := newAuthority(now, p)
		if err != nil {
			return a, err
		}
		return Authority{Cert: cert, Key: key, Trusted: cert, Since: now}, nil
	}
	switch {
	case len(a.Next) == 0 && !now.Before(current.NotAfter.Add(-p.CARenew)):
		next, key, err := newAuthority(now, p)
		if err != nil {
			return a, err
		}
		a.Next, a.NextKey, a.Since = next, key, now
		a.Trusted = join(a.Cert, next)
	case len(a.Next) > 0 && now.Sub(a.Since) >= p.Overlap:
		before := a.Cert
		a.Cert, a.Key, a.Next, a.NextKey, a.Since = a.Next, a.NextKey, nil, nil, now
		a.Trusted = join(a.Cert, before)
	case len(a.Next) == 0 && !bytes.Equal(a.Trusted, a.Cert) && now.Sub(a.Since) >= p.Overlap:
		for _, pair := range issued {
			if leaf, err := parse(pair.Cert); err == nil && leaf.CheckSignatureFrom(current) != nil {
				return a, nil // signed by the one before
			}
		}
		a.Trusted = a.Cert
	}
	return a, nil
}

// Renew returns the pair when it is good for id at an instant, with what is to be trusted brought up to
// date, and a new one otherwise.
func (a Authority) Renew(have Pair, id Identity, now time.Time, p Policy) (Pair, error) {
	ca, err := parse(a.Cert)
	if err != nil {
		return have, fmt.Errorf("read the authority: %w", err)
	}
	if leaf, err := parse(have.Cert); err == nil && good(leaf, ca, id, now.Add(p.LeafRenew)) {
		if _, err := tls.X509KeyPair(have.Cert, have.Key); err == nil {
			have.CA = a.Trusted
			return have, nil
		}
	}
	return a.issue(ca, id, now, p)
}

// good tells whether a certificate is the authority's, for id, and valid until an instant.
func good(leaf, ca *x509.Certificate, id Identity, until time.Time) bool {
	if leaf.CheckSignatureFrom(ca) != nil || !until.Before(leaf.NotAfter) || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != id.Usage {
		return false
	}
	for _, name := range id.Names {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func (a Authority) issue(ca *x509.Certificate, id Identity, now time.Time, p Policy) (Pair, error) {
	signer, err := tls.X509KeyPair(a.Cert, a.Key)
	if err != nil {
		return Pair{}, fmt.Errorf("read the authority's key: %w", err)
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: id.Names[0]}, DNSNames: id.Names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{id.Usage}, BasicConstraintsValid: true,
	}
	cert, err := sign(template, ca, key, signer.PrivateKey, now, p.LeafLife)
	if err != nil {
		return Pair{}, fmt.Errorf("issue a certificate for %s: %w", id.Names[0], err)
	}
	return Pair{Cert: cert, Key: keyPEM, CA: a.Trusted}, nil
}

func newAuthority(now time.Time, p Policy) (cert, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: fmt.Sprintf("sluice-ca@%d", now.Unix())},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	cert, err = sign(template, template, key, key, now, p.CALife)
	if err != nil {
		return nil, nil, fmt.Errorf("make an authority: %w", err)
	}
	return cert, keyPEM, nil
}

// backdate is by how much another machine's clock may be behind.
const backdate = 5 * time.Minute

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any, now time.Time, life time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-backdate), now.Add(life)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

var errNone = errors.New("no certificate")

// parse reads the first certificate of a PEM text.
func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errNone
	}
	return x509.ParseCertificate(block.Bytes)
}

func join(certs ...[]byte) []byte { return bytes.Join(certs, nil) }
