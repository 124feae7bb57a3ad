package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A token is renewed before it ends, and an old one stands in while the cluster gives none. One
// that a provider refuses is renewed soon, and not with every request.
func TestTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var issued atomic.Int64
		var fails atomic.Bool
		tokens := NewTokens(func(context.Context) (string, time.Time, error) {
			if fails.Load() {
				return "", time.Time{}, errors.New("the API server is away")
			}
			return fmt.Sprint("t", issued.Add(1)), time.Now().Add(time.Hour), nil
		}, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { tokens.Run(ctx) })
		get := func(want string) {
			t.Helper()
			synctest.Wait()
			if got, err := tokens.get(t.Context()); got != want || (err != nil) != (want == "") {
				t.Errorf("the token is %q, %v, want %q", got, err, want)
			}
		}
		time.Sleep(time.Hour)
		if issued.Load() != 0 {
			t.Error("a token was made that nobody uses")
		}
		get("t1")
		time.Sleep(39 * time.Minute)
		get("t1")
		time.Sleep(2 * time.Minute)
		get("t2")
		fails.Store(true)
		time.Sleep(55 * time.Minute)
		get("t2")
		time.Sleep(6 * time.Minute)
		get("")
		fails.Store(false)
		time.Sleep(tokenPeriod)
		get("t3")
		for range 100 {
			tokens.refused("t3")
			tokens.refused("t1") // an old one
			get("t3")
		}
		time.Sleep(tokenPeriod + time.Second)
		get("t4")
		cancel()
		running.Wait()
	})
}

// A failure to get a token is not asked for again by every request.
func TestTokenFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		tokens := NewTokens(func(context.Context) (string, time.Time, error) {
			asked++
			return "", time.Time{}, errors.New("forbidden")
		}, time.Now)
		for range 50 {
			if _, err := tokens.get(t.Context()); err == nil || !strings.Contains(err.Error(), "forbidden") {
				t.Errorf("the error is %v", err)
			}
			time.Sleep(time.Second)
		}
		if asked != 5 {
			t.Errorf("it was asked for %d times in 50 s", asked)
		}
	})
}

// The pause grows while a provider fails; one request tries at its end, and a success ends it.
func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		down := errors.New("down")
		for range failuresToOpen {
			if err := b.begin(time.Now()); err != nil {
				t.Fatal(err)
			}
			b.end(time.Now(), down, false)
		}
		for _, seconds := range []int{2, 4, 8, 16, 30, 30} {
			pause := time.Duration(seconds) * time.Second
			time.Sleep(pause - time.Millisecond)
			if err := b.begin(time.Now()); err == nil || !errors.Is(err, down) || !strings.Contains(err.Error(), "not asked until") {
				t.Fatalf("before %v: %v", pause, err)
			}
			time.Sleep(time.Millisecond)
			if err := b.begin(time.Now()); err != nil {
				t.Fatalf("after %v: %v", pause, err)
			}
			if b.begin(time.Now()) == nil {
				t.Error("two try at once")
			}
			b.end(time.Now(), down, false)
		}
		time.Sleep(longestPause)
		if err := b.begin(time.Now()); err != nil {
			t.Fatal(err)
		}
		b.end(time.Now(), nil, false) // the caller went away, which says nothing
		if err := b.begin(time.Now()); err != nil {
			t.Fatal("nobody may try after a caller went away")
		}
		b.end(time.Now(), nil, true)
		if last, ok := b.health(); last != nil || !ok {
			t.Errorf("health is %v, %v", last, ok)
		}
		for range 3 * failuresToOpen { // a refusal is an answer
			b.end(time.Now(), errors.New("403"), true)
		}
		if last, _ := b.health(); b.begin(time.Now()) != nil || last == nil {
			t.Errorf("after refusals: health %v", last)
		}
	})
}

