// Package record reads and writes observations as JSON Lines, one observation a line, so that
// policies can be asked about recorded or hand-written situations without a cluster:
//
//	{"t": 30, "current": 10, "ready": 10, "starting": 0, "signals": {"concurrency": {"60s": 1, "6s": 1}}}
//	{"t": 32, "current": 3, "pods": [{"state": "ready", "values": {"qps": 50}}, {"state": "ready"}, {"state": "pending"}]}
//
// All times are seconds on one clock, to the microsecond; t may not fall from line to line. Replica
// counts that a line leaves out are counted from its pods if it lists them; without pods, ready is
// current and the rest 0. A signal is {window: value} with windows in Go's notation ("0s" is a
// reading); a value is a number, null for unknown, or an object with value, known, age, coverage
// and source. A window that a line leaves out is unknown; a pod without a value is missing it.
// Unknown fields are errors that name the line.
package record

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
)

const (
	// most bounds replica counts, and is the upper limit of a line that gives none.
	most = 1_000_000
	// latest bounds instants, in seconds: beyond it a float64 holds no microseconds.
	latest = 4e9
	// longestLine bounds a line, in bytes.
	longestLine = 16 << 20
)

// line is the format.
type line struct {
	T           *float64                    `json:"t"`
	Current     *int                        `json:"current"`
	Ready       *int                        `json:"ready,omitempty"`
	Starting    *int                        `json:"starting,omitempty"`
	Terminating *int                        `json:"terminating,omitempty"`
	Ages        []float64                   `json:"startingAges,omitempty"`
	Signals     map[string]map[string]value `json:"signals,omitempty"`
	Pods        *[]pod                      `json:"pods,omitempty"`
	Limits      *limits                     `json:"limits,omitempty"`
	StartUp     *startUp                    `json:"startUp,omitempty"`
	Cost        *algorithms.Cost            `json:"cost,omitempty"`
	ActiveSince *float64                    `json:"activeSince,omitempty"`
}

type limits struct {
	Min            int     `json:"min,omitempty"`
	Max            *int    `json:"max,omitempty"`
	PodConcurrency float64 `json:"podConcurrency,omitempty"`
}

type startUp struct {
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P99     float64 `json:"p99"`
	Samples int     `json:"samples"`
}

type pod struct {
	Name       string              `json:"name,omitempty"`
	State      algorithms.PodState `json:"state"`
	StillReady bool                `json:"stillReady,omitempty"`
	Values     map[string]*float64 `json:"values,omitempty"`
	Requests   map[string]float64  `json:"requests,omitempty"`
	Overhead   map[string]float64  `json:"overhead,omitempty"`
	Started    *float64            `json:"started,omitempty"`
	Changed    *float64            `json:"changed,omitempty"`
	ReadAt     *float64            `json:"readAt,omitempty"`
	ReadOver   float64             `json:"readOver,omitempty"`
}

// value is a signal's value in one of its three forms.
type value struct {
	algorithms.Signal
}

type longValue struct {
	Value    *float64 `json:"value,omitempty"`
	Known    *bool    `json:"known,omitempty"`
	Age      float64  `json:"age,omitempty"`
	Coverage *float64 `json:"coverage,omitempty"`
	Source   string   `json:"source,omitempty"`
}

// UnmarshalJSON reads a number, null or the object.
func (v *value) UnmarshalJSON(b []byte) error {
	v.Signal = algorithms.Signal{}
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '{' {
		var n *float64
		if err := json.Unmarshal(b, &n); err != nil {
			return fmt.Errorf("signal value %s: want a number, null or an object", clip(b))
		}
		if n != nil {
			v.Value, v.Known, v.Coverage = *n, true, 1
		}
		return nil
	}
	var l longValue
	if err := algorithms.Strict(b, &l); err != nil {
		return err
	}
	v.Source, v.Known = l.Source, l.Value != nil
	if l.Value != nil {
		v.Value, v.Coverage = *l.Value, 1
	}
	if l.Known != nil {
		v.Known = *l.Known
	}
	if l.Coverage != nil {
		v.Coverage = *l.Coverage
	}
	if v.Known && l.Value == nil {
		return errors.New("signal value: known without a value")
	}
	if v.Coverage < 0 || v.Coverage > 1 {
		return fmt.Errorf("signal coverage = %v: want 0–1", v.Coverage)
	}
	var err error
	if v.Age, err = seconds("age", l.Age); err != nil {
		return err
	}
	return nil
}

