package scaler

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// The faults that a round tells apart. Drivers wrap them, so that errors.Is finds them.
var (
	// ErrNotFound means that the platform has no such workload.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that somebody else changed the object meanwhile: look again, soon.
	ErrConflict = errors.New("conflict")
	// ErrThrottled means that the platform asks for fewer requests: look again, later.
	ErrThrottled = errors.New("throttled")
	// ErrForbidden means that the platform does not allow it, and will not until somebody acts.
	ErrForbidden = errors.New("forbidden")
)

// State is a target as its platform knows it.
type State struct {
	// Replicas is the count that was last asked for.
	Replicas int
	// Trouble says why the platform cannot create instances at all ("FailedCreate: …"), "" when
	// nothing is known against it.
	Trouble string
}

// Target is where replica counts are read and written. It is safe for concurrent use with
// different Refs.
type Target interface {
	// Get returns the target's state. It may answer from memory that is at most seconds old, but
	// never from before the last Set.
	Get(ctx context.Context, ref loop.Ref) (State, error)
	// Set asks for n replicas. First names the instances that should go first, as far as the
	// platform lets one choose; it is nil when the count rises.
	Set(ctx context.Context, ref loop.Ref, n int, first []string) error
}

// Source is where signals and instances are read. It answers from memory, and is safe for
// concurrent use.
type Source interface {
	// Signals appends one signal for each need to dst: unknown where there is none.
	Signals(now time.Time, ref loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal
	// Instances appends the instances that exist and have not finished to dst.
	Instances(ref loop.Ref, dst []loop.Instance) []loop.Instance
}

// Path is how requests reach a workload at zero. It is optional, and safe for concurrent use with
// different Refs.
type Path interface {
	// See returns the path's state; nil when nothing holds requests for the workload.
	See(ctx context.Context, ref loop.Ref) (*loop.Path, error)
	// Put makes the path what it ought to be. It does nothing when it is so.
	Put(ctx context.Context, ref loop.Ref, want loop.PathState) error
}

// Sink takes the record of each round. It must not block, and is safe for concurrent use.
type Sink interface {
	Put(ref loop.Ref, r loop.Record)
}
