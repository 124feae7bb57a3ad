package recording

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// batch is how many requests are read at once while a log is checked.
const batch = 256

// LogOptions say how to read a request log.
type LogOptions struct {
	// Rebase counts times from the first request's, for logs with the time of day. Without it they
	// are since the start, unless they are too large for that: Unix seconds always count from the
	// first.
	Rebase bool
	// Length is how long the log lasts; 0 is until the last request has come and the last known
	// work has ended, rounded up to a whole second.
	Length time.Duration
}

// Log is a source of recorded requests: CSV with the header "t_seconds" or
// "t_seconds,service_seconds", perhaps with ",prompt_tokens,output_tokens", and a line per request,
// in order. Service times are > 0; 0 or nothing leaves it to the scenario.
//
// The log is never held: open is called for a first pass here, which checks it all, and for every
// Open. Arrivals it yields implement trace.Failing, and io.Closer for those who stop before the
// end; at the end or at an error they close by themselves. The random generator is not used.
func Log(name string, open func() (io.ReadCloser, error), opts LogOptions) (*Requests, error) {
	if opts.Length < 0 {
		return nil, fmt.Errorf("read log %s: length %v: want ≥ 0", name, opts.Length)
	}
	l := &Requests{file: name, open: open, opts: opts}
	base := path.Base(strings.ReplaceAll(name, `\`, "/"))
	l.name = strings.TrimSuffix(base, path.Ext(base))
	a := l.start()
	buf := make([]trace.Request, batch)
	last := time.Duration(-1)
	for n := a.Read(buf); n > 0; n = a.Read(buf) {
		last = buf[n-1].At
		for i := range buf[:n] {
			l.Count++
			if buf[i].Service == 0 {
				l.unserved = true
			}
			l.work = max(l.work, buf[i].At+buf[i].Service)
		}
	}
	l.last = last
	switch {
	case a.err != nil:
		return nil, a.err
	case last < 0:
		return nil, fmt.Errorf("read log %s: it has a header but no requests: want a line per request", name)
	}
	l.length = opts.Length
	if l.length == 0 {
		l.length = max(last.Truncate(time.Second)+time.Second, wholeSecond(l.work))
	}
	return l, nil
}

// wholeSecond rounds up.
func wholeSecond(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// unixTimes is from when on times are since 1970 rather than since a start, three years.
const unixTimes = 100_000_000 * time.Second

// ErrOrder is in the chain of the error for a log that is not in the order of time.
var ErrOrder = errors.New("sort the log by time")

// Requests is a source of recorded requests.
type Requests struct {
	file, name string
	open       func() (io.ReadCloser, error)
	opts       LogOptions
	length     time.Duration
	// Count is how many there are.
	Count int64
	// last is the last arrival, work when the last known work ends; unserved says that some work is
	// unknown.
	last, work time.Duration
	unserved   bool
}

// Until is the log with a length until its work ends, which takes as long as service where the log
// does not say.
func (l *Requests) Until(service time.Duration) trace.Source {
	c := *l
	if l.unserved && l.opts.Length == 0 {
		c.length = max(c.length, wholeSecond(l.last+service))
	}
	return &c
}

// Name implements trace.Source.
func (l *Requests) Name() string { return l.name }

// Length implements trace.Source.
func (l *Requests) Length() time.Duration { return l.length }

// Open implements trace.Source.
func (l *Requests) Open(*rand.Rand) trace.Arrivals { return l.start() }

func (l *Requests) start() *logArrivals {
	a := &logArrivals{log: l}
	f, err := l.open()
	if err != nil {
		a.err = fmt.Errorf("open log %s: %w", l.file, err)
		return a
	}
	a.file, a.lines = f, newLines(f)
	if err := a.header(); err != nil {
		a.end(err)
	}
	return a
}

type logArrivals struct {
	log     *Requests
	file    io.ReadCloser // nil once closed
	lines   *lines
	columns []string
	first   time.Duration
	last    time.Duration
	begun   bool
	err     error
}

func (a *logArrivals) header() error {
	head, err := a.lines.next()
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty: want the header t_seconds,service_seconds and a line per request")
	}
	if err != nil {
		return err
	}
	a.columns = strings.Split(strings.ReplaceAll(string(head), " ", ""), ",")
	known := []string{"t_seconds", "service_seconds", "prompt_tokens", "output_tokens"}
	if len(a.columns) > len(known) || !slices.Equal(a.columns, known[:len(a.columns)]) {
		return fmt.Errorf("line %d: header %q: want t_seconds or t_seconds,service_seconds", a.lines.n, clip(string(head)))
	}
	return nil
}

// Read implements trace.Arrivals.
func (a *logArrivals) Read(dst []trace.Request) int {
	if a.file == nil {
		return 0
	}
	for n := range dst {
		r, err := a.next()
		if err != nil {
			a.end(err)
			return n
		}
		dst[n] = r
	}
	return len(dst)
}

func (a *logArrivals) next() (trace.Request, error) {
	line, err := a.lines.next()
	if err != nil {
		return trace.Request{}, err
	}
	field, rest, more := bytes.Cut(line, []byte{','})
	at, err := seconds(field, a.lines.n, a.columns[0])
	if err != nil {
		return trace.Request{}, err
	}
	if !a.begun {
		a.begun = true
		if a.log.opts.Rebase || at >= unixTimes {
			a.first = at
		}
	}
	at -= a.first
	if at < a.last {
		return trace.Request{}, fmt.Errorf("line %d: %v comes after %v, the line before: %w", a.lines.n, at, a.last, ErrOrder)
	}
	if length := a.log.opts.Length; length > 0 && at >= length {
		return trace.Request{}, fmt.Errorf("line %d: %v is not before the length given, %v: cut the log or raise the length", a.lines.n, at, length)
	}
	a.last = at
	r := trace.Request{At: at}
	if !more {
		return r, nil
	}
	if len(a.columns) < 2 {
		return trace.Request{}, fmt.Errorf("line %d has more fields than the header: name the second service_seconds", a.lines.n)
	}
	if len(a.columns) > 2 {
		rest, _, _ = bytes.Cut(rest, []byte{','}) // tokens are not read here
	}
	if rest = bytes.TrimSpace(rest); len(rest) == 0 {
		return r, nil
	}
	r.Service, err = seconds(rest, a.lines.n, a.columns[1])
	return r, err
}

// Err implements trace.Failing.
func (a *logArrivals) Err() error { return a.err }

// Close ends the arrivals before their end. It may be called more than once.
func (a *logArrivals) Close() error {
	if a.file == nil {
		return nil
	}
	f := a.file
	a.file = nil
	return f.Close()
}

// end closes and keeps the reason.
func (a *logArrivals) end(why error) {
	err := a.Close()
	if !errors.Is(why, io.EOF) {
		err = why
	}
	if err != nil {
		a.err = fmt.Errorf("read log %s: %w", a.log.file, err)
	}
}
