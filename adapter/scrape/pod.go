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
)

// causeTurn is why a pod is not read that waits for a slot for long.
const causeTurn = "too many pods of its namespace answer late, so that its turn has not come"

// readPod reads one pod until ctx ends: at once, then quickly until it answers, then at the
// interval, at an offset of its own so that reads spread.
func (s *Scraper) readPod(ctx context.Context, t *target, namespace string, uid types.UID) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid))
	phase := time.Duration(h.Sum64() % uint64(s.Interval)) //nolint:gosec // less than the interval
	retry := firstRetry
	answered := false
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
		late := time.AfterFunc(s.timeout(), func() { s.Store.SetFailure(namespace, uid, causeTurn) })
		err := s.slots.acquire(ctx, namespace)
		late.Stop()
		if err != nil {
			return
		}
		began := time.Now()
		err = s.read(ctx, t.address, namespace, uid)
		s.slots.release(namespace)
		if ctx.Err() != nil {
			return
		}
		s.metrics.duration.Observe(time.Since(began).Seconds())
		result, cause := classify(err)
		s.metrics.reads.WithLabelValues(result).Inc()
		var wait time.Duration
		if err == nil {
			if !answered {
				s.Log.DebugContext(ctx, "pod answers", slog.String("namespace", namespace), slog.String("address", t.address))
			}
			answered = true
			if wait = (phase - time.Duration(began.UnixNano()%int64(s.Interval)) + s.Interval) % s.Interval; wait < s.Interval/4 {
				wait += s.Interval
			}
		} else {
			if answered {
				s.Log.WarnContext(ctx, "pod not read", slog.String("namespace", namespace), slog.String("address", t.address), slog.Any("error", err))
				answered, retry = false, firstRetry
			}
			s.Store.SetFailure(namespace, uid, cause)
			wait, retry = min(retry, s.Interval), min(2*retry, s.Interval)
		}
		timer.Reset(wait)
	}
}

// read reads one pod once.
func (s *Scraper) read(ctx context.Context, addr, namespace string, uid types.UID) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "sluice-adapter")
	res, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("read %s: %w", addr, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	at := time.Now()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("read %s: %w", addr, statusError(res.StatusCode))
	}
	sample, err := parse(ctx, res.Header, res.Body, at)
	if err != nil {
		return fmt.Errorf("read %s: %w", addr, err)
	}
	if !s.Store.AddSample(namespace, uid, sample) {
		return fmt.Errorf("read %s: %w", addr, errOrder)
	}
	return nil
}

var errOrder = errors.New("the source's clock or start time went back")

// statusError is an HTTP status that is no answer.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// classify names an error for metrics, from a closed set, and for people.
func classify(err error) (result, cause string) {
	var status statusError
	var timeout net.Error
	switch {
	case err == nil:
		return "ok", ""
	case errors.As(err, &status):
		return "status", "it answers " + status.Error()
	case errors.Is(err, errTooLarge):
		return "too_large", errTooLarge.Error()
	case errors.Is(err, errKept):
		return "too_large", errKept.Error()
	case errors.Is(err, bufio.ErrTooLong):
		return "too_large", "its report is too long"
	case errors.Is(err, errInvalid):
		return "invalid", errInvalid.Error()
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
