package plugin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a server that does what a test says.
type fake struct {
	policy.UnimplementedPolicyServer
	calls atomic.Int64
	do    func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error)
}

func (f *fake) Decide(ctx context.Context, in *policy.DecideRequest) (*policy.DecideResponse, error) {
	f.calls.Add(1)
	return f.do(ctx, in)
}

// serve runs a fake on a loopback port for the test's time and returns its address.
func serve(t *testing.T, f *fake) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	policy.RegisterPolicyServer(s, f)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func open(t *testing.T, c plugin.Config) *plugin.Policy {
	t.Helper()
	p, err := plugin.New(c, 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

func config(address string) plugin.Config {
	c := plugin.Default()
	c.Address, c.Timeout = address, algorithms.Duration(5*time.Second)
	return c
}

func at(sec int, load float64) algorithms.Observation {
	return algorithms.Observation{
		Now: time.Unix(int64(1000+sec), 0), Limits: algorithms.Limits{Min: 0, Max: 50}, Replicas: algorithms.Replicas{Current: 3, Ready: 2, Starting: 1},
		Signals: []algorithms.Signal{
			{Name: "concurrency", Window: time.Minute, Value: load, Known: true, Coverage: 1},
			{Name: "concurrency", Window: 6 * time.Second, Value: math.NaN(), Known: true},
		},
	}
}

func TestAsksAndRemembers(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []*policy.DecideRequest
	f := &fake{do: func(_ context.Context, in *policy.DecideRequest) (*policy.DecideResponse, error) {
		mu.Lock()
		seen = append(seen, in)
		mu.Unlock()
		return &policy.DecideResponse{Replicas: 70, Valid: true, Reason: "Burst\n!", Message: "more", Next: 1.5, State: append(in.GetState(), 'x'), Terms: []*policy.Term{{Name: "a", Value: 2}}}, nil
	}}
	c := config(serve(t, f))
	c.Workload, c.Parameters = "default/web", json.RawMessage(`{"target":3}`)
	p := open(t, c)
	d := p.Decide(at(0, 30))
	if d.Replicas != 50 || !d.Valid || d.Reason != "Plugin" || d.Message != "Burst: more" || d.Next != 1500*time.Millisecond || len(d.Terms) != 1 {
		t.Errorf("Decide = %+v, want 70 cut to the limit of 50, and the server's words", d)
	}
	other := open(t, c)
	if err := other.Restore(p.Snapshot()); err != nil {
		t.Fatal(err)
	}
	other.Decide(at(1, 30))
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 {
		t.Fatalf("%d requests, want 2", len(seen))
	}
	in := seen[0]
	if in.GetWorkload() != "default/web" || in.GetParameters() != `{"target":3}` || len(in.GetState()) != 0 || in.GetObservation().GetNow() != 1000 {
		t.Errorf("the first request is %v", in)
	}
	if s := in.GetObservation().GetSignals(); len(s) != 2 || !s[0].GetKnown() || s[0].GetWindow() != 60 || s[0].GetValue() != 30 || s[1].GetKnown() {
		t.Errorf("signals sent: %v, want the minute known and the NaN unknown", s)
	}
	if string(seen[1].GetState()) != "x" {
		t.Errorf("after snapshot and restore the state sent is %q, want x", seen[1].GetState())
	}
}

func TestMisbehaviourIsContained(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer *policy.DecideResponse
		err    error
		late   bool
		want   string
	}{
		"error":      {err: errors.New("out of order"), want: "out of order"},
		"late":       {late: true, want: "DeadlineExceeded"},
		"negative":   {answer: &policy.DecideResponse{Valid: true, Replicas: -1}, want: "replicas = -1"},
		"too many":   {answer: &policy.DecideResponse{Valid: true, Replicas: 1_000_001}, want: "replicas = 1000001"},
		"NaN term":   {answer: &policy.DecideResponse{Valid: true, Terms: []*policy.Term{{Name: "a", Value: math.NaN()}}}, want: "term a = NaN"},
		"next":       {answer: &policy.DecideResponse{Valid: true, Next: math.NaN()}, want: "next = NaN"},
		"state":      {answer: &policy.DecideResponse{Valid: true, State: make([]byte, 65<<10)}, want: "state of 66560 bytes"},
		"many terms": {answer: &policy.DecideResponse{Valid: true, Terms: make([]*policy.Term, 101)}, want: "101 terms"},
		"huge":       {answer: &policy.DecideResponse{Valid: true, Message: strings.Repeat("x", 2<<20)}, want: "ResourceExhausted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			end := make(chan struct{})
			t.Cleanup(func() { close(end) })
			f := &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
				if c.late {
					<-end // deaf to the caller's deadline, which the caller must keep itself
				}
				return c.answer, c.err
			}}
			if f.do != nil && c.answer != nil && c.answer.Terms != nil && c.answer.Terms[0] == nil {
				for i := range c.answer.Terms {
					c.answer.Terms[i] = &policy.Term{Name: "a"}
				}
			}
			cfg := config(serve(t, f))
			if c.late {
				cfg.Timeout = algorithms.Duration(50 * time.Millisecond)
			}
			if d := open(t, cfg).Decide(at(0, 30)); d.Valid || d.Reason != "PluginFailed" || !strings.Contains(d.Message, c.want) || !strings.Contains(d.Message, "holding") {
				t.Errorf("Decide = %+v, want it held because of %q", d, c.want)
			}
			cfg.Fallback = &plugin.Fallback{Name: "target", Parameters: json.RawMessage(`{"window":"60s"}`)}
			if d := open(t, cfg).Decide(at(0, 60)); !d.Valid || d.Replicas != 6 || d.Reason != "PluginFailed" || !strings.Contains(d.Message, "falling back to target") {
				t.Errorf("Decide = %+v, want the fallback's 6 pods", d)
			}
		})
	}
}

