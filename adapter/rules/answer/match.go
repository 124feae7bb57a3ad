package answer

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Objects is a question about objects.
type Objects struct {
	Metric   string
	Resource schema.GroupResource
	// Label names the objects in the answer.
	Label string
	// Namespace is theirs, NamespaceLabel names it; "" for objects in no namespace.
	NamespaceLabel, Namespace string
	// Names are the objects.
	Names []string
	// List says that the question was for a list, in which what is missing may be left out.
	List bool
	Now  time.Time
}

func (w *Objects) object(name string) string {
	if w.Namespace == "" {
		return fmt.Sprintf("%s %s", w.Resource, name)
	}
	return fmt.Sprintf("%s %s/%s", w.Resource, w.Namespace, name)
}

// Objects answers a question about objects: a value for each that has one, in the order of the
// names. An object whose value is not known is left out of a list, unless no other has one. Several
// samples of one object are an error of the metric.
func (o Options) Objects(r Result, w Objects) ([]Value, error) {
	byName, elsewhere, err := w.sort(r)
	if err != nil {
		return nil, err
	}
	var values []Value
	var first error
	for _, name := range w.Names {
		samples := byName[name]
		if len(samples) == 0 {
			v, ok, err := o.empty(r, w, name, elsewhere)
			if err != nil && first == nil {
				first = err
			}
			if ok {
				values = append(values, v)
			}
			continue
		}
		s, why := o.merge(samples)
		if why != "" {
			return nil, Broken(fmt.Sprintf("metric %s of %s: %s", w.Metric, w.object(name), why))
		}
		v, why := o.value(s, w.Now)
		if why != "" {
			if first == nil {
				first = Unknown(w.Metric, w.object(name), why)
			}
			continue
		}
		v.Name = name
		values = append(values, v)
	}
	if len(values) == 0 && first != nil {
		return nil, first
	}
	return values, nil
}

// sort puts samples to the objects they belong to. A sample of another namespace belongs to an
// object of the same name there. elsewhere counts those.
func (w *Objects) sort(r Result) (byName map[string][]Sample, elsewhere int, err error) {
	byName = map[string][]Sample{}
	if r.Scalar {
		if len(w.Names) != 1 {
			return nil, 0, Broken(fmt.Sprintf("metric %s: the query gives a number without labels, and %d objects were asked for; want a vector with the label %s",
				w.Metric, len(w.Names), w.Label))
		}
		byName[w.Names[0]] = r.Samples
		return byName, 0, nil
	}
	for _, s := range r.Samples {
		if w.Namespace != "" && w.NamespaceLabel != "" && w.NamespaceLabel != w.Label {
			if ns, ok := s.Labels[w.NamespaceLabel]; ok && ns != "" && ns != w.Namespace {
				elsewhere++
				continue
			}
		}
		if name, ok := s.Labels[w.Label]; ok {
			byName[name] = append(byName[name], s)
		}
	}
	return byName, elsewhere, nil
}

// empty answers for an object without a sample. ok is false where it is left out.
func (o Options) empty(r Result, w Objects, name string, elsewhere int) (v Value, ok bool, err error) {
	why := fmt.Sprintf("no sample of the answer has %s=%q", w.Label, name)
	switch {
	case len(r.Samples) == 0:
		why = "Prometheus has no sample for it"
	case elsewhere > 0:
		why = fmt.Sprintf("%s in namespace %s; %d samples are of other namespaces", why, w.Namespace, elsewhere)
	default:
		if _, ok := r.Samples[0].Labels[w.Label]; !ok {
			why = fmt.Sprintf("the samples have no label %s, only %s; metricsQuery has to keep it", w.Label, Text(r.Samples[0].Labels))
		}
	}
	switch o.OnEmpty {
	case Zero:
		v.Quantity, _ = Quantity(0, resource.DecimalSI)
		v.Name = name
		return v, true, nil
	case Fail:
		return v, false, Unknown(w.Metric, w.object(name), why)
	}
	if w.List {
		return v, false, nil
	}
	return v, false, NotFound(w.Resource, w.Metric, name, why)
}

// External answers a question about an external metric: a value for each sample. A reader adds them
// up, so that one unknown value makes all of it unknown.
func (o Options) External(r Result, metric, namespace string, now time.Time) ([]Value, error) {
	of := "namespace " + namespace
	if len(r.Samples) == 0 {
		switch o.OnEmpty {
		case Zero:
			v := Value{}
			v.Quantity, _ = Quantity(0, resource.DecimalSI)
			return []Value{v}, nil
		case Fail:
			return nil, Unknown(metric, of, "Prometheus has no sample for it")
		}
		return nil, nil
	}
	samples := r.Samples
	if len(samples) > 1 && o.Duplicates != "" && o.Duplicates != Fail {
		s, _ := o.merge(samples)
		s.Labels = common(samples)
		samples = []Sample{s}
	}
	values := make([]Value, 0, len(samples))
	for _, s := range samples {
		v, why := o.value(s, now)
		if why != "" {
			if len(s.Labels) > 0 {
				why = Text(s.Labels) + ": " + why
			}
			return nil, Unknown(metric, of, why)
		}
		v.Labels = s.Labels
		values = append(values, v)
	}
	return values, nil
}

// common are the labels that all samples share.
func common(all []Sample) map[string]string {
	shared := map[string]string{}
	for k, v := range all[0].Labels {
		same := true
		for _, s := range all[1:] {
			same = same && s.Labels[k] == v
		}
		if same {
			shared[k] = v
		}
	}
	return shared
}
