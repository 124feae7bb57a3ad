package plan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Files says how trace files are read.
type Files struct {
	// Model is how requests fall within the bins of a trace.
	Model trace.Model
	// Zeros is what empty bins are: idle, interpolate or hold.
	Zeros string
	// From and To cut a part out of a trace (trace.ParseDuration); empty is the beginning and the
	// end.
	From, To string
}

// Traces are the loads of FILE or FILE#COLUMN, one each, or of all columns of FILE#all. Each file
// is read once for each mean work that it is asked with.
func (f Files) Traces(spec string) ([]Load, error) {
	file, column, _ := strings.Cut(spec, "#")
	opts := recording.Options{Column: column}
	switch f.Zeros {
	case "idle":
	case "interpolate":
		opts.Zeros = recording.ZerosInterpolate
	case "hold":
		opts.Zeros = recording.ZerosHold
	default:
		return nil, fmt.Errorf("--zeros = %q: want idle, interpolate or hold", f.Zeros)
	}
	columns := []string{column}
	if column == "all" {
		var err error
		if columns, err = traceColumns(file); err != nil {
			return nil, err
		}
	}
	var loads []Load
	for _, col := range columns {
		opts := opts
		opts.Column = col
		l := Recorded(cached(func(service time.Duration) (*trace.Trace, error) { return f.readTrace(file, opts, service) }), f.Model)
		if _, err := NameOf(l); err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// NameOf is the name of a load's arrivals.
func NameOf(l Load) (string, error) {
	src, err := l(&scenario.Scenario{Service: someWork()})
	if err != nil {
		return "", err
	}
	return src.Name(), nil
}

// someWork is a mean work with which a trace is read only to see whether it can be read.
func someWork() scenario.Dist {
	d, err := scenario.ParseDist("1s")
	if err != nil {
		return scenario.Dist{}
	}
	return d
}

// cached remembers the traces read by work.
func cached(read func(time.Duration) (*trace.Trace, error)) func(time.Duration) (*trace.Trace, error) {
	seen := map[time.Duration]*trace.Trace{}
	return func(service time.Duration) (*trace.Trace, error) {
		if t := seen[service]; t != nil {
			return t, nil
		}
		t, err := read(service)
		if err == nil {
			seen[service] = t
		}
		return t, err
	}
}

func (f Files) readTrace(file string, opts recording.Options, service time.Duration) (t *trace.Trace, err error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	opts.Service = service
	if t, err = recording.Read(r, file, opts); err != nil {
		return nil, err
	}
	from, to := time.Duration(0), t.Length()
	if f.From != "" {
		if from, err = trace.ParseDuration(f.From); err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if f.To != "" {
		if to, err = trace.ParseDuration(f.To); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
	}
	if from > 0 || to < t.Length() {
		return t.Slice(from, min(to, t.Length()))
	}
	return t, nil
}

// traceColumns lists the columns of a file but the first.
func traceColumns(file string) (columns []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return recording.Columns(f, file)
}

// Log is the load of a request log.
func Log(name string) (Load, error) {
	src, err := recording.Log(name, func() (io.ReadCloser, error) { return os.Open(name) }, recording.LogOptions{})
	if err != nil {
		return nil, err
	}
	return func(*scenario.Scenario) (trace.Source, error) { return src, nil }, nil
}
