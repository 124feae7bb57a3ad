// Package naming relates Prometheus' names to Kubernetes': labels to kinds of objects, and names of
// series to names of metrics. It is pure but for caches, and safe for concurrent use.
package naming

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
)

// Namespaces is the resource whose objects are namespaces.
var Namespaces = schema.GroupResource{Resource: "namespaces"} //nolint:gochecknoglobals // a constant

// maxCached bounds how many labels a rule remembers; a label bomb costs time then, not memory.
const maxCached = 10_000

// maxLabel bounds a label's name that can name a kind of object, in bytes.
const maxLabel = 256

// Resource is a kind of object that a label names.
type Resource struct {
	schema.GroupResource
	// Root says that its objects are in no namespace.
	Root bool
}

// UnresolvedError says that a rule waits for a resource which is not installed.
type UnresolvedError struct {
	label string
	err   error
}

// Error implements error with v0.12.0's words.
func (e *UnresolvedError) Error() string { return e.err.Error() }

// Explain says what will mend it.
func (e *UnresolvedError) Explain() string {
	return fmt.Sprintf("resources.overrides[%s]: %v; the rule works once the resource is installed", e.label, e.err)
}

// Labels relates labels to kinds of objects, as a rule says.
type Labels struct {
	mapper   meta.RESTMapper
	template *template.Template
	pattern  *regexp.Regexp
	// group and resource are the indexes of the pattern's groups; group is 0 where there is none.
	group, resource int
	usesGroup       bool
	byLabel         map[string]Resource
	byResource      map[schema.GroupResource]string

	mu    sync.Mutex
	cache map[string]found
}

type found struct {
	Resource
	ok bool
}

// NewLabels compiles a mapping. unresolved are overrides to resources that the mapper does not
// know; err is a fault of the mapping itself. Both have v0.12.0's words.
func NewLabels(m config.ResourceMapping, mapper meta.RESTMapper) (l *Labels, unresolved, err error) {
	l = &Labels{
		mapper: mapper, byLabel: map[string]Resource{}, byResource: map[schema.GroupResource]string{}, cache: map[string]found{},
	}
	if m.Template != "" {
		if err := l.parse(m.Template); err != nil {
			return nil, nil, err
		}
	}
	var waits []error
	// Of two labels for one resource the first by name is asked for.
	for _, label := range slices.Sorted(maps.Keys(m.Overrides)) {
		to := m.Overrides[label]
		r, err := l.resolve(schema.GroupResource{Group: to.Group, Resource: to.Resource})
		if err != nil {
			waits = append(waits, &UnresolvedError{label: label, err: fmt.Errorf("unable to normalize group-resource %v: %w", to, err)})
			continue
		}
		l.byLabel[label] = r
		if _, ok := l.byResource[r.GroupResource]; !ok {
			l.byResource[r.GroupResource] = label
		}
	}
	return l, errors.Join(waits...), nil
}

// parse compiles the template of labels, in both directions.
func (l *Labels) parse(text string) error {
	t, err := template.New("resource-label").Delims("<<", ">>").Parse(text)
	if err != nil {
		return fmt.Errorf("unable to parse label template %q: %w", text, err)
	}
	fault := func(err error) error {
		return fmt.Errorf("unable to generate label format from template %q: %w", text, err)
	}
	if err := simple(t); err != nil {
		return fault(err)
	}
	pattern, err := l.render(t, schema.GroupResource{Group: "(?P<group>.+?)", Resource: "(?P<resource>.+?)"})
	if err != nil {
		return fault(fmt.Errorf("unable to convert label template to matcher: %w", err))
	}
	if pattern == "" {
		return fault(errors.New("unable to convert label template to matcher: empty template"))
	}
	if l.pattern, err = regexp.Compile("^" + pattern + "$"); err != nil {
		return fault(fmt.Errorf("unable to convert label template to matcher: %w", err))
	}
	// Of a name that stands twice the last counts, as in v0.12.0.
	for i, name := range l.pattern.SubexpNames() {
		switch name {
		case "group":
			l.group = i
		case "resource":
			l.resource = i
		}
	}
	if l.resource == 0 {
		return fault(errors.New("must include at least `{{.Resource}}` in the label template"))
	}
	l.template, l.usesGroup = t, l.group > 0
	return nil
}

// simple refuses what could make a label template run for long: a label needs no loop.
func simple(t *template.Template) error {
	for _, sub := range t.Templates() {
		if sub.Tree == nil || sub.Root == nil {
			continue
		}
		if err := simpleNodes(sub.Root); err != nil {
			return err
		}
	}
	return nil
}