func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	f := &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		if !mended.Load() {
			return nil, errors.New("broken")
		}
		return &policy.DecideResponse{Valid: true, Replicas: 4, Reason: "Fine"}, nil
	}}
	c := config(serve(t, f))
	c.Breaker = plugin.Breaker{Failures: 3, OpenFor: algorithms.Duration(30 * time.Second)}
	p := open(t, c)
	for i, step := range []struct {
		sec    int
		mend   bool
		reason string
		calls  int64
	}{
		{0, false, "PluginFailed", 1},
		{1, false, "PluginFailed", 2},
		{2, false, "PluginFailed", 3},
		{3, false, "PluginOpen", 3},
		{31, false, "PluginOpen", 3},
		{32, false, "PluginFailed", 4}, // one trial
		{33, true, "PluginOpen", 4},
		{62, false, "Plugin", 5},
		{63, false, "Plugin", 6},
	} {
		if step.mend {
			mended.Store(true)
		}
		d := p.Decide(at(step.sec, 30))
		if d.Reason != step.reason || f.calls.Load() != step.calls || d.Valid != (d.Reason == "Plugin") {
			t.Errorf("step %d: %s after %d calls (%s), want %s after %d", i, d.Reason, f.calls.Load(), d.Message, step.reason, step.calls)
		}
		again := open(t, c) // what is known of the server survives a restart
		if err := again.Restore(p.Snapshot()); err != nil {
			t.Fatal(err)
		}
		p = again
	}
}

// The fallback has seen what the server was asked, so its memory is warm when the server fails.
func TestFallbackIsWarm(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	f := &fake{do: func(context.Context, *policy.DecideRequest) (*policy.DecideResponse, error) {
		if failing.Load() {
			return nil, errors.New("broken")
		}
		return &policy.DecideResponse{Valid: true, Replicas: 10}, nil
	}}
	c := config(serve(t, f))
	c.Fallback = &plugin.Fallback{Name: "target", Parameters: json.RawMessage(`{"window":"60s","stabilizationWindow":"1m"}`)}
	p := open(t, c)
	p.Decide(at(0, 100))
	failing.Store(true)
	o := at(10, 10)
	o.Replicas.Current = 10
	if d := p.Decide(o); d.Replicas != 10 || !strings.Contains(d.Message, "Stabilized") {
		t.Errorf("Decide = %+v, want the 10 pods of ten seconds ago held", d)
	}
}

// process starts a sample server on the address and returns when it listens.
func process(t *testing.T, address string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], "--listen", address)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening") {
		t.Fatalf("%v says %q: %v", argv, line, err)
	}
	return cmd
}

