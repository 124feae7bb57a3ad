package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

// Secrets reads Secrets.
type Secrets interface {
	// Secret returns what a Secret holds. It is bounded in size.
	Secret(ctx context.Context, namespace, name string) (map[string][]byte, error)
}

// Services finds Services.
type Services interface {
	// ClusterIP is the address of a Service that has one of its own.
	ClusterIP(ctx context.Context, namespace, name string) (netip.Addr, error)
}

// BrokerOptions configure a Broker. All fields are needed unless said otherwise.
type BrokerOptions struct {
	// Hosts are the servers that may be asked.
	Hosts Hosts
	// Services finds those of Hosts that are Services, Secrets what secures connections. Each may
	// be nil where there are none.
	Services Services
	Secrets  Secrets
	// Poke is told of workloads whose policy has a new answer. It must not wait.
	Poke  func(loop.Ref)
	Log   *slog.Logger
	Clock func() time.Time
}

// Broker makes policies whose servers are asked outside of rounds, for many owners. A round takes
// the last answer, with its age, and asks for the next one. It is safe for concurrent use.
type Broker struct {
	BrokerOptions

	mu sync.Mutex
	// asking counts the requests under way: in all, and by namespace.
	asking      int
	byNamespace map[string]int
}

const (
	// maxAsking bounds the requests under way, and maxAskingEach those of one namespace, so that no
	// namespace takes them all.
	maxAsking, maxAskingEach = 1024, 64
	// askGap is the least time between two requests of one policy.
	askGap = 500 * time.Millisecond
	// secretEvery is how long what a Secret holds is used, and secretRetry how long where it does
	// not reach the server.
	secretEvery, secretRetry = 5 * time.Minute, 10 * time.Second
	// maxPEM bounds what one key of a Secret holds, in bytes.
	maxPEM = 64 << 10
)

// NewBroker returns a Broker. It starts nothing.
func NewBroker(o BrokerOptions) *Broker {
	return &Broker{BrokerOptions: o, byNamespace: map[string]int{}}
}

// Entry is the policy's entry for the catalog of one workload. A policy that it makes is to be
// closed after use.
func (b *Broker) Entry(ref loop.Ref) catalog.Entry {
	return entry(func(c Config, target float64) (*Policy, error) { return b.open(ref, c, target) })
}

// open makes a policy. It does no I/O, but for policies that may ask any server: those are the
// user's own, as Entry's are.
func (b *Broker) open(ref loop.Ref, c Config, target float64) (*Policy, error) {
	p, err := build(c, target)
	if err != nil {
		return nil, err
	}
	f := &flight{broker: b, ref: ref, link: &link{}, cfg: c}
	if b.Hosts.any {
		if f.link, err = openFiles(c); err != nil {
			return nil, err
		}
		p.flight, p.link = f, f.link
		return p, nil
	}
	p.flight, p.link = f, f.link
	if c.TLS != nil && c.TLS.files() {
		return nil, errors.New("tls.caFile, tls.certFile, tls.keyFile: no files are read here: want tls.secretRef, the name of a Secret with ca.crt, tls.crt and tls.key")
	}
	if c.TLS != nil && c.TLS.SecretRef != nil && b.Secrets == nil {
		return nil, errors.New("tls.secretRef: there are no Secrets here")
	}
	if f.server, err = b.Hosts.find(c.Address, ref.Namespace); err != nil {
		return nil, err
	}
	return p, nil
}

// acquire takes a place among the requests under way.
func (b *Broker) acquire(namespace string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asking >= maxAsking || b.byNamespace[namespace] >= maxAskingEach {
		return false
	}
	b.asking++
	b.byNamespace[namespace]++
	return true
}

func (b *Broker) release(namespace string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking--
	if b.byNamespace[namespace]--; b.byNamespace[namespace] == 0 {
		delete(b.byNamespace, namespace)
	}
}

var (
	// errPending says that the server was not heard of yet.
	errPending = errors.New("it has not answered yet")
	// errStale says that the last answer is too old.
	errStale = errors.New("its last answer is too old")
)

