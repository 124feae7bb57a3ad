// Package catalog lists the policies. A Catalog is a value: it makes a validated policy of a name
// and JSON parameters, and it is passed to whoever needs policies.
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Parameter is what is known of one parameter of a policy.
type Parameter = params.Parameter

// Entry documents a policy and makes it.
type Entry struct {
	Name, Summary, Source string
	// Note is what a user must know besides, a sentence or two; it may be empty.
	Note       string
	Parameters []Parameter
	// SignalParameter is the parameter that names the signal: signal, metric, or the lists metrics
	// and triggers; empty where a policy reads none, or its own text says which.
	SignalParameter string
	// OfRequests says that the policy's reasoning holds for requests alone.
	OfRequests bool
	// New makes the policy for a target per pod, 0 meaning the policy's own default; params
	// override it and the defaults.
	New func(targetPerPod float64, params json.RawMessage) (algorithms.Policy, error)
}

// entry completes an Entry by the parameters of a Config and by a New that reads them over the
// defaults. The Config's default target, where it has one, yields to the target per pod.
func entry[C any, P algorithms.Policy](e Entry, list params.List[C], defaults func() C, target func(*C) *float64, build func(C) (P, error)) Entry {
	e.Parameters = list.Describe(defaults())
	e.New = func(t float64, raw json.RawMessage) (algorithms.Policy, error) {
		c := defaults()
		if target != nil && t > 0 {
			*target(&c) = t
		}
		if err := Read(raw, &c); err != nil {
			return nil, err
		}
		p, err := build(c)
		if err != nil {
			return nil, err // not p: a nil *Policy would be a Policy that is not nil
		}
		return p, nil
	}
	return e
}

// Read reads JSON parameters into a Config that holds the defaults. Its errors name each faulty
// parameter, in the order of the names; after an error the Config is undefined.
func Read[C any](raw json.RawMessage, c *C) error {
	err := algorithms.Strict(raw, c)
	if err == nil {
		return nil
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(raw, &given) != nil {
		return readable(err)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: given[name]})
		if err != nil {
			continue
		}
		var alone C
		if err := algorithms.Strict(one, &alone); err != nil {
			if err = readable(err); !strings.Contains(err.Error(), name) {
				err = fmt.Errorf("%s: %w", name, err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return readable(err)
	}
	return errors.Join(errs...)
}

// errUnknown is what New adds the list of parameters to.
var errUnknown = errors.New("unknown parameter")

// readable says in the words of parameters what encoding/json means.
func readable(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at := t.Field
		if at == "" {
			at = "parameters"
		}
		return fmt.Errorf("%s = %s: want %s", at, t.Value, kind(t.Type.Kind().String()))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("%w %s", errUnknown, name)
	}
	return err
}

func kind(k string) string {
	switch {
	case strings.HasPrefix(k, "float"):
		return "a number"
	case strings.HasPrefix(k, "int"), strings.HasPrefix(k, "uint"):
		return "a whole number"
	case k == "slice":
		return "a list"
	case k == "struct", k == "map":
		return "an object"
	case k == "bool":
		return "true or false"
	}
	return "a " + k
}

// Catalog is a list of policies by name. It is a value that nothing changes after Default: safe for
// concurrent use. The zero Catalog has no policies.
//
// Two copies of one Catalog are equal by ==.
type Catalog struct {
	list *[]Entry // sorted by name
}

// Default returns the built-in policies and the extra ones. An extra entry replaces an earlier one
// of the same name.
func Default(extra ...Entry) Catalog {
	var own Catalog
	entries := builtin(func(name string, target float64, raw json.RawMessage) (algorithms.Policy, error) {
		return own.New(name, target, raw)
	})
	own = sorted(slices.Clone(entries))
	for _, e := range extra {
		entries = slices.DeleteFunc(entries, func(o Entry) bool { return o.Name == e.Name })
		entries = append(entries, e)
	}
	return sorted(entries)
}

func sorted(entries []Entry) Catalog {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return Catalog{list: &entries}
}

// All returns the entries, sorted by name.
func (c Catalog) All() []Entry {
	if c.list == nil {
		return nil
	}
	return slices.Clone(*c.list)
}

// Find returns the entry of that name. The error for an unknown name lists the known ones.
func (c Catalog) Find(name string) (Entry, error) {
	all := c.All()
	names := make([]string, 0, len(all))
	for _, e := range all {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Entry{}, fmt.Errorf("policy %q: unknown; known are %s", name, strings.Join(names, ", "))
}

// maxParameters bounds the parameters of a policy, in bytes of JSON.
const maxParameters = 256 << 10

// New makes the policy of that name. The target per pod, in the unit of the policy's signal, is a
// default that the parameters override; 0 leaves the policy's own. Errors for unknown names and
// parameters list the known ones. An error that is ErrTemporary may pass though the parameters
// stay.
//
// A policy that is also an io.Closer holds a connection and must be closed after use.
func (c Catalog) New(name string, targetPerPod float64, raw json.RawMessage) (algorithms.Policy, error) {
	e, err := c.Find(name)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxParameters {
		return nil, fmt.Errorf("policy %s: parameters of %d bytes: want at most %d", name, len(raw), maxParameters)
	}
	p, err := e.New(targetPerPod, raw)
	if errors.Is(err, errUnknown) {
		return nil, fmt.Errorf("policy %s: %w (parameters: %s)", name, err, strings.Join(e.known(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", name, err)
	}
	return p, nil
}

// known lists the names at the top of the JSON parameters.
func (e Entry) known() []string {
	names := make([]string, 0, len(e.Parameters))
	for _, p := range e.Parameters {
		name, _, _ := strings.Cut(p.Name, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// ErrTemporary is in the chain of an error that may pass although the parameters stay the same: a
// file that appears later, a connection. The caller should try again; any other error is final.
var ErrTemporary = errors.New("the fault may pass")

// Temporary marks an error as ErrTemporary and leaves its text as it is. Temporary(nil) is nil.
func Temporary(err error) error {
	if err == nil {
		return nil
	}
	return temporary{err}
}

type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }

// Is tells errors.Is that the error is ErrTemporary.
func (t temporary) Is(target error) bool { return target == ErrTemporary }
