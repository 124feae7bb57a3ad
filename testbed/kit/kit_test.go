package kit_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/wire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// Every image that the examples name, and that the chart does by its values, must be known, or the
// node answers ErrImagePull.
func TestImagesCoverDeploy(t *testing.T) {
	known := kit.Place{Bin: "bin"}.Images()
	files, err := filepath.Glob("../../deploy/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob(examples) = %v, %v", files, err)
	}
	found := 0
	for _, file := range append(files, "../../deploy/chart/values.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for word := range strings.FieldsSeq(string(text)) {
			word = strings.Trim(word, `"',{}`)
			if !strings.HasPrefix(word, "sluice-autoscaler/") {
				continue
			}
			found++
			name, _, _ := strings.Cut(word, ":")
			if known[name] == "" {
				t.Errorf("%s names image %s, which Images() = %v lacks", file, word, known)
			}
		}
	}
	if found < 4 {
		t.Errorf("found %d images in deploy, want at least 4: has their prefix changed?", found)
	}
}

func TestAtNamesAllThatIsMissing(t *testing.T) {
	_, err := kit.At(t.TempDir(), "no-such-helm")
	if err == nil {
		t.Fatal("At(empty folder) = nil error")
	}
	for _, want := range []string{"helm", "sluice-controller", "sluice-gateway", "sluice-sidecar", "sluice-sample"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("At(empty folder) = %v, want %s named", err, want)
		}
	}
}

// api answers like an API server with one of each object.
func api(t *testing.T) *kit.Cluster {
	t.Helper()
	answers := map[string]string{
		"/apis/custom.metrics.k8s.io/v1beta2/namespaces/demo/deployments.apps/web/request_concurrency?metricLabelSelector=window%3D30s": `{"items":[
			{"describedObject":{"name":"web"},"metric":{"name":"request_concurrency"},"timestamp":"2030-01-02T03:04:05Z","windowSeconds":30,"value":"7250m"}]}`,
		"/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/request_rate?labelSelector=deployment%3Dweb": `{"items":[
			{"metricName":"request_rate","timestamp":"2030-01-02T03:04:05Z","value":"12"}]}`,
		"/apis/sluice.dev/v1alpha1/namespaces/demo/autoscalers/web": `{"metadata":{"name":"web"},"status":{"phase":"Asleep"}}`,
		"/apis/apiregistration.k8s.io/v1/apiservices": `{"items":[
			{"metadata":{"name":"v1.apps"},"spec":{}},
			{"metadata":{"name":"v1.other"},"spec":{"service":{"namespace":"other"}},"status":{"conditions":[{"type":"Available","status":"False"}]}},
			{"metadata":{"name":"a"},"spec":{"service":{"namespace":"sluice"}},"status":{"conditions":[{"type":"Available","status":"True","message":"all checks passed"}]}},
			{"metadata":{"name":"b"},"spec":{"service":{"namespace":"sluice"}},"status":{"conditions":[{"type":"Available","status":"False","message":"no endpoints"}]}}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := answers[r.URL.RequestURI()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
	}))
	t.Cleanup(server.Close)
	kube, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &kit.Cluster{Kube: kube}
}

func TestReadsThroughTheAPIServer(t *testing.T) {
	c := api(t)
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	m, err := c.DeploymentMetric(t.Context(), "demo", "web", "request_concurrency", 30*time.Second)
	if want := (kit.Metric{Object: "web", Value: 7.25, Time: at, Window: 30 * time.Second}); err != nil || !cmp.Equal(m, want) {
		t.Errorf("DeploymentMetric = %+v, %v, want %+v", m, err, want)
	}
	all, err := c.ExternalMetrics(t.Context(), "demo", "request_rate", "deployment=web")
	if want := []kit.Metric{{Value: 12, Time: at}}; err != nil || !cmp.Equal(all, want) {
		t.Errorf("ExternalMetrics = %+v, %v, want %+v", all, err, want)
	}
	a, err := c.Autoscaler(t.Context(), "demo", "web")
	if err != nil || a.Status.Phase != "Asleep" {
		t.Errorf("Autoscaler = %+v, %v, want phase Asleep", a, err)
	}
	services, err := c.APIServices(t.Context())
	want := []kit.APIService{{Name: "a", Available: true, Message: "all checks passed"}, {Name: "b", Message: "no endpoints"}}
	if err != nil || !cmp.Equal(services, want) {
		t.Errorf("APIServices = %+v, %v, want %+v", services, err, want)
	}
	if _, err := c.DeploymentMetric(t.Context(), "demo", "absent", "request_concurrency", 0); err == nil {
		t.Error("DeploymentMetric(absent) = nil error, want the server's")
	}
}

func TestWaitingSumsReadyGateways(t *testing.T) {
	now := time.Now()
	authority, err := pki.Authority{}.Step(now, pki.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(id pki.Identity) pki.Pair {
		p, err := authority.Renew(pki.Pair{}, id, now, pki.DefaultPolicy())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	mine, theirs := issue(pki.Controller(kit.Namespace)), issue(pki.Gateway(kit.Namespace))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wire.ReportsPath {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, `{"gateway":"g","ports":[{"namespace":"demo","service":"web","waiting":3},{"namespace":"demo","service":"web","portName":"b","waiting":4},{"namespace":"x","service":"web","waiting":9}]}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the answer never ends
	}))
	server.TLS = pki.ServerConfig(func() (pki.Pair, error) { return theirs, nil }, pki.Controller(kit.Namespace).Names[0])
	server.StartTLS()
	t.Cleanup(server.Close)
	host, portText, _ := net.SplitHostPort(server.Listener.Addr().String())
	port, _ := strconv.Atoi(portText)
	gateway := func(name string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: kit.Namespace, Labels: map[string]string{wire.GatewayLabel: wire.GatewayValue}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: wire.ControlPortName, ContainerPort: int32(port)}}}}},
			Status:     corev1.PodStatus{PodIP: host, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "sluice-controller-tls", Namespace: kit.Namespace},
		Data:       map[string][]byte{"tls.crt": mine.Cert, "tls.key": mine.Key, "ca.crt": mine.CA},
	}
	c := &kit.Cluster{Kube: fake.NewClientset(secret, gateway("g1", corev1.ConditionTrue), gateway("g2", corev1.ConditionTrue), gateway("starting", corev1.ConditionFalse))}
	if n, err := c.Waiting(t.Context(), "demo", "web"); err != nil || n != 14 {
		t.Errorf("Waiting = %d, %v, want 14: 3 + 4 at each of two ready gateways", n, err)
	}
}
