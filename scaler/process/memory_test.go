package process_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/process"
)

// script is a program that answers with what the test has it say, by a clock that the test moves.
type script struct {
	t      *testing.T
	driver *process.Driver

	mu    sync.Mutex
	now   time.Time
	code  int
	doc   any
	asked []string
}

func (s *script) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("Authorization"))
	w.WriteHeader(s.code)
	if text, ok := s.doc.(string); ok {
		_, _ = w.Write([]byte(text))
		return
	}
	_ = json.NewEncoder(w).Encode(s.doc)
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{t: t, now: time.Unix(1_700_000_000, 0), code: http.StatusOK}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	o := process.DefaultOptions()
	o.URL, o.Clock = server.URL, s.clock
	d, err := process.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	s.driver = d
	return s
}

// read has the driver read a document d after the last.
func (s *script) read(d time.Duration, doc process.Document) {
	s.t.Helper()
	s.mu.Lock()
	s.now, s.doc = s.now.Add(d), doc
	s.mu.Unlock()
	if _, err := s.driver.Get(s.t.Context(), web); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) signal(now time.Time, name string, window time.Duration) algorithms.Signal {
	return s.driver.Signals(now, web, []algorithms.Need{{Name: name, Window: window}}, nil)[0]
}

// ready is a ready instance that began at the script's start and has had n requests in flight
// since.
func ready(id string, age time.Duration, n float64) process.Instance {
	at := age.Seconds()
	return process.Instance{ID: id, State: algorithms.PodReady, Counters: &process.Counters{
		StartTime: 1_700_000_000, MonotonicSeconds: at, ConcurrencySeconds: n * at, Requests: 2 * n * at, InFlight: n,
	}}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	held := process.Held{Counters: process.Counters{StartTime: 1_700_000_000, MonotonicSeconds: 10, ConcurrencySeconds: 20, InFlight: 5}}
	s.read(0, process.Document{Replicas: 2})
	s.read(10*time.Second, process.Document{
		Replicas: 2, Held: &held, Instances: []process.Instance{ready("a", 10*time.Second, 3), ready("b", 10*time.Second, 1)},
	})
	for _, c := range []struct {
		name   string
		window time.Duration
		after  time.Duration
		want   algorithms.Signal
	}{
		{algorithms.Concurrency, 10 * time.Second, 0, algorithms.Signal{Value: 6, Known: true, Coverage: 1}},
		{algorithms.Concurrency, 0, 0, algorithms.Signal{Value: 9, Known: true, Coverage: 1}},
		{algorithms.Concurrency, 0, 3 * time.Second, algorithms.Signal{Value: 9, Known: true, Coverage: 1, Age: 3 * time.Second}},
		{algorithms.Waiting, 10 * time.Second, 0, algorithms.Signal{Value: 2, Known: true, Coverage: 1}},
		{algorithms.Rate, 10 * time.Second, 0, algorithms.Signal{Value: 8, Known: true, Coverage: 1}},
		{algorithms.Rate, 0, 0, algorithms.Signal{}},
		{algorithms.Concurrency, 2 * time.Hour, 0, algorithms.Signal{}},
	} {
		c.want.Name, c.want.Window, c.want.Source = c.name, c.window, process.Name
		if got := s.signal(s.now.Add(c.after), c.name, c.window); got != c.want {
			t.Errorf("%s over %v, %v after the reading, is %+v, want %+v", c.name, c.window, c.after, got, c.want)
		}
	}
}

