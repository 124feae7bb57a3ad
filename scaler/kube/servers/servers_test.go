package servers_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-autoscaler/sluice/scaler/kube/servers"
)

func TestPolicyServers(t *testing.T) {
	t.Parallel()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(
		&corev1.Service{ObjectMeta: meta("policy"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.7"}},
		&corev1.Service{ObjectMeta: meta("headless"), Spec: corev1.ServiceSpec{ClusterIP: "None"}},
		&corev1.Service{ObjectMeta: meta("elsewhere"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", ClusterIP: "10.0.0.7"}},
		&corev1.Secret{ObjectMeta: meta("tls"), Data: map[string][]byte{"ca.crt": []byte("pem")}},
		&corev1.Secret{ObjectMeta: meta("huge"), Data: map[string][]byte{"ca.crt": make([]byte, 300<<10)}},
	).Build()
	s := servers.Servers{Cached: c, Direct: c}
	for name, want := range map[string]string{"policy": "", "headless": "cluster IP", "elsewhere": "ExternalName", "none": "not found"} {
		ip, err := s.ClusterIP(t.Context(), "shop", name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && ip.String() != "10.0.0.7" {
			t.Errorf("ClusterIP of %s = %v, %v, want a fault with %q", name, ip, err, want)
		}
	}
	for name, want := range map[string]string{"tls": "", "huge": "at most", "none": "not found"} {
		data, err := s.Secret(t.Context(), "shop", name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && string(data["ca.crt"]) != "pem" {
			t.Errorf("Secret %s = %v, %v, want a fault with %q", name, data, err, want)
		}
	}
}
