package path

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Reset forgets what was assigned, so that nothing is pushed before rounds have assigned it anew.
// It is called between two Runs when another process was the owner meanwhile: the ports that this
// one remembers may be others' now.
func (d *Driver) Reset() {
	p := d.pusher
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts, p.order, p.body = map[types.NamespacedName]*part{}, nil, nil
	p.expected = map[loop.Ref]struct{}{}
	p.gen++
}
