package provider

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// Kind is a resource that has metrics. There is no mapper from discovery behind it, since discovery
// would have to wait for this very API.
type Kind struct {
	Resource schema.GroupResource
	Version  schema.GroupVersion
	Kind     string
	// Key is the external metrics' label that names an object of it, "" where there is none.
	Key string
	// Namespaced says that its objects live in namespaces.
	Namespaced bool
}

// Metric says what is served under a name, of what, and from where.
type Metric struct {
	// Name is the metric's name in both APIs. Unit is its unit, for people.
	Name, Unit string
	// Describes are the kinds of which the custom metrics API serves it.
	Describes []Kind
	// Absent says, in words that follow the resource's name, why kinds of which one might ask for
	// it have none.
	Absent map[schema.GroupResource]string
	// External says that the external metrics API serves it as well, of those kinds that have a
	// Key.
	External bool
	// Yields says that another source of metrics wins that has one of the same name.
	Yields bool
	// Source answers; Signal is the metric's name there.
	Source Source
	Signal string
}

// kind finds a kind that the metric describes.
func (m *Metric) kind(r schema.GroupResource) (Kind, bool) {
	i := slices.IndexFunc(m.Describes, func(k Kind) bool { return k.Resource == r })
	if i < 0 {
		return Kind{}, false
	}
	return m.Describes[i], true
}

// Source is where metrics come from. It answers from memory, and is safe for concurrent use.
type Source interface {
	// Object answers for one object. Its error is one of Query's, or means a fault of ours.
	Object(q Query, name string) (store.Value, error)
	// Objects answers for each object whose own labels match, by name.
	Objects(q Query, selector labels.Selector) ([]ObjectValue, error)
	// Ready says why nothing can be answered yet, nil once it can.
	Ready() error
}

// ObjectValue is what a Source answers for one of several objects: a value, or an error of Query's.
type ObjectValue struct {
	Name  string
	Value store.Value
	Err   error
}

// Query is one checked request for a metric.
type Query struct {
	Metric    *Metric
	Kind      Kind
	Namespace string
	// Window is the time over which the value is to be a mean.
	Window time.Duration
	Now    time.Time
	// echo is the metric's selector as it goes into the answer.
	echo *metav1.LabelSelector
}

func (q Query) object(name string) string {
	if q.Namespace == "" {
		return fmt.Sprintf("%s %s", q.Kind.Resource, name)
	}
	return fmt.Sprintf("%s %s/%s", q.Kind.Resource, q.Namespace, name)
}

// NotFound is the error for an object that does not exist or has no such metric.
func (q Query) NotFound(name, why string) error {
	return notFound("%s of %s: %s", q.Metric.Name, q.object(name), why)
}

// Unknown is the error for a value that is not known now.
func (q Query) Unknown(name, why string) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("%s of %s over %s is unknown: %s", q.Metric.Name, q.object(name), q.Window, why))
}

func notFound(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound, Message: fmt.Sprintf(format, args...),
	}}
}

// metrics is a table of metrics in the order in which they are listed.
type metrics []Metric

// names lists the names of the metrics of which a condition holds.
func (m metrics) names(of func(*Metric) bool) string {
	var names []string
	for i := range m {
		if of(&m[i]) && !slices.Contains(names, m[i].Name) {
			names = append(names, m[i].Name)
		}
	}
	return strings.Join(names, ", ")
}

// describing finds the metric of a name that describes a resource.
func (m metrics) describing(r schema.GroupResource, name string) (*Metric, Kind, bool) {
	for i := range m {
		if m[i].Name == name {
			if k, ok := m[i].kind(r); ok {
				return &m[i], k, true
			}
		}
	}
	return nil, Kind{}, false
}

// external finds the external metric of a name.
func (m metrics) external(name string) (*Metric, bool) {
	for i := range m {
		if m[i].Name == name && m[i].External {
			return &m[i], true
		}
	}
	return nil, false
}

// kinds lists the kinds of all metrics, each once.
func (m metrics) kinds() []Kind {
	var all []Kind
	for i := range m {
		for _, k := range m[i].Describes {
			if !slices.ContainsFunc(all, func(o Kind) bool { return o.Resource == k.Resource }) {
				all = append(all, k)
			}
		}
	}
	return all
}

// sources lists the sources of all metrics, each once.
func (m metrics) sources() []Source {
	var all []Source
	for i := range m {
		if !slices.Contains(all, m[i].Source) {
			all = append(all, m[i].Source)
		}
	}
	return all
}

// absence says why a resource has no metric of a name.
func (m metrics) absence(r schema.GroupResource, name string) error {
	var known []string
	for _, k := range m.kinds() {
		known = append(known, k.Resource.String())
	}
	if !slices.Contains(known, r.String()) {
		return notFound("%s have no metric %s here; those that have are %s", r, name, strings.Join(known, ", "))
	}
	for i := range m {
		if why := m[i].Absent[r]; why != "" && m[i].Name == name {
			return notFound("%s %s", r, why)
		}
	}
	return notFound("there is no metric %s for %s; there are %s", name, r, m.names(func(m *Metric) bool {
		_, ok := m.kind(r)
		return ok || m.Absent[r] != ""
	}))
}