// MarshalJSON writes the shortest form that says all.
func (v value) MarshalJSON() ([]byte, error) {
	plain := v.Age == 0 && v.Source == ""
	switch {
	case plain && v.Known && v.Coverage == 1:
		return json.Marshal(v.Value)
	case plain && !v.Known && v.Coverage == 0 && v.Value == 0:
		return []byte("null"), nil
	}
	l := longValue{Age: v.Age.Seconds(), Source: v.Source, Coverage: &v.Coverage, Known: &v.Known}
	if v.Known || v.Value != 0 {
		l.Value = &v.Value
	}
	return json.Marshal(l)
}

// Decoder reads observations from JSON Lines. It is not safe for concurrent use.
type Decoder struct {
	lines *bufio.Scanner
	n     int
	last  time.Time
	// paused is how much later than their t observations are.
	paused time.Duration
}

// NewDecoder returns a Decoder of r.
func NewDecoder(r io.Reader) *Decoder {
	s := bufio.NewScanner(r)
	s.Buffer(nil, longestLine)
	return &Decoder{lines: s}
}

// Line is the number of the line read last, from 1.
func (d *Decoder) Line() int { return d.n }

// Control is a line that is no observation: something that happens between two of them.
type Control struct {
	// Restart ends the policy and makes it anew, with what it remembered; Forget without.
	Restart bool `json:"restart,omitempty"`
	Forget  bool `json:"forget,omitempty"`
	// Pause is how much later all that follows is, in seconds.
	Pause float64 `json:"pause,omitempty"`
	// Params are parameters over those that the policy has.
	Params json.RawMessage `json:"params,omitempty"`
}

// control reads a line as a Control; ok is false for an observation.
func control(raw []byte) (c Control, ok bool, err error) {
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(raw, &keys) // what is no object is no control
	if keys["t"] != nil || len(keys) == 0 {
		return c, false, nil
	}
	for k := range keys {
		if k != "restart" && k != "forget" && k != "pause" && k != "params" {
			return c, false, nil
		}
	}
	if err := algorithms.Strict(raw, &c); err != nil {
		return c, true, readable(err)
	}
	if !(c.Pause >= 0 && c.Pause <= latest) {
		return c, true, fmt.Errorf("pause = %v: want 0–%.0f (seconds)", c.Pause, latest)
	}
	return c, true, nil
}

// Next returns the next observation, io.EOF after the last one. Other errors name the line; blank
// lines are skipped, and a line of control is an error.
func (d *Decoder) Next() (algorithms.Observation, error) {
	o, c, err := d.NextOrControl()
	if err == nil && c != nil {
		err = fmt.Errorf("line %d: a line of control is not taken here", d.n)
	}
	return o, err
}

// NextOrControl returns the next observation, or the Control that comes before it.
func (d *Decoder) NextOrControl() (algorithms.Observation, *Control, error) {
	for d.lines.Scan() {
		d.n++
		raw := d.lines.Bytes()
		if d.n == 1 {
			raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
		}
		if raw = bytes.TrimSpace(raw); len(raw) == 0 {
			continue
		}
		if c, ok, err := control(raw); ok {
			if err != nil {
				return algorithms.Observation{}, nil, fmt.Errorf("line %d: %w", d.n, err)
			}
			d.paused += time.Duration(math.Round(c.Pause*1e6)) * time.Microsecond
			return algorithms.Observation{}, &c, nil
		}
		o, err := Unmarshal(raw)
		if err == nil {
			o.Now = o.Now.Add(d.paused)
			if !o.ActiveSince.IsZero() {
				o.ActiveSince = o.ActiveSince.Add(d.paused)
			}
		}
		if err == nil && o.Now.Before(d.last) {
			err = fmt.Errorf("t = %v: want no less than the line before", unix(o.Now))
		}
		if err != nil {
			return algorithms.Observation{}, nil, fmt.Errorf("line %d: %w", d.n, err)
		}
		d.last = o.Now
		return o, nil, nil
	}
	if err := d.lines.Err(); err != nil {
		return algorithms.Observation{}, nil, fmt.Errorf("line %d: %w", d.n+1, err)
	}
	return algorithms.Observation{}, nil, io.EOF
}

