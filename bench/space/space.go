// Package space is the search space of a policy: ranges of its parameters, with the settings of the
// policy as points of the unit cube.
package space

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
)

const (
	guardPrefix = "guard."
	tickPath    = "tick"
	maxDims     = 20
)

// Space is a policy and the ranges of its parameters. It is a value that nothing changes after New:
// safe for concurrent use.
type Space struct {
	base        plan.Policy
	dims        []Dimension
	concurrency float64
	target      float64
	// start is the place of the base's own parameters, as far as they are known.
	start []float64
}

// New reads ranges (ParseDimension) of a policy's parameters; none at all takes DefaultRanges.
// Ranges in percent are of how many requests a pod of the scenario takes at a time, or of its
// target where that has no limit. Each parameter is tried at both ends, so that a misspelt name or
// a bound that the policy refuses is found before anything runs.
func New(base plan.Policy, sc *scenario.Scenario, specs []string) (*Space, error) {
	if base.Name == plan.PerRequest {
		return nil, fmt.Errorf("%s is no policy that decides: want one of the catalog's", base.Name)
	}
	if len(specs) == 0 {
		entry, err := base.Entry()
		if err != nil {
			return nil, err
		}
		if specs = DefaultRanges(entry); specs == nil {
			return nil, fmt.Errorf("policy %s has no default ranges: want --search NAME=LOW..HIGH for the parameters to search", base.Name)
		}
	}
	if len(specs) > maxDims {
		return nil, fmt.Errorf("%d parameters to search: want 1–%d", len(specs), maxDims)
	}
	s := &Space{base: base, concurrency: float64(sc.PodConcurrency), target: sc.PerPod()}
	if s.concurrency == 0 {
		s.concurrency = s.target
	}
	var errs []error
	for _, spec := range specs {
		d, err := ParseDimension(spec)
		if err == nil && slices.ContainsFunc(s.dims, func(e Dimension) bool { return e.Path == d.Path }) {
			err = fmt.Errorf("search %q: %s is searched twice", spec, d.Path)
		}
		if err == nil {
			err = s.probe(&d)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.dims = append(s.dims, d)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.start = s.defaults()
	return s, nil
}

// probe sees whether the policy takes the parameter at the range's ends, and whether it takes
// fractions.
func (s *Space) probe(d *Dimension) error {
	places := []float64{0, 1}
	if d.kind == list {
		places = nil
		for i := range d.values {
			places = append(places, (float64(i)+0.5)/float64(len(d.values)))
		}
	}
	alone := Space{base: s.base, dims: []Dimension{*d}, concurrency: s.concurrency, target: s.target}
	for _, u := range places {
		if _, err := alone.Policy([]float64{u}); err != nil {
			return fmt.Errorf("search %s at %s: %w", d, d.value(u, s.concurrency), err)
		}
	}
	s.probeBeyond(d)
	if d.kind != number || d.whole || d.lo != float64(int64(d.lo)) || d.hi != float64(int64(d.hi)) {
		return nil
	}
	alone.dims[0].log = false
	alone.dims[0].lo, alone.dims[0].hi = d.lo+0.5, d.lo+0.5
	if _, err := alone.Policy([]float64{0}); err != nil {
		d.whole = true
	}
	return nil
}

// probeBeyond sees whether the policy would take anything beyond the range's ends.
func (s *Space) probeBeyond(d *Dimension) {
	if d.kind == list {
		_, v, err := parseBound(strings.Trim(string(d.values[0]), `"`))
		d.lowest = d.ordered && err == nil && v == 0
		return
	}
	refused := func(v float64) bool {
		if v < 0 {
			return true
		}
		beyond := *d
		beyond.lo, beyond.hi, beyond.log = v, v, false
		alone := Space{base: s.base, dims: []Dimension{beyond}, concurrency: s.concurrency, target: s.target}
		_, err := alone.Policy([]float64{0})
		return err != nil
	}
	by := 0.02 * (d.hi - d.lo)
	if d.log {
		by = 0.02 * d.lo
	}
	if d.whole {
		by = 1
	}
	d.lowest, d.highest = refused(d.lo-by), refused(d.hi+max(by, 0.02*d.hi))
}

// Base is the policy as it was given.
func (s *Space) Base() plan.Policy { return s.base }

// Start is the place of the policy's own parameters, as far as they are known.
func (s *Space) Start() []float64 { return s.start }

// Len is the number of parameters.
func (s *Space) Len() int { return len(s.dims) }

// Neighbours are places beside a place of the i-th parameter, a step away on both sides.
func (s *Space) Neighbours(i int, place, step float64) []float64 {
	return s.dims[i].neighbours(place, step)
}

// Ordered reports whether close places of the i-th parameter are close values: those of a range,
// and of a list in order.
func (s *Space) Ordered(i int) bool { return s.dims[i].kind != list || s.dims[i].ordered }

// Dimensions are the ranges, as ParseDimension reads them.
func (s *Space) Dimensions() []string {
	var out []string
	for i := range s.dims {
		out = append(out, s.dims[i].String())
	}
	return out
}

// Policy is the policy at a point of the unit cube. An error says that the parameters do not go
// together.
func (s *Space) Policy(at []float64) (plan.Policy, error) {
	p := s.base
	params, errParams := parseObject(p.Params)
	around, errAround := parseObject(p.Guard)
	if err := errors.Join(errParams, errAround); err != nil {
		return p, fmt.Errorf("parameters of %s: %w", p.Name, err)
	}
	for i := range s.dims {
		d := &s.dims[i]
		v := d.value(at[i], s.concurrency)
		var err error
		switch path, guarded := strings.CutPrefix(d.Path, guardPrefix); {
		case guarded:
			err = around.set(strings.Split(path, "."), v)
		case d.Path == tickPath:
			var t algorithms.Duration
			err = t.UnmarshalJSON(v)
			if p.Tick = time.Duration(t); err == nil && (p.Tick < 100*time.Millisecond || p.Tick > time.Hour) {
				err = fmt.Errorf("tick = %v: want 100ms–1h", p.Tick)
			}
		default:
			err = params.set(strings.Split(d.Path, "."), v)
		}
		if err != nil {
			return p, fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	tick := p.Tick
	p, err := p.With(params)
	if err != nil {
		return p, err
	}
	var more []string
	if tick != s.base.Tick {
		more = append(more, "tick="+tick.String())
	}
	if len(around) > 0 {
		if p.Guard, err = json.Marshal(around); err != nil {
			return p, fmt.Errorf("parameters of guard: %w", err)
		}
		if _, err := guard.Parse(guard.Default(), p.Guard); err != nil {
			return p, fmt.Errorf("guard: %w", err)
		}
		more = append(more, "guard="+string(p.Guard))
	}
	if len(more) > 0 {
		separator := ","
		if !strings.Contains(p.Label, ":") {
			separator = ":"
		}
		p.Label += separator + strings.Join(more, ",")
	}
	if err := p.Check(s.target); err != nil {
		return p, err
	}
	return p, nil
}

// Values are the searched parameters at a point, by their paths.
func (s *Space) Values(at []float64) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for i := range s.dims {
		out[s.dims[i].Path] = s.dims[i].value(at[i], s.concurrency)
	}
	return out
}

// Edges names the parameters that are at an end of their range at a point, where a wider range
// might hold better ones.
func (s *Space) Edges(at []float64) []string {
	var out []string
	for i := range s.dims {
		if e := s.dims[i].edge(at[i]); e != "" {
			out = append(out, s.dims[i].Path+" is at the "+e+" end of "+s.dims[i].text)
		}
	}
	return out
}

// defaults is the place of the base's own values: those given, else the catalog's, else the middle.
func (s *Space) defaults() []float64 {
	at := make([]float64, len(s.dims))
	entry, err := s.base.Entry()
	for i := range s.dims {
		d := &s.dims[i]
		at[i] = 0.5
		raw := s.base.Params
		path, guarded := strings.CutPrefix(d.Path, guardPrefix)
		if guarded {
			raw = s.base.Guard
		}
		if d.Path == tickPath && s.base.Tick > 0 {
			raw, path = json.RawMessage(`{"tick":"`+s.base.Tick.String()+`"}`), tickPath
		}
		v := get(raw, strings.Split(path, "."))
		if v == nil && err == nil && !guarded {
			for _, p := range entry.Parameters {
				if p.Name == d.Path {
					v = p.Value
					if p.Name == "target" {
						v = json.RawMessage(strconv.FormatFloat(s.target, 'f', -1, 64))
					}
				}
			}
		}
		if u, ok := d.place(v, s.concurrency); ok {
			at[i] = u
		}
	}
	return at
}

// object is a JSON object.
type object map[string]json.RawMessage

func parseObject(raw json.RawMessage) (object, error) {
	o := object{}
	if len(raw) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("%s: want an object", raw)
	}
	return o, nil
}

// set puts a value at a path, with objects on the way there.
func (o *object) set(path []string, v json.RawMessage) error {
	if *o == nil {
		*o = object{}
	}
	if len(path) == 1 {
		(*o)[path[0]] = v
		return nil
	}
	var inner object
	if raw := (*o)[path[0]]; len(raw) > 0 {
		var err error
		if inner, err = parseObject(raw); err != nil {
			return fmt.Errorf("%s: %w", path[0], err)
		}
	}
	if err := inner.set(path[1:], v); err != nil {
		return err
	}
	raw, err := json.Marshal(inner)
	if err != nil {
		return err
	}
	(*o)[path[0]] = raw
	return nil
}

// get is the value at a path, nil if there is none.
func get(raw json.RawMessage, path []string) json.RawMessage {
	for _, name := range path {
		var o object
		if len(raw) == 0 || json.Unmarshal(raw, &o) != nil {
			return nil
		}
		raw = o[name]
	}
	return raw
}
