package appcheck_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/sidecar/appcheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := appcheck.Dial("tcp", l.Addr().String(), time.Minute)
	if err := up.Check(t.Context()); err != nil {
		t.Errorf("Check of a listener = %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	down := appcheck.Dial("tcp", l.Addr().String(), time.Minute)
	for range 2 { // a bad answer is not kept
		if err := down.Check(t.Context()); err == nil {
			t.Error("Check of a closed port = nil")
		}
	}
}

func TestHTTP(t *testing.T) {
	cases := []struct {
		status int
		want   string
	}{
		{status: 200},
		{status: 204},
		{status: 302},
		{status: 404, want: "/up answered 404"},
		{status: 503, want: "/up answered 503"},
	}
	for _, c := range cases {
		t.Run(http.StatusText(c.status), func(t *testing.T) {
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/up" {
					t.Errorf("asked for %s", r.URL.Path)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
			}))
			defer app.Close()
			err := appcheck.HTTP("tcp", strings.TrimPrefix(app.URL, "http://"), "/up", time.Minute).Check(t.Context())
			if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
				t.Errorf("Check = %v, want %q", err, c.want)
			}
		})
	}
}

func TestOneQuestionAtATime(t *testing.T) {
	var asked, under, most atomic.Int64
	release := make(chan struct{})
	arrived := make(chan struct{}, 100)
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		arrived <- struct{}{}
		<-release
	}))
	defer app.Close()
	c := appcheck.HTTP("tcp", strings.TrimPrefix(app.URL, "http://"), "/", time.Minute)

	// The one whose call asks may leave; the others get the answer still.
	cause := errors.New("left")
	ctx, leave := context.WithCancelCause(t.Context())
	first := make(chan error, 1)
	go func() { first <- c.Check(ctx) }()
	<-arrived
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.Check(t.Context()); err != nil {
				t.Errorf("Check = %v", err)
			}
		})
	}
	leave(cause)
	if err := <-first; !errors.Is(err, cause) {
		t.Errorf("Check of who left = %v, want %v", err, cause)
	}
	close(release)
	wg.Wait()
	if n := most.Load(); n != 1 {
		t.Errorf("%d questions at once, want 1", n)
	}
	if n := asked.Load(); n > 20 {
		t.Errorf("asked %d times for 21 calls: no answer was shared", n)
	}
}

func TestTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := appcheck.HTTP("tcp", l.Addr().String(), "/", 20*time.Millisecond).Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Check = %v, want %v", err, context.DeadlineExceeded)
	}
}