// outcome is what became of a request: an answer, or a failure and its class.
type outcome struct {
	answer *policy.DecideResponse
	err    error
	class  class
	// asked is when the request was made.
	asked time.Time
}

// flight asks a policy's server, one request at a time, outside of the workload's rounds.
type flight struct {
	broker *Broker
	ref    loop.Ref
	cfg    Config
	server server

	// link, secret and readAt belong to the request under way, else to the policy: what secures the
	// connection and when it was read.
	link   *link
	secret *material
	readAt time.Time

	// last and askedAt are the rounds' own: the last outcome, and when a request was made last.
	last    *outcome
	askedAt time.Time

	mu sync.Mutex
	// cancel ends the request under way and done is closed at its end; nil when there is none.
	cancel context.CancelFunc
	done   chan struct{}
	// arrived is an outcome that no round has seen; newest the last that arrived.
	arrived, newest *outcome
}

// consult takes the last outcome, and asks for the next one.
func (f *flight) consult(p *Policy, o algorithms.Observation) (algorithms.Decision, error) {
	f.mu.Lock()
	arrived, idle := f.arrived, f.done == nil
	f.arrived = nil
	f.mu.Unlock()
	if arrived != nil {
		f.last = arrived
		p.count(o.Now, arrived.answer, arrived.err)
	}
	closed := p.open(o.Now)
	now, crowded := f.broker.Clock(), false
	if closed == nil && idle && now.Sub(f.askedAt) >= askGap {
		if crowded = !f.start(p.request(o), now); !crowded {
			f.askedAt = now
		}
	}
	switch l := f.last; {
	case closed != nil:
		return algorithms.Decision{}, closed
	case l == nil && crowded:
		return algorithms.Decision{}, errors.New(string(classCrowded))
	case l == nil:
		return algorithms.Decision{}, errPending
	case l.err != nil:
		return algorithms.Decision{}, errors.New(string(l.class)) // the details are the log's
	}
	age := now.Sub(f.last.asked)
	if age > time.Duration(p.cfg.MaxAge) {
		return algorithms.Decision{}, fmt.Errorf("%w: %s, at most %s count", errStale, age.Round(time.Second), time.Duration(p.cfg.MaxAge))
	}
	d := decision(f.last.answer, o)
	if d.Next > 0 {
		d.Next = max(d.Next-age, minNext)
	}
	if !o.Quiet {
		d.Message += fmt.Sprintf(" (%s ago)", age.Round(time.Millisecond))
		d.Terms = append(d.Terms, algorithms.Term{Name: "answerAge", Value: age.Seconds()})
	}
	return d, nil
}

// start sends a request in the background. It says false where there is no place for it.
func (f *flight) start(in *policy.DecideRequest, now time.Time) bool {
	if !f.broker.acquire(f.ref.Namespace) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(f.cfg.Timeout))
	f.mu.Lock()
	f.cancel, f.done = cancel, make(chan struct{})
	f.mu.Unlock()
	go func() {
		out := outcome{asked: now}
		if out.answer, out.err = f.ask(ctx, in); out.err != nil {
			out.class = classBadAnswer
			if failure, ok := errors.AsType[*fault](out.err); ok {
				out.class = failure.class
			}
		}
		cancel()
		f.broker.release(f.ref.Namespace)
		f.arrive(&out)
	}()
	return true
}

// arrive keeps an outcome for the next round, and asks for that round if it has news.
func (f *flight) arrive(out *outcome) {
	f.mu.Lock()
	before := f.newest
	f.mu.Unlock()
	if out.err != nil && (before == nil || before.class != out.class) {
		f.broker.Log.Warn("policy server failed, will retry", slog.String("workload", f.ref.String()), slog.String("address", f.cfg.Address),
			slog.String("class", string(out.class)), slog.Any("error", out.err))
	}
	f.mu.Lock()
	f.arrived, f.newest = out, out
	close(f.done)
	f.cancel, f.done = nil, nil
	f.mu.Unlock()
	if out.err == nil && (before == nil || before.err != nil ||
		before.answer.GetReplicas() != out.answer.GetReplicas() || before.answer.GetValid() != out.answer.GetValid()) {
		f.broker.Poke(f.ref)
	}
}

