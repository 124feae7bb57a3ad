package reader_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal/reader"
)

// answer is what the API server of a test says to one path: a body, or a status.
type answer struct {
	code int
	body string
}

func ok(body string) answer { return answer{200, body} }

// refuse is a status of an API server.
func refuse(code int, reason, message string) answer {
	b, _ := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
	return answer{code, string(b)}
}

const (
	ns     = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web"
	scale  = "/apis/apps/v1/namespaces/shop/deployments/web/scale"
	pods   = "/api/v1/namespaces/shop/pods"
	usage  = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"
	custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/"
	queue  = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue"
)

// metric kinds of the HPA in a test.
const (
	ofQueue = `{"type":"External","external":{"metric":{"name":"queue"},"target":{"type":"AverageValue","averageValue":"10"}}}`
	ofCPU   = `{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}`
	ofPods  = `{"type":"Pods","pods":{"metric":{"name":"jobs"},"target":{"type":"AverageValue","averageValue":"10"}}}`
	ofShop  = `{"type":"Object","object":{"describedObject":{"apiVersion":"v1","kind":"Service","name":"front"},"metric":{"name":"hits"},"target":{"type":"Value","value":"10"}}}`
	ofKind  = `{"type":"Object","object":{"describedObject":{"apiVersion":"x.io/v1","kind":"Queue","name":"a"},"metric":{"name":"hits"},"target":{"type":"Value","value":"10"}}}`
)

