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

// Index has an answer's samples by the objects they belong to, so that one answer serves many
// questions at the cost of each question's objects. It does not change.
type Index struct {
	byName map[string][]Sample
	// scalar is the number of an answer without labels, nil in others.
	scalar []Sample
	// samples counts all samples, elsewhere those of other namespaces; first has the labels of one.
	samples, elsewhere int
	first              map[string]string
}

// Index puts samples to the objects they belong to. A sample of another namespace belongs to an
// object of the same name there. Of the question only the labels and the namespace count.
func (w *Objects) Index(r Result) *Index {
	x := &Index{byName: map[string][]Sample{}, samples: len(r.Samples)}
	if r.Scalar {
		x.scalar = r.Samples
		return x
	}
	for i, s := range r.Samples {
		if x.first == nil {
			x.first = s.Labels
		}
		if w.Namespace != "" && w.NamespaceLabel != "" && w.NamespaceLabel != w.Label {
			if ns, ok := s.Labels[w.NamespaceLabel]; ok && ns != "" && ns != w.Namespace {
				x.elsewhere++
				continue
			}
		}
		name, ok := s.Labels[w.Label]
		if !ok {
			continue
		}
		if twice := x.byName[name]; twice != nil {
			x.byName[name] = append(twice, s)
		} else { // most have one, which need not be copied
			x.byName[name] = r.Samples[i : i+1 : i+1]
		}
	}
	return x
}

// Objects answers a question about objects: a value for each that has one, in the order of the
// names. An object whose value is not known is left out of a list, unless no other has one. Several
// samples of one object are an error of the metric.
func (o Options) Objects(x *Index, w Objects) ([]Value, error) {
	if x.scalar != nil && len(w.Names) != 1 {
		return nil, Broken(fmt.Sprintf("metric %s: the query gives a number without labels, and %d objects were asked for; want a vector with the label %s",
			w.Metric, len(w.Names), w.Label))
	}
	var values []Value
	var first error
	for _, name := range w.Names {
		samples := x.byName[name]
		if x.scalar != nil {
			samples = x.scalar
		}
		if len(samples) == 0 {
			v, ok, err := o.empty(x, w, name)
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

// Empty reports whether the answer had no samples.
func (x *Index) Empty() bool { return x.samples == 0 }

// empty answers for an object without a sample. ok is false where it is left out.
func (o Options) empty(x *Index, w Objects, name string) (v Value, ok bool, err error) {
	why := fmt.Sprintf("no sample of the answer has %s=%q", w.Label, name)
	switch {
	case x.samples == 0:
		why = "Prometheus has no sample for it"
	case x.elsewhere > 0:
		why = fmt.Sprintf("%s in namespace %s; %d samples are of other namespaces", why, w.Namespace, x.elsewhere)
	default:
		if _, ok := x.first[w.Label]; !ok {
			why = fmt.Sprintf("the samples have no label %s, only %s; metricsQuery has to keep it", w.Label, Text(x.first))
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