// Unmarshal reads one line.
func Unmarshal(raw []byte) (algorithms.Observation, error) {
	var l line
	if err := algorithms.Strict(raw, &l); err != nil {
		return algorithms.Observation{}, readable(err)
	}
	f := faults{}
	o := algorithms.Observation{Limits: algorithms.Limits{Max: most}}
	if l.T == nil {
		f.add("t is missing: want seconds")
	} else {
		o.Now = f.instant("t", l.T)
	}
	if l.Current == nil {
		f.add("current is missing: want the replicas last asked for")
	} else {
		o.Replicas.Current = f.count("current", *l.Current)
	}
	o.ActiveSince = f.instant("activeSince", l.ActiveSince)
	for _, name := range slices.Sorted(maps.Keys(l.Signals)) {
		first := len(o.Signals)
		for window, v := range l.Signals[name] {
			w, err := time.ParseDuration(window)
			if err != nil || w < 0 {
				f.add("signals.%s window %q: want a duration ≥ 0 with a unit, such as \"60s\"", name, window)
			}
			v.Name, v.Window = name, w
			o.Signals = append(o.Signals, v.Signal)
		}
		slices.SortFunc(o.Signals[first:], func(a, b algorithms.Signal) int { return cmp.Compare(a.Window, b.Window) })
		for i := first + 1; i < len(o.Signals); i++ {
			if o.Signals[i].Window == o.Signals[i-1].Window {
				f.add("signals.%s has the window %s twice", name, o.Signals[i].Window)
			}
		}
	}
	if l.Pods != nil {
		o.Pods = make([]algorithms.Pod, 0, len(*l.Pods))
		for i, p := range *l.Pods {
			o.Pods = append(o.Pods, f.pod(i, p))
		}
	}
	f.replicas(&o.Replicas, l, o.Pods)
	if l.Limits != nil {
		o.Limits.Min, o.Limits.PodConcurrency = f.count("limits.min", l.Limits.Min), f.positive("limits.podConcurrency", l.Limits.PodConcurrency)
		if l.Limits.Max != nil {
			o.Limits.Max = f.count("limits.max", *l.Limits.Max)
		}
		if o.Limits.Max < 1 || o.Limits.Min > o.Limits.Max {
			f.add("limits.min = %d, limits.max = %d: want min ≤ max and max ≥ 1", o.Limits.Min, o.Limits.Max)
		}
	}
	if s := l.StartUp; s != nil {
		o.StartUp = algorithms.StartUp{
			P50: f.duration("startUp.p50", s.P50), P90: f.duration("startUp.p90", s.P90), P99: f.duration("startUp.p99", s.P99),
			Samples: f.count("startUp.samples", s.Samples),
		}
	}
	if c := l.Cost; c != nil {
		o.Cost = algorithms.Cost{
			PodSecond: f.positive("cost.podSecond", c.PodSecond), ColdStart: f.positive("cost.coldStart", c.ColdStart),
			WaitSecond: f.positive("cost.waitSecond", c.WaitSecond),
		}
	}
	return o, errors.Join(f.errs...)
}

// Marshal writes one line, without the newline. What has no place in the format (Quiet, Scratch) is
// left out.
func Marshal(o algorithms.Observation) ([]byte, error) {
	r := o.Replicas
	l := line{
		T: instant(o.Now), Current: &r.Current, Ready: &r.Ready, Starting: &r.Starting, Terminating: &r.Terminating,
		ActiveSince: instant(o.ActiveSince),
		Limits:      &limits{Min: o.Limits.Min, Max: &o.Limits.Max, PodConcurrency: o.Limits.PodConcurrency},
	}
	if l.T == nil {
		return nil, errors.New("write observation: it has no instant")
	}
	for _, a := range r.StartingAges {
		l.Ages = append(l.Ages, a.Seconds())
	}
	for _, s := range o.Signals {
		if l.Signals == nil {
			l.Signals = map[string]map[string]value{}
		}
		if l.Signals[s.Name] == nil {
			l.Signals[s.Name] = map[string]value{}
		}
		l.Signals[s.Name][s.Window.String()] = value{s}
	}
	if o.Pods != nil {
		pods := make([]pod, 0, len(o.Pods))
		for _, p := range o.Pods {
			q := pod{
				Name: p.Name, State: p.State, StillReady: p.StillReady, Requests: p.Requests, Overhead: p.Overhead,
				Started: instant(p.Started), Changed: instant(p.Changed), ReadAt: instant(p.ReadAt), ReadOver: p.ReadOver.Seconds(),
			}
			for name, v := range p.Values {
				if q.Values == nil {
					q.Values = map[string]*float64{}
				}
				q.Values[name] = &v
			}
			pods = append(pods, q)
		}
		l.Pods = &pods
	}
	if s := o.StartUp; s != (algorithms.StartUp{}) {
		l.StartUp = &startUp{P50: s.P50.Seconds(), P90: s.P90.Seconds(), P99: s.P99.Seconds(), Samples: s.Samples}
	}
	if o.Cost != (algorithms.Cost{}) {
		l.Cost = &o.Cost
	}
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("write observation: %w", err)
	}
	return b, nil
}

// faults gathers what is wrong with a line.
type faults struct{ errs []error }

