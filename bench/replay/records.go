package replay

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
)

// WriteRecords writes into a folder what a replay keeps besides a bench: every request and every
// change of a pod, and the latencies as an HdrHistogram percentile distribution.
func WriteRecords(dir string, seen live.Observations) error {
	return errors.Join(
		writeFile(filepath.Join(dir, "seen.json.gz"), func(w io.Writer) error {
			z := gzip.NewWriter(w)
			return errors.Join(json.NewEncoder(z).Encode(seen), z.Close())
		}),
		writeFile(filepath.Join(dir, "latency.hgrm"), func(w io.Writer) error { return writeLatencies(w, seen.Requests) }))
}

// writeLatencies writes the percentile distribution of the answered requests, from their intended
// instants, in milliseconds.
func writeLatencies(w io.Writer, all []load.Record) error {
	const top, digits = 10 * 60 * 1000 * 1000, 3 // ten minutes in microseconds
	h := hdrhistogram.New(1, top, digits)
	for _, r := range all {
		if !r.OK() {
			continue
		}
		if err := h.RecordValue(min(max(r.Latency().Microseconds(), 1), top)); err != nil {
			return fmt.Errorf("count a latency of %v: %w", r.Latency(), err)
		}
	}
	_, err := h.PercentilesPrint(w, 5, 1000)
	return err
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := write(out); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