func simpleNodes(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.RangeNode:
			return errors.New("a label template takes no range")
		case *parse.TemplateNode:
			return errors.New("a label template takes no template")
		case *parse.IfNode:
			if err := errors.Join(simpleNodes(n.List), simpleNodes(n.ElseList)); err != nil {
				return err
			}
		case *parse.WithNode:
			if err := errors.Join(simpleNodes(n.List), simpleNodes(n.ElseList)); err != nil {
				return err
			}
		}
	}
	return nil
}

// render fills in the template.
func (l *Labels) render(t *template.Template, r schema.GroupResource) (string, error) {
	var b short
	if err := t.Execute(&b, r); err != nil {
		return "", err
	}
	return b.String(), nil
}

// short is a text that no label's name is longer than.
type short struct{ strings.Builder }

// Write implements io.Writer.
func (s *short) Write(p []byte) (int, error) {
	if s.Len()+len(p) > 16*maxLabel {
		return 0, fmt.Errorf("the label is longer than %d bytes", 16*maxLabel)
	}
	return s.Builder.Write(p)
}

// resolve finds a resource by its name in the singular or the plural.
func (l *Labels) resolve(r schema.GroupResource) (Resource, error) {
	gvr, err := l.mapper.ResourceFor(r.WithVersion(""))
	if err != nil {
		return Resource{}, err
	}
	return Resource{GroupResource: gvr.GroupResource(), Root: l.root(gvr)}, nil
}

// root reports whether objects of a resource are in no namespace.
func (l *Labels) root(gvr schema.GroupVersionResource) bool {
	gvk, err := l.mapper.KindFor(gvr)
	if err != nil {
		return false
	}
	m, err := l.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	return err == nil && m.Scope.Name() == meta.RESTScopeNameRoot
}

// Resource says which kind of object a label names, if any.
func (l *Labels) Resource(label string) (Resource, bool) {
	if r, ok := l.byLabel[label]; ok {
		return r, true
	}
	if l.pattern == nil || len(label) > maxLabel {
		return Resource{}, false
	}
	l.mu.Lock()
	f, ok := l.cache[label]
	l.mu.Unlock()
	if ok {
		return f.Resource, f.ok
	}
	f.Resource, f.ok = l.find(label)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cache) < maxCached {
		l.cache[label] = f
	}
	return f.Resource, f.ok
}

// find looks a label up by the template.
func (l *Labels) find(label string) (Resource, bool) {
	m := l.pattern.FindStringSubmatch(label)
	if m != nil {
		asked := schema.GroupResource{Resource: m[l.resource]}
		if l.group > 0 {
			asked.Group = m[l.group]
		}
		if r, err := l.resolve(asked); err == nil {
			return r, true
		}
	}
	if !l.usesGroup {
		return Resource{}, false
	}
	// The template writes a group with underscores, and none for the core group. v0.12.0 does not
	// read that back. Each word may be the resource: the one whose label this is, is.
	for word := range strings.SplitSeq(label, "_") {
		if word == "" {
			continue
		}
		all, err := l.mapper.ResourcesFor(schema.GroupVersionResource{Resource: word})
		if err != nil {
			continue
		}
		for _, gvr := range all {
			if made, err := l.make(gvr.GroupResource()); err == nil && made == label {
				return Resource{GroupResource: gvr.GroupResource(), Root: l.root(gvr)}, true
			}
		}
	}
	return Resource{}, false
}

// sanitize writes a group as labels can hold it.
var sanitize = strings.NewReplacer(".", "_", "-", "_") //nolint:gochecknoglobals // a constant

// make makes the label of a resource by the template.
func (l *Labels) make(r schema.GroupResource) (string, error) {
	if l.template == nil {
		return "", errors.New("no generic resource label form specified for this metric")
	}
	singular, err := l.mapper.ResourceSingularizer(r.Resource)
	if err != nil {
		return "", fmt.Errorf("unable to singularize resource %s: %w", r, err)
	}
	label, err := l.render(l.template, schema.GroupResource{Group: sanitize.Replace(r.Group), Resource: singular})
	if err == nil && label == "" {
		err = errors.New("empty label produced by label template")
	}
	return label, err
}

// Label is the label that names objects of a resource. The error has v0.12.0's words.
func (l *Labels) Label(r schema.GroupResource) (string, error) {
	if label, ok := l.byResource[r]; ok {
		return label, nil
	}
	label, err := l.make(r)
	if err != nil {
		return "", fmt.Errorf("unable to convert resource %s into label: %w", r, err)
	}
	return label, nil
}

// Resources lists the kinds of objects that labels name, each once, by name.
func (l *Labels) Resources(labels []string) []Resource {
	var all []Resource
	for _, label := range labels {
		if r, ok := l.Resource(label); ok && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b Resource) int { return strings.Compare(a.String(), b.String()) })
	return all
}