// close ends the request under way, and waits for that.
func (f *flight) close() {
	f.mu.Lock()
	cancel, done := f.cancel, f.done
	f.mu.Unlock()
	if done != nil {
		cancel()
		<-done
	}
}

// ask connects where that is needed, and asks. A panic, over what a server answers, ends here.
func (f *flight) ask(ctx context.Context, in *policy.DecideRequest) (answer *policy.DecideResponse, err error) {
	defer func() {
		if r := recover(); r != nil {
			answer, err = nil, &fault{classBadAnswer, fmt.Errorf("asking panicked: %v", r)}
		}
	}()
	if err := f.connect(ctx); err != nil {
		return nil, err
	}
	answer, err = f.link.ask(ctx, in)
	if failure, ok := errors.AsType[*fault](err); ok && failure.class == classUnreachable && f.secret != nil && f.broker.Clock().Sub(f.readAt) >= secretRetry {
		f.readAt = time.Time{} // the certificates may have been replaced
	}
	return answer, err
}

// connect makes the connection, again when what secures it has changed.
func (f *flight) connect(ctx context.Context) error {
	if f.broker.Hosts.any {
		return nil
	}
	secure := insecure.NewCredentials()
	if tls := f.cfg.TLS; tls != nil {
		if f.link.conn != nil && f.broker.Clock().Sub(f.readAt) < secretEvery {
			return nil
		}
		m, err := f.material(ctx)
		if err == nil {
			secure, err = m.credentials(tls.ServerName, [2]string{"ca.crt", "tls.crt, tls.key"})
		}
		if err != nil {
			return &fault{classSecret, err}
		}
		f.readAt = f.broker.Clock()
		if f.link.conn != nil && f.secret.equal(m) {
			return nil
		}
		f.secret = m
		if err := f.link.close(); err != nil {
			return &fault{classUnreachable, err}
		}
	}
	if f.link.conn != nil {
		return nil
	}
	target := "passthrough:///" + net.JoinHostPort(f.server.host, strconv.Itoa(int(f.server.port)))
	if err := f.link.connect(target, secure, f.dial); err != nil {
		return &fault{classUnreachable, err}
	}
	return nil
}

// material reads the Secret of TLS.
func (f *flight) material(ctx context.Context) (*material, error) {
	m := &material{}
	ref := f.cfg.TLS.SecretRef
	if ref == nil {
		return m, nil
	}
	data, err := f.broker.Secrets.Secret(ctx, f.ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", f.ref.Namespace, ref.Name, err)
	}
	m.ca, m.cert, m.key = data["ca.crt"], data["tls.crt"], data["tls.key"]
	if len(m.ca) > maxPEM || len(m.cert) > maxPEM || len(m.key) > maxPEM {
		return nil, fmt.Errorf("the Secret %s/%s has a key of more than %d bytes", f.ref.Namespace, ref.Name, maxPEM)
	}
	return m, nil
}

func (m *material) equal(o *material) bool {
	return m != nil && bytes.Equal(m.ca, o.ca) && bytes.Equal(m.cert, o.cert) && bytes.Equal(m.key, o.key)
}

// dial opens a connection to the server, at the address that it has now.
func (f *flight) dial(ctx context.Context, _ string) (net.Conn, error) {
	host := f.server.host
	if f.server.service != "" {
		ip, err := f.broker.Services.ClusterIP(ctx, f.server.namespace, f.server.service)
		if err != nil {
			return nil, err
		}
		host = ip.String()
	}
	// An address in the controller's own list is what its operator has written there.
	_, err := netip.ParseAddr(f.server.host)
	return dialer(err == nil).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(f.server.port))))
}
