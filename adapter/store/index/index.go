// Package index keeps what belongs to a label or to a name.
package index

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Pair is a key of the indexes. Labels have a key, so that the pair without one is free for
// the pod's name.
type Pair struct{ Key, Value string }

// Name is the pair of a pod's name.
func Name(name string) Pair { return Pair{Value: name} }

// Remove takes v out of an index's entry; an entry without values goes. Their order is of no
// meaning.
func Remove[V comparable](of map[Pair][]V, key Pair, v V) {
	kept := Without(of[key], v)
	if len(kept) == 0 {
		delete(of, key)
		return
	}
	of[key] = kept
}

// Without takes v out of a list and may change the others' order.
func Without[V comparable](list []V, v V) []V {
	i := slices.Index(list, v)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	list[i] = list[last]
	clear(list[last:])
	return list[:last]
}

// Pairs lists the labels that every pod selected has, as far as the selector's form tells.
func Pairs(selector labels.Selector) []Pair {
	requirements, _ := selector.Requirements()
	var out []Pair
	for i := range requirements {
		r := &requirements[i]
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				out = append(out, Pair{r.Key(), values[0]})
			}
		default:
		}
	}
	return out
}
