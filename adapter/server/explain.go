package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// explainedResource is the resource of explanations of metrics:
// GET /apis/explain.sluice.dev/v1alpha1/namespaces/NS/metrics/NAME?resource=pods&object=NAME.
// To the cluster's authorization that is the verb get on metrics.
const explainedResource = "metrics"

// MetricQuestion asks how a metric is answered.
type MetricQuestion struct {
	// Resource is the kind of object; empty asks for an external metric. Object is one of them.
	Resource  schema.GroupResource
	Namespace string
	Object    string
	Metric    string
	Selector  labels.Selector
}

// ExplainMetric answers with what is written as JSON. It is called by many goroutines.
type ExplainMetric func(ctx context.Context, q MetricQuestion) (any, error)

// explainHandler answers with an explanation, and leaves everything else to next.
func explainHandler(explain ExplainMetric, next http.Handler) http.Handler {
	if explain == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := genericapirequest.RequestInfoFrom(r.Context())
		if !ok || !info.IsResourceRequest || info.Resource != explainedResource {
			next.ServeHTTP(w, r)
			return
		}
		text, err := explainMetric(r, info, explain)
		if err != nil {
			responsewriters.ErrorNegotiated(err, apiserver.Codecs, journalGroupVersion(), w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a client that went away needs no answer
	})
}

// explainMetric answers a request. Its error is an API status.
func explainMetric(r *http.Request, info *genericapirequest.RequestInfo, explain ExplainMetric) ([]byte, error) {
	resource := schema.GroupResource{Group: JournalGroup, Resource: explainedResource}
	if info.Namespace == "" || info.Name == "" || info.Subresource != "" || len(info.Parts) != 2 {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, resource, info.Name, "there is namespaces/NAMESPACE/metrics/NAME", 0, true)
	}
	if r.Method != http.MethodGet {
		return nil, apierrors.NewMethodNotSupported(resource, info.Verb)
	}
	asked := r.URL.Query()
	q := MetricQuestion{Namespace: info.Namespace, Metric: info.Name, Object: asked.Get("object"), Resource: schema.ParseGroupResource(asked.Get("resource"))}
	if asked.Get("resource") == "" {
		q.Resource = schema.GroupResource{}
	}
	var err error
	if q.Selector, err = labels.Parse(asked.Get("selector")); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("selector = %q: want a label selector: %v", asked.Get("selector"), err))
	}
	answer, err := explain(r.Context(), q)
	if err != nil {
		if _, ok := errors.AsType[*apierrors.StatusError](err); ok {
			return nil, err
		}
		return nil, apierrors.NewInternalError(err)
	}
	return json.Marshal(answer)
}
