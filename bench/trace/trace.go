// Package trace makes request arrivals, from counts per bin and from generators. It is pure:
// randomness is an argument.
package trace

import (
	"math/rand/v2"
	"time"
)

// Request is one arrival.
type Request struct {
	// At is the instant since the start; it never goes backwards.
	At time.Duration
	// Service is the time that a pod works on it; 0 leaves that to the scenario.
	Service time.Duration
}

// Arrivals yields requests in the order of their instants. It holds a bounded amount of memory,
// however long it goes on, and is not safe for concurrent use.
type Arrivals interface {
	// Read fills dst with the next requests and returns how many there were. 0 means that there are
	// no more.
	Read(dst []Request) int
}

// Source is a plan of arrivals that can be opened any number of times. It is a value: safe for
// concurrent use.
type Source interface {
	// Name is short, for tables and files: the trace's file name without ending, or the generator's
	// specification.
	Name() string
	// Length is how long the plan lasts, > 0. Arrivals come before it.
	Length() time.Duration
	// Open starts it anew. The same state of rng gives the same arrivals.
	Open(rng *rand.Rand) Arrivals
}

// Failing is what arrivals from a file add: after Read returned 0, Err tells why if that was not
// the end.
type Failing interface {
	// Err is nil as long as nothing went wrong.
	Err() error
}

// Err is the error of arrivals that can fail, nil for all others. Ask after Read returned 0.
func Err(a Arrivals) error {
	if f, ok := a.(Failing); ok {
		return f.Err()
	}
	return nil
}
