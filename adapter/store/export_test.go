package store

import "k8s.io/apimachinery/pkg/types"

// MaxServices bounds the Services that are kept of one gateway.
const MaxServices = maxServices

// Services is how many Services are kept of a gateway.
func (s *Store) Services(uid types.UID) int {
	g := s.findGateway(uid)
	if g == nil {
		return 0
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.services)
}
