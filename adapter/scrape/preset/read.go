package preset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/filter"
)

// Bounds of what a pod may answer.
const (
	// maxBody bounds an exposition, in bytes. A proxy of a mesh writes some 100 KiB, an ingress
	// with many hosts some MiB.
	maxBody = 8 << 20
	// maxKept bounds its wanted samples, in bytes. A mesh's samples have some 700.
	maxKept = 512 << 10
	// maxSample bounds a sample, in bytes, and maxLabels its labels.
	maxSample, maxLabels = 16 << 10, 128
	// maxFamily bounds a message of the protobuf format, in bytes.
	maxFamily = 256 << 10
	// maxJSON bounds an answer in JSON, in bytes: all of it is kept.
	maxJSON = 256 << 10
	// oldSample is the age from which a sample with a time of its own does not count.
	oldSample = time.Minute
)

// startTime is the sample with which many programs say when they began.
const startTime = "process_start_time_seconds"

// Accept is the header that asks for an exposition: in protobuf, the cheapest to read, else in
// text.
const (
	Accept     = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	AcceptText = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	acceptJSON = "application/json, */*;q=0.5"
)

// Accept is the header that asks for what the preset reads; text says not to ask for protobuf.
func (p *Preset) Accept(text bool) string {
	switch {
	case p.json:
		return acceptJSON
	case text:
		return AcceptText
	}
	return Accept
}

// Errors of an answer as a whole.
var (
	ErrEncoding = errors.New("the answer is compressed, which was not asked for")
	ErrJSON     = errors.New("the answer is no JSON")
)

// sample is one sample of an exposition.
type sample struct {
	labels []*dto.LabelPair
	value  float64
}

// answer is what a pod said: samples by name, or JSON.
type answer struct {
	samples map[string][]sample
	json    any
}

// Value is what an answer says of one signal.
type Value struct {
	Signal string
	Kind   Kind
	// Value is the gauge's or the counter's; Per that of the counter by whose increase the other's
	// is divided, where Ratio says that there is one.
	Value, Per float64
	Ratio      bool
	// Missing says what the answer lacks, "" for nothing. There is no value then.
	Missing string
}

// Reading is what one answer says.
type Reading struct {
	// Values are those of all the preset's signals, by name.
	Values []Value
	// Started is when the process began, in Unix seconds; 0 where it does not say.
	Started float64
}

// Read reads an answer received at an instant. It gives up when ctx ends.
func (p *Preset) Read(ctx context.Context, header http.Header, body io.Reader, at time.Time) (Reading, error) {
	if e := header.Get("Content-Encoding"); e != "" && e != "identity" {
		return Reading{}, ErrEncoding
	}
	a := &answer{samples: map[string][]sample{}}
	var err error
	if p.json {
		err = a.readJSON(ctx, body)
	} else {
		err = a.readSamples(ctx, p.wanted, header, body, at)
	}
	if err != nil {
		return Reading{}, err
	}
	r := Reading{Values: make([]Value, 0, len(p.Signals))}
	for name, s := range p.Signals {
		r.Values = append(r.Values, s.read(name, a))
	}
	slices.SortFunc(r.Values, func(a, b Value) int { return cmp.Compare(a.Signal, b.Signal) })
	if s := a.samples[startTime]; len(s) == 1 && amount(s[0].value) {
		r.Started = s[0].value
	}
	return r, nil
}

func (a *answer) readJSON(ctx context.Context, body io.Reader) error {
	f := filter.Filter{Body: maxJSON}
	text, err := io.ReadAll(f.Bounded(ctx, body))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&a.json); err != nil {
		return ErrJSON
	}
	return nil
}

func (a *answer) readSamples(ctx context.Context, wanted map[string]bool, header http.Header, body io.Reader, at time.Time) error {
	f := filter.Filter{
		Body: maxBody, Kept: maxKept, Sample: maxSample, Labels: maxLabels, Family: maxFamily,
		Wanted: func(name []byte) bool { return wanted[string(name)] },
	}
	format := expfmt.ResponseFormat(header).FormatType()
	kept, err := f.Read(ctx, format, body)
	if err != nil {
		return fmt.Errorf("read the exposition: %w", err)
	}
	dec := expfmt.NewDecoder(bytes.NewReader(kept), expfmt.ResponseFormat(header))
	for {
		var mf dto.MetricFamily
		err := dec.Decode(&mf)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", filter.ErrFormat, err)
		}
		for _, m := range mf.GetMetric() {
			if m.TimestampMs == nil || at.Sub(time.UnixMilli(m.GetTimestampMs())) <= oldSample {
				a.add(mf.GetName(), m)
			}
		}
	}
}

// add takes a metric's samples, named as in the text format.
func (a *answer) add(name string, m *dto.Metric) {
	put := func(suffix string, v float64) {
		a.samples[name+suffix] = append(a.samples[name+suffix], sample{labels: m.GetLabel(), value: v})
	}
	switch {
	case m.GetCounter() != nil:
		put("", m.GetCounter().GetValue())
	case m.GetGauge() != nil:
		put("", m.GetGauge().GetValue())
	case m.GetUntyped() != nil:
		put("", m.GetUntyped().GetValue())
	case m.GetHistogram() != nil:
		h := m.GetHistogram()
		put("_sum", h.GetSampleSum())
		put("_count", max(float64(h.GetSampleCount()), h.GetSampleCountFloat()))
	case m.GetSummary() != nil:
		put("_sum", m.GetSummary().GetSampleSum())
		put("_count", float64(m.GetSummary().GetSampleCount()))
	}
}

// amount says that a value is a finite number ≥ 0.
func amount(v float64) bool { return v >= 0 && v <= math.MaxFloat64 }

// read finds one signal.
func (s *Signal) read(name string, a *answer) Value {
	v := Value{Signal: name, Kind: s.kind, Ratio: len(s.per) > 0}
	v.Value, v.Missing = s.first(s.value, a)
	if v.Ratio && v.Missing == "" {
		v.Per, v.Missing = s.first(s.per, a)
	}
	return v
}

// first is the value of the first of several expressions that has one.
func (s *Signal) first(all []evaluator, a *answer) (v float64, missing string) {
	for _, e := range all {
		v, err := e.value(a)
		var none missingError
		switch {
		case errors.As(err, &none):
			if missing == "" {
				missing = none.Error()
			}
			continue
		case !amount(v):
			return 0, fmt.Sprintf("its value is %v, which is no amount", v)
		}
		return v, ""
	}
	for _, e := range s.zeroIf {
		if v, err := e.value(a); err == nil && !math.IsNaN(v) {
			return 0, ""
		}
	}
	return 0, missing
}

// Describe lists a preset's signals with their quality, for people.
func (p *Preset) Describe() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(p.Signals)) {
		out = append(out, name+" ("+p.Signals[name].kind.Quality()+")")
	}
	return out
}

// Gives says whether the preset has a signal.
func (p *Preset) Gives(signal string) bool { return p.Signals[signal] != nil }
