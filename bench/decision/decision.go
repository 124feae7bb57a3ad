// Package decision puts observations to a policy, line by line, and writes what it decides.
package decision

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/record"
	"github.com/sluice-autoscaler/sluice/bench/plan"
)

// Spec is a policy with its parameters, as flags give them.
type Spec struct {
	// Policy is its name. File is a YAML file of parameters, which Params override, NAME=JSON each.
	Policy, File string
	Params       []string
	// Guarded puts the guard around the policy, with parameters of its own. Params then has those
	// of both.
	Guarded bool
	Guard   []string
	// Over are objects of parameters over all others, the last one first.
	Over []string
}

// Policy is a policy that observations are put to. It is to be closed.
type Policy struct {
	algorithms.Policy
	inner    algorithms.Policy
	spec     Spec
	policies catalog.Catalog
}

// Change makes the policy anew, with parameters over those that it has. It keeps what it remembers
// unless it is to forget, or that does not fit the parameters any more.
func (a *Policy) Change(params json.RawMessage, forget bool) error {
	spec := a.spec
	if len(params) > 0 {
		spec.Over = append(slices.Clone(spec.Over), string(params))
	}
	next, err := spec.Build(a.policies)
	if err != nil {
		return err
	}
	if memory := a.Snapshot(); !forget {
		if err := next.Restore(memory); err != nil && len(params) == 0 {
			return errors.Join(fmt.Errorf("restore what it remembered: %w", err), next.Close())
		}
	}
	old := *a
	*a = *next
	return old.Close()
}

// Close ends what the policy holds, such as a connection.
func (a *Policy) Close() error {
	if c, ok := a.inner.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Build makes the policy, of the catalog.
func (s Spec) Build(policies catalog.Catalog) (*Policy, error) {
	values := map[string]json.RawMessage{}
	if s.File != "" {
		b, err := os.ReadFile(s.File)
		if err != nil {
			return nil, fmt.Errorf("--params-file: %w", err)
		}
		if b, err = yaml.YAMLToJSONStrict(b); err != nil {
			return nil, fmt.Errorf("--params-file %s: %w", s.File, err)
		}
		if err := json.Unmarshal(b, &values); err != nil {
			return nil, fmt.Errorf("--params-file %s: want a mapping of parameters", s.File)
		}
	}
	given, err := parse("--param", s.Params)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, given)
	for _, over := range s.Over {
		if given, err = parse("params", []string{over}); err != nil {
			return nil, err
		}
		maps.Copy(values, given)
	}
	own, around := values, map[string]json.RawMessage{}
	if s.Guarded {
		entry, err := policies.Find(s.Policy)
		if err != nil {
			return nil, err
		}
		own, around = split(values, entry)
	}
	raw, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("--param: %w", err)
	}
	inner, err := policies.New(s.Policy, 0, raw)
	if err != nil {
		return nil, err
	}
	a := &Policy{Policy: inner, inner: inner, spec: s, policies: policies}
	if !s.Guarded {
		return a, nil
	}
	given, err = parse("--guard", s.Guard)
	maps.Copy(around, given)
	if err == nil {
		raw, err = json.Marshal(around)
	}
	cfg := guard.Default()
	if err == nil {
		cfg, err = guard.Parse(cfg, raw)
	}
	if err == nil {
		a.Policy, err = guard.New(cfg, inner)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// split gives guard the parameters that it has and the policy has not, and a copy of target: as in
// an Autoscaler, where both work by the same.
func split(values map[string]json.RawMessage, e catalog.Entry) (own, around map[string]json.RawMessage) {
	has := func(e catalog.Entry, name string) bool {
		return slices.ContainsFunc(e.Parameters, func(p catalog.Parameter) bool { return p.Name == name })
	}
	own, around = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for k, v := range values {
		wraps := has(catalog.Guard(), k)
		if !wraps || has(e, k) {
			own[k] = v
		}
		if wraps && (!has(e, k) || k == "target") {
			around[k] = v
		}
	}
	return own, around
}

// parse reads NAME=JSON, and {…} for several at once. A value that is no JSON is text, unless it
// begins like JSON.
func parse(flag string, given []string) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, g := range given {
		if strings.HasPrefix(strings.TrimSpace(g), "{") {
			var several map[string]json.RawMessage
			if err := json.Unmarshal([]byte(g), &several); err != nil {
				return nil, fmt.Errorf("%s %s: %w", flag, g, err)
			}
			maps.Copy(out, several)
			continue
		}
		name, text, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q: want NAME=JSON", flag, g)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%s %s is given twice", flag, name)
		}
		value := json.RawMessage(text)
		if !json.Valid(value) {
			if strings.ContainsAny(text[:min(len(text), 1)], `{["`) {
				var v any
				return nil, fmt.Errorf("%s %s: %w", flag, name, json.Unmarshal(value, &v))
			}
			b, err := json.Marshal(text)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", flag, name, err)
			}
			value = b
		}
		out[name] = value
	}
	return out, nil
}