// TestUnknownIsNotZero has readings missing in each way that they can.
func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	mute := process.Instance{ID: "b", State: algorithms.PodReady}
	if got := s.signal(s.now, algorithms.Concurrency, 0); got.Known {
		t.Errorf("before the first reading: %+v", got)
	}
	s.read(0, process.Document{Replicas: 0})
	if got := s.signal(s.now, algorithms.Concurrency, time.Minute); !got.Known || got.Value != 0 {
		t.Errorf("without instances: %+v, want a known 0", got)
	}
	s.read(10*time.Second, process.Document{Instances: []process.Instance{ready("a", 10*time.Second, 3), mute}})
	s.read(5*time.Second, process.Document{Instances: []process.Instance{ready("a", 15*time.Second, 3), mute}})
	if got := s.signal(s.now, algorithms.Concurrency, 15*time.Second); got.Known || got.Value != 3 || got.Coverage <= 0.5 || got.Coverage >= 1 {
		t.Errorf("with a ready instance without counters: %+v, want the other's 3, unknown, and its share covered", got)
	}
	starting := process.Instance{ID: "b", State: algorithms.PodStarting}
	s.read(time.Second, process.Document{Instances: []process.Instance{ready("a", 16*time.Second, 3), starting}})
	if got := s.signal(s.now, algorithms.Concurrency, 15*time.Second); !got.Known || got.Value != 3 {
		t.Errorf("with a starting instance without counters: %+v, want a known 3", got)
	}
	s.read(time.Second, process.Document{Instances: []process.Instance{ready("a", 17*time.Second, 3)}})
	if got := s.signal(s.now.Add(9*time.Second), algorithms.Concurrency, 0); !got.Known || got.Age != 9*time.Second {
		t.Errorf("9 s after the reading: %+v, want it known, and its age", got)
	}
	for _, window := range []time.Duration{0, time.Minute} {
		if got := s.signal(s.now.Add(11*time.Second), algorithms.Concurrency, window); got.Known || got.Coverage == 1 {
			t.Errorf("11 s after the reading, over %v: %+v, want it unknown", window, got)
		}
	}
	s.driver.Forget(web)
	if got := s.signal(s.now, algorithms.Concurrency, 0); got.Known {
		t.Errorf("of a forgotten workload: %+v", got)
	}
}

// TestGone has an instance end: what it served counts, and nothing from then on.
func TestGone(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.read(0, process.Document{})
	s.read(10*time.Second, process.Document{Instances: []process.Instance{ready("a", 10*time.Second, 4)}})
	s.read(10*time.Second, process.Document{})
	if got := s.signal(s.now, algorithms.Concurrency, 20*time.Second); !got.Known || got.Value != 2 {
		t.Errorf("half of the window after its end: %+v, want the half, 2", got)
	}
}

func TestFaultyAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, doc, want string
		code            int
	}{
		{"no JSON", "<html>", "invalid character", 200},
		{"state", `{"instances": [{"id": "a", "state": "happy"}]}`, `instances[0].state = "happy"`, 200},
		{"twice", `{"instances": [{"id": "a", "state": "ready"}, {"id": "a", "state": "ready"}]}`, `instances[1].id = "a"`, 200},
		{"negative", `{"replicas": -1, "held": {"requests": -2}}`, "replicas = -1: want 0–1000000\nheld.requests = -2", 200},
		{"huge number", `{"held": {"requests": 1e999}}`, "1e999", 200},
		{"status", "first line\nsecond", "500 Internal Server Error: first line", 500},
		{"redirect", "", "302 Found", 302},
		{"long", strings.Repeat(" ", 16<<20+1), "more than", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.code, s.doc = c.code, c.doc
			got, err := s.driver.Get(t.Context(), web)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "read app shop/web: ") {
				t.Errorf("Get = %+v, %v, want an error with %q", got, err, c.want)
			}
			if got := s.signal(s.now, algorithms.Concurrency, 0); got.Known {
				t.Errorf("after a faulty answer %+v is known", got)
			}
		})
	}
}

// TestRequests tells what the driver asks for: one reading a round, escaped names, no needless
// write.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	odd := loop.Ref{Driver: process.Name, Kind: "a/b", Name: "ü 1"}
	s.doc = process.Document{Replicas: 1, Path: &process.Path{In: true}}
	ctx := t.Context()
	_, err1 := s.driver.See(ctx, odd)
	_, err2 := s.driver.Get(ctx, odd) // has See's reading
	err3 := s.driver.Put(ctx, odd, loop.PathState{In: true})
	err4 := s.driver.Put(ctx, odd, loop.PathState{In: true}) // is so
	_, err5 := s.driver.See(ctx, odd)
	err6 := s.driver.Set(ctx, odd, 2, nil)
	_, err7 := s.driver.Get(ctx, odd) // not from before Set
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		if err != nil {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	const at = " /v1/workloads/-/a%2Fb/%C3%BC%201"
	want := []string{"GET" + at + " ", "PUT" + at + "/path ", "GET" + at + " ", "PUT" + at + "/scale ", "GET" + at + " "}
	if got := s.asked; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
