package delegate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

const (
	// namespaceAge is how long the labels of a namespace are taken to be those that were read, and
	// namespaceKept how long they stand in while they cannot be read.
	namespaceAge, namespaceKept = 15 * time.Second, time.Hour
	// namespaceTimeout bounds one read, maxNamespaces those that are kept.
	namespaceTimeout, maxNamespaces = 2 * time.Second, 10_000
)

// readLabels reads the labels of a namespace; none for one that does not exist.
type readLabels func(ctx context.Context, namespace string) (labels.Set, error)

// namespaces keeps labels of namespaces. It is safe for concurrent use.
type namespaces struct {
	read  readLabels
	clock func() time.Time

	mu   sync.Mutex
	kept map[string]namespaceLabels
}

type namespaceLabels struct {
	set    labels.Set
	at     time.Time // read
	tried  time.Time
	failed error
}

// labels gives the labels of a namespace.
func (n *namespaces) labels(ctx context.Context, namespace string) (labels.Set, error) {
	now := n.clock()
	n.mu.Lock()
	known := n.kept[namespace]
	n.mu.Unlock()
	if now.Sub(known.tried) >= namespaceAge {
		ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
		set, err := n.read(ctx, namespace)
		cancel()
		known.tried, known.failed = now, err
		if err == nil {
			known.set, known.at = set, now
		}
		n.mu.Lock()
		if _, ok := n.kept[namespace]; !ok && len(n.kept) >= maxNamespaces {
			for other, l := range n.kept {
				if now.Sub(l.tried) >= namespaceAge {
					delete(n.kept, other)
				}
			}
		}
		if len(n.kept) < maxNamespaces {
			n.kept[namespace] = known
		}
		n.mu.Unlock()
	}
	if known.failed != nil && (known.at.IsZero() || now.Sub(known.at) >= namespaceKept) {
		return nil, fmt.Errorf("the labels of namespace %s are not known, so that it is not known whose its metrics are: %w", namespace, known.failed)
	}
	return known.set, nil
}
