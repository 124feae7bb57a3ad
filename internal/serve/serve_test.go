package serve_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal records what happened to services, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// service is one whose stop takes drain and ends with err.
func (j *journal) service(name string, drain time.Duration, err error) serve.Service {
	return serve.Service{
		Name:    name,
		Start:   func(context.Context) error { j.add("start " + name); return nil },
		Abandon: func() { j.add("abandon " + name) },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(drain)
			j.add("stopped " + name)
			return err
		},
	}
}

func TestGroupStartsInOrderStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			j   journal
			g   serve.Group
			bad = errors.New("bad")
		)
		// The first one added would stop first if order did not matter, because it is the quickest.
		g.Add(j.service("a", 0, nil), j.service("b", time.Second, bad), j.service("c", time.Minute, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := g.Run(ctx)
		if !errors.Is(err, bad) || err.Error() != "b: bad" {
			t.Errorf("Run = %v, want b: bad", err)
		}
		want := []string{"start a", "start b", "start c", "stopped c", "stopped b", "stopped a"}
		if d := cmp.Diff(want, j.read()); d != "" {
			t.Errorf("order (-want +got):\n%s", d)
		}
	})
}

func TestGroupAbandonsWhatStarted(t *testing.T) {
	var (
		j   journal
		g   serve.Group
		bad = errors.New("port taken")
	)
	g.Add(j.service("a", 0, nil), j.service("b", 0, nil), serve.Service{
		Name:  "c",
		Start: func(context.Context) error { return bad },
		Run:   func(context.Context) error { t.Error("c ran"); return nil },
	})
	if err := g.Run(t.Context()); !errors.Is(err, bad) || err.Error() != "start c: port taken" {
		t.Errorf("Run = %v, want start c: port taken", err)
	}
	if d := cmp.Diff([]string{"start a", "start b", "abandon b", "abandon a"}, j.read()); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

func TestGroupStopsWhenOneEnds(t *testing.T) {
	for name, ended := range map[string]error{"with an error": errors.New("broke"), "without": nil} {
		t.Run(name, func(t *testing.T) {
			var (
				j journal
				g serve.Group
			)
			g.Add(j.service("a", 0, nil), serve.Service{Name: "b", Run: func(context.Context) error { return ended }})
			if err := g.Run(t.Context()); !errors.Is(err, ended) {
				t.Errorf("Run = %v, want %v", err, ended)
			}
			if d := cmp.Diff([]string{"start a", "stopped a"}, j.read()); d != "" {
				t.Errorf("order (-want +got):\n%s", d)
			}
		})
	}
}

func TestEmptyGroup(t *testing.T) {
	if err := new(serve.Group).Run(t.Context()); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestHTTPDrains(t *testing.T) {
	cases := []struct {
		name    string
		drain   time.Duration
		wantCut bool
	}{
		{name: "a running request ends", drain: time.Minute},
		{name: "past the bound it is cut", drain: 0, wantCut: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			h := &serve.HTTP{Name: "web", Address: "127.0.0.1:0", Drain: c.drain, Server: &http.Server{
				ReadHeaderTimeout: time.Minute,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					close(arrived)
					<-release
					_, _ = io.WriteString(w, "done")
				}),
			}}
			started := make(chan struct{})
			var g serve.Group
			g.Add(h.Service(), serve.Service{
				Name:  "mark",
				Start: func(context.Context) error { close(started); return nil },
				Run:   func(ctx context.Context) error { <-ctx.Done(); return nil },
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ran := make(chan error, 1)
			go func() { ran <- g.Run(ctx) }()
			<-started

			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			answer := make(chan string, 1)
			go func() {
				resp, err := client.Get("http://" + h.Addr().String())
				if err != nil {
					answer <- "cut"
					return
				}
				defer func() { _ = resp.Body.Close() }()
				b, _ := io.ReadAll(resp.Body)
				answer <- string(b)
			}()
			<-arrived
			stop()
			if c.wantCut {
				if err := <-ran; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Run = %v, want deadline exceeded", err)
				}
				if got := <-answer; got != "cut" {
					t.Errorf("answer = %q, want it cut", got)
				}
				close(release)
				return
			}
			close(release)
			if got := <-answer; got != "done" {
				t.Errorf("answer = %q, want done", got)
			}
			if err := <-ran; err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	ok := serve.Check{Name: "data", Probe: func(context.Context) error { return nil }}
	bad := serve.Check{Name: "app", Probe: func(context.Context) error { return errors.New("refused") }}
	cases := []struct {
		name   string
		checks []serve.Check
		status int
		want   string
	}{
		{name: "none", status: 200, want: "ok\n"},
		{name: "good", checks: []serve.Check{ok}, status: 200, want: "[+] data\n"},
		{name: "one bad", checks: []serve.Check{bad, ok}, status: 503, want: "[-] app: refused\n[+] data\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			serve.Health(c.checks...).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", strings.NewReader("")))
			if rec.Code != c.status || rec.Body.String() != c.want {
				t.Errorf("answer = %d %q, want %d %q", rec.Code, rec.Body, c.status, c.want)
			}
		})
	}
}
