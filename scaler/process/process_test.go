package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/conformance"
	"github.com/sluice-autoscaler/sluice/scaler/process"
	"github.com/sluice-autoscaler/sluice/scaler/process/fakeplatform"
)

// platformArg makes the test's own program the platform.
const platformArg = "fakeplatform"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == platformArg {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := fakeplatform.Run(ctx, os.Args[2:], os.Stdout)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// web is the workload of the tests.
var web = loop.Ref{Driver: process.Name, Namespace: "shop", Kind: "app", Name: "web"}

// patience bounds how long a test waits for what should come soon.
const patience = 30 * time.Second

// fake is a running platform with a driver.
type fake struct {
	*process.Driver
	url  string
	cmd  *exec.Cmd
	skew atomic.Int64 // by how much the driver's clock is ahead
}

func (f *fake) now() time.Time { return time.Now().Add(time.Duration(f.skew.Load())) }

// start starts a platform as a process, whose instances are processes too.
func start(t *testing.T) *fake {
	t.Helper()
	f := &fake{cmd: exec.CommandContext(context.Background(), os.Args[0], platformArg, fakeplatform.Serve, "--workload", "shop/app/web", "--start-up", "20ms")}
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("read the platform's address: %v", err)
	}
	f.url = "http://" + strings.TrimSpace(line)
	o := process.DefaultOptions()
	o.URL, o.Clock = f.url, f.now
	if f.Driver, err = process.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// stop ends the platform's process, as often as it likes.
func (f *fake) stop() {
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	_ = f.cmd.Wait()
}

// wait polls until done.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

// await waits for n instances, all ready.
func (f *fake) await(t *testing.T, n int) {
	t.Helper()
	wait(t, fmt.Sprintf("%d ready instances", n), func() bool {
		if _, err := f.Get(t.Context(), web); err != nil {
			t.Fatal(err)
		}
		all := f.Instances(web, nil)
		for i := range all {
			if all[i].State != algorithms.PodReady {
				return false
			}
		}
		return len(all) == n
	})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(t *testing.T) conformance.Platform {
		f := start(t)
		missing := web
		missing.Name = "nobody"
		statuses := map[error]int{
			scaler.ErrConflict: http.StatusConflict, scaler.ErrThrottled: http.StatusTooManyRequests,
			scaler.ErrForbidden: http.StatusForbidden, scaler.ErrNotFound: http.StatusNotFound,
		}
		return conformance.Platform{
			Target: f, Source: f, Path: f, Workload: web, Missing: missing, Await: f.await, Now: f.now,
			Fail: func(t *testing.T, kind error) bool {
				f.ask(t, http.MethodPost, "/test/fail/"+strconv.Itoa(statuses[kind]), nil)
				return true
			},
			Sever: func(*testing.T) time.Time {
				f.stop()
				f.skew.Add(int64(time.Minute))
				return f.now()
			},
		}
	})
}

// ask sends a request to the platform and returns the answer's text.
func (f *fake) ask(t *testing.T, method, path string, body io.Reader) (int, string) {
	t.Helper()
	code, text, err := f.try(t.Context(), method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return code, text
}

func (f *fake) try(ctx context.Context, method, path string, body io.Reader) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, f.url+path, body)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(text)), err
}

// longRequest is one that an instance works on until it is let go.
type longRequest struct {
	body   *io.PipeWriter
	answer chan string // the code, the text and the error
}

func (f *fake) begin(t *testing.T) *longRequest {
	t.Helper()
	r, w := io.Pipe()
	l := &longRequest{body: w, answer: make(chan string, 1)}
	go func() {
		code, text, err := f.try(context.Background(), http.MethodPost, "/app/shop/app/web/", r)
		l.answer <- fmt.Sprint(code, " ", text, " ", err)
	}()
	if _, err := w.Write([]byte("begin")); err != nil {
		t.Fatal(err)
	}
	return l
}

// end lets the request go and takes its answer.
func (l *longRequest) end(t *testing.T) {
	t.Helper()
	if err := l.body.Close(); err != nil {
		t.Fatal(err)
	}
	answer := <-l.answer
	if !strings.HasPrefix(answer, "200 ") || !strings.HasSuffix(answer, " <nil>") {
		t.Errorf("a request was lost: %s", answer)
	}
}

// inFlight waits until the driver sees n requests at the instances.
func (f *fake) inFlight(t *testing.T, n float64) {
	t.Helper()
	wait(t, fmt.Sprintf("%v requests in flight", n), func() bool {
		if _, err := f.Get(t.Context(), web); err != nil {
			t.Fatal(err)
		}
		s := f.Signals(f.now(), web, []algorithms.Need{{Name: algorithms.Concurrency}}, nil)[0]
		return s.Known && s.Value == n
	})
}

