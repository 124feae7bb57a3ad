package plugin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

// owner is the workload of the tests below.
var owner = loop.Ref{Driver: "kubernetes", Namespace: "shop", Kind: "Autoscaler.sluice.dev", Name: "web"}

// clock is a clock that a test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// bench is a Broker with what it was told and what it said.
type bench struct {
	*plugin.Broker
	clock clock
	pokes chan loop.Ref
	log   lockedText
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func broker(hosts plugin.Hosts, change func(*plugin.BrokerOptions)) *bench {
	b := &bench{pokes: make(chan loop.Ref, 1000)}
	b.clock.advance(time.Hour)
	o := plugin.BrokerOptions{
		Hosts: hosts, Clock: b.clock.now, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Poke: func(r loop.Ref) { b.pokes <- r },
	}
	if change != nil {
		change(&o)
	}
	b.Broker = plugin.NewBroker(o)
	return b
}

// open makes a policy of a workload; it is closed at the test's end.
func (b *bench) open(t *testing.T, ref loop.Ref, c plugin.Config) *plugin.Policy {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	made, err := catalog.Default(b.Entry(ref)).New(plugin.Name, 10, raw)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := made.(*plugin.Policy)
	if !ok {
		t.Fatalf("the entry makes %T", made)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// rounds decides again and again until a decision has the reason.
func (b *bench) rounds(t *testing.T, p *plugin.Policy, reason string) algorithms.Decision {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		b.clock.advance(time.Second)
		d := p.Decide(at(int(b.clock.now().Unix()), 30))
		if d.Reason == reason {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last decision is %+v, want the reason %s", d, reason)
		}
		time.Sleep(time.Millisecond)
	}
}

// Forty policies of another tenant that never answer take no time of the rounds, and no more than
// their namespace's share of the requests under way.
func TestBlackHolesDelayNobody(t *testing.T) {
	t.Parallel()
	hole, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hole.Close() })
	var asked atomic.Int64
	good := serve(t, &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		asked.Add(1)
		return &policy.DecideResponse{Valid: true, Replicas: 4}, nil
	}})
	b := broker(plugin.AnyHost(), nil)
	c := config(hole.Addr().String())
	c.Timeout = algorithms.Duration(10 * time.Second)
	var holes []*plugin.Policy
	for i := range 400 {
		holes = append(holes, b.open(t, loop.Ref{Namespace: "attacker", Name: fmt.Sprint(i)}, c))
	}
	victim := b.open(t, owner, config(good))
	begin := time.Now()
	crowded := 0
	for range 3 {
		b.clock.advance(time.Second)
		for _, p := range holes {
			d := p.Decide(at(0, 30))
			if d.Valid {
				t.Fatalf("Decide = %+v without an answer, want it to hold", d)
			}
			if strings.Contains(d.Message, "too many requests") {
				crowded++
			}
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("1200 rounds of policies that never answer took %s, want no waiting", took)
	}
	if crowded < 3*(400-64) {
		t.Errorf("%d decisions say that there is no place, want all but those of 64 policies", crowded)
	}
	if d := b.rounds(t, victim, "Plugin"); d.Replicas != 4 {
		t.Errorf("the victim's decision is %+v, want 4 pods", d)
	}
	if ref := <-b.pokes; ref != owner {
		t.Errorf("poked %v, want the victim", ref)
	}
}

// A round takes the last answer and says how old it is; one that is too old counts no more.
func TestAnswersAge(t *testing.T) {
	t.Parallel()
	var quiet atomic.Bool
	end := make(chan struct{})
	f := &fake{do: func(ctx context.Context, in *policy.DecideRequest) (*policy.DecideResponse, error) {
		if quiet.Load() {
			select {
			case <-ctx.Done():
			case <-end:
			}
			return nil, ctx.Err()
		}
		return &policy.DecideResponse{Valid: true, Replicas: 4, State: append(in.GetState(), 'x')}, nil
	}}
	address := serve(t, f)
	t.Cleanup(func() { close(end) })
	b := broker(plugin.AnyHost(), nil)
	c := config(address)
	c.Timeout = algorithms.Duration(10 * time.Second)
	p := b.open(t, owner, c)
	if d := p.Decide(at(0, 30)); d.Valid || d.Reason != "PluginPending" || !strings.Contains(d.Message, "holding") {
		t.Errorf("before any answer: %+v, want it to hold", d)
	}
	<-b.pokes
	b.clock.advance(100 * time.Millisecond) // too soon for another request
	if d := p.Decide(at(0, 30)); !d.Valid || d.Replicas != 4 || !strings.Contains(d.Message, "(100ms ago)") {
		t.Errorf("after the answer: %+v, want 4 pods, 100ms ago", d)
	}
	if n := f.calls.Load(); n != 1 {
		t.Errorf("%d requests within %s, want 1", n, 500*time.Millisecond)
	}
	quiet.Store(true)
	b.clock.advance(10 * time.Second)
	if d := p.Decide(at(10, 30)); !d.Valid || d.Replicas != 4 || d.Terms[len(d.Terms)-1] != (algorithms.Term{Name: "answerAge", Value: 10.1}) {
		t.Errorf("10.1 s later: %+v, want the same answer and its age", d)
	}
	b.clock.advance(5 * time.Second)
	if d := p.Decide(at(15, 30)); d.Valid || d.Reason != "PluginStale" || !strings.Contains(d.Message, "too old") {
		t.Errorf("15.1 s later: %+v, want it to hold", d)
	}
	begin := time.Now()
	if err := p.Close(); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("Close with a request under way: %v after %s, want it given up", err, time.Since(begin))
	}
}