// cluster is an API server with one Deployment of one pod, and an HPA that reads the metric.
func cluster(t *testing.T, metric string, changes map[string]answer) *reader.Reader {
	t.Helper()
	paths := map[string]answer{
		"/version": ok(`{"major":"1","minor":"37"}`),
		"/api":     ok(`{"kind":"APIVersions","versions":["v1"]}`),
		"/apis": ok(`{"kind":"APIGroupList","groups":[{"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}},` +
			`{"name":"autoscaling","versions":[{"groupVersion":"autoscaling/v2","version":"v2"}],"preferredVersion":{"groupVersion":"autoscaling/v2","version":"v2"}}]}`),
		"/api/v1":              ok(`{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","namespaced":true,"kind":"Pod"},{"name":"services","namespaced":true,"kind":"Service"},{"name":"events","namespaced":true,"kind":"Event"}]}`),
		"/apis/apps/v1":        ok(`{"kind":"APIResourceList","groupVersion":"apps/v1","resources":[{"name":"deployments","namespaced":true,"kind":"Deployment"},{"name":"deployments/scale","namespaced":true,"kind":"Scale","group":"autoscaling","version":"v1"}]}`),
		"/apis/autoscaling/v2": ok(`{"kind":"APIResourceList","groupVersion":"autoscaling/v2","resources":[{"name":"horizontalpodautoscalers","namespaced":true,"kind":"HorizontalPodAutoscaler"}]}`),
		ns: ok(`{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"namespace":"shop","name":"web","uid":"u"},
			"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"},"minReplicas":1,"maxReplicas":10,"metrics":[` + metric + `]}}`),
		scale: ok(`{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"namespace":"shop","name":"web"},"spec":{"replicas":1},"status":{"replicas":1,"selector":"app=web"}}`),
		pods: ok(`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"web-1","namespace":"shop"},"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"1"}}}]},
			"status":{"phase":"Running","startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:10Z"}]}}]}`),
		"/api/v1/namespaces/shop/events":         ok(`{"apiVersion":"v1","kind":"EventList","items":[]}`),
		queue:                                    ok(`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","items":[{"metricName":"queue","timestamp":"2026-01-01T00:00:00Z","value":"25"},{"metricName":"queue","timestamp":"2026-01-01T00:00:05Z","value":"10"}]}`),
		usage:                                    ok(`{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","items":[{"metadata":{"name":"web-1"},"timestamp":"2026-01-02T00:00:00Z","window":"15s","containers":[{"name":"app","usage":{"cpu":"1500m"}}]}]}`),
		custom + "pods/*/jobs":                   ok(`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{"describedObject":{"kind":"Pod","name":"web-1"},"metric":{"name":"jobs"},"timestamp":"2026-01-01T00:00:00Z","windowSeconds":60,"value":"20"}]}`),
		custom + "services/front/hits":           ok(`{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{"describedObject":{"kind":"Service","name":"front"},"metric":{"name":"hits"},"timestamp":"2026-01-01T00:00:00Z","value":"40"}]}`),
		"/api/v1/namespaces/shop/services/front": ok(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"front"}}`),
	}
	maps.Copy(paths, changes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		a, known := paths[r.URL.Path]
		if !known {
			a = refuse(404, "NotFound", "the server could not find the requested resource")
		}
		w.WriteHeader(a.code)
		_, _ = w.Write([]byte(a.body))
	}))
	t.Cleanup(server.Close)
	r, err := reader.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// apiService is one with its condition Available.
func apiService(status, reason, message string) answer {
	return ok(`{"kind":"APIService","spec":{"service":{"namespace":"sluice","name":"adapter"}},"status":{"conditions":[{"type":"Available","status":"` + status + `","reason":"` + reason + `","message":"` + message + `"}]}}`)
}

func TestRead(t *testing.T) {
	t.Parallel()
	const services = "/apis/apiregistration.k8s.io/v1/apiservices/"
	up := apiService("True", "Passed", "ok")
	for _, c := range []struct {
		name    string
		metric  string
		changes map[string]answer
		state   horizontal.State
		want    []string // in the sentence, or in a trouble
	}{
		{"external", ofQueue, nil, horizontal.Up, []string{"goes from 1 to 4 replicas: external queue is 35 where the target is 10 a pod; it asks for 4"}},
		{"resource", ofCPU, nil, horizontal.Up, []string{"goes from 1 to 3 replicas: cpu is 150% where the target is 50%"}},
		{"pods", ofPods, nil, horizontal.Up, []string{"goes from 1 to 2 replicas: jobs is 20 a pod where the target is 10 a pod"}},
		{"object", ofShop, nil, horizontal.Up, []string{"goes from 1 to 4 replicas: hits of Service/front is 40 where the target is 10"}},
		{
			"nobody serves it", ofCPU,
			map[string]answer{usage: {404, "404 page not found"}},
			horizontal.NoMetrics,
			[]string{"nothing serves metrics.k8s.io in this cluster: there is no APIService v1beta1.metrics.k8s.io", "install metrics-server"},
		},
		{
			"its server is down", ofQueue,
			map[string]answer{queue: {503, "service unavailable"}, services + "v1beta1.external.metrics.k8s.io": apiService("False", "MissingEndpoints", "endpoints for service/adapter in \\\"sluice\\\" have no addresses")},
			horizontal.NoMetrics,
			[]string{`APIService v1beta1.external.metrics.k8s.io is not available: MissingEndpoints: endpoints for service/adapter in "sluice" have no addresses`, "see the Service sluice/adapter", "caBundle"},
		},
		{
			"no such metric", ofPods,
			map[string]answer{custom + "pods/*/jobs": refuse(404, "NotFound", "the server could not find the metric jobs for pods"), services + "v1beta2.custom.metrics.k8s.io": up},
			horizontal.NoMetrics,
			[]string{"custom.metrics.k8s.io has no metric jobs here: the server could not find the metric jobs for pods", "kubectl get --raw /apis/custom.metrics.k8s.io/v1beta2", "sluice explain metric jobs -n shop --object pods/POD"},
		},
		{"no such object", ofShop, map[string]answer{
			custom + "services/front/hits": refuse(404, "NotFound", "no"), services + "v1beta2.custom.metrics.k8s.io": up,
			"/api/v1/namespaces/shop/services/front": refuse(404, "NotFound", "no"),
		}, horizontal.NoMetrics, []string{"there is no Service shop/front", "make the object"}},
		{"no such kind", ofKind, nil, horizontal.NoMetrics, []string{`the cluster has no kind Queue of "x.io/v1"`, "CRD"}},
		{
			"an error", ofQueue,
			map[string]answer{queue: refuse(500, "InternalError", "two series of\none object"), services + "v1beta1.external.metrics.k8s.io": up},
			horizontal.NoMetrics,
			[]string{"external.metrics.k8s.io answers two series of one object", "sluice explain metric queue -n shop"},
		},
		{
			"an empty list", ofQueue,
			map[string]answer{queue: ok(`{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","items":[]}`)},
			horizontal.NoMetrics,
			[]string{"external.metrics.k8s.io answers, with no value of queue"},
		},
		{"refused", ofQueue, map[string]answer{queue: refuse(403, "Forbidden", "you cannot list queue")}, horizontal.Hidden, []string{"you may not read it: you cannot list queue"}},
		{"pods refused", ofPods, map[string]answer{pods: refuse(403, "Forbidden", "no pods")}, horizontal.Hidden, []string{"the pods cannot be listed", "no pods"}},
		{"pods refused, and not needed", ofQueue, map[string]answer{pods: refuse(403, "Forbidden", "no pods")}, horizontal.Up, []string{"goes from 1 to 4"}},
		{"no pods match", ofPods, map[string]answer{pods: ok(`{"apiVersion":"v1","kind":"PodList","items":[]}`)}, horizontal.NoMetrics, []string{"no pods match the selector app=web", "labels of the pod template"}},
		{"no target", ofQueue, map[string]answer{scale: refuse(404, "NotFound", "no")}, horizontal.NoTarget, []string{"is not scaled by its HPA: there is no Deployment shop/web", "scaleTargetRef"}},
		{
			"no scale", ofQueue,
			map[string]answer{scale: refuse(404, "NotFound", "no"), "/apis/apps/v1/namespaces/shop/deployments/web": ok(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}}`)},
			horizontal.NoTarget,
			[]string{"has no scale subresource"},
		},
		{"scale refused", ofQueue, map[string]answer{scale: refuse(403, "Forbidden", "no")}, horizontal.Hidden, []string{"Deployment shop/web cannot be explained: you may not read the scale"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in, err := cluster(t, c.metric, c.changes).Read(t.Context(), "shop", "web", horizontal.Default())
			if err != nil {
				t.Fatal(err)
			}
			x := horizontal.Explain(in)
			var text strings.Builder
			if err := x.Write(&text, in.Now); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(text.String(), want) || x.State != c.state {
					t.Errorf("explained is %s:\n%s\nwant %s, with %q", x.State, &text, c.state, want)
				}
			}
		})
	}
}

// TestBounded lets an API server send more than is read.
func TestBounded(t *testing.T) {
	t.Parallel()
	r := cluster(t, ofQueue, map[string]answer{queue: {200, strings.Repeat(" ", 65<<20)}, "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io": apiService("True", "Passed", "ok")})
	in, err := r.Read(t.Context(), "shop", "web", horizontal.Default())
	if err != nil {
		t.Fatal(err)
	}
	if in.ScaleTrouble != nil {
		t.Fatal(*in.ScaleTrouble)
	}
	if tr := in.Answers[0].Trouble; tr == nil || !strings.Contains(tr.Cause, "the answer has more than 64 MiB") {
		t.Errorf("an endless answer gives %+v, want its bound", tr)
	}
}

func TestNoHPA(t *testing.T) {
	t.Parallel()
	_, err := cluster(t, ofQueue, map[string]answer{ns: refuse(404, "NotFound", "no such HPA")}).Read(t.Context(), "shop", "web", horizontal.Default())
	if err == nil || err.Error() != "read HorizontalPodAutoscaler shop/web: no such HPA" {
		t.Errorf("Read = %v, want an error that names the HPA", err)
	}
}
