package answer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Bounds of an answer. A larger one is refused.
const (
	// MaxBytes bounds the text of an answer.
	MaxBytes = 64 << 20
	// MaxSamples bounds its samples.
	MaxSamples = 500_000
)

// Warnings are what Prometheus, or Thanos and Mimir in its place, said besides the answer. A
// partial answer comes with one.
type Warnings []string

// ServerError is an error that Prometheus answered with.
type ServerError struct{ Type, Message string }

// Error implements error.
func (e *ServerError) Error() string { return e.Type + ": " + e.Message }

// point is [seconds, "value"].
type point struct {
	at    time.Time
	value float64
}

// UnmarshalJSON reads a point.
func (p *point) UnmarshalJSON(text []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("a value has %d parts: want a time and a number", len(parts))
	}
	var seconds float64
	var number string
	if err := errors.Join(json.Unmarshal(parts[0], &seconds), json.Unmarshal(parts[1], &number)); err != nil {
		return err
	}
	if math.Abs(seconds) > 1e11 {
		return fmt.Errorf("the time %v is not in seconds", seconds)
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%q is no number", number)
	}
	p.at, p.value = time.UnixMilli(int64(math.Round(seconds*1000))), v
	return nil
}

// Decode reads the answer of /api/v1/query: a vector or a scalar. An answer that was cut short, a
// matrix, a string or a histogram is an error. A result of null is an empty one.
func Decode(text []byte) (Result, Warnings, error) { return (&LabelSets{}).Decode(text) }

// Decode is the function Decode, for answers whose samples share their sets of labels. These must
// not be changed.
func (l *LabelSets) Decode(text []byte) (Result, Warnings, error) {
	if len(text) > MaxBytes {
		return Result{}, nil, fmt.Errorf("the answer has %d bytes: want at most %d", len(text), MaxBytes)
	}
	var body struct {
		Status, ErrorType, Error string
		Warnings, Infos          Warnings
		Data                     struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return Result{}, nil, fmt.Errorf("read the answer: %w", err)
	}
	switch {
	case body.Status == "error":
		return Result{}, body.Warnings, &ServerError{Type: body.ErrorType, Message: body.Error}
	case body.Status != "success":
		return Result{}, body.Warnings, fmt.Errorf("read the answer: its status is %q", body.Status)
	}
	switch body.Data.ResultType {
	case "scalar":
		var p point
		if empty(body.Data.Result) {
			return Result{}, body.Warnings, errors.New("read the answer: the scalar has no value")
		}
		if err := json.Unmarshal(body.Data.Result, &p); err != nil {
			return Result{}, body.Warnings, fmt.Errorf("read the scalar: %w", err)
		}
		return Result{Scalar: true, Samples: []Sample{{Value: p.value, Time: p.at}}}, body.Warnings, nil
	case "vector":
		r, err := l.vector(body.Data.Result)
		return r, body.Warnings, err
	}
	return Result{}, body.Warnings, fmt.Errorf("the result is a %q: want a vector or a scalar", body.Data.ResultType)
}

func empty(text json.RawMessage) bool {
	text = bytes.TrimSpace(text)
	return len(text) == 0 || bytes.Equal(text, []byte("null"))
}

// vector reads samples one by one.
func (l *LabelSets) vector(text json.RawMessage) (Result, error) {
	var r Result
	if empty(text) {
		return r, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return r, errors.New("read the vector: want a list")
	}
	for d.More() {
		if len(r.Samples) == MaxSamples {
			return r, fmt.Errorf("the vector has more than %d samples; want a query that aggregates", MaxSamples)
		}
		var s struct {
			Metric    json.RawMessage
			Value     *point
			Histogram json.RawMessage
		}
		if err := d.Decode(&s); err != nil {
			return r, fmt.Errorf("read sample %d: %w", len(r.Samples), err)
		}
		labels, err := l.set(s.Metric)
		if err != nil {
			return r, fmt.Errorf("read sample %d: %w", len(r.Samples), err)
		}
		if s.Value == nil {
			if s.Histogram != nil {
				return r, fmt.Errorf("sample %s is a histogram: want a number, such as histogram_quantile(…)", Text(labels))
			}
			return r, fmt.Errorf("sample %s has no value", Text(labels))
		}
		r.Samples = append(r.Samples, Sample{Labels: labels, Value: s.Value.value, Time: s.Value.at})
	}
	return r, nil
}
