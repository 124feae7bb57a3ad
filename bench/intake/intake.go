// Package intake reads the loads that people have: access logs, results of load tests, exports of
// metrics, and published data sets. Each format has a name, a recogniser of its beginning and a
// parser, in one table (Formats). What a file holds is told apart as requests, one by one, or as
// values over time; both become a trace or a request log of the bench.
//
// Files are read once, from the beginning to the end, in bounded memory, gzip and zstd included.
// Lines that cannot be read are counted and the first is quoted; they are not taken for idleness. It
// is pure but for Spool, which sorts in a file.
package intake

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Unit is what the values of a file are.
type Unit string

// The units.
const (
	// UnitAuto leaves it to the file.
	UnitAuto Unit = ""
	// UnitRequests is requests in the bin.
	UnitRequests Unit = "requests"
	// UnitRate is requests per second.
	UnitRate Unit = "rate"
	// UnitConcurrency is the mean number of requests in flight.
	UnitConcurrency Unit = "concurrency"
	// UnitCounter is a count that only rises, but for restarts.
	UnitCounter Unit = "counter"
)

// Units lists what a user may say.
func Units() []Unit { return []Unit{UnitRequests, UnitRate, UnitConcurrency, UnitCounter} }

// Item is a request, or a value over time.
type Item struct {
	// At is nanoseconds, since 1970 or since the file's own beginning (Meta.Relative). It is the
	// arrival of a request, or the beginning of a bin.
	At int64
	// Bin says that it is a value; else it is one request.
	Bin bool
	// Width is the bin's, 0 where the distance of the times gives it.
	Width time.Duration
	Value float64
	// Service is how long the request was worked on, 0 where that is unknown.
	Service time.Duration
	// In and Out are tokens of the request's prompt and answer, 0 where there are none.
	In, Out int
	// Series names what the value or request belongs to, where a file has several.
	Series string
}

// Meta is what a parser knows of its file.
type Meta struct {
	// Unit of values.
	Unit Unit
	// Relative says that times are since a beginning of the file's own, not since 1970.
	Relative bool
	// Notes are what a user should know of how the file was read.
	Notes []string
	// Column is what is selected of a file with several series; "" is all together.
	Column string
}

// Note adds a note once.
func (m *Meta) Note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	for _, old := range m.Notes {
		if old == n {
			return
		}
	}
	m.Notes = append(m.Notes, n)
}

// Format is one kind of file.
type Format struct {
	// Name is what --format takes; Title says it to people.
	Name, Title string
	// recognise tells by the file's beginning whether it is of this kind.
	recognise func(h *head) bool
	// parse hands on each item.
	parse func(in *input, m *Meta, emit func(*Item)) error
}

// File is what is to be read.
type File struct {
	// Name tells about formats that keep the time in it, and stands in errors.
	Name string
	// Open opens it; it is called once for each pass.
	Open func() (io.ReadCloser, error)
}

// Options say how files are read.
type Options struct {
	// Format is a name of Formats; "" recognises it.
	Format string
	// Unit is what values are; "" leaves it to the file.
	Unit Unit
	// Column selects a series, or a column; "" or "sum" takes all together.
	Column string
	// Service turns concurrency into a rate.
	Service time.Duration
	// Width is the bins'; 0 takes the file's, and a second for requests.
	Width time.Duration
	// Progress is told the bytes read, now and then; it may be nil.
	Progress func(read int64)
}

// Summary is what was read.
type Summary struct {
	Format Format
	Meta   Meta
	// Lines counts all, Skipped those that could not be read; FirstSkipped says why of the first.
	Lines, Skipped int64
	FirstSkipped   string
	// Items counts requests or values, Requests the requests that they stand for. Values of a rate or a
	// concurrency stand for them once the bins' width is known.
	Items    int64
	Requests float64
	// First and Last are the earliest and latest At.
	First, Last int64
	// Served counts requests whose work is known, Service is the sum of that; In and Out are tokens.
	Served  int64
	Service time.Duration
	In, Out int64
	// Unsorted says that some item came before an earlier one.
	Unsorted bool
	// Binned says that it held values.
	Binned bool
}

// ErrNothing is returned for files without any item.
var ErrNothing = errors.New("there is nothing in it that could be read")

// scan reads one file.
func scan(f File, o Options, emit func(*Item)) (s Summary, err error) {
	in, err := open(f, o.Progress)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if s.Format, err = choose(in, o.Format); err != nil {
		return s, err
	}
	s.Meta.Column = o.Column
	if s.Meta.Column == "sum" {
		s.Meta.Column = ""
	}
	last := int64(math.MinInt64)
	parseErr := s.Format.parse(in, &s.Meta, func(it *Item) {
		if s.Meta.Column != "" && it.Series != "" && it.Series != s.Meta.Column {
			return
		}
		if it.At < -maxTime || it.At > maxTime {
			in.skip("a time beyond 292 years")
			return
		}
		s.add(it, &last)
		emit(it)
	})
	s.Lines, s.Skipped, s.FirstSkipped = in.lines, in.skipped, in.firstSkipped
	if parseErr != nil {
		return s, fmt.Errorf("%s: %w", s.Format.Name, parseErr)
	}
	if s.Items == 0 {
		return s, fmt.Errorf("%s: %w%s", s.Format.Name, ErrNothing, skippedWords(&s))
	}
	if o.Unit != UnitAuto {
		s.Meta.Unit = o.Unit
	}
	if s.Meta.Unit == UnitAuto {
		s.Meta.Unit = UnitRequests
	}
	return s, nil
}

