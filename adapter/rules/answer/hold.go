package answer

import "time"

// Memory keeps last known values, for rules that hold them. The zero value is empty and keeps
// DefaultMemory values. It is not safe for concurrent use.
type Memory struct {
	// Most bounds the values that are kept, 0 is DefaultMemory. Beyond it new ones are not held.
	Most int

	last map[string]kept
}

// DefaultMemory is how many values a Memory keeps.
const DefaultMemory = 100_000

type kept struct {
	values []Value
	// at is when the value was last known; until is when it is dropped.
	at, until time.Time
}

// Hold gives values back if they are known, and remembers them for a time. For what is not known,
// nil, it gives the last known ones with their own time, as long as they are no longer ago than
// hold. key names the metric, the selector, the namespace and the object.
func (m *Memory) Hold(key string, hold time.Duration, now time.Time, values []Value) ([]Value, bool) {
	if values == nil {
		k, ok := m.last[key]
		if !ok || now.Sub(k.at) > hold {
			delete(m.last, key)
			return nil, false
		}
		return k.values, true
	}
	if hold <= 0 {
		return values, true
	}
	if m.last == nil {
		m.last = map[string]kept{}
	}
	most := m.Most
	if most == 0 {
		most = DefaultMemory
	}
	if _, known := m.last[key]; !known && len(m.last) >= most {
		m.sweep(now)
		if len(m.last) >= most {
			return values, true
		}
	}
	m.last[key] = kept{values: values, at: now, until: now.Add(hold)}
	return values, true
}

// sweep drops what may not be given back any more.
func (m *Memory) sweep(now time.Time) {
	for key, k := range m.last {
		if now.After(k.until) {
			delete(m.last, key)
		}
	}
}
