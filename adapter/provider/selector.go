package provider

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// windowKey is the key of a metric selector that names the window.
const windowKey = "window"

// pairs reads a metric selector as key=value pairs. Another operator, a key that is not known or
// one given twice is a fault of the request.
func pairs(selector labels.Selector, known ...string) (map[string]string, error) {
	out := map[string]string{}
	if selector == nil {
		return out, nil
	}
	requirements, selectable := selector.Requirements()
	if !selectable {
		return nil, apierrors.NewBadRequest("the metric selector selects nothing; leave it out or give " + windowKey + "=30s")
	}
	for _, r := range requirements {
		if !slices.Contains(known, r.Key()) {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the metric selector's key %q is not known; the known ones are %s", r.Key(), strings.Join(known, ", ")))
		}
		values := r.ValuesUnsorted()
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
		default:
			values = nil
		}
		if len(values) != 1 || values[0] == "" {
			example := "NAME"
			if r.Key() == windowKey {
				example = "30s"
			}
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the metric selector's %q: want one value, as in %s=%s", r.String(), r.Key(), example))
		}
		if was, twice := out[r.Key()]; twice && was != values[0] {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the metric selector gives %s twice: %s and %s", r.Key(), was, values[0]))
		}
		out[r.Key()] = values[0]
	}
	return out, nil
}

// keys are the labels by which the external API names an object that has the metric, by name.
func (m *Metric) keys() []string {
	var keys []string
	for _, k := range m.Describes {
		if k.Key != "" {
			keys = append(keys, k.Key)
		}
	}
	slices.Sort(keys)
	return keys
}

// keyed returns the kind whose key a request gives. It must give one.
func (m *Metric) keyed(wants map[string]string, selector labels.Selector) (Kind, error) {
	var found Kind
	for _, k := range m.Describes {
		if k.Key == "" || wants[k.Key] == "" {
			continue
		}
		if found.Key != "" {
			return Kind{}, apierrors.NewBadRequest(fmt.Sprintf("labelSelector %q names two workloads; give one of %s", selector, list(m.keys(), "", "and")))
		}
		found = k
	}
	if found.Key == "" {
		return Kind{}, apierrors.NewBadRequest(fmt.Sprintf("labelSelector %q names no workload; give %s", selector, list(m.keys(), "=NAME", "or")))
	}
	return found, nil
}

// list is words with what follows each, as a sentence lists them.
func list(words []string, each, last string) string {
	text := strings.Join(words, each+", ") + each
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " " + last + text[i+1:]
	}
	return text
}

// windowOf is the window that a request asks for.
func (p *Provider) windowOf(wants map[string]string) (time.Duration, error) {
	text := wants[windowKey]
	if text == "" {
		return p.window, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("window=%s is no duration; %s", text, wantWindow))
	}
	if err := checkWindow(d); err != nil {
		return 0, apierrors.NewBadRequest("window " + err.Error())
	}
	return d, nil
}

const wantWindow = "want whole seconds from 1s to 1h, such as window=30s"

// checkWindow holds windows to whole seconds, since the API gives them back in such.
func checkWindow(d time.Duration) error {
	if d < MinWindow || d > MaxWindow || d%time.Second != 0 {
		return fmt.Errorf("= %s: %w", d, errors.New(wantWindow))
	}
	return nil
}
