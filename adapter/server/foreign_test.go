package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/adapter/server"
	"github.com/sluice-autoscaler/sluice/adapter/server/ownership"
)

// rotated is a cluster whose APIServices somebody else may write to. What it does not know it asks
// another.
type rotated struct {
	http.Handler
	mu      sync.Mutex
	written string // the manager that wrote caBundle
	changed chan struct{}
	watches int
}

func (c *rotated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const path = "/apis/apiregistration.k8s.io/v1/apiservices"
	name, one := strings.CutPrefix(r.URL.Path, path+"/")
	c.mu.Lock()
	by, changed := c.written, c.changed
	c.mu.Unlock()
	switch {
	case one:
		s := map[string]any{
			"metadata": map[string]any{"name": name, "uid": "u-" + name},
			"spec":     map[string]any{"service": map[string]any{"namespace": "sluice", "name": "sluice-adapter"}, "caBundle": []byte("own")},
		}
		if by != "" && strings.Contains(name, "external") {
			s["spec"].(map[string]any)["caBundle"] = []byte("theirs of " + by)
			s["metadata"].(map[string]any)["managedFields"] = []any{map[string]any{
				"manager": by, "time": time.Now().UTC().Format(time.RFC3339), "fieldsV1": map[string]any{"f:spec": map[string]any{"f:caBundle": map[string]any{}}},
			}}
		}
		_ = json.NewEncoder(w).Encode(s)
	case r.URL.Path == path && r.URL.Query().Get("watch") == "true":
		c.mu.Lock()
		c.watches++
		c.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-changed:
			fmt.Fprintf(w, "{\"type\":\"MODIFIED\",\"object\":{\"name\":%q}}\n", r.URL.Query().Get("fieldSelector"))
		}
	default:
		c.Handler.ServeHTTP(w, r)
	}
}

// write is a write by a manager, of which watches tell.
func (c *rotated) write(by string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = by
	close(c.changed)
	c.changed = make(chan struct{})
}

// TestForeignWrite: what somebody else writes to an APIService is told at once, by a watch, with
// who wrote it, and told off when it is as it was. The server serves on.
func TestForeignWrite(t *testing.T) {
	cluster := &rotated{changed: make(chan struct{})}
	log := &lockedText{}
	var mu sync.Mutex
	var told []server.ForeignWrite
	w := start(t, func(o *server.Options) {
		behind := o.Config
		transport, err := rest.TransportFor(behind)
		if err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(behind.Host)
		if err != nil {
			t.Fatal(err)
		}
		cluster.Handler = proxyTo(at, transport)
		front := httptest.NewServer(cluster)
		t.Cleanup(func() {
			front.CloseClientConnections()
			front.Close()
		})
		o.Config = &rest.Config{Host: front.URL}
		o.Log = slog.New(slog.NewTextHandler(log, nil))
		o.Registration = server.RegistrationOptions{
			Owner:     ownership.Owner{Namespace: "sluice", Service: "sluice-adapter", CA: func() []byte { return []byte("own") }, Managers: []string{"sluice-controller"}},
			OnForeign: func(f server.ForeignWrite) { mu.Lock(); told = append(told, f); mu.Unlock() },
		}
	})
	gauge := func(name, field string) float64 {
		families, err := w.metrics.Gather()
		if err != nil {
			return -1
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && m.GetLabel()[0].GetValue() == "v1beta1.external.metrics.k8s.io" && m.GetLabel()[1].GetValue() == field {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		return -1
	}
	w.until(t, "watches", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		return cluster.watches == 4 && gauge("sluice_adapter_apiservice_foreign", "caBundle") == 0
	})
	began := time.Now()
	cluster.write("keda")
	w.until(t, "told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 1
	})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it was told after %v: not by the watch", took)
	}
	if f := told[0]; f.APIService != "v1beta1.external.metrics.k8s.io" || f.UID != "u-v1beta1.external.metrics.k8s.io" || f.Manager != "keda" || f.Field != "caBundle" {
		t.Errorf("told of %+v", f)
	}
	w.until(t, "readyz", func() bool {
		err := w.server.Registered()
		return err != nil && strings.Contains(err.Error(), `APIService v1beta1.external.metrics.k8s.io: spec.caBundle is another authority's, as "keda" wrote it`)
	})
	if gauge("sluice_adapter_apiservice_foreign", "caBundle") != 1 || gauge("sluice_adapter_apiservice_foreign_writes_total", "caBundle") != 1 {
		t.Error("the metrics do not tell")
	}
	if text := log.text(); !strings.Contains(text, "manager=keda") || !strings.Contains(text, "--enable-apiservice-patching=false") {
		t.Errorf("the log is %s", text)
	}
	if code, body := w.get(t, w.plain, "/readyz", nil); code != http.StatusOK {
		t.Errorf("readyz = %d %s", code, body)
	}
	cluster.write("")
	w.until(t, "told off", func() bool {
		return w.server.Registered() == nil && gauge("sluice_adapter_apiservice_foreign", "caBundle") == 0
	})
}
