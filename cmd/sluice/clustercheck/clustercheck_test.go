package clustercheck_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/cmd/sluice/clustercheck"
	"github.com/sluice-autoscaler/sluice/internal/pki"
)

// world is a cluster in which all is well.
type world struct {
	services map[string]map[string]any
	service  *corev1.Service
	slice    *discoveryv1.EndpointSlice
	secret   *corev1.Secret
	header   *corev1.ConfigMap
	more     []runtime.Object
}

const group = "v1beta1.external.metrics.k8s.io"

func healthy(t *testing.T, now time.Time) *world {
	t.Helper()
	authority, err := pki.Authority{}.Step(now, pki.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	ready, port, name := true, int32(6443), "https"
	w := &world{
		services: map[string]map[string]any{},
		service: &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: "sluice-adapter"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}},
		},
		slice: &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: "sluice-adapter"}},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
			Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		},
		secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: "sluice-adapter-tls"}, Data: map[string][]byte{"ca.crt": authority.Trusted}},
		header: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"}, Data: map[string]string{"requestheader-client-ca-file": "x"},
		},
	}
	for _, name := range []string{"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io", group, "v1alpha1.explain.sluice.dev"} {
		w.services[name] = map[string]any{
			"metadata": map[string]any{"name": name},
			"spec":     map[string]any{"service": map[string]any{"namespace": "sluice", "name": "sluice-adapter", "port": 443}, "caBundle": authority.Trusted},
			"status":   map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": "True", "reason": "Passed"}}},
		}
	}
	return w
}

func operator(image string, args ...string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "keda", Name: "keda-operator", Labels: map[string]string{"app.kubernetes.io/name": "keda-operator"}},
		Spec:       appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "keda-operator", Image: image, Args: args}}}}},
	}
}

