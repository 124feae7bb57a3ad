package plugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

// TLS secures the connection; without it the connection is in the clear.
type TLS struct {
	// SecretRef names the Secret with the certificates, in the workload's namespace.
	SecretRef *SecretRef `json:"secretRef,omitempty"`
	// ServerName is the name that the server's certificate must have; empty takes the address's
	// host.
	ServerName string `json:"serverName,omitempty"`
	// CAFile holds the certificates to trust, PEM; empty trusts the system's. It and the other
	// files are for policies of Entry.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile are this client's certificate, PEM, both or neither.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// SecretRef names a Secret with keys as those of type kubernetes.io/tls: ca.crt holds the
// certificates to trust, tls.crt and tls.key this client's certificate, both or neither.
type SecretRef struct {
	Name string `json:"name"`
}

func (t *TLS) files() bool { return t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" }

// material is what a connection is secured with, PEM.
type material struct{ ca, cert, key []byte }

// credentials reads PEM; what names it in faults.
func (m material) credentials(serverName string, what [2]string) (credentials.TransportCredentials, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if m.ca != nil {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(m.ca) {
			return nil, fmt.Errorf("%s: holds no certificate", what[0])
		}
	}
	if m.cert != nil {
		pair, err := tls.X509KeyPair(m.cert, m.key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what[1], err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(cfg), nil
}

// link is the way to a policy's server. It is used by one request at a time.
type link struct {
	conn   *grpc.ClientConn
	client policy.PolicyClient
}

// connect makes a connection, which opens with the first request. Target and dial are grpc's; dial
// may be nil.
func (l *link) connect(target string, secure credentials.TransportCredentials, dial func(context.Context, string) (net.Conn, error)) error {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		// A server that was restarted is found within seconds, not minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: time.Second,
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		}),
	}
	if dial != nil {
		// There may be a connection for each workload, so none keeps large buffers or stays for
		// nothing, and a server decides neither how they are balanced nor how they are retried.
		options = append(options, grpc.WithContextDialer(dial), grpc.WithNoProxy(), grpc.WithReadBufferSize(connBuffer), grpc.WithWriteBufferSize(connBuffer),
			grpc.WithMaxHeaderListSize(maxHeaders), grpc.WithIdleTimeout(connIdle), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry())
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return fmt.Errorf("address = %q: %w", target, err)
	}
	l.conn, l.client = conn, policy.NewPolicyClient(conn)
	return nil
}

const (
	// connBuffer is a connection's buffer in each direction, maxHeaders bounds an answer's headers,
	// both in bytes.
	connBuffer, maxHeaders = 4 << 10, 16 << 10
	// connIdle is after how long an unused connection is closed.
	connIdle = 5 * time.Minute
)

func (l *link) close() error {
	if l.conn == nil {
		return nil
	}
	conn := l.conn
	l.conn, l.client = nil, nil
	return conn.Close()
}

// ask sends a request and checks the answer.
func (l *link) ask(ctx context.Context, in *policy.DecideRequest) (*policy.DecideResponse, error) {
	answer, err := l.client.Decide(ctx, in)
	if err != nil {
		st := status.Convert(err)
		return nil, &fault{class: classOf(st.Code()), err: fmt.Errorf("%s: %s", st.Code(), clip(st.Message(), maxText))}
	}
	if err := check(answer); err != nil {
		return nil, &fault{class: classBadAnswer, err: err}
	}
	return answer, nil
}

// openFiles makes the link of a policy of Entry.
func openFiles(c Config) (*link, error) {
	l := &link{}
	if c.TLS == nil {
		return l, l.connect(c.Address, insecure.NewCredentials(), nil)
	}
	if c.TLS.SecretRef != nil {
		return nil, errors.New("tls.secretRef: there are no Secrets here: want caFile, certFile and keyFile")
	}
	var m material
	for _, f := range []struct {
		name, path string
		to         *[]byte
	}{{"tls.caFile", c.TLS.CAFile, &m.ca}, {"tls.certFile, tls.keyFile", c.TLS.CertFile, &m.cert}, {"tls.certFile, tls.keyFile", c.TLS.KeyFile, &m.key}} {
		if f.path == "" {
			continue
		}
		raw, err := os.ReadFile(f.path)
		if err != nil {
			return nil, catalog.Temporary(fmt.Errorf("%s: %w", f.name, err))
		}
		*f.to = raw
	}
	secure, err := m.credentials(c.TLS.ServerName, [2]string{"tls.caFile = " + c.TLS.CAFile, "tls.certFile, tls.keyFile"})
	if err != nil {
		return nil, catalog.Temporary(err)
	}
	return l, l.connect(c.Address, secure, nil)
}

// class is all that the owner of a workload is told about a failure of a Broker's: more would tell
// what listens where in the network.
type class string

const (
	classUnreachable class = "it cannot be reached"
	classTimeout     class = "it did not answer in time"
	classBadAnswer   class = "it gave no valid answer"
	classSecret      class = "the Secret of tls.secretRef cannot be used"
	classCrowded     class = "too many requests to policy servers are under way"
)

func classOf(c codes.Code) class {
	switch c {
	case codes.DeadlineExceeded, codes.Canceled:
		return classTimeout
	case codes.Unavailable:
		return classUnreachable
	default:
		return classBadAnswer
	}
}

// fault is a failure with its class.
type fault struct {
	class class
	err   error
}

// Error implements error with the details.
func (f *fault) Error() string { return f.err.Error() }

// Unwrap returns the details.
func (f *fault) Unwrap() error { return f.err }
