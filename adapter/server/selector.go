package server

import (
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	cmv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// checkSelectors answers 400 to a metricLabelSelector that is no label selector. The library takes
// that for a fault of its own and answers 500, which clients try again.
func checkSelectors(next http.Handler) http.Handler {
	const prefix = genericapiserver.APIGroupPrefix + "/custom.metrics.k8s.io/"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, prefix) {
			for _, text := range r.URL.Query()["metricLabelSelector"] {
				if _, err := labels.Parse(text); err != nil {
					responsewriters.ErrorNegotiated(apierrors.NewBadRequest(fmt.Sprintf("metricLabelSelector = %q: want a label selector, such as window=30s: %v", text, err)),
						apiserver.Codecs, cmv1beta2.SchemeGroupVersion, w, r)
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}
