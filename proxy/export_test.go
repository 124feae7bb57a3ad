package proxy

import (
	"context"
)

// Look looks after the connections of s, of which there are none, until ctx ends.
func (s *Server) Look(ctx context.Context) {
	s.newEngines(ctx).look(ctx.Done(), s.Rules.Now, s.Heartbeat)
}