// transport answers without sockets.
type transport func(r *http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// fake is a Provider with a transport of its own.
func fake(t *testing.T, d config.Delegate, f transport) *Provider {
	t.Helper()
	d.Name, d.URL, d.CA, d.Identity, d.Match = "a", "https://a", config.CA{InsecureSkipTLSVerify: true}, config.Identity{None: true}, []config.Match{{Rest: true}}
	c, err := config.Compile(&config.Config{Delegates: []config.Delegate{d}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(&c.Delegates[0], Options{
		Clock: time.Now, UserAgent: "test", DiscoverPeriod: DiscoverPeriod, Observe: func(string, string, string, time.Duration) {},
	}, NewTokens(nil, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	p.client, p.checked = &http.Client{Transport: f}, time.Now().Add(1000*time.Hour)
	return p
}

func response(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// Lists are asked for each minute, sooner after a failure, and kept meanwhile.
func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var down atomic.Bool
		p := fake(t, config.Delegate{APIs: []string{config.External}}, func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			if down.Load() {
				return nil, errors.New("connection refused")
			}
			return response(200, `{"kind":"APIResourceList","resources":[{"name":"a"},{"name":"a"},{"name":"b/c"},{"name":".."},{"name":""}]}`), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var changes, errs atomic.Int64
		running.Go(func() {
			p.Follow(ctx, func(changed bool, err error) {
				if changed {
					changes.Add(1)
				}
				if err != nil {
					errs.Add(1)
				}
			})
		})
		began := time.Now()
		time.Sleep(10*time.Minute + time.Second)
		if n := asked.Load(); n < 10 || n > 15 {
			t.Errorf("asked %d times in 10 minutes", n)
		}
		if _, external, at := p.Listed(); len(external) != 1 || external[0].Metric != "a" || changes.Load() != 1 || at.Before(began) {
			t.Errorf("listed %v at %v with %d changes", external, at, changes.Load())
		}
		down.Store(true)
		before := asked.Load()
		time.Sleep(5 * time.Minute)
		_, external, at := p.Listed()
		if n := errs.Load(); len(external) != 1 || time.Since(at) < 3*time.Minute || n < 15 || n > 30 {
			t.Errorf("after %d failures: %v at %v", n, external, at)
		}
		if n := asked.Load() - before; n > errs.Load() {
			t.Errorf("asked %d times for %d attempts", n, errs.Load())
		}
		if err := p.Health(); err == nil || p.Up() {
			t.Errorf("health is %v", err)
		}
		cancel()
		running.Wait()
	})
}

// A provider that hangs is waited for as long as it may take, whoever waits in line included.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := fake(t, config.Delegate{APIs: []string{config.External}, MaxConcurrent: 1}, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		var group sync.WaitGroup
		for i := range 3 {
			group.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				at := time.Now()
				_, err := p.External(t.Context(), &Call{External: true, Namespace: "a", Metric: "m"})
				if took := time.Since(at); err == nil || took > 10*time.Second || i == 2 && took != 0 {
					t.Errorf("%d: %v after %v", i, err, took)
				}
			})
		}
		group.Wait()
		if took := time.Since(began); took != 11*time.Second {
			t.Errorf("all took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 3 * failuresToOpen { // callers that give up say nothing of the provider
			if _, err := p.External(ctx, &Call{External: true, Namespace: "a", Metric: "m"}); err == nil || strings.Contains(err.Error(), "not asked until") {
				t.Errorf("the error is %v", err)
			}
		}
	})
}

// Whatever is asked for, the path has the names that were authorized, and nothing else.
func FuzzTarget(f *testing.F) {
	f.Add("shop", "pods", "web-1", "rps", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-1/rps", "a=b")
	f.Add("shop", "pods", "*", "a|b", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/%2a/a%7Cb", "")
	f.Add("", "nodes", "n", "..", "", "")
	f.Add("", "namespaces", "shop", "@:", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/metrics/%40%3A", "a in (b,c)")
	f.Add("shop", "pods", "a", "%2e%2e", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/a/%252e%252e", "")
	f.Add("shop", "pods", "a", "a?b#c", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/a/a?b#c", "")
	f.Fuzz(func(t *testing.T, namespace, resource, name, metric, came, selector string) {
		s, err := labels.Parse(selector)
		if err != nil {
			return
		}
		for _, c := range []*Call{
			{External: true, Namespace: namespace, Metric: metric, Objects: s},
			{Resource: schema.ParseGroupResource(resource), Namespace: namespace, Name: name, Metric: metric, Objects: s, Metrics: s},
		} {
			target, err := c.Target("v1beta2", came)
			if err != nil {
				continue
			}
			for i := range len(target) {
				if target[i] <= ' ' || target[i] >= 0x7f {
					t.Fatalf("%q is no request line", target)
				}
			}
			path, query, _ := strings.Cut(target, "?")
			parts := strings.Split(path, "/")[1:]
			for i := range parts {
				if parts[i], err = url.PathUnescape(parts[i]); err != nil {
					t.Fatalf("%q: %v", target, err)
				}
			}
			want := []string{"apis", "external.metrics.k8s.io", "v1beta2", "namespaces", namespace, metric}
			if !c.External {
				want = []string{"apis", "custom.metrics.k8s.io", "v1beta2"}
				switch r := c.Resource.String(); {
				case namespace == "" && r == "namespaces":
					want = append(want, "namespaces", name, "metrics", metric)
				case namespace == "":
					want = append(want, r, name, metric)
				default:
					want = append(want, "namespaces", namespace, r, name, metric)
				}
			}
			if strings.Join(parts, "\x00") != strings.Join(want, "\x00") {
				t.Errorf("%q has %q, want %q", target, parts, want)
			}
			q, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := labels.Parse(q.Get("labelSelector")); err != nil || again.String() != s.String() {
				t.Errorf("the selector is %q, want %q", again, s)
			}
		}
	})
}

// Whatever a provider answers is read within a second or refused, and no value is made up.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","items":[{"metricName":"m","timestamp":null,"value":"1e3"}]}`)
	f.Add(`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","items":[{"describedObject":{"name":"a"},"metricName":"m","value":"9e-9"}]}`)
	f.Add(`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{"describedObject":{"name":"a"},"metric":{"name":"m"},"value":1}]}`)
	f.Add(`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","items":[{"metricName":"m","value":"9E-99999999"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		external, err := decodeExternal([]byte(text), &Call{External: true, Metric: "m"})
		if err == nil && strings.Count(text, `alue`) < len(external) {
			t.Errorf("there are %d values in %q", len(external), text)
		}
		custom, err := decodeCustom([]byte(text), &Call{Name: "a", Metric: "m"})
		if err == nil && (len(custom) != 1 || custom[0].DescribedObject.Name != "a") {
			t.Errorf("%q is %+v", text, custom)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