// scale returns the Scaler's workload, with a policy that wants one instance per request at once.
func (f *fake) scale(t *testing.T, min int) *scaler.Workload {
	t.Helper()
	timing := loop.DefaultTiming()
	timing.Tick, timing.Recheck, timing.Settle, timing.SettleWake, timing.Grace, timing.Linger = 20*time.Millisecond, 5*time.Millisecond, 0, 0, 0, 0
	s := scaler.New(scaler.Options{
		Target: f, Source: f, Path: f, Catalog: catalog.Default(), Timing: timing, Clock: f.now,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	var target algorithms.Quantity
	if err := target.UnmarshalJSON([]byte("1")); err != nil {
		t.Fatal(err)
	}
	idle := algorithms.Duration(time.Second)
	spec := loop.Spec{
		MinReplicas: min, MaxReplicas: 4, ScaleToZero: &loop.ScaleToZero{After: &idle},
		Signals: []loop.Signal{{Name: algorithms.Concurrency, Target: loop.Target{AverageValue: target}}},
		Policy:  loop.Policy{Name: "cel", Parameters: []byte(`{"expression": "signal(\"concurrency\", \"0s\")"}`)},
	}
	spec.ServiceRef = &loop.ServiceRef{Name: "web"}
	w := s.Open(web)
	t.Cleanup(w.Close)
	if err := w.Configure(spec, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return w
}

// rounds does rounds until done.
func rounds(t *testing.T, w *scaler.Workload, what string, done func(r *loop.Record) bool) {
	t.Helper()
	wait(t, what, func() bool {
		out, err := w.Round(t.Context())
		if err != nil {
			t.Fatalf("round before %s: %v", what, err)
		}
		return done(&out.Record)
	})
}

// TestScaler drives a platform that is a process: from zero on a held request, up with the load,
// down by the idle instances, and to zero.
func TestScaler(t *testing.T) {
	t.Parallel()
	f := start(t)
	w := f.scale(t, 0)
	rounds(t, w, "the path leads through the platform", func(r *loop.Record) bool {
		p, err := f.See(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		return p.In && r.Phase == loop.Asleep
	})
	busy := f.begin(t) // waits for an instance
	wait(t, "the account of the cold start", func() bool {
		out, err := w.Round(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := out.ColdStart
		if c != nil && (c.Held != 1 || c.Phases[scaler.Released] < 20*time.Millisecond) {
			t.Errorf("the cold start was %+v, want one held request, for the start-up of 20 ms at least", c)
		}
		return c != nil
	})
	rounds(t, w, "the first instance", func(r *loop.Record) bool { return r.Phase == loop.Awake && r.Replicas.Ready == 1 })
	var others []*longRequest
	for range 3 {
		others = append(others, f.begin(t))
	}
	rounds(t, w, "an instance for each request", func(r *loop.Record) bool { return r.Replicas.Ready == 4 })
	// The first instance has all four, and three new ones spread over the others. The last one is
	// left: a platform that ends the youngest instances first loses it unless it is told better.
	for range 3 {
		others = append(others, f.begin(t))
	}
	f.inFlight(t, 7)
	last := others[len(others)-1]
	for _, o := range append(others[:len(others)-1], busy) {
		o.end(t)
	}
	f.inFlight(t, 1)
	rounds(t, w, "one instance left", func(r *loop.Record) bool {
		return r.To == 1 && r.Replicas.Ready == 1 && r.Replicas.Terminating == 0
	})
	last.end(t)
	rounds(t, w, "sleep", func(r *loop.Record) bool {
		return r.Phase == loop.Asleep && r.Replicas.Ready == 0 && r.Replicas.Terminating == 0
	})
	if code, lost := f.ask(t, http.MethodGet, "/test/lost/shop/app/web", nil); code != http.StatusOK || lost != "0" {
		t.Errorf("the platform lost %s requests (%d), want none", lost, code)
	}
}

// TestKill kills an instance's process: the driver sees it go, and another one come.
func TestKill(t *testing.T) {
	t.Parallel()
	f := start(t)
	if err := f.Set(t.Context(), web, 1, nil); err != nil {
		t.Fatal(err)
	}
	f.await(t, 1)
	id := f.Instances(web, nil)[0].ID
	pid, err := strconv.Atoi(id[strings.LastIndex(id, "-")+1:])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "another instance", func() bool {
		f.await(t, 1)
		return f.Instances(web, nil)[0].ID != id
	})
}

func TestValidateOptions(t *testing.T) {
	t.Parallel()
	_, err := process.New(process.Options{URL: "ftp://x", Timeout: time.Hour})
	if err == nil {
		t.Fatal("New took faulty options")
	}
	for _, want := range []string{`process URL = "ftp://x"`, "process timeout = 1h0m0s", "process stale bound = 0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q named", err, want)
		}
	}
	if errors.Is(err, scaler.ErrNotFound) {
		t.Errorf("New: %v is of a round's kind", err)
	}
}
