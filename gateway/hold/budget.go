package hold

import "sync"

// Greed is by how much one consumer may exceed what is left: a consumer may take no more than Greed
// times that. Alone a namespace gets two thirds of a budget, and its only Service four sevenths. A
// second one always finds room, and the one that has most is refused first. Raising it gives a lone
// consumer more, and newcomers less.
const Greed = 2

// Budget divides a bound among Services, fairly by namespace and then by Service: what one
// namespace consumes never makes another's first requests be refused. It is safe for concurrent
// use.
type Budget struct {
	mu         sync.Mutex
	most, used int64
	namespaces map[string]*tenant
}

// tenant is a namespace's part of a budget.
type tenant struct {
	used   int64
	shares map[string]*Share
}

// Share is a Service's part of a budget. It is safe for concurrent use.
type Share struct {
	budget             *Budget
	namespace, service string
	tenant             *tenant
	used               int64
	lanes              int // that have it
}

// NewBudget returns a budget of at most n.
func NewBudget(n int64) *Budget { return &Budget{most: n, namespaces: map[string]*tenant{}} }

// Used is how much is taken now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Share returns the part of a Service, which all of its ports have together. Release gives it back.
func (b *Budget) Share(namespace, service string) *Share {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.namespaces[namespace]
	if t == nil {
		t = &tenant{shares: map[string]*Share{}}
		b.namespaces[namespace] = t
	}
	s := t.shares[service]
	if s == nil {
		s = &Share{budget: b, namespace: namespace, service: service, tenant: t}
		t.shares[service] = s
	}
	s.lanes++
	return s
}

// Release says that a port of the Service is gone. What it had taken must have been given back.
func (s *Share) Release() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.lanes--; s.lanes > 0 {
		return
	}
	delete(s.tenant.shares, s.service)
	if len(s.tenant.shares) == 0 {
		delete(b.namespaces, s.namespace)
	}
}

// Take takes n, or nothing and returns false when the Service, its namespace or the budget has too
// much already.
func (s *Share) Take(n int64) bool {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.most - b.used
	ofNamespace := Greed*left - s.tenant.used
	if n > left || n > ofNamespace || s.used+n > Greed*ofNamespace {
		return false
	}
	s.add(n)
	return true
}

// Force takes n whatever has been taken.
func (s *Share) Force(n int64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.add(n)
}

// Give gives n back.
func (s *Share) Give(n int64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.add(-n)
}

func (s *Share) add(n int64) {
	s.used += n
	s.tenant.used += n
	s.budget.used += n
}