// Each trouble is one line with its cause.
func TestLook(t *testing.T) {
	t.Parallel()
	now := time.Now()
	spec := func(w *world) map[string]any { return w.services[group]["spec"].(map[string]any) }
	written := func(w *world, field, manager string) {
		w.services[group]["metadata"].(map[string]any)["managedFields"] = []any{map[string]any{
			"manager": manager, "time": now.UTC().Format(time.RFC3339), "fieldsV1": map[string]any{"f:spec": map[string]any{"f:" + field: map[string]any{}}},
		}}
	}
	unavailable := func(w *world, message string) {
		w.services[group]["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": message}}}
	}
	for _, test := range []struct {
		name   string
		change func(w *world)
		want   []string // of each line, in their order
	}{
		{name: "all is well", change: func(*world) {}},
		{name: "none", change: func(w *world) { delete(w.services, group) }, want: []string{"note|there is none"}},
		{
			name: "another authority's", want: []string{`error|spec.caBundle is another authority's than sluice-adapter-tls's, as "keda" wrote it: start keda-operator with --enable-apiservice-patching=false`},
			change: func(w *world) {
				other, err := pki.Authority{}.Step(now, pki.DefaultPolicy())
				if err != nil {
					panic(err)
				}
				spec(w)["caBundle"] = other.Trusted
				written(w, "caBundle", "keda")
			},
		},
		{
			name: "who wrote it, where the Secret may not be read", want: []string{`error|spec.caBundle is not what the controller wrote, as "keda" wrote it`},
			change: func(w *world) { w.secret.Name = "other"; written(w, "caBundle", "keda") },
		},
		{name: "no authority", change: func(w *world) { delete(spec(w), "caBundle") }, want: []string{"error|caBundle is empty"}},
		{name: "no certificate", change: func(w *world) { spec(w)["caBundle"] = []byte("x") }, want: []string{"error|caBundle has no certificate that is valid now"}},
		{
			name: "unverified", want: []string{"warning|insecureSkipTLSVerify"},
			change: func(w *world) { delete(spec(w), "caBundle"); spec(w)["insecureSkipTLSVerify"] = true },
		},
		{
			name: "port", want: []string{"error|service sluice/sluice-adapter: it has no port 8443, which the APIService names; it has 443"},
			change: func(w *world) { spec(w)["service"].(map[string]any)["port"] = 8443 },
		},
		{
			name: "not ready", want: []string{"none of its 1 pods is ready", "none of its 1 pods is ready", "error|service sluice/sluice-adapter: none of its 1 pods is ready", "none of its 1 pods is ready"},
			change: func(w *world) { no := false; w.slice.Endpoints[0].Conditions.Ready = &no },
		},
		{name: "no pods", want: []string{"no pod", "no pod", "no pod", "no pod has its labels"}, change: func(w *world) { w.slice.Endpoints = nil }},
		{name: "another port of the pods", want: []string{"do not", "do not", "do not", "do not have the port"}, change: func(w *world) { w.slice.Ports = nil }},
		{
			name: "no Service", want: []string{"note|it leads to sluice/gone", "error|service sluice/gone: there is no such Service"},
			change: func(w *world) { spec(w)["service"] = map[string]any{"namespace": "sluice", "name": "gone"} },
		},
		{
			name: "another provider", want: []string{`note|it leads to sluice/keda-metrics-apiserver, which is not Sluice, as "helm" wrote it`, "error|service sluice/keda-metrics-apiserver"},
			change: func(w *world) {
				spec(w)["service"] = map[string]any{"namespace": "sluice", "name": "keda-metrics-apiserver"}
				written(w, "service", "helm")
			},
		},
		{
			name: "another chart's", want: []string{`warning|it belongs to the Helm release "keda"`},
			change: func(w *world) {
				w.services[group]["metadata"].(map[string]any)["annotations"] = map[string]any{"meta.helm.sh/release-name": "keda"}
			},
		},
		{
			name: "certificate", want: []string{"error|the API server does not reach sluice/sluice-adapter: failing or missing response: x509: certificate signed by unknown authority (caBundle is not of"},
			change: func(w *world) {
				unavailable(w, "failing or missing response: x509: certificate signed by unknown authority")
			},
		},
		{
			name: "refused", want: []string{"extension-apiserver-authentication)"},
			change: func(w *world) { unavailable(w, "bad status from https://10.0.0.1:6443: 403") },
		},
		{name: "no request header", want: []string{"error|it has no requestheader-client-ca-file"}, change: func(w *world) { w.header.Data = nil }},
		{name: "no aggregation", want: []string{"error|there is none: the API server's aggregation layer is off"}, change: func(w *world) { w.header.Name = "x" }},
		{
			name: "KEDA", want: []string{"error|--enable-apiservice-patching=false is missing, so that KEDA writes its authority into APIService " + group + ", so that nobody is answered"},
			change: func(w *world) { w.more = []runtime.Object{operator("ghcr.io/kedacore/keda:2.21.0", "--leader-elect")} },
		},
		{
			name: "KEDA before", want: []string{"note|there is none", "warning|--enable-apiservice-patching is true"},
			change: func(w *world) {
				delete(w.services, group)
				w.more = []runtime.Object{operator("ghcr.io/kedacore/keda:2.21.0", "--enable-apiservice-patching=true")}
			},
		},
		{
			name: "an old KEDA", want: []string{"error|KEDA 2.17 writes its authority into"},
			change: func(w *world) {
				w.more = []runtime.Object{operator("registry:5000/keda:2.17.2@sha256:ab", "--enable-cert-rotation=true")}
			},
		},
		{name: "KEDA that was told", change: func(w *world) {
			w.more = []runtime.Object{operator("ghcr.io/kedacore/keda:2.21.0", "--enable-apiservice-patching=false")}
		}},
		{name: "what only sounds like KEDA", change: func(w *world) {
			d := operator("ghcr.io/kedacore/keda-metrics-apiserver:2.21.0")
			d.Name, d.Labels = "keda-metrics-apiserver", map[string]string{"app": "keda-metrics-apiserver"}
			w.more = []runtime.Object{d}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := healthy(t, now)
			test.change(w)
			api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				name := strings.TrimPrefix(r.URL.Path, "/apis/apiregistration.k8s.io/v1/apiservices/")
				if s, ok := w.services[name]; ok {
					_ = json.NewEncoder(rw).Encode(s)
					return
				}
				rw.WriteHeader(http.StatusNotFound)
				_, _ = rw.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))
			}))
			defer api.Close()
			client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL})
			if err != nil {
				t.Fatal(err)
			}
			kube := fake.NewClientset(append(w.more, w.service, w.slice, w.secret, w.header)...)
			found := clustercheck.Look(t.Context(), kube, client.Discovery().RESTClient(), now)
			var lines []string
			for _, f := range found {
				lines = append(lines, fmt.Sprintf("%s|%s", f.Level, f.Text))
				if clustercheck.Kinds()[f.Kind] == "" || f.Field == "" || strings.Contains(f.Text, "\n") {
					t.Errorf("the finding is %+v", f)
				}
			}
			ok := len(lines) == len(test.want)
			for i := 0; ok && i < len(lines); i++ {
				ok = strings.Contains(lines[i], test.want[i])
			}
			if !ok {
				t.Errorf("it says\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}
