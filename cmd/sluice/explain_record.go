package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluice-autoscaler/sluice/algorithms/record"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

// recordCaveat is what a record of statuses cannot hold.
const recordCaveat = "the status has the demand of the last decision and the replicas, at most each 5 s: no windows, ages or coverage, and not when it was measured, " +
	"so a controller that is down looks like steady demand"

// keepRecord appends what the Autoscaler's status says to a file, once, or until ctx ends if every
// is above 0.
func keepRecord(ctx context.Context, name string, every time.Duration, get func(context.Context) (*v1alpha1.Autoscaler, error), stderr io.Writer) (err error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--record: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fmt.Fprintf(stderr, "recording to %s: %s\n", name, recordCaveat)
	n, err := recordEvery(ctx, every, get, f, stderr)
	word := "observations"
	if n == 1 {
		word = "observation"
	}
	fmt.Fprintf(stderr, "recorded %d %s\n", n, word)
	return err
}

// recordEvery writes a line now and after each period, and says how many. A status that cannot be
// read leaves a gap; one that is gone ends it.
func recordEvery(ctx context.Context, every time.Duration, get func(context.Context) (*v1alpha1.Autoscaler, error), w, stderr io.Writer) (n int, err error) {
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	for {
		as, err := get(ctx)
		switch {
		case ctx.Err() != nil:
			return n, nil
		case err != nil && (every == 0 || apierrors.IsNotFound(err)):
			return n, err
		case err != nil:
			fmt.Fprintln(stderr, "sluice: a gap in the record:", err)
		default:
			line, err := record.Marshal(explain.Observe(as, time.Now()))
			if err != nil {
				return n, err
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return n, fmt.Errorf("write the record: %w", err)
			}
			n++
		}
		if every == 0 {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick:
		}
	}
}
