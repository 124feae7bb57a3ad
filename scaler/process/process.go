// Package process is a driver for any program that runs instances and tells of them by HTTP: a
// process supervisor, a scheduler, a platform of one's own. docs/specs.md describes the interface.
//
// The driver has no goroutine. A round reads the program once, and signals are answered from what
// was read: the program counts integrals, so that means over windows are exact however rarely it
// is read.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// Name is the name of this driver in a loop.Ref.
const Name = "process"

// Options configure a Driver.
type Options struct {
	// URL is the program's address, such as http://127.0.0.1:8080; paths are added to its own.
	URL string
	// TokenFile has a token that goes with each request as a bearer's; it is read each time. ""
	// sends none.
	TokenFile string
	// Timeout bounds one request, 100ms–1m. A longer one waits for a slow program, a shorter one
	// finds a dead one sooner.
	Timeout time.Duration
	// Stale is after how long without a reading a signal is unknown, 1s–10m. Longer rides over
	// gaps, shorter acts on old readings for less long.
	Stale time.Duration
	// Clock tells the time.
	Clock func() time.Time
}

// DefaultOptions returns the defaults of all but URL.
func DefaultOptions() Options {
	return Options{Timeout: 5 * time.Second, Stale: 10 * time.Second, Clock: time.Now}
}

// Validate reports every fault.
func (o *Options) Validate() error {
	var errs []error
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		errs = append(errs, fmt.Errorf("process URL = %q: want http://HOST:PORT or https://HOST:PORT, with a path or without", o.URL))
	}
	if o.Timeout < 100*time.Millisecond || o.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("process timeout = %v: want 100ms–1m", o.Timeout))
	}
	if o.Stale < time.Second || o.Stale > 10*time.Minute {
		errs = append(errs, fmt.Errorf("process stale bound = %v: want 1s–10m", o.Stale))
	}
	return errors.Join(errs...)
}

// Driver is a scaler.Target, Source and Path. It is safe for concurrent use.
type Driver struct {
	opts   Options
	base   string
	client *http.Client

	mu        sync.Mutex
	workloads map[loop.Ref]*workload
}

// New returns a Driver of validated options.
func New(o Options) (*Driver, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Driver{
		opts: o, base: strings.TrimRight(o.URL, "/") + "/v1/workloads/", workloads: map[loop.Ref]*workload{},
		client: &http.Client{
			Timeout:       o.Timeout,
			Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close ends idle connections.
func (d *Driver) Close() { d.client.CloseIdleConnections() }

// Forget drops what is known of a workload.
func (d *Driver) Forget(ref loop.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.workloads, ref)
}

// find returns the memory of a workload, nil when there is none.
func (d *Driver) find(ref loop.Ref) *workload {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.workloads[ref]
}

// keep returns the memory of a workload, a new one when there is none.
func (d *Driver) keep(ref loop.Ref) *workload {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.workloads[ref]
	if w == nil {
		w = &workload{sources: map[string]*source{}}
		d.workloads[ref] = w
	}
	return w
}

// Get implements scaler.Target. It takes the reading of the same round's See, if there was one.
func (d *Driver) Get(ctx context.Context, ref loop.Ref) (scaler.State, error) {
	if w := d.find(ref); w != nil {
		if n, ok := w.take(d.opts.Clock()); ok {
			return scaler.State{Replicas: n}, nil
		}
	}
	doc, err := d.read(ctx, ref)
	if err != nil {
		return scaler.State{}, err
	}
	return scaler.State{Replicas: doc.Replicas}, nil
}

// Set implements scaler.Target.
func (d *Driver) Set(ctx context.Context, ref loop.Ref, n int, first []string) error {
	if w := d.find(ref); w != nil {
		w.spoil()
	}
	if err := d.put(ctx, d.path(ref)+"/scale", Scale{Replicas: n, First: first}); err != nil {
		return fmt.Errorf("set %s to %d replicas: %w", ref, n, err)
	}
	return nil
}

// See implements scaler.Path.
func (d *Driver) See(ctx context.Context, ref loop.Ref) (*loop.Path, error) {
	doc, err := d.read(ctx, ref)
	if err != nil {
		return nil, err
	}
	d.keep(ref).offer(doc.Replicas, d.opts.Clock())
	return doc.Path.path(), nil
}

// Put implements scaler.Path. What is so already is not asked for again.
func (d *Driver) Put(ctx context.Context, ref loop.Ref, want loop.PathState) error {
	w := d.keep(ref)
	if w.agreed(want) {
		return nil
	}
	if err := d.put(ctx, d.path(ref)+"/path", want); err != nil {
		return fmt.Errorf("change the path of %s: %w", ref, err)
	}
	w.agree(want)
	return nil
}

// Signals implements scaler.Source.
func (d *Driver) Signals(now time.Time, ref loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	w := d.find(ref)
	for _, n := range needs {
		s := algorithms.Signal{Name: n.Name, Window: n.Window, Source: Name}
		if w != nil {
			w.answer(&s, now, d.opts.Stale)
		}
		dst = append(dst, s)
	}
	return dst
}

// Instances implements scaler.Source.
func (d *Driver) Instances(ref loop.Ref, dst []loop.Instance) []loop.Instance {
	w := d.find(ref)
	if w == nil {
		return dst
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(dst, w.instances...)
}

// path is a workload's own. A name may be anything; an empty namespace is "-".
func (d *Driver) path(ref loop.Ref) string {
	ns := ref.Namespace
	if ns == "" {
		ns = "-"
	}
	return d.base + url.PathEscape(ns) + "/" + url.PathEscape(ref.Kind) + "/" + url.PathEscape(ref.Name)
}

// read reads a workload's document and remembers it.
func (d *Driver) read(ctx context.Context, ref loop.Ref) (*Document, error) {
	var doc Document
	body, err := d.do(ctx, http.MethodGet, d.path(ref), nil)
	if err == nil {
		err = json.Unmarshal(body, &doc)
	}
	if err == nil {
		err = doc.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref, err)
	}
	d.keep(ref).remember(&doc, d.opts.Clock())
	return &doc, nil
}

func (d *Driver) put(ctx context.Context, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = d.do(ctx, http.MethodPut, path, body)
	return err
}

const (
	// mostBody bounds an answer.
	mostBody = 16 << 20
	// mostText bounds what of an answer's text becomes part of an error.
	mostText = 300
)

// do sends a request and returns the body of a good answer.
func (d *Driver) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if d.opts.TokenFile != "" {
		token, err := os.ReadFile(d.opts.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostBody+1))
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, fault(resp, text)
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(text) > mostBody:
		return nil, fmt.Errorf("the answer has more than %d bytes", mostBody)
	}
	return text, nil
}

// fault is the error of an answer that is not good, of one of the scaler's kinds where it has one.
func fault(resp *http.Response, text []byte) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if len(line) > mostText {
		line = line[:mostText] + "…"
	}
	err := fmt.Errorf("%s: %s", resp.Status, strings.ToValidUTF8(line, ""))
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%w: %w", scaler.ErrNotFound, err)
	case http.StatusConflict, http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", scaler.ErrConflict, err)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", scaler.ErrThrottled, err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", scaler.ErrForbidden, err)
	}
	return err
}