// An answer that changes nothing asks for no round.
func TestPokesOfNews(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	f := &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		return &policy.DecideResponse{Valid: true, Replicas: n.Load()}, nil
	}}
	b := broker(plugin.AnyHost(), nil)
	p := b.open(t, owner, config(serve(t, f)))
	n.Store(4)
	b.rounds(t, p, "Plugin")
	<-b.pokes
	for f.calls.Load() < 4 {
		b.rounds(t, p, "Plugin")
	}
	if len(b.pokes) != 0 {
		t.Errorf("%d rounds asked for over answers of the same count, want none", len(b.pokes))
	}
	n.Store(5)
	for d := (algorithms.Decision{}); d.Replicas != 5; {
		d = b.rounds(t, p, "Plugin")
	}
	<-b.pokes
}

// What stands in status tells the class of a failure; the details are the log's.
func TestFailuresAreNoProbe(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // greets like an SSH server
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.9 secret-banner\r\n"))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	nobody, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	said := serve(t, &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		return nil, errors.New("secret-banner")
	}})
	nonsense := serve(t, &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		return &policy.DecideResponse{Valid: true, Replicas: -7771}, nil
	}})
	for name, c := range map[string]struct{ address, class, detail string }{
		"another protocol": {l.Addr().String(), "it cannot be reached", ""},
		"nobody listens":   {nobody.Addr().String(), "it cannot be reached", "refused"},
		"an error":         {said, "it gave no valid answer", "secret-banner"},
		"nonsense":         {nonsense, "it gave no valid answer", "-7771"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := broker(plugin.AnyHost(), nil)
			d := b.rounds(t, b.open(t, owner, config(c.address)), "PluginFailed")
			if want := "policy server " + c.address + ": " + c.class + "; holding"; d.Message != want {
				t.Errorf("the message is %q, want %q", d.Message, want)
			}
			if !strings.Contains(b.log.String(), c.detail) {
				t.Errorf("the log has %q, want the details with %q", b.log.String(), c.detail)
			}
		})
	}
}

// cluster is a fake of Services and Secrets.
type cluster struct {
	ips     map[string]netip.Addr
	mu      sync.Mutex
	secrets map[string]map[string][]byte
}

func (c *cluster) ClusterIP(_ context.Context, namespace, name string) (netip.Addr, error) {
	if ip, ok := c.ips[namespace+"/"+name]; ok {
		return ip, nil
	}
	return netip.Addr{}, errors.New("no such Service: detail")
}