func (f *faults) add(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

func (f *faults) count(name string, n int) int {
	if n < 0 || n > most {
		f.add("%s = %d: want 0–%d", name, n, most)
		return 0
	}
	return n
}

func (f *faults) positive(name string, v float64) float64 {
	if v < 0 {
		f.add("%s = %v: want a number ≥ 0", name, v)
	}
	return v
}

func (f *faults) duration(name string, s float64) time.Duration {
	d, err := seconds(name, s)
	if err != nil {
		f.errs = append(f.errs, err)
	}
	return d
}

// instant converts seconds; nil is the zero time.
func (f *faults) instant(name string, s *float64) time.Time {
	if s == nil {
		return time.Time{}
	}
	if *s < 0 || *s > latest {
		f.add("%s = %v: want 0–%.0f (seconds)", name, *s, latest)
		return time.Time{}
	}
	whole, part := math.Modf(*s)
	return time.Unix(int64(whole), int64(math.Round(part*1e6))*1000).UTC()
}

func (f *faults) pod(i int, p pod) algorithms.Pod {
	at := func(field string) string { return fmt.Sprintf("pods[%d].%s", i, field) }
	switch p.State {
	case algorithms.PodReady, algorithms.PodStarting, algorithms.PodUnknown, algorithms.PodPending, algorithms.PodTerminating, algorithms.PodFailed, algorithms.PodSucceeded:
	default:
		f.add("%s = %q: want ready, starting, unknown, pending, terminating, failed or succeeded", at("state"), p.State)
	}
	q := algorithms.Pod{
		Name: p.Name, State: p.State, StillReady: p.StillReady, Requests: p.Requests, Overhead: p.Overhead,
		Started: f.instant(at("started"), p.Started), Changed: f.instant(at("changed"), p.Changed), ReadAt: f.instant(at("readAt"), p.ReadAt),
		ReadOver: f.duration(at("readOver"), p.ReadOver),
	}
	for name, v := range p.Values {
		if v == nil {
			continue
		}
		if q.Values == nil {
			q.Values = map[string]float64{}
		}
		q.Values[name] = *v
	}
	for _, name := range slices.Sorted(maps.Keys(p.Requests)) {
		f.positive(at("requests."+name), p.Requests[name])
	}
	for _, name := range slices.Sorted(maps.Keys(p.Overhead)) {
		f.positive(at("overhead."+name), p.Overhead[name])
	}
	return q
}

// replicas takes the counts that the line gives and counts the others.
func (f *faults) replicas(r *algorithms.Replicas, l line, pods []algorithms.Pod) {
	if pods == nil {
		r.Ready = r.Current
	}
	for _, p := range pods {
		switch p.State {
		case algorithms.PodReady:
			r.Ready++
		case algorithms.PodStarting, algorithms.PodUnknown, algorithms.PodPending:
			r.Starting++
		case algorithms.PodTerminating:
			r.Terminating++
		case algorithms.PodFailed, algorithms.PodSucceeded, algorithms.PodGone:
		}
	}
	for _, c := range []struct {
		name  string
		given *int
		into  *int
	}{{"ready", l.Ready, &r.Ready}, {"starting", l.Starting, &r.Starting}, {"terminating", l.Terminating, &r.Terminating}} {
		if c.given != nil {
			*c.into = f.count(c.name, *c.given)
		}
	}
	for i, a := range l.Ages {
		r.StartingAges = append(r.StartingAges, f.duration(fmt.Sprintf("startingAges[%d]", i), a))
	}
	if len(r.StartingAges) > r.Starting {
		f.add("startingAges has %d entries: want at most the %d starting pods", len(r.StartingAges), r.Starting)
	}
}

// seconds converts a duration of at most latest seconds.
func seconds(name string, s float64) (time.Duration, error) {
	if !(s >= 0 && s <= latest) {
		return 0, fmt.Errorf("%s = %v: want 0–%.0f (seconds)", name, s, latest)
	}
	return time.Duration(math.Round(s*1e6)) * time.Microsecond, nil
}

func unix(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// instant is a time in seconds; nil for the zero time.
func instant(t time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	s := unix(t)
	return &s
}

// readable takes Go's own words out of a decoder's complaint.
func readable(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is a %s: want %s", cmp.Or(e.Field, "the line"), e.Value, kind(e.Type.Kind().String()))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not a whole JSON object")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

func kind(k string) string {
	switch k {
	case "int", "float64":
		return "a number"
	case "slice":
		return "a list"
	case "map", "struct":
		return "an object"
	case "ptr":
		return "a number"
	}
	return "a " + k
}

// clip shortens what an error quotes.
func clip(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "…"
	}
	return string(b)
}
