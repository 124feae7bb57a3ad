package answer

import (
	"encoding/json"
	"sync"
)

// LabelSets keeps the sets of labels of answers, so that a set is in memory once, however many
// answers have it: each metric of a pod has the pod's. The zero value is empty. It is safe for
// concurrent use.
type LabelSets struct {
	mu sync.Mutex
	// young are the sets that were used since the last turn, by their text; old those of the turn
	// before. What no answer uses for two turns is dropped.
	young, old map[string]map[string]string
	uses       int
}

const (
	// maxSets bounds the sets of a turn; an answer of more has some twice.
	maxSets = 50_000
	// usesPerSet is how often sets are used on average before a turn ends.
	usesPerSet, leastSets = 16, 1024
)

// set reads a set of labels, unless it is known.
func (l *LabelSets) set(text json.RawMessage) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uses++
	if known, ok := l.young[string(text)]; ok {
		return known, nil
	}
	set, ok := l.old[string(text)]
	if !ok && len(text) > 0 {
		if err := json.Unmarshal(text, &set); err != nil {
			return nil, err
		}
	}
	if len(l.young) >= maxSets || l.uses > usesPerSet*max(len(l.young), leastSets) {
		l.old, l.young, l.uses = l.young, nil, 0
	}
	if l.young == nil {
		l.young = map[string]map[string]string{}
	}
	l.young[string(text)] = set
	return set, nil
}