// maxTime bounds instants, in nanoseconds, so that differences of two fit.
const maxTime = int64(1) << 62

func (s *Summary) add(it *Item, last *int64) {
	if s.Items == 0 {
		s.First, s.Last = it.At, it.At
	}
	s.Items++
	s.First, s.Last = min(s.First, it.At), max(s.Last, it.At)
	s.Unsorted = s.Unsorted || it.At < *last
	*last = it.At
	if it.Bin {
		s.Binned = true
		return
	}
	s.Requests++
	if it.Service > 0 {
		s.Served++
		s.Service += it.Service
	}
	s.In, s.Out = s.In+int64(it.In), s.Out+int64(it.Out)
}

func skippedWords(s *Summary) string {
	if s.Skipped == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d of %d lines skipped, the first since %s)", s.Skipped, s.Lines, s.FirstSkipped)
}

// Describe says what was taken for what, in lines for people.
func (s *Summary) Describe() []string {
	what := fmt.Sprintf("%d requests", s.Items)
	if s.Binned {
		what = fmt.Sprintf("%d values", s.Items)
	}
	lines := []string{fmt.Sprintf("%s: %s from %s to %s%s", s.Format.Title, what, s.instant(s.First), s.instant(s.Last), skippedWords(s))}
	if s.Unsorted {
		lines = append(lines, "it was not in the order of time, and was sorted")
	}
	if s.Served > 0 {
		lines = append(lines, fmt.Sprintf("%d of them say how long they took: %v in the mean", s.Served, (s.Service/time.Duration(s.Served)).Round(time.Microsecond)))
	}
	if s.In+s.Out > 0 {
		lines = append(lines, fmt.Sprintf("%d tokens in, %d tokens out", s.In, s.Out))
	}
	return append(lines, s.Meta.Notes...)
}

// instant writes a time of the file.
func (s *Summary) instant(at int64) string {
	if s.Meta.Relative {
		return time.Duration(at).String()
	}
	return time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.999Z")
}

// join adds what another file of the same load held.
func (s *Summary) join(o *Summary) error {
	if s.Items == 0 {
		*s = *o
		return nil
	}
	if s.Binned != o.Binned || s.Meta.Relative != o.Meta.Relative || s.Meta.Unit != o.Meta.Unit {
		return fmt.Errorf("%s and %s do not go together: one load is requests or values, of one unit, by one clock", s.Format.Name, o.Format.Name)
	}
	s.Unsorted = s.Unsorted || o.Unsorted || o.First < s.Last
	s.First, s.Last = min(s.First, o.First), max(s.Last, o.Last)
	s.Lines, s.Skipped, s.Items = s.Lines+o.Lines, s.Skipped+o.Skipped, s.Items+o.Items
	if s.FirstSkipped == "" {
		s.FirstSkipped = o.FirstSkipped
	}
	s.Requests, s.Served, s.Service = s.Requests+o.Requests, s.Served+o.Served, s.Service+o.Service
	s.In, s.Out = s.In+o.In, s.Out+o.Out
	for _, n := range o.Meta.Notes {
		s.Meta.Note("%s", n)
	}
	return nil
}

// Read hands on each item of the files, as one load, in the order of the files.
func Read(files []File, o Options, emit func(*Item)) (Summary, error) {
	var all Summary
	for _, f := range files {
		s, err := scan(f, o, emit)
		if err == nil {
			err = all.join(&s)
		}
		if err != nil {
			return all, fmt.Errorf("read %s: %w", f.Name, err)
		}
	}
	return all, nil
}

// First hands on the first items of a file, until each returns an error.
func First(f File, o Options, each func(*Item) error) (s Summary, err error) {
	stopped := false
	opened := f.Open
	var src *stopping
	f.Open = func() (io.ReadCloser, error) {
		r, err := opened()
		if err != nil {
			return nil, err
		}
		src = &stopping{ReadCloser: r}
		return src, nil
	}
	return scan(f, o, func(it *Item) {
		if !stopped && each(it) != nil {
			stopped, src.stop = true, true
		}
	})
}

// stopping ends where it is told to.
type stopping struct {
	io.ReadCloser
	stop bool
}

// Read implements io.Reader.
func (s *stopping) Read(p []byte) (int, error) {
	if s.stop {
		return 0, io.EOF
	}
	return s.ReadCloser.Read(p)
}

// UnitOf guesses the unit by a name of a column or a metric, UnitAuto where it says nothing.
func UnitOf(name string) Unit {
	n := strings.ToLower(strings.TrimSpace(name))
	for _, w := range []string{"concurrency", "in_flight", "inflight", "in-flight", "active"} {
		if strings.Contains(n, w) {
			return UnitConcurrency
		}
	}
	switch n {
	case "rate", "rps", "qps", "tps", "req/s", "requests/s", "reqs/s", "hz", "throughput":
		return UnitRate
	}
	for _, w := range []string{"per_second", "per second", "persecond", "_per_sec", "/sec", "/s)", "_rps", "_qps", ":rate", "_rate", "rate_", "rate(", "requests_rate"} {
		if strings.Contains(n, w) {
			return UnitRate
		}
	}
	if strings.HasSuffix(n, "_rate") || strings.HasSuffix(n, " rate") || strings.HasPrefix(n, "rate") {
		return UnitRate
	}
	if strings.HasSuffix(n, "_total") || strings.HasSuffix(n, "_count") {
		return UnitCounter
	}
	return UnitAuto
}
