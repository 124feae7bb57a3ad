package adapter_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/adapter"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

func TestValidateReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := adapter.New(adapter.Options{Interval: time.Millisecond, DefaultWindow: 2 * time.Hour, Custom: true, Listen: "6443"})
	if err == nil {
		t.Fatal("New took faulty options")
	}
	for _, want := range []string{"config, log and registerer", "interval = 1ms", "default window = 2h0m0s", "gateways' namespace and ServiceAccount", `listen = "6443"`, "certificate"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v: want it to tell of %s", err, want)
		}
	}
}

// Without an API to serve neither a certificate nor an address is needed: the scaler works alone.
func TestNewWithoutAPIs(t *testing.T) {
	t.Parallel()
	a, err := adapter.New(adapter.Options{
		Config: &rest.Config{Host: "198.18.0.1"}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Interval: time.Second, DefaultWindow: 15 * time.Second, GatewayNamespace: "sluice", GatewayServiceAccount: "sluice-gateway",
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Ready() == nil {
		t.Error("ready before it ran")
	}
}

// Without a Prometheus a signal of its metrics is unknown, and says why; others are as they were.
func TestSignalsWithoutPrometheus(t *testing.T) {
	t.Parallel()
	a, err := adapter.New(adapter.Options{
		Config: &rest.Config{Host: "198.18.0.1"}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Interval: time.Second, DefaultWindow: 15 * time.Second, GatewayNamespace: "sluice", GatewayServiceAccount: "sluice-gateway",
	})
	if err != nil {
		t.Fatal(err)
	}
	ref := loop.Ref{Namespace: "shop", Name: "web"}
	a.Declare(ref, adapter.Workload{Namespace: "shop", Name: "web"})
	a.Bind(ref, adapter.Binding{Namespace: "shop", Selector: labels.Everything()})
	got := a.Signals(time.Now(), ref, []algorithms.Need{{Name: "queue_depth", Window: time.Minute}, {Name: algorithms.Concurrency, Window: time.Minute}}, nil)
	if len(got) != 2 || got[0].Known || !strings.Contains(got[0].Missing, "no Prometheus is configured") || !got[1].Known || got[1].Missing != "" {
		t.Errorf("the signals are %+v", got)
	}
	a.Unbind(ref)
}