func (c *cluster) Secret(_ context.Context, namespace, name string) (map[string][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if data, ok := c.secrets[namespace+"/"+name]; ok {
		return data, nil
	}
	return nil, errors.New("no such Secret: detail")
}

func (c *cluster) with(o *plugin.BrokerOptions) { o.Services, o.Secrets = c, c }

func hosts(t *testing.T, s string) plugin.Hosts {
	t.Helper()
	h, err := plugin.ParseHosts(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// An Autoscaler reaches the Services of its own namespace, or what the controller's operator lists,
// and names no file of the controller.
func TestWhatAPolicyMayReach(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ hosts, params, want string }{
		{"services", `"address":"policy:9090"`, ""},
		{"services", `"address":"policy.shop:9090"`, ""},
		{"services", `"address":"policy.shop.svc:9090"`, ""},
		{"services", `"address":"Policy.shop.svc.cluster.local.:9090"`, ""},
		{"services", `"address":"policy.bank:9090"`, "own namespace"},
		{"services", `"address":"policy.bank.svc.cluster.local:9090"`, "own namespace"},
		{"services", `"address":"policy.shop.example.com:9090"`, "own namespace"},
		{"services", `"address":"policy.shop.svc.cluster.local.example.com:9090"`, "own namespace"},
		{"services", `"address":"10.0.0.1:9090"`, "own namespace"},
		{"services", `"address":"127.0.0.1:9090"`, "own namespace"},
		{"services", `"address":"169.254.169.254:80"`, "own namespace"},
		{"services", `"address":"[::1]:9090"`, "own namespace"},
		{"services", `"address":"[::ffff:127.0.0.1]:9090"`, "own namespace"},
		{"services", `"address":"policy"`, "host:port"},
		{"services", `"address":"policy:http"`, "host:port"},
		{"services", `"address":"policy:0"`, "host:port"},
		{"services", `"address":"unix:///var/run/docker.sock"`, "host:port"},
		{"services", `"address":"unix-abstract:x"`, "host:port"},
		{"services", `"address":"dns:///policy.bank:9090"`, "host:port"},
		{"services", `"address":"passthrough:///10.0.0.1:80"`, "host:port"},
		{"services", `"address":"dns://10.0.0.1/policy:80"`, "host:port"},
		{"services", `"address":"policy%2eshop:80"`, "host:port"},
		{"services", `"address":"policy\u001b[31m:80"`, "host:port"},
		{"off", `"address":"policy:9090"`, "off"},
		{"policies.example.com:443,10.0.0.9", `"address":"policies.example.com:443"`, ""},
		{"policies.example.com:443,10.0.0.9", `"address":"policies.example.com:80"`, "allows"},
		{"policies.example.com:443,10.0.0.9", `"address":"10.0.0.9:1234"`, ""},
		{"policies.example.com:443,10.0.0.9", `"address":"policy:9090"`, "allows"},
		{"services,10.0.0.9", `"address":"policy:9090"`, ""},
		{"services", `"address":"policy:9090","tls":{"caFile":"/dev/zero"}`, "secretRef"},
		{"services", `"address":"policy:9090","tls":{"certFile":"/var/run/secrets/tls.crt","keyFile":"/var/run/secrets/tls.key"}`, "secretRef"},
		{"services", `"address":"policy:9090","tls":{"caFile":"/etc/passwd","secretRef":{"name":"a"}}`, "one of them"},
		{"services", `"address":"policy:9090","tls":{"secretRef":{}}`, "the name of a Secret"},
		{"services", `"address":"policy:9090","tls":{"secretRef":{"name":"a","namespace":"bank"}}`, "unknown"},
		{"services", `"address":"policy:9090","tls":{"secretRef":{"name":"a"}}`, ""},
	} {
		b := broker(hosts(t, c.hosts), (&cluster{}).with)
		made, err := catalog.Default(b.Entry(owner)).New(plugin.Name, 10, json.RawMessage("{"+c.params+"}"))
		if p, ok := made.(*plugin.Policy); ok {
			_ = p.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || errors.Is(err, catalog.ErrTemporary)) {
			t.Errorf("hosts %s, {%s}: %v, want %q", c.hosts, c.params, err, c.want)
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("hosts %s, {%s}: %q has control characters", c.hosts, c.params, err)
		}
	}
	for _, flag := range []string{"", "services,,a", "a:0", "a:http", "unix:///x", "a b", "http://a"} {
		if _, err := plugin.ParseHosts(flag); err == nil {
			t.Errorf("ParseHosts(%q) takes it", flag)
		}
	}
}

// A Service whose address is the controller's own, and a listed name that leads there, are not
// dialed, though something listens.
func TestNoDialToTheControllerItself(t *testing.T) {
	t.Parallel()
	f := &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		return &policy.DecideResponse{Valid: true, Replicas: 7}, nil
	}}
	_, port, err := net.SplitHostPort(serve(t, f))
	if err != nil {
		t.Fatal(err)
	}
	in := &cluster{ips: map[string]netip.Addr{
		"shop/loop": netip.MustParseAddr("127.0.0.1"), "shop/mapped": netip.MustParseAddr("::ffff:127.0.0.1"), "shop/any": netip.IPv4Unspecified(),
		"shop/link": netip.MustParseAddr("169.254.169.254"),
	}}
	for _, c := range []struct{ hosts, host string }{
		{"services", "loop"}, {"services", "mapped"}, {"services", "any"}, {"services", "link"}, {"services", "missing"}, {"localhost", "localhost"},
	} {
		b := broker(hosts(t, c.hosts), in.with)
		d := b.rounds(t, b.open(t, owner, config(net.JoinHostPort(c.host, port))), "PluginFailed")
		if !strings.Contains(d.Message, ": it cannot be reached; holding") || strings.Contains(d.Message, "detail") {
			t.Errorf("%s: %+v, want it not reached, and no details", c.host, d)
		}
	}
	if n := f.calls.Load(); n != 0 {
		t.Errorf("the server on the loopback was asked %d times", n)
	}
	b := broker(hosts(t, "127.0.0.1:"+port), in.with) // the operator's own word
	if d := b.rounds(t, b.open(t, owner, config("127.0.0.1:"+port)), "Plugin"); d.Replicas != 7 {
		t.Errorf("of a listed address: %+v, want 7 pods", d)
	}
}

