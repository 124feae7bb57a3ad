package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// Bounds of lists of objects.
const (
	// namesPeriod is how long a list of names is used.
	namesPeriod = 10 * time.Second
	// maxLists bounds the lists that are kept.
	maxLists = 1000
	// listTimeout bounds a list.
	listTimeout = 10 * time.Second
)

// Objects lists objects of a cluster: pods from an informer, and all else from the API
// server, at most once in 10 s for a selector. It is safe for concurrent use.
type Objects struct {
	pods   cache.SharedIndexInformer
	client metadata.Interface
	clock  func() time.Time

	mu    sync.Mutex
	lists map[listKey]*objectList
}

type listKey struct {
	schema.GroupVersionResource
	namespace, selector string
}

type objectList struct {
	mu    sync.Mutex
	at    time.Time
	names []string
}

// byLabel is an index of pods by namespace and each of their labels.
const byLabel = "label"

func labelKey(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// labelKeys are the keys of a pod in the index.
func labelKeys(pod any) ([]string, error) {
	m, err := meta.Accessor(pod)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(m.GetLabels()))
	for k, v := range m.GetLabels() {
		keys = append(keys, labelKey(m.GetNamespace(), k, v))
	}
	return keys, nil
}

// NewObjects lists what a cluster has. It gives the informer of pods an index.
func NewObjects(pods cache.SharedIndexInformer, client metadata.Interface) *Objects {
	// An informer that takes no index has ended, or has this one already.
	_ = pods.AddIndexers(cache.Indexers{byLabel: labelKeys})
	return &Objects{pods: pods, client: client, clock: time.Now, lists: map[listKey]*objectList{}}
}

// selected calls take for the pods of a namespace that a selector selects. Where the selector
// demands a label it looks at the pods that have it, since a namespace may have thousands.
func (o *Objects) selected(namespace string, selector labels.Selector, take func(pod any)) error {
	requirements, _ := selector.Requirements()
	var fewest []any
	indexed := false
	for i := range requirements {
		r := &requirements[i]
		values := r.ValuesUnsorted()
		if op := r.Operator(); len(values) != 1 || op != selection.Equals && op != selection.DoubleEquals && op != selection.In {
			continue
		}
		pods, err := o.pods.GetIndexer().ByIndex(byLabel, labelKey(namespace, r.Key(), values[0]))
		if err != nil {
			return err
		}
		if !indexed || len(pods) < len(fewest) {
			fewest, indexed = pods, true
		}
	}
	if !indexed {
		return cache.ListAllByNamespace(o.pods.GetIndexer(), namespace, selector, take)
	}
	for _, pod := range fewest {
		m, err := meta.Accessor(pod)
		if err == nil && selector.Matches(labels.Set(m.GetLabels())) {
			take(pod)
		}
	}
	return nil
}

// Pods lists the names of pods by their namespace.
func (o *Objects) Pods(selector labels.Selector) (map[string][]string, error) {
	if !o.pods.HasSynced() {
		return nil, errors.New("pods are not listed yet")
	}
	by := map[string][]string{}
	err := cache.ListAll(o.pods.GetIndexer(), selector, func(pod any) {
		if m, err := meta.Accessor(pod); err == nil {
			by[m.GetNamespace()] = append(by[m.GetNamespace()], m.GetName())
		}
	})
	for _, names := range by {
		slices.Sort(names)
	}
	return by, err
}

// Names lists the names of the objects whose own labels match.
func (o *Objects) Names(ctx context.Context, resource schema.GroupVersionResource, namespace string, selector labels.Selector) ([]string, error) {
	if resource.Group == "" && resource.Resource == "pods" && namespace != "" {
		if !o.pods.HasSynced() {
			return nil, errors.New("pods are not listed yet")
		}
		var names []string
		err := o.selected(namespace, selector, func(pod any) {
			if m, err := meta.Accessor(pod); err == nil {
				names = append(names, m.GetName())
			}
		})
		slices.Sort(names)
		return names, err
	}
	key, now := listKey{resource, namespace, selector.String()}, o.clock()
	o.mu.Lock()
	l := o.lists[key]
	if l == nil {
		if len(o.lists) >= maxLists {
			clear(o.lists)
		}
		l = &objectList{}
		o.lists[key] = l
	}
	o.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && now.Sub(l.at) < namesPeriod {
		return l.names, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	found := map[string]bool{}
	opts := metav1.ListOptions{LabelSelector: key.selector, Limit: 500}
	for {
		page, err := o.client.Resource(resource).Namespace(namespace).List(ctx, opts)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			found[page.Items[i].Name] = true
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	l.names, l.at = slices.Sorted(maps.Keys(found)), now
	return l.names, nil
}
