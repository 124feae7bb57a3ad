package scrape

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// silence is how long a stream may be without a report before it is opened anew; reports come
	// each second.
	silence = 3 * time.Second
	// maxLine bounds a report.
	maxLine = 16 << 20
	// firstReconnect is the wait before the first try anew; it doubles up to lastReconnect.
	firstReconnect, lastReconnect = 50 * time.Millisecond, time.Second
)

var (
	errEnded         = errors.New("the gateway ended the stream")
	errNoCertificate = errors.New("there is no certificate for gateways yet")
)

// newStreamClient returns a client for report streams. Each connection asks for its TLS
// configuration, so that a renewed certificate is used by the next one.
func newStreamClient(dial *net.Dialer, config func() *tls.Config) *http.Client {
	t := &http.Transport{
		DialContext: dial.DialContext, DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
	}
	if config != nil {
		t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c := config()
			if c == nil {
				return nil, errNoCertificate
			}
			if c.ServerName == "" && !c.InsecureSkipVerify {
				host, _, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, fmt.Errorf("address %s: %w", addr, err)
				}
				c = c.Clone()
				c.ServerName = host
			}
			return (&tls.Dialer{NetDialer: dial, Config: c}).DialContext(ctx, network, addr)
		}
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// followGateway keeps a gateway's stream open until ctx ends.
func (s *Scraper) followGateway(ctx context.Context, t *target, uid types.UID, name string) {
	wait := firstReconnect
	told := "" // the last invalid report's fault that was logged
	for {
		got, err := s.stream(ctx, t.address, uid, name)
		g, known := s.Store.SetConnected(uid, false)
		if got > 0 {
			wait = firstReconnect
		}
		if got > 0 && known {
			s.OnReport(g, services(g.Report))
		}
		if ctx.Err() != nil {
			return
		}
		result, _ := classify(err)
		s.metrics.reports.WithLabelValues(result).Inc()
		switch {
		case errors.Is(err, errInvalid):
			if err.Error() != told {
				told = err.Error()
				s.Log.ErrorContext(ctx, "gateway sends reports that cannot be true, will reconnect", slog.String("gateway", name), slog.Any("error", err))
			}
		case got > 0:
			s.Log.WarnContext(ctx, "gateway stream ended, will reconnect", slog.String("gateway", name), slog.Any("error", err))
		default:
			s.Log.DebugContext(ctx, "gateway stream not opened, will retry", slog.String("gateway", name), slog.Any("error", err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-t.poke:
			timer.Stop()
			wait = firstReconnect
		case <-timer.C:
			wait = min(2*wait, lastReconnect)
		}
	}
}

// stream takes reports until the stream breaks. It returns how many there were.
func (s *Scraper) stream(ctx context.Context, addr string, uid types.UID, name string) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	scheme := "http"
	if s.TLS != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+wire.ReportsPath, nil)
	if err != nil {
		return 0, fmt.Errorf("address %s: %w", addr, err)
	}
	res, err := s.streams.Do(req)
	if err != nil {
		return 0, fmt.Errorf("open the stream of %s: %w", addr, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("open the stream of %s: %w", addr, statusError(res.StatusCode))
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 16<<10), maxLine)
	n := 0
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := s.takeReport(lines.Bytes(), uid, name); err != nil {
			return n, fmt.Errorf("report of gateway %s at %s: %w", name, addr, err)
		}
		watchdog.Reset(silence)
		n++
	}
	if err := lines.Err(); err != nil {
		return n, fmt.Errorf("read the stream of %s: %w", addr, err)
	}
	return n, fmt.Errorf("read the stream of %s: %w", addr, errEnded)
}

// takeReport reads one report and puts it into the store.
func (s *Scraper) takeReport(line []byte, uid types.UID, name string) error {
	now := time.Now()
	var r wire.Report
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	sortPorts(&r)
	if err := checkReport(&r); err != nil {
		return err
	}
	s.cut(name, &r)
	before, after, ok := s.Store.AddReport(now, uid, &r)
	if !ok {
		return errors.New("the gateway is gone")
	}
	s.metrics.reports.WithLabelValues("ok").Inc()
	s.OnReport(after, urgent(before, after))
	return nil
}