// line is one decision as it is written.
type line struct {
	T        json.Number `json:"t"`
	Policy   string      `json:"policy,omitempty"`
	Replicas int         `json:"replicas"`
	Valid    bool        `json:"valid"`
	Reason   string      `json:"reason"`
	Next     float64     `json:"next,omitempty"`
	Message  string      `json:"message,omitempty"`
	Terms    terms       `json:"terms"`
}

// terms are written as one object in their order; a name that comes again gets its number.
type terms []algorithms.Term

// MarshalJSON writes the object.
func (t terms) MarshalJSON() ([]byte, error) {
	seen := make(map[string]int, len(t))
	var b strings.Builder
	b.WriteByte('{')
	for i, term := range t {
		name := term.Name
		if seen[term.Name]++; seen[term.Name] > 1 {
			name += "#" + strconv.Itoa(seen[term.Name])
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(term.Value)
		if err != nil {
			value = []byte("null") // NaN or infinite, which JSON has no word for
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// Named is a policy with what its lines call it, "" where there is only one.
type Named struct {
	Name   string
	Policy *Policy
}

// change does what a line of control says.
func change(policies []Named, c *record.Control) error {
	if !c.Restart && !c.Forget && len(c.Params) == 0 {
		return nil
	}
	for _, p := range policies {
		if err := p.Policy.Change(c.Params, c.Forget); err != nil {
			return err
		}
	}
	return nil
}

// Answer decides line by line, each written before the next is read: a line from each policy, in
// their order. Lines of control are carried out and not answered.
func Answer(policies []Named, in io.Reader, out io.Writer, verbose bool) error {
	dec, w := record.NewDecoder(in), bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		o, c, err := dec.NextOrControl()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && c != nil {
			if err = change(policies, c); err == nil {
				continue
			}
			err = fmt.Errorf("line %d: %w", dec.Line(), err)
		}
		if err != nil {
			return fmt.Errorf("read observations: %w", err)
		}
		for _, p := range policies {
			if err := enc.Encode(answer(p, o, verbose)); err != nil {
				return fmt.Errorf("write decision: %w", err)
			}
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
	}
}

// answer is what a policy decides about an observation, as it is written.
func answer(p Named, o algorithms.Observation, verbose bool) line {
	o.Signals, o.Pods = slices.Clone(o.Signals), slices.Clone(o.Pods)
	d := p.Policy.Decide(o)
	l := line{
		T:        json.Number(strconv.FormatFloat(float64(o.Now.UnixMicro())/1e6, 'f', -1, 64)),
		Policy:   p.Name,
		Replicas: d.Replicas, Valid: d.Valid, Reason: d.Reason, Next: d.Next.Seconds(), Terms: d.Terms,
	}
	if !d.Valid {
		l.Replicas = o.Replicas.Current
	}
	if verbose {
		l.Message = d.Message
	}
	return l
}

// BuildAll makes policies of names, or of NAME:key=value,…, each with the parameters of the spec
// over its own. They are named where there are several.
func BuildAll(spec Spec, names []string, policies catalog.Catalog) ([]Named, error) {
	var all []Named
	for _, name := range names {
		s := spec
		s.Policy = name
		if strings.Contains(name, ":") {
			p, err := plan.ParsePolicy(policies, name)
			if err != nil {
				return nil, errors.Join(err, CloseAll(all))
			}
			s.Policy = p.Name
			if len(p.Params) > 0 {
				s.Params = append([]string{string(p.Params)}, spec.Params...)
			}
		}
		p, err := s.Build(policies)
		if err != nil {
			return nil, errors.Join(err, CloseAll(all))
		}
		if len(names) < 2 {
			name = ""
		}
		all = append(all, Named{name, p})
	}
	return all, nil
}

// CloseAll closes policies.
func CloseAll(all []Named) error {
	var errs []error
	for _, n := range all {
		errs = append(errs, n.Policy.Close())
	}
	return errors.Join(errs...)
}
