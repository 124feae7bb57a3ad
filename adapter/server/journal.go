package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// The journal's API: GET /apis/explain.sluice.dev/v1alpha1/namespaces/NS/autoscalers/NAME/journal.
// To the cluster's authorization that is the verb get on autoscalers/journal.
const (
	JournalGroup   = "explain.sluice.dev"
	JournalVersion = "v1alpha1"

	journalResource, journalSubresource = "autoscalers", "journal"
)

// Journal writes the journal of an Autoscaler as JSON. An error that wraps ErrNoJournal is answered
// 404, one that wraps ErrNotLeader 503, another 500; nothing of what was written goes out then. It
// is called by many goroutines.
type Journal func(namespace, name string, w io.Writer) error

var (
	// ErrNoJournal means that there is no journal of an Autoscaler of that name.
	ErrNoJournal = errors.New("there is no journal of it")
	// ErrNotLeader means that another replica keeps the journals. Its text goes to whoever asked.
	ErrNotLeader = errors.New("this replica is not the leader, which keeps the journals: ask again")
)

func journalGroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: JournalGroup, Version: JournalVersion}
}

// serveJournal adds the journal's API to a server, discovery included. The server's own chain has
// authenticated and authorized whoever comes this far.
func serveJournal(server *genericapiserver.GenericAPIServer, journal Journal, explain ExplainMetric) error {
	gv := journalGroupVersion()
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	group := metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	lister := discovery.APIResourceListerFunc(func() []metav1.APIResource { return journalResources(explain != nil) })
	resources, err := endpoints.ConvertGroupVersionIntoToDiscovery(lister())
	if err != nil {
		return fmt.Errorf("list the resources of %s: %w", gv, err)
	}
	server.AggregatedDiscoveryGroupManager.AddGroupVersion(gv.Group, apidiscoveryv2.APIVersionDiscovery{
		Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Resources: resources,
	})
	server.DiscoveryGroupManager.AddGroup(group)

	mux, root := server.Handler.NonGoRestfulMux, genericapiserver.APIGroupPrefix+"/"+gv.Group
	mux.Handle(root, discovery.NewAPIGroupHandler(apiserver.Codecs, group))
	mux.Handle(root+"/"+gv.Version, discovery.NewAPIVersionHandler(apiserver.Codecs, gv, lister))
	mux.HandlePrefix(root+"/"+gv.Version+"/", explainHandler(explain, journalHandler(journal)))
	return nil
}

// journalResources are what the journal's API has.
func journalResources(explains bool) []metav1.APIResource {
	all := []metav1.APIResource{{
		Name: journalResource + "/" + journalSubresource, Namespaced: true, Kind: "Journal", Verbs: metav1.Verbs{"get"},
	}}
	if explains {
		all = append(all, metav1.APIResource{Name: explainedResource, Namespaced: true, Kind: "MetricExplanation", Verbs: metav1.Verbs{"get"}})
	}
	return all
}

// journalHandler answers with an Autoscaler's journal. What is asked for is what was authorized.
func journalHandler(journal Journal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if err := readJournal(r, journal, &body); err != nil {
			responsewriters.ErrorNegotiated(err, apiserver.Codecs, journalGroupVersion(), w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = body.WriteTo(w) // a client that went away needs no answer
	})
}

// readJournal writes the journal that a request asks for. Its error is an API status.
func readJournal(r *http.Request, journal Journal, w io.Writer) error {
	info, ok := genericapirequest.RequestInfoFrom(r.Context())
	if !ok {
		return apierrors.NewInternalError(errors.New("the request has not been looked at"))
	}
	resource := schema.GroupResource{Group: JournalGroup, Resource: journalResource}
	if !info.IsResourceRequest || info.Resource != journalResource || info.Subresource != journalSubresource ||
		info.Namespace == "" || len(info.Parts) != 3 {
		return apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, resource, info.Name,
			"there is namespaces/NAMESPACE/autoscalers/NAME/journal", 0, true)
	}
	if r.Method != http.MethodGet {
		return apierrors.NewMethodNotSupported(schema.GroupResource{Group: JournalGroup, Resource: journalResource + "/" + journalSubresource}, info.Verb)
	}
	err := journal(info.Namespace, info.Name, w)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoJournal):
		return apierrors.NewNotFound(resource, info.Name)
	case errors.Is(err, ErrNotLeader):
		return apierrors.NewServiceUnavailable(fmt.Sprintf("journal of Autoscaler %s/%s: %v", info.Namespace, info.Name, err))
	}
	return apierrors.NewInternalError(fmt.Errorf("journal of Autoscaler %s/%s: %w", info.Namespace, info.Name, err))
}
