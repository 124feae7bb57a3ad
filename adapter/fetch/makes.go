package fetch

import (
	"errors"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Makes reports whether a rule answers for a metric, an external one if the resource is empty. One
// that it makes and that cannot be read counts. An error means that rules were not listed yet.
func (e *Engine) Makes(resource schema.GroupResource, namespace, metric string) (bool, error) {
	st := e.state.Load()
	if st == nil {
		return false, errors.New("the metrics of rules are not listed yet")
	}
	if resource.Empty() {
		m, _ := st.registry.ExternalMetric(namespace, metric) // the error is for readers
		return m != nil, nil
	}
	for _, namespaced := range []bool{true, false} {
		if m, _ := st.registry.Describes(resource, namespaced, metric); m != nil {
			return true, nil
		}
	}
	return false, nil
}
