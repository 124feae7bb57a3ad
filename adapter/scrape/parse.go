package scrape

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
	"github.com/sluice-autoscaler/sluice/wire"
)

// accept asks for protobuf, which is the cheapest to read, else for text.
const accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

// maxBody bounds an exposition.
const maxBody = 1 << 20

var (
	errTooLarge = fmt.Errorf("the exposition is larger than %d bytes", maxBody)
	errContent  = errors.New("no source of concurrency")
	errFrames   = errors.New("parse the exposition: a message is longer than all of it")
)

// framed tells whether raw is messages, each after its length. The decoder makes room for whatever
// length it is told, so that a few bytes from one pod could take the process down.
func framed(raw []byte) bool {
	for len(raw) > 0 {
		size, n := binary.Uvarint(raw)
		if n <= 0 || size > uint64(len(raw)-n) {
			return false
		}
		raw = raw[n+int(size):]
	}
	return true
}

// parse reads an exposition received at an instant.
func parse(header http.Header, body io.Reader, at time.Time) (store.Sample, error) {
	raw, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return store.Sample{}, fmt.Errorf("read the exposition: %w", err)
	}
	if len(raw) > maxBody {
		return store.Sample{}, errTooLarge
	}
	format := expfmt.ResponseFormat(header)
	if format.FormatType() == expfmt.TypeProtoDelim && !framed(raw) {
		return store.Sample{}, errFrames
	}
	dec := expfmt.NewDecoder(bytes.NewReader(raw), format)
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