// The connection is secured by a Secret of the workload's namespace, and by what it holds now.
func TestSecretRef(t *testing.T) {
	t.Parallel()
	cert, certFile, keyFile := certificate(t)
	_, otherFile, _ := certificate(t)
	read := func(name string) []byte {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
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
	in := &cluster{secrets: map[string]map[string][]byte{
		"shop/good":  {"ca.crt": read(certFile), "tls.crt": read(certFile), "tls.key": read(keyFile)},
		"shop/ca":    {"ca.crt": read(otherFile), "tls.crt": read(certFile), "tls.key": read(keyFile)},
		"shop/half":  {"tls.crt": read(certFile)},
		"shop/noise": {"ca.crt": []byte("noise")},
		"shop/huge":  {"ca.crt": make([]byte, 65<<10)},
		"bank/other": {"ca.crt": read(certFile), "tls.crt": read(certFile), "tls.key": read(keyFile)},
	}}
	address := l.Addr().String()
	for name, want := range map[string]string{
		"good": "", "ca": "cannot be reached", "half": "Secret of tls.secretRef cannot be used", "noise": "Secret of tls.secretRef cannot be used",
		"huge": "Secret of tls.secretRef cannot be used", "other": "Secret of tls.secretRef cannot be used", "none": "Secret of tls.secretRef cannot be used",
	} {
		b := broker(hosts(t, address), in.with)
		c := config(address)
		c.TLS = &plugin.TLS{SecretRef: &plugin.SecretRef{Name: name}, ServerName: "policy.test"}
		p := b.open(t, owner, c)
		if want == "" {
			b.rounds(t, p, "Plugin")
			continue
		}
		if d := b.rounds(t, p, "PluginFailed"); !strings.Contains(d.Message, want) || strings.Contains(d.Message, "detail") {
			t.Errorf("Secret %s: %q, want %q and no details", name, d.Message, want)
		}
		if name != "ca" {
			continue
		}
		in.mu.Lock()
		in.secrets["shop/ca"] = in.secrets["shop/good"]
		in.mu.Unlock()
		b.clock.advance(time.Minute)
		b.rounds(t, p, "Plugin")
	}
}

// FuzzAnswer gives a policy whatever a server may answer: a decision is within bounds, finite and
// printable, or none.
func FuzzAnswer(f *testing.F) {
	f.Add(int32(3), true, "Steady", "all is well", 1.5, "load", 2.0, 1, 10)
	f.Add(int32(-1), true, "", "", math.NaN(), "x", math.Inf(1), 101, 70<<10)
	f.Add(int32(math.MaxInt32), true, strings.Repeat("\x1b[31m", 100), "\x1b]0;title\a\r\nScalingActive is True", 1e-9, "a\x00b\u202e", 1e308, 100, 0)
	f.Fuzz(func(t *testing.T, replicas int32, valid bool, reason, message string, next float64, term string, value float64, terms, state int) {
		a := &policy.DecideResponse{Replicas: replicas, Valid: valid, Reason: reason, Message: message, Next: next, State: make([]byte, min(max(state, 0), 1<<20))}
		for range min(max(terms, 0), 1000) {
			a.Terms = append(a.Terms, &policy.Term{Name: term, Value: value})
		}
		d, err := plugin.Judge(a, at(0, 30))
		if err != nil {
			return
		}
		if d.Replicas < 0 || d.Replicas > 50 || d.Reason != "Plugin" || d.Next < 0 || d.Next > 24*time.Hour || d.Next > 0 && d.Next < 100*time.Millisecond {
			t.Errorf("the decision is %+v, want it within bounds", d)
		}
		if len(d.Message) > 1024+64 || len(d.Terms) > 100 {
			t.Errorf("the decision has a message of %d bytes and %d terms", len(d.Message), len(d.Terms))
		}
		texts := []string{d.Message}
		for _, x := range d.Terms {
			texts = append(texts, x.Name)
			if !algorithms.Finite(x.Value) || len(x.Name) > 64 {
				t.Errorf("term %+v, want it finite and short", x)
			}
		}
		for _, s := range texts {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
				t.Errorf("%q has characters that do not print", s)
			}
		}
	})
}
