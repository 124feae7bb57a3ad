package server

import (
	"context"
	"fmt"
	"net/http"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	metricsinstall "k8s.io/metrics/pkg/apis/metrics/install"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// Resource answers metrics.k8s.io. Its errors are API statuses. Implementations are safe for
// concurrent use.
type Resource interface {
	// PodMetrics answers for the pods whose own labels match, of one namespace or, if it is empty,
	// of all.
	PodMetrics(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error)
	// PodMetric answers for one pod.
	PodMetric(ctx context.Context, namespace, name string) (*metricsv1beta1.PodMetrics, error)
	// NodeMetrics answers for the nodes whose own labels match, NodeMetric for one.
	NodeMetrics(ctx context.Context, selector labels.Selector) ([]metricsv1beta1.NodeMetrics, error)
	NodeMetric(ctx context.Context, name string) (*metricsv1beta1.NodeMetrics, error)
}

// resourceCodecs know metrics.k8s.io.
func resourceCodecs() serializer.CodecFactory {
	s := runtime.NewScheme()
	metricsinstall.Install(s)
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(s)
}

// serveResource adds metrics.k8s.io to a server, discovery included. The server's own chain has
// authenticated and authorized whoever comes this far.
func serveResource(server *genericapiserver.GenericAPIServer, of Resource) error {
	gv := metricsv1beta1.SchemeGroupVersion
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	group := metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	lister := discovery.APIResourceListerFunc(func() []metav1.APIResource {
		return []metav1.APIResource{
			{Name: "nodes", SingularName: "node", Kind: "NodeMetrics", Verbs: metav1.Verbs{"get", "list"}},
			{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "PodMetrics", Verbs: metav1.Verbs{"get", "list"}},
		}
	})
	resources, err := endpoints.ConvertGroupVersionIntoToDiscovery(lister())
	if err != nil {
		return fmt.Errorf("list the resources of %s: %w", gv, err)
	}
	server.AggregatedDiscoveryGroupManager.AddGroupVersion(gv.Group, apidiscoveryv2.APIVersionDiscovery{
		Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: resources,
	})
	server.DiscoveryGroupManager.AddGroup(group)
	codecs, mux, root := resourceCodecs(), server.Handler.NonGoRestfulMux, genericapiserver.APIGroupPrefix+"/"+gv.Group
	mux.Handle(root, discovery.NewAPIGroupHandler(apiserver.Codecs, group))
	mux.Handle(root+"/"+gv.Version, discovery.NewAPIVersionHandler(apiserver.Codecs, gv, lister))
	mux.HandlePrefix(root+"/"+gv.Version+"/", resourceHandler(codecs, of))
	return nil
}

// resourceHandler answers with figures of pods and nodes. What is asked for is what was authorized.
func resourceHandler(codecs serializer.CodecFactory, of Resource) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		object, err := readResource(r, of)
		if err != nil {
			responsewriters.ErrorNegotiated(err, codecs, metricsv1beta1.SchemeGroupVersion, w, r)
			return
		}
		responsewriters.WriteObjectNegotiated(codecs, negotiation.DefaultEndpointRestrictions, metricsv1beta1.SchemeGroupVersion, w, r, http.StatusOK, object, false)
	})
}

// readResource answers a request. Its error is an API status.
func readResource(r *http.Request, of Resource) (runtime.Object, error) {
	info, ok := genericapirequest.RequestInfoFrom(r.Context())
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("the request has not been looked at"))
	}
	resource := schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: info.Resource}
	if !info.IsResourceRequest || info.Subresource != "" || len(info.Parts) > 2 {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, resource, info.Name, "there are nodes and pods", 0, true)
	}
	if info.Verb != "get" && info.Verb != "list" {
		return nil, apierrors.NewMethodNotSupported(resource, info.Verb)
	}
	text := r.URL.Query().Get("labelSelector")
	selector, err := labels.Parse(text)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("labelSelector = %q: want a label selector: %v", text, err))
	}
	ctx := r.Context()
	switch {
	case info.Resource == "pods" && info.Name != "" && info.Namespace != "":
		return of.PodMetric(ctx, info.Namespace, info.Name)
	case info.Resource == "pods" && info.Name == "":
		items, err := of.PodMetrics(ctx, info.Namespace, selector)
		return &metricsv1beta1.PodMetricsList{Items: items}, err
	case info.Resource == "nodes" && info.Namespace == "" && info.Name != "":
		return of.NodeMetric(ctx, info.Name)
	case info.Resource == "nodes" && info.Namespace == "":
		items, err := of.NodeMetrics(ctx, selector)
		return &metricsv1beta1.NodeMetricsList{Items: items}, err
	}
	return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, resource, info.Name, "there are nodes and pods", 0, true)
}
