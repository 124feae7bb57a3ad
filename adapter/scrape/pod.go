package scrape

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/filter"
	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/adapter/store"
)

// stillReads is how many reads in a row must tell the same before a pod counts as idle.
const stillReads = 10

// causeTurn is why a pod is not read that waits for a slot for long.
const causeTurn = "too many pods of its namespace answer late, so that its turn has not come"

// job is how one pod is read: by its sidecar, or by a preset.
type job struct {
	namespace, address string
	uid                types.UID
	// read reads it once and tells whether anything has changed; fail notes why it could not be.
	read func(ctx context.Context) (moved bool, err error)
	fail func(cause string)
	// count notes a read's result and duration.
	count func(result string, took time.Duration)
}

// readSidecar is the job of a pod that has a sidecar.
func (s *Scraper) readSidecar(address, namespace string, uid types.UID) job {
	var last store.Sample
	return job{
		namespace: namespace, address: address, uid: uid,
		read: func(ctx context.Context) (bool, error) {
			sample, err := s.read(ctx, address, namespace, uid)
			moved := sample.InFlight != last.InFlight || sample.Queued != last.Queued || sample.Reading.Sums != last.Reading.Sums
			last = sample
			return moved, err
		},
		fail: func(cause string) { s.Store.SetFailure(namespace, uid, cause) },
		count: func(result string, took time.Duration) {
			s.metrics.duration.Observe(took.Seconds())
			s.metrics.reads.WithLabelValues(result).Inc()
		},
	}
}

// repeat reads one pod until ctx ends: at once, then quickly until it answers, then at the
// interval, at an offset of its own so that reads spread.
func (s *Scraper) repeat(ctx context.Context, t *target, j job) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(j.uid))
	hash := h.Sum64()
	retry := firstRetry
	answered := false
	still := 0 // reads in a row in which nothing changed
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.poke:
			retry = firstRetry
		case <-timer.C:
		}
		// A pod whose turn does not come counts as not read. Otherwise a namespace with many pods
		// that answer late would keep the collector from being ready.
		late := time.AfterFunc(s.timeout(), func() { j.fail(causeTurn) })
		err := s.slots.acquire(ctx, j.namespace)
		late.Stop()
		if err != nil {
			return
		}
		began := time.Now()
		moved, err := s.readOnce(ctx, j)
		s.slots.release(j.namespace)
		if ctx.Err() != nil {
			return
		}
		result, cause := classify(err)
		j.count(result, time.Since(began))
		var wait time.Duration
		if err == nil {
			if !answered {
				s.Log.DebugContext(ctx, "pod answers", slog.String("namespace", j.namespace), slog.String("address", j.address))
			}
			answered = true
			if still++; moved {
				still = 0
			}
			interval := s.Interval
			if still >= stillReads {
				interval = s.IdleInterval
			}
			phase := time.Duration(hash % uint64(interval)) //nolint:gosec // less than the interval
			if wait = (phase - time.Duration(began.UnixNano()%int64(interval)) + interval) % interval; wait < interval/4 {
				wait += interval
			}
		} else {
			if answered {
				s.Log.WarnContext(ctx, "pod not read", slog.String("namespace", j.namespace), slog.String("address", j.address), slog.Any("error", err))
				answered, retry = false, firstRetry
			}
			j.fail(cause)
			wait, retry = min(retry, s.Interval), min(2*retry, s.Interval)
		}
		timer.Reset(wait)
	}
}

// readOnce reads a pod once, within the time that a read may take.
func (s *Scraper) readOnce(ctx context.Context, j job) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	return j.read(ctx)
}

// read reads one pod's sidecar once.
func (s *Scraper) read(ctx context.Context, addr, namespace string, uid types.UID) (store.Sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return store.Sample{}, fmt.Errorf("address %s: %w", addr, err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "sluice-adapter")
	res, err := s.http.Do(req)
	if err != nil {
		return store.Sample{}, fmt.Errorf("read %s: %w", addr, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	at := time.Now()
	if res.StatusCode != http.StatusOK {
		return store.Sample{}, fmt.Errorf("read %s: %w", addr, statusError(res.StatusCode))
	}
	sample, err := parse(ctx, res.Header, res.Body, at)
	if err != nil {
		return store.Sample{}, fmt.Errorf("read %s: %w", addr, err)
	}
	if !s.Store.AddSample(namespace, uid, sample) {
		return store.Sample{}, fmt.Errorf("read %s: %w", addr, errOrder)
	}
	return sample, nil
}

var errOrder = errors.New("the source's clock or start time went back")

// statusError is an HTTP status that is no answer.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// classify names an error for metrics, from a closed set, and for people.
func classify(err error) (result, cause string) {
	var status statusError
	var timeout net.Error
	var bound *filter.BoundError
	var samples samplesError
	switch {
	case err == nil:
		return "ok", ""
	case errors.As(err, &status):
		return "status", "it answers " + status.Error()
	case errors.As(err, &bound):
		return "too_large", bound.Error()
	case errors.Is(err, bufio.ErrTooLong):
		return "too_large", "its report is too long"
	case errors.Is(err, errInvalid):
		return "invalid", errInvalid.Error()
	case errors.Is(err, preset.ErrJSON):
		return "content", preset.ErrJSON.Error()
	case errors.As(err, &samples):
		return "content", samples.Error()
	case errors.Is(err, errContent):
		return "content", "its port sluice-metrics is " + errContent.Error()
	case errors.Is(err, errOrder):
		return "order", errOrder.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", "connection refused"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", "no answer in time"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable", "no route to it"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset", "connection reset"
	}
	return "other", "its answer cannot be read"
}
