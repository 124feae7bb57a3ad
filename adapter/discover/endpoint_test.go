package discover_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/adapter/discover"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// TestEndpoints finds where presets read pods.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	set, err := preset.New([]byte(`presets:
- {name: named, port: [nosuch, app-metrics], path: /m, scheme: https, minPodReadyAge: 30s, signals: {a: {gauge: g}}}
- {name: numbered, port: 9999, signals: {a: {gauge: g}}}
- {name: chosen, selector: "kind=chosen", port: 9096, signals: {a: {gauge: g}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	pods := map[string]map[string]string{
		"bare":      nil,
		"named":     {preset.Annotation: "named"},
		"numbered":  {preset.Annotation: "numbered"},
		"declared":  {preset.Annotation: "numbered", preset.PortAnnotation: "9096", preset.PathAnnotation: "/x?y=1"},
		"portless":  {preset.Annotation: "named", preset.PortAnnotation: "nosuch"},
		"pathless":  {preset.Annotation: "named", preset.PathAnnotation: "x"},
		"nosuch":    {preset.Annotation: "nosuch"},
		"huge":      {preset.Annotation: strings.Repeat("x", 100_000)},
		"chosen":    nil,
		"declined":  {preset.Annotation: ""},
		"by-others": nil,
	}
	client := fake.NewClientset()
	n := &notes{pods: map[string]store.Pod{}, gateways: map[types.UID]store.GatewayPod{}, synced: make(chan struct{})}
	for name, annotations := range pods {
		p := newPod("ns", name, "app-metrics")
		p.Annotations = annotations
		if name == "chosen" || name == "declined" {
			p.Labels["kind"] = "chosen"
		}
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	workload := "numbered"
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(discover.Strip))
	d, err := discover.New(discover.Options{
		Pods: factory.Core().V1().Pods().Informer(), Sink: n, Log: slog.New(slog.DiscardHandler), Presets: set,
		PresetOf:         func(p *corev1.Pod) (string, bool) { return workload, p.Name == "by-others" || p.Name == "named" },
		GatewayNamespace: "sluice", GatewayServiceAccount: "sluice-gateway",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	select {
	case <-n.synced:
	case <-time.After(20 * time.Second):
		t.Fatal("not synced")
	}
	endpoint := func(name string) string {
		n.mu.Lock()
		defer n.mu.Unlock()
		e := n.pods[name].Endpoint
		switch {
		case e == nil:
			return "none"
		case e.Fault != "":
			return e.Fault
		}
		text := e.Preset + " " + e.Scheme + "://" + e.Address + e.Path
		if e.Running {
			text += " runs"
		}
		if !e.Started.IsZero() {
			text += " since"
		}
		if e.MinReadyAge > 0 {
			text += " after " + e.MinReadyAge.String()
		}
		return text
	}
	want := map[string]string{
		"bare":      "none",
		"named":     "named https://198.18.0.1:9096/m runs since after 30s",
		"numbered":  "numbered http://198.18.0.1:9999/metrics runs",
		"declared":  "numbered http://198.18.0.1:9096/x?y=1 runs since",
		"portless":  "no container port named nosuch, where preset named is read",
		"pathless":  `sluice.dev/preset-path = "x": want a path`,
		"nosuch":    `sluice.dev/preset = "nosuch": there is no such preset; there are app-gauge`,
		"huge":      "there is no such preset",
		"chosen":    "chosen http://198.18.0.1:9096/metrics runs since",
		"declined":  "none",
		"by-others": "numbered http://198.18.0.1:9999/metrics runs",
	}
	for name, words := range want {
		if got := endpoint(name); !strings.Contains(got, words) || len(got) > 1000 {
			t.Errorf("pod %s: %.300s, want %s", name, got, words)
		}
	}
	workload = "chosen" // nobody else looks at it now
	d.Refresh(ctx, "ns", labels.Everything())
	if got := endpoint("by-others"); !strings.Contains(got, "chosen http://198.18.0.1:9096") {
		t.Errorf("after a change of the workload: %s, want the other preset", got)
	}
}
