package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/wire"
)

const namespace = "sluice"

// policy is short enough for a whole change of authority within the past half hour: TLS looks at
// the real time.
func policy() pki.Policy {
	return pki.Policy{CALife: 2 * time.Hour, CARenew: 100 * time.Minute, LeafLife: 90 * time.Minute, LeafRenew: 30 * time.Minute, Overlap: time.Minute}
}

// files are a gateway's mounted Secret: replaced at one stroke, by a link, as a kubelet does.
type files struct {
	dir string
	n   int
}

func (f *files) write(t *testing.T, p pki.Pair) {
	t.Helper()
	f.n++
	fresh := fmt.Sprintf("..v%d", f.n)
	if err := os.Mkdir(filepath.Join(f.dir, fresh), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.crt": p.Cert, "tls.key": p.Key, "ca.crt": p.CA} {
		if err := os.WriteFile(filepath.Join(f.dir, fresh, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := filepath.Join(f.dir, "..next")
	if err := os.Symlink(fresh, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(f.dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func (f *files) flags() []string {
	return []string{
		"--tls-cert-file=" + filepath.Join(f.dir, "..data", "tls.crt"), "--tls-key-file=" + filepath.Join(f.dir, "..data", "tls.key"),
		"--client-ca-file=" + filepath.Join(f.dir, "..data", "ca.crt"), "--client-name=" + pki.Controller(namespace).Names[0],
	}
}

// emptyCluster is an API server that knows no slices, and reviews: a token is its user's name, and
// "scraper" may get /metrics. It returns a kubeconfig.
func emptyCluster(t *testing.T) string {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			answerReview(w, r)
			return
		}
		if r.URL.Query().Get("watch") != "" {
			w.WriteHeader(http.StatusOK)
			if r.URL.Query().Get("sendInitialEvents") != "" {
				_, _ = io.WriteString(w, `{"type":"BOOKMARK","object":{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}))
	t.Cleanup(api.Close)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", api.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// answerReview answers a TokenReview or a SubjectAccessReview.
func answerReview(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw, nil, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch review := review.(type) {
	case *authenticationv1.TokenReview:
		review.Kind, review.APIVersion = "TokenReview", authenticationv1.SchemeGroupVersion.String()
		review.Status.Authenticated, review.Status.User.Username = true, review.Spec.Token
	case *authorizationv1.SubjectAccessReview:
		review.Kind, review.APIVersion = "SubjectAccessReview", authorizationv1.SchemeGroupVersion.String()
		review.Status.Allowed = review.Spec.User == "scraper" && review.Spec.NonResourceAttributes.Path == "/metrics"
	}
	_ = json.NewEncoder(w).Encode(review)
}

// startGateway runs the command until stop or the test's end, and returns the control port's and
// the metrics port's addresses.
func startGateway(t *testing.T, kubeconfig string, more ...string) (control, metrics string, stop func()) {
	t.Helper()
	control, metrics = fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{
			"--name=gw", "--kubeconfig", kubeconfig, "--control-listen", control, "--metrics-listen", metrics, "--listen-host=127.0.0.1", "--lame-duck=0s",
		}, more...), io.Discard, io.Discard)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run() = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	scheme := "https"
	if slices.Contains(more, "--insecure-control") {
		scheme = "http"
	}
	// as a kubelet's probe
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := client.Get(scheme + "://" + metrics + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return control, metrics, stop
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not ready: %v", err)
		}
	}
}

// call sends one request over a connection of its own.
func call(t *testing.T, p pki.Pair, method, url, body string) (*http.Response, error) {
	t.Helper()
	config, err := pki.ClientConfig(p, pki.Gateway(namespace).Names[0])
	if err != nil {
		t.Fatal(err)
	}
	return callWith(t, config, method, url, body)
}

func callWith(t *testing.T, config *tls.Config, method, url, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return (&http.Transport{TLSClientConfig: config, DisableKeepAlives: true}).RoundTrip(req)
}

// TestControlIsForControllers: who has no certificate of a controller gets nothing.
func TestControlIsForControllers(t *testing.T) {
	now := time.Now()
	authority, err := pki.Authority{}.Step(now, policy())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.Authority{}.Step(now, policy())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a pki.Authority, id pki.Identity) pki.Pair {
		t.Helper()
		p, err := a.Renew(pki.Pair{}, id, now, policy())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	controller, gateway := issue(authority, pki.Controller(namespace)), issue(authority, pki.Gateway(namespace))
	f := &files{dir: t.TempDir()}
	f.write(t, gateway)
	control, _, _ := startGateway(t, emptyCluster(t), f.flags()...)
	url := "https://" + control + wire.ReportsPath

	res, err := call(t, controller, http.MethodGet, url, "")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("a controller gets %v, %v, want its reports", res, err)
	}
	_ = res.Body.Close()

	trusting := issue(foreign, pki.Controller(namespace))
	trusting.CA = controller.CA
	asClient := gateway
	asClient.CA = controller.CA
	for name, p := range map[string]pki.Pair{
		"a controller of another authority":   trusting,
		"a gateway":                           asClient,
		"a controller of another release":     issue(authority, pki.Controller("elsewhere")),
		"a client with the adapter's own one": issue(authority, pki.Adapter(namespace)),
	} {
		if res, err := call(t, p, http.MethodGet, url, ""); err == nil {
			_ = res.Body.Close()
			t.Errorf("%s gets %s, want a failed handshake", name, res.Status)
		}
	}
	config, err := pki.ClientConfig(controller, pki.Gateway(namespace).Names[0])
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = nil
	if res, err := callWith(t, config, http.MethodGet, url, ""); err == nil {
		_ = res.Body.Close()
		t.Errorf("a client without a certificate gets %s, want a failed handshake", res.Status)
	}
	if res, err := http.Get("http://" + control + wire.ReportsPath); err == nil {
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Errorf("plain HTTP gets %s, want none", res.Status)
		}
	}
	// The other way round: a pretended gateway is not believed.
	pretender := issue(foreign, pki.Gateway(namespace))
	f.write(t, pki.Pair{Cert: pretender.Cert, Key: pretender.Key, CA: gateway.CA})
	if res, err := call(t, controller, http.MethodGet, url, ""); err == nil {
		_ = res.Body.Close()
		t.Error("a gateway with a certificate of another authority is believed")
	}
	wrong := issue(authority, pki.Adapter(namespace))
	f.write(t, wrong)
	if res, err := call(t, controller, http.MethodGet, url, ""); err == nil {
		_ = res.Body.Close()
		t.Error("a server with a certificate of another name is believed")
	}
}

// TestRotationUnderTraffic changes authority and certificates while reports are read and ports
// pushed. At each step first one side has the new certificates and then both, in turns. Each push
// is a new connection and succeeds; the stream that was open from the start goes on to the end.
func TestRotationUnderTraffic(t *testing.T) {
	now := time.Now().Add(-30 * time.Minute)
	authority := pki.Authority{}
	controller, gateway := pki.Pair{}, pki.Pair{}
	step := func(d time.Duration) (c, g pki.Pair) {
		t.Helper()
		now = now.Add(d)
		var err error
		if authority, err = authority.Step(now, policy(), controller, gateway); err != nil {
			t.Fatal(err)
		}
		if c, err = authority.Renew(controller, pki.Controller(namespace), now, policy()); err != nil {
			t.Fatal(err)
		}
		if g, err = authority.Renew(gateway, pki.Gateway(namespace), now, policy()); err != nil {
			t.Fatal(err)
		}
		return c, g
	}
	controller, gateway = step(0)
	first := controller
	f := &files{dir: t.TempDir()}
	f.write(t, gateway)
	control, _, _ := startGateway(t, emptyCluster(t), f.flags()...)

	stream, err := call(t, controller, http.MethodGet, "https://"+control+wire.ReportsPath, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Body.Close() }()
	lines := bufio.NewScanner(stream.Body)
	generation := uint64(0)
	traffic := func(what string) {
		t.Helper()
		generation++
		res, err := call(t, controller, http.MethodPut, "https://"+control+wire.OwnerPath("controller"), fmt.Sprintf(`{"epoch":1,"generation":%d}`, generation))
		if err != nil {
			t.Fatalf("push %s: %v", what, err)
		}
		_ = res.Body.Close()
		for {
			if !lines.Scan() {
				t.Fatalf("the stream ended %s: %v", what, lines.Err())
			}
			var r wire.Report
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			if o, _ := r.Owner("controller"); o.Generation == generation {
				return
			}
		}
	}
	traffic("before")
	for i, d := range []time.Duration{20 * time.Minute, 2 * time.Minute, 2 * time.Minute} {
		c, g := step(d)
		if i%2 == 0 {
			controller = c
			traffic(fmt.Sprintf("in step %d, the controller ahead", i))
			gateway = g
			f.write(t, g)
		} else {
			gateway = g
			f.write(t, g)
			traffic(fmt.Sprintf("in step %d, the gateway ahead", i))
			controller = c
		}
		traffic(fmt.Sprintf("after step %d", i))
	}
	if res, err := call(t, first, http.MethodGet, "https://"+control+wire.ReportsPath, ""); err == nil {
		_ = res.Body.Close()
		t.Error("a certificate of the old authority is still good: nothing was rotated")
	}
}
