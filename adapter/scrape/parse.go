package scrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/filter"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

// accept asks for protobuf, which is the cheapest to read, else for text.
const accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

var (
	errContent  = errors.New("no source of concurrency")
	errEncoding = errors.New("the exposition is compressed, which was not asked for")
)

// maxBody bounds a sidecar's exposition, in bytes. It has some 10 KiB.
const maxBody = 256 << 10

// sidecarFilter is what is read of a sidecar, which writes one label to a sample.
func sidecarFilter() *filter.Filter {
	return &filter.Filter{Body: maxBody, Kept: 16 << 10, Sample: 512, Labels: 8, Family: 4 << 10, Wanted: wanted}
}

// wanted says whether a metric is among those that are read.
func wanted(name []byte) bool {
	switch string(name) {
	case wire.ConcurrencySeconds, wire.Requests, wire.MonotonicSeconds, wire.StartTime, wire.InFlight, wire.Queued, wire.ConcurrencyLimit:
		return true
	}
	return false
}

// parse reads an exposition received at an instant. It gives up when ctx ends.
func parse(ctx context.Context, header http.Header, body io.Reader, at time.Time) (store.Sample, error) {
	if e := header.Get("Content-Encoding"); e != "" && e != "identity" {
		return store.Sample{}, errEncoding
	}
	format := expfmt.ResponseFormat(header)
	kept, err := sidecarFilter().Read(ctx, format.FormatType(), body)
	if err != nil {
		return store.Sample{}, fmt.Errorf("read the exposition: %w", err)
	}
	dec := expfmt.NewDecoder(bytes.NewReader(kept), format)
	s := store.Sample{Reading: window.Reading{At: at, Mono: math.NaN(), Life: math.NaN()}}
	s.Reading.Sums[0] = math.NaN()
	for {
		var mf dto.MetricFamily
		err := dec.Decode(&mf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return s, fmt.Errorf("parse the exposition: %w", err)
		}
		switch mf.GetName() {
		case wire.ConcurrencySeconds:
			s.Reading.Sums[0] = total(&mf)
		case wire.Requests:
			s.Reading.Sums[1] = total(&mf)
		case wire.MonotonicSeconds:
			s.Reading.Mono = total(&mf)
		case wire.StartTime:
			s.Reading.Life = total(&mf)
		case wire.InFlight:
			s.InFlight = total(&mf)
		case wire.Queued:
			s.Queued = total(&mf)
		case wire.ConcurrencyLimit:
			s.Limit = total(&mf)
		}
	}
	for name, v := range map[string]float64{
		wire.ConcurrencySeconds: s.Reading.Sums[0], wire.MonotonicSeconds: s.Reading.Mono, wire.StartTime: s.Reading.Life,
		wire.Requests: s.Reading.Sums[1], wire.InFlight: s.InFlight, wire.Queued: s.Queued,
	} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return s, fmt.Errorf("%w: %s is absent or no finite number ≥ 0", errContent, name)
		}
	}
	return s, nil
}

// total sums a family's samples.
func total(mf *dto.MetricFamily) float64 {
	var v float64
	for _, m := range mf.GetMetric() {
		switch {
		case m.GetCounter() != nil:
			v += m.GetCounter().GetValue()
		case m.GetGauge() != nil:
			v += m.GetGauge().GetValue()
		case m.GetUntyped() != nil:
			v += m.GetUntyped().GetValue()
		}
	}
	return v
}
