package secrets_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/internal/pki/secrets"
)

// TestReplicasShare starts four replicas at once over an empty namespace: all end with the
// certificates that the Secrets hold, and a change of the instant renews them for all.
func TestReplicasShare(t *testing.T) {
	t.Parallel()
	kube := fake.NewClientset()
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	var keepers []*secrets.Keeper
	for range 4 {
		keepers = append(keepers, secrets.New(secrets.Options{
			Kube: kube, Namespace: "sluice", Issue: true, Policy: pki.DefaultPolicy(), Log: slog.New(slog.DiscardHandler), Clock: clock,
		}))
	}
	if keepers[0].ClientTLS() != nil {
		t.Error("ClientTLS before Ensure is not nil")
	}
	ensure := func() []byte {
		t.Helper()
		for range 2 { // a second time, since a replica may have read before the last write
			var all sync.WaitGroup
			for _, k := range keepers {
				all.Go(func() {
					if err := k.Ensure(t.Context()); err != nil {
						t.Errorf("Ensure: %v", err)
					}
				})
			}
			all.Wait()
		}
		s, err := kube.CoreV1().Secrets("sluice").Get(t.Context(), pki.AdapterSecret, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range keepers {
			if cert, _ := k.CurrentCertKeyContent(); !bytes.Equal(cert, s.Data[corev1.TLSCertKey]) {
				t.Errorf("replica %d serves another certificate than the Secret's", i)
			}
			if c := k.ClientTLS(); c == nil || c.ServerName != "sluice-gateway.sluice.svc" {
				t.Errorf("replica %d has no client certificate for gateways", i)
			}
		}
		return s.Data[corev1.TLSCertKey]
	}
	before := ensure()
	for _, name := range []string{pki.AuthoritySecret, pki.GatewaySecret, pki.ControllerSecret} {
		s, err := kube.CoreV1().Secrets("sluice").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"tls.crt", "tls.key", "ca.crt"} {
			if len(s.Data[key]) == 0 {
				t.Errorf("Secret %s lacks %s", name, key)
			}
		}
	}
	if again := ensure(); !bytes.Equal(before, again) {
		t.Error("a good certificate was replaced")
	}
	mu.Lock()
	now = now.Add(61 * 24 * time.Hour)
	mu.Unlock()
	if after := ensure(); bytes.Equal(before, after) {
		t.Error("a certificate in its last month was kept")
	}
}

// TestOthersIssue reads what cert-manager keeps, and says what is missing.
func TestOthersIssue(t *testing.T) {
	t.Parallel()
	now := time.Now()
	authority, err := pki.Authority{}.Step(now, pki.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	kube := fake.NewClientset()
	k := secrets.New(secrets.Options{Kube: kube, Namespace: "sluice", Log: slog.New(slog.DiscardHandler), Clock: time.Now})
	if err := k.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), pki.AdapterSecret) {
		t.Errorf("Ensure without Secrets = %v, want the missing one named", err)
	}
	for name, id := range map[string]pki.Identity{pki.AdapterSecret: pki.Adapter("sluice"), pki.ControllerSecret: pki.Controller("sluice")} {
		p, err := authority.Renew(pki.Pair{}, id, now, pki.DefaultPolicy())
		if err != nil {
			t.Fatal(err)
		}
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: name}, Data: map[string][]byte{"tls.crt": p.Cert, "tls.key": p.Key, "ca.crt": p.CA}}
		if _, err := kube.CoreV1().Secrets("sluice").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Ensure(t.Context()); err != nil || k.ClientTLS() == nil {
		t.Errorf("Ensure = %v, want the Secrets read", err)
	}
	list, err := kube.CoreV1().Secrets("sluice").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Errorf("%d Secrets, %v, want none made", len(list.Items), err)
	}
}