// kill is SIGKILL, and waits for the end. A second one does nothing.
func kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// The sample servers, killed with SIGKILL in the middle and started again: before, after and
// between, decisions are as promised.
func TestSampleServersKilledMidRun(t *testing.T) {
	t.Parallel()
	const examples = "../../docs/examples"
	for name, start := range map[string]func(t *testing.T) []string{
		"go": func(t *testing.T) []string {
			bin := filepath.Join(t.TempDir(), "policy-go")
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./"+examples+"/policy-go").CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			return []string{bin}
		},
		"node": func(t *testing.T) []string {
			node, err := exec.LookPath("node")
			if err != nil {
				t.Skip("node is not installed")
			}
			if _, err := os.Stat(examples + "/policy-node/node_modules/@grpc/grpc-js"); err != nil {
				t.Skip("the sample's modules are not installed: npm ci --prefix docs/examples/policy-node")
			}
			return []string{node, examples + "/policy-node/server.js"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			argv := start(t)
			dir, err := os.MkdirTemp("", "sluice") //nolint:usetesting // t.TempDir's names can be too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			address := "unix://" + filepath.Join(dir, "s")
			cmd := process(t, address, argv...)
			c := config(address)
			c.Parameters = json.RawMessage(`{"target":10,"spare":2}`)
			c.Breaker = plugin.Breaker{Failures: 2, OpenFor: algorithms.Duration(10 * time.Second)}
			p := open(t, c)
			expect := func(sec int, load float64, valid bool, want int, reason, message string) {
				t.Helper()
				d := p.Decide(at(sec, load))
				if d.Valid != valid || (valid && d.Replicas != want) || d.Reason != reason || !strings.Contains(d.Message, message) {
					t.Errorf("at %d s: %+v, want %d %s %q", sec, d, want, reason, message)
				}
			}
			expect(0, 50, true, 5, "Plugin", "Steady: 50 requests at 10 a pod")
			expect(2, 60, true, 8, "Plugin", "Rising")
			kill(cmd)
			expect(4, 60, false, 0, "PluginFailed", "Unavailable")
			expect(6, 60, false, 0, "PluginFailed", "holding")
			expect(8, 60, false, 0, "PluginOpen", "circuit breaker is open after 2 failures")
			_ = os.Remove(filepath.Join(dir, "s")) // a killed process leaves its socket
			process(t, address, argv...)
			deadline := time.Now().Add(30 * time.Second)
			// the connection is tried again within about two seconds of real time
			for sec := 20; ; sec += 20 {
				if d := p.Decide(at(sec, 70)); d.Valid {
					if d.Replicas != 9 || !strings.Contains(d.Message, "Rising") {
						t.Errorf("after the restart: %+v, want 9 pods: the state of before the kill is given back", d)
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the restarted server was not found again")
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

func TestCatalogEntry(t *testing.T) {
	t.Parallel()
	p, err := catalog.Default(plugin.Entry()).New("grpc", 10, json.RawMessage(`{"address":"127.0.0.1:1","fallback":{"name":"target"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if closer, ok := p.(*plugin.Policy); !ok || closer.Close() != nil {
		t.Errorf("the entry makes %T, want one that can be closed", p)
	}
	for params, want := range map[string]string{
		`{}`: "address", `{"address":"a:1","timeout":"1m"}`: "timeout", `{"address":"a:1","signals":[]}`: "signals",
		`{"address":"a:1","fallback":{"name":"no"}}`: "fallback: policy \"no\"", `{"address":"a:1","parameters":[1]}`: "JSON object",
		`{"address":"a:1","tls":{"caFile":"nowhere.pem"}}`: "nowhere.pem", `{"addr":"a:1"}`: "addr",
	} {
		if _, err := catalog.Default(plugin.Entry()).New("grpc", 10, json.RawMessage(params)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%s) = %v, want an error with %q", params, err, want)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	beside := map[string]string{}
	for _, name := range []string{"timeout", "maxAge", "circuitBreaker.failures", "circuitBreaker.openFor"} {
		beside[name+" lo"], beside[name+" hi"] = `{"address": "127.0.0.1:1"}`, `{"address": "127.0.0.1:1"}`
	}
	policies := catalog.Default(plugin.Entry())
	e, err := policies.Find(plugin.Name)
	if err != nil {
		t.Fatal(err)
	}
	policytest.Bounds(t, e.Parameters, beside, func(raw json.RawMessage) error {
		p, err := policies.New(plugin.Name, 0, raw)
		if closer, ok := p.(*plugin.Policy); ok {
			return errors.Join(err, closer.Close())
		}
		return err
	})
}
