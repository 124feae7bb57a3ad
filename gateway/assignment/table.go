package assignment

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// MaxOwners bounds the owners of a table. An owner that is gone keeps its place until it is
// deleted.
const MaxOwners = 64

var (
	// ErrStale says that a newer epoch or generation of the same owner is in effect.
	ErrStale = errors.New("a newer generation is in effect")
	// ErrTooManyOwners says that there are MaxOwners others.
	ErrTooManyOwners = fmt.Errorf("there are %d owners already", MaxOwners)
	// ErrOwner says that an owner's name is none.
	ErrOwner = errors.New("want a DNS label of at most 63 characters")
	// ErrEpoch says that an epoch cannot be true.
	ErrEpoch = errors.New("want an epoch of the past, in Unix nanoseconds")
)

// mostAhead is by how much an owner's clock may be ahead of the gateway's.
const mostAhead = 24 * time.Hour

// CheckEpoch refuses an epoch that no owner can have at an instant. Without a bound, one push would
// shut every later owner out for as long as the gateway lives.
func CheckEpoch(epoch int64, now time.Time) error {
	if latest := now.Add(mostAhead).UnixNano(); epoch < 0 || epoch > latest {
		return fmt.Errorf("epoch %d is not within 0–%d: %w", epoch, latest, ErrEpoch)
	}
	return nil
}

// Claim is an assignment that is in effect, and whose it is.
type Claim struct {
	Owner string
	wire.Assignment
}

// Table holds the last assignments of each owner. Its zero value is empty; it is not safe for
// concurrent use.
//
// Of two claims to one number, or to one Service port with different numbers, the one that is in
// effect stays: nobody loses a listener to another. An owner that claims what another already has
// in effect, the same Service port with the same number, is not refused. It takes over without a
// gap when the other gives it up.
type Table struct {
	owners map[string]*owner
	effect map[Target]Claim
	// refused holds the refusals of all owners, by owner and in the order of their assignments.
	refused []wire.RefusedPort
}

// owner is what one owner last assigned; ports are those without a fault of their own.
type owner struct {
	epoch      int64
	generation uint64
	ports      []wire.Assignment
	faults     []wire.RefusedPort
}

// Put replaces what an owner has assigned, and returns which of its ports are refused.
func (t *Table) Put(name string, a wire.Assignments) ([]wire.RefusedPort, error) {
	if !IsLabel(name) {
		return nil, fmt.Errorf("owner %q: %w", name, ErrOwner)
	}
	before, known := t.owners[name]
	if !known && len(t.owners) >= MaxOwners {
		return nil, fmt.Errorf("assign ports of owner %s: %w", name, ErrTooManyOwners)
	}
	if known && (a.Epoch < before.epoch || a.Epoch == before.epoch && a.Generation < before.generation) {
		return nil, fmt.Errorf("apply generation %d of epoch %d over %d of %d of owner %s: %w",
			a.Generation, a.Epoch, before.generation, before.epoch, name, ErrStale)
	}
	o := &owner{epoch: a.Epoch, generation: a.Generation, ports: make([]wire.Assignment, 0, len(a.Ports))}
	targets, numbers := map[Target]int{}, map[int]int{}
	for i, p := range a.Ports {
		err := Validate(p)
		if first, twice := numbers[p.Listen]; twice {
			err = errors.Join(err, fmt.Errorf("listen = %d is taken by ports[%d]", p.Listen, first))
		}
		if first, twice := targets[TargetOf(p)]; twice {
			err = errors.Join(err, fmt.Errorf("%s is assigned by ports[%d] already", TargetOf(p), first))
		}
		if err != nil {
			o.faults = append(o.faults, refusal(name, p, fmt.Sprintf("ports[%d]: %v", i, err)))
			continue
		}
		p.Failure = clip(p.Failure) // clients are answered with it
		numbers[p.Listen], targets[TargetOf(p)] = i, i
		o.ports = append(o.ports, p)
	}
	if t.owners == nil {
		t.owners = map[string]*owner{}
	}
	t.owners[name] = o
	t.resolve()
	var mine []wire.RefusedPort
	for _, r := range t.refused {
		if r.Owner == name {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

// Delete forgets an owner.
func (t *Table) Delete(name string) {
	delete(t.owners, name)
	t.resolve()
}

// InEffect returns what is in effect; it is not to be changed.
func (t *Table) InEffect() map[Target]Claim { return t.effect }

// Refused returns what is not in effect, and why; it is not to be changed.
func (t *Table) Refused() []wire.RefusedPort { return t.refused }

// Owners lists the owners by name.
func (t *Table) Owners() []wire.OwnerReport {
	out := make([]wire.OwnerReport, 0, len(t.owners))
	for _, name := range slices.Sorted(maps.Keys(t.owners)) {
		o := t.owners[name]
		out = append(out, wire.OwnerReport{Owner: name, Epoch: o.epoch, Generation: o.generation})
	}
	return out
}

// resolve finds what is in effect: first what was and is still claimed by the same owner, then what
// another owner claims just so, then the rest by owner.
func (t *Table) resolve() {
	before := t.effect
	t.effect, t.refused = make(map[Target]Claim, len(before)), nil
	numbers := make(map[int]Claim, len(before))
	names := slices.Sorted(maps.Keys(t.owners))
	pass := func(f func(name string, a wire.Assignment)) {
		for _, name := range names {
			for _, a := range t.owners[name].ports {
				f(name, a)
			}
		}
	}
	take := func(name string, a wire.Assignment) {
		c := Claim{Owner: name, Assignment: a}
		t.effect[TargetOf(a)], numbers[a.Listen] = c, c
	}
	pass(func(name string, a wire.Assignment) {
		if was, ok := before[TargetOf(a)]; ok && was.Owner == name && was.Listen == a.Listen {
			take(name, a)
		}
	})
	pass(func(name string, a wire.Assignment) {
		was, ok := before[TargetOf(a)]
		if _, taken := t.effect[TargetOf(a)]; ok && !taken && was.Listen == a.Listen {
			take(name, a)
		}
	})
	pass(func(name string, a wire.Assignment) {
		mine, taken := t.effect[TargetOf(a)]
		other, busy := numbers[a.Listen]
		switch {
		case taken && mine.Listen == a.Listen: // mine, or it stands by
		case taken:
			t.refused = append(t.refused, refusal(name, a, fmt.Sprintf("owner %s has assigned port %d to the Service port", mine.Owner, mine.Listen)))
		case busy:
			t.refused = append(t.refused, refusal(name, a, fmt.Sprintf("owner %s has assigned the number to %s", other.Owner, TargetOf(other.Assignment))))
		default:
			take(name, a)
		}
	})
	for _, name := range names {
		t.refused = append(t.refused, t.owners[name].faults...)
	}
}

// maxText bounds what a refusal repeats of what was sent, in bytes, and the text of a failure.
const maxText = 256

func refusal(owner string, a wire.Assignment, why string) wire.RefusedPort {
	return wire.RefusedPort{
		Owner: owner, Namespace: clip(a.Namespace), Service: clip(a.Service), PortName: clip(a.PortName), Listen: a.Listen, Error: clip(why),
	}
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}
