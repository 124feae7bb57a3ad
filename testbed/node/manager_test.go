//go:build !e2e

package node_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

// call is a request that an API server got.
type call struct {
	method, path string
	patch        v1.Pod
	options      metav1.DeleteOptions
}

// fakeAPI answers everything with an empty pod, after refusing the first request: it is tried
// again.
func fakeAPI(t *testing.T) (kubernetes.Interface, <-chan call) {
	t.Helper()
	calls := make(chan call, 100)
	refused := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		if !refused {
			refused = true
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		c := call{method: r.Method, path: r.URL.Path}
		_ = json.Unmarshal(body, &c.patch)
		_ = json.Unmarshal(body, &c.options)
		calls <- c
		_, _ = io.WriteString(w, `{"kind":"Pod","apiVersion":"v1"}`)
	}))
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
	})
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: srv.URL, Transport: transport, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, calls
}

// await returns the first call that pred holds for.
func await(t *testing.T, calls <-chan call, what string, pred func(call) bool) call {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case c := <-calls:
			if pred(c) {
				return c
			}
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

func TestObjectIsDeletedAfterItsLastStatus(t *testing.T) {
	client, calls := fakeAPI(t)
	s, dir := newStage(), t.TempDir()
	m := node.NewManager(client, node.WorkerOptions{
		Machine: s, Prober: s, Objects: s, Events: s, Images: map[string]string{"app": "/app"}, Dir: dir,
	})
	ctx, cancel := context.WithCancel(t.Context())
	h := m.Handler(ctx)
	pod := podOf(30, nil, container("main"))
	h.OnAdd(pod, false)
	await(t, calls, "Ready status", func(c call) bool {
		return c.method == http.MethodPatch && c.path == "/api/v1/namespaces/default/pods/web/status" && c.patch.UID == "u1" && ready(&c.patch.Status)
	})
	gone := deleted(pod, 30)
	h.OnUpdate(pod, gone)
	final := false
	d := await(t, calls, "deletion", func(c call) bool {
		final = final || c.patch.Status.Phase == v1.PodSucceeded
		return c.method == http.MethodDelete
	})
	if !final {
		t.Error("the object was deleted before its final status was written")
	}
	if o := d.options; o.GracePeriodSeconds == nil || *o.GracePeriodSeconds != 0 || o.Preconditions == nil || *o.Preconditions.UID != "u1" {
		t.Errorf("deletion options = %+v, want grace 0 bound to the UID", o)
	}
	if _, err := os.Stat(filepath.Join(dir, "pods", "u1")); err != nil {
		t.Errorf("the pod's files are gone before its object: %v", err)
	}
	h.OnDelete(cache.DeletedFinalStateUnknown{Obj: gone})
	cancel()
	m.Stop()
}

func TestPodsThatAreOverAreLeftAlone(t *testing.T) {
	client, calls := fakeAPI(t)
	s := newStage()
	m := node.NewManager(client, node.WorkerOptions{Machine: s, Prober: s, Objects: s, Events: s, Dir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	h := m.Handler(ctx)
	done := podOf(30, nil, container("main"))
	done.Status.Phase = v1.PodSucceeded
	h.OnAdd(done, true)
	h.OnUpdate(done, deleted(done, 30))
	c := await(t, calls, "deletion", func(call) bool { return true })
	if c.method != http.MethodDelete {
		t.Errorf("first call = %s %s, want the deletion", c.method, c.path)
	}
	if len(s.journal) != 0 {
		t.Errorf("containers ran: %v", s.journal)
	}
	cancel()
	m.Stop()
}

func TestKubeletAPI(t *testing.T) {
	client, _ := fakeAPI(t)
	s, dir := newStage(), t.TempDir()
	m := node.NewManager(client, node.WorkerOptions{
		Machine: s, Prober: s, Objects: s, Events: s, Images: map[string]string{"app": "/app"}, Dir: dir,
	})
	ctx, cancel := context.WithCancel(t.Context())
	m.Handler(ctx).OnAdd(podOf(30, nil, container("main")), false)
	logs := filepath.Join(dir, "logs", "default_web_u1", "main")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"9.log": "previous", "10.log": "current"} {
		if err := os.WriteFile(filepath.Join(logs, name), []byte("2026-01-01T00:00:00Z stdout F "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		code int
		body string
	}{
		"/healthz":                        {200, "ok"},
		"/containerLogs/default/web/main": {200, "current\n"},
		"/containerLogs/default/web/main?previous=true": {200, "previous\n"},
		"/containerLogs/default/web/other":              {400, "container \"other\" in pod \"web\" not found\n"},
		"/containerLogs/default/none/main":              {404, "pod \"none\" not found\n"},
		"/exec/default/web/main":                        {501, "not supported by the testbed's node: use `testbed exec --pod`\n"},
	}
	for path, want := range tests {
		w := httptest.NewRecorder()
		m.API().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != want.code || w.Body.String() != want.body {
			t.Errorf("GET %s = %d %q, want %d %q", path, w.Code, w.Body.String(), want.code, want.body)
		}
	}
	cancel()
	m.Stop()
}
