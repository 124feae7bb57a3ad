package main

import (
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestReplicasTellOnce: all replicas see an impostor, whichever of them leads or none, and one
// event tells of it.
func TestReplicasTellOnce(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "impostor", UID: "u1"}}
	for range 3 {
		p := &process{kube: client, log: slog.New(slog.DiscardHandler)}
		p.telling.SetLimit(tellAtOnce)
		p.onImpostor(pod)
		if err := p.telling.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := client.EventsV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) != 1 || all.Items[0].Reason != "GatewayImpostor" || all.Items[0].Regarding.Name != "impostor" {
		t.Errorf("%+v, %v, want one event about the impostor", all.Items, err)
	}
}
