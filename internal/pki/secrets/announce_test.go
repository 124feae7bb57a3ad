package secrets_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/internal/pki/secrets"
)

// TestAnnounce: an authority that somebody else wrote is replaced soon after that was told, and at
// most each five seconds where it is written again and again.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const name = "v1beta1.external.metrics.k8s.io"
		apiServices := schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
		dyn := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{apiServices: "APIServiceList"},
			&unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": name},
				"spec": map[string]any{"service": map[string]any{"name": "sluice-adapter", "namespace": "sluice"}},
			}})
		k := secrets.New(secrets.Options{
			Kube: fake.NewClientset(), Dynamic: dyn, Namespace: "sluice", Issue: true, APIServices: []string{name}, Policy: pki.DefaultPolicy(),
			Log: slog.New(slog.DiscardHandler), Clock: time.Now,
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		bundle := func() string {
			t.Helper()
			synctest.Wait()
			s, err := dyn.Resource(apiServices).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ := unstructured.NestedString(s.Object, "spec", "caBundle")
			return text
		}
		write := func() {
			t.Helper()
			s, err := dyn.Resource(apiServices).Get(t.Context(), name, metav1.GetOptions{})
			if err == nil {
				if err = unstructured.SetNestedField(s.Object, "eA==", "spec", "caBundle"); err == nil {
					_, err = dyn.Resource(apiServices).Update(t.Context(), s, metav1.UpdateOptions{})
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			k.Announce()
		}
		bundle()
		ours := base64.StdEncoding.EncodeToString(k.CA())
		if got := bundle(); got != ours || ours == "" {
			t.Fatalf("at first it is %.20s", got)
		}
		time.Sleep(30 * time.Second)
		write()
		if got := bundle(); got != ours {
			t.Errorf("after a write by somebody else it is %q", got)
		}
		restored := 0
		for range 20 { // each second, as one does that watches
			write()
			time.Sleep(time.Second)
			if bundle() == ours {
				restored++
			}
		}
		if restored < 3 || restored > 5 {
			t.Errorf("in 20 s it was replaced %d times", restored)
		}
		time.Sleep(5 * time.Second)
		if got := bundle(); got != ours {
			t.Errorf("at the end it is %q", got)
		}
		cancel()
		running.Wait()
	})
}
