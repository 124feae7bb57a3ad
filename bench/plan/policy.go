// Package plan lays out runs of the simulator: policies × loads × scenarios × seeds, in parallel
// and in a fixed order.
package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/perrequest"
)

// Policy is a policy by its name and parameters, and how often it is asked. It is a value.
type Policy struct {
	// Label is what results call it: the specification as it was given.
	Label string
	// Name and Params are the catalog's.
	Name   string
	Params json.RawMessage
	// Tick is the time between its decisions; 0 takes the scenario's.
	Tick time.Duration
	// Guard holds parameters of the guard around it, over those of the scenario.
	Guard json.RawMessage

	policies catalog.Catalog
}

// PerRequest is the name of scaling per request, as function platforms do it. It is no policy: the
// simulator knows it itself.
const PerRequest = "perrequest"

// own are the keys of a specification that are not the policy's.
const (
	keyTick  = "tick"
	keyGuard = "guard"
	keyLabel = "label"
)

// syncPeriod is how often a HorizontalPodAutoscaler decides, KEDA's too.
const syncPeriod = 15 * time.Second

// keySync is the parameter of policies that decide once in a period, however often they are asked.
const keySync = "syncPeriod"

// ParsePolicy reads NAME[:key=value,…] of a policy of the catalog. Values are JSON or else strings;
// a comma within brackets, braces, parentheses or quotes does not end one. The name "perrequest"
// stands for scaling per request (perrequest.Params). Besides the policy's parameters there are
// tick, guard (a JSON object of guard's parameters) and label. tick is the time between decisions:
// policies with a syncPeriod, hpa and keda, have 15s and decide no more often, whatever happens in
// between; the others have the scenario's, or less where they ask for it. A policy that has a
// parameter tick gets it, too.
func ParsePolicy(policies catalog.Catalog, spec string) (Policy, error) {
	name, rest, _ := strings.Cut(spec, ":")
	p := Policy{Label: spec, Name: strings.TrimSpace(name), policies: policies}
	synced := has(policies, p.Name, keySync)
	if synced {
		p.Tick = syncPeriod
	}
	params := map[string]json.RawMessage{}
	var errs []error
	for _, field := range split(rest) {
		key, value, ok := strings.Cut(field, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" {
			errs = append(errs, fmt.Errorf("%q: want key=value", field))
			continue
		}
		switch key {
		case keyLabel:
			p.Label = value
		case keyTick:
			d, err := time.ParseDuration(value)
			if err != nil || d < 100*time.Millisecond || d > time.Hour {
				errs = append(errs, fmt.Errorf("tick = %s: want 100ms–1h", value))
			}
			p.Tick = d
			if has(policies, p.Name, keyTick) {
				params[keyTick] = Literal(value)
			}
		case keyGuard:
			p.Guard = json.RawMessage(value)
		default:
			if _, twice := params[key]; twice {
				errs = append(errs, fmt.Errorf("%s is given twice", key))
			}
			params[key] = Literal(value)
			if d, err := time.ParseDuration(value); err == nil && synced && key == keySync && d >= 100*time.Millisecond {
				p.Tick = d
			}
		}
	}
	if len(params) > 0 {
		p.Params = object(params)
	}
	if len(errs) == 0 {
		var err error
		if p.Name == PerRequest {
			_, err = perrequest.ParseParams(p.Params)
		} else {
			err = p.Check(1)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return p, fmt.Errorf("policy %q: %w", spec, err)
	}
	return p, nil
}

// has reports whether the policy has a parameter of that name.
func has(policies catalog.Catalog, name, parameter string) bool {
	e, err := policies.Find(name)
	return err == nil && slices.ContainsFunc(e.Parameters, func(p catalog.Parameter) bool { return p.Name == parameter })
}

// Entry is the policy's entry in the catalog of which it was parsed.
func (p *Policy) Entry() (catalog.Entry, error) { return p.policies.Find(p.Name) }

// New makes the policy, fresh, for a target per pod. Close it after use if it is an io.Closer.
func (p *Policy) New(target float64) (algorithms.Policy, error) {
	params := p.Params
	if p.Tick > 0 && has(p.policies, p.Name, keySync) {
		all := map[string]json.RawMessage{}
		if len(params) > 0 {
			if err := json.Unmarshal(params, &all); err != nil {
				return nil, fmt.Errorf("parameters of %s: %w", p.Name, err)
			}
		}
		if _, given := all[keySync]; !given {
			all[keySync] = Literal(p.Tick.String())
			params = object(all)
		}
	}
	return p.policies.New(p.Name, target, params)
}

// Same reports whether both are one policy with the same parameters, whatever they are called.
func (p *Policy) Same(o *Policy) bool {
	return p.Name == o.Name && p.Tick == o.Tick && bytes.Equal(p.Params, o.Params) && bytes.Equal(p.Guard, o.Guard)
}

// Check reports whether New would make the policy.
func (p *Policy) Check(target float64) error {
	made, err := p.New(target)
	return errors.Join(err, closePolicy(made))
}

// closePolicy releases what a policy holds, such as the connection to a policy server.
func closePolicy(p algorithms.Policy) error {
	if c, ok := p.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// With returns the policy with other values of some parameters, labelled by name and parameters.
func (p *Policy) With(params map[string]json.RawMessage) (Policy, error) {
	all := map[string]json.RawMessage{}
	if len(p.Params) > 0 {
		if err := json.Unmarshal(p.Params, &all); err != nil {
			return Policy{}, fmt.Errorf("parameters of %s: %w", p.Name, err)
		}
	}
	maps.Copy(all, params)
	q := *p
	q.Params = object(all)
	var words []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		words = append(words, k+"="+strings.Trim(string(all[k]), `"`))
	}
	q.Label = p.Name
	if len(words) > 0 {
		q.Label += ":" + strings.Join(words, ",")
	}
	return q, nil
}

// object writes parameters in the order of their names.
func object(params map[string]json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range slices.Sorted(maps.Keys(params)) {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(k) // a string always marshals
		b.Write(name)
		b.WriteByte(':')
		b.Write(params[k])
	}
	b.WriteByte('}')
	return b.Bytes()
}

// Literal is a value as JSON: as it is if it is JSON, else as a string.
func Literal(v string) json.RawMessage {
	if json.Valid([]byte(v)) {
		return json.RawMessage(v)
	}
	b, _ := json.Marshal(v) // a string always marshals
	return b
}

// split cuts at the commas that are not within brackets or quotes.
func split(s string) []string {
	var out []string
	depth, start := 0, 0
	quoted := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' && (i == 0 || s[i-1] != '\\'):
			quoted = !quoted
		case quoted:
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
		case c == ',' && depth <= 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	if last := s[start:]; strings.TrimSpace(last) != "" || len(out) > 0 {
		out = append(out, last)
	}
	return out
}
