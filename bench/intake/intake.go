// Package intake reads the loads that people have: access logs, results of load tests, exports of
// metrics, and published data sets (package formats). What a file holds is told apart as requests,
// one by one, or as values over time; both become a trace or a request log of the bench.
//
// Files are read once, from the beginning to the end, in bounded memory. Lines that cannot be read
// are counted and the first is quoted; they are not taken for idleness. It is pure but for Spool,
// which sorts in a file.
package intake

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

type (
	// File is what is to be read.
	File = rows.File
	// Format is one kind of file.
	Format = formats.Format
	// Item is a request, or a value over time.
	Item = formats.Item
	// Meta is what a parser knows of its file.
	Meta = formats.Meta
	// Unit is what the values of a file are.
	Unit = formats.Unit
)

// ErrNothing is in the chain of the error for a file without any item.
var ErrNothing = formats.ErrNothing

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
	// Items counts requests or values, Requests the requests that they stand for. Values of a rate
	// or a concurrency stand for them once the bins' width is known.
	Items    int64
	Requests float64
	// First and Last are the earliest and latest At.
	First, Last int64
	// Served counts requests whose work is known, Service is the sum of that; In and Out are
	// tokens.
	Served  int64
	Service time.Duration
	In, Out int64
	// Unsorted says that some item came before an earlier one.
	Unsorted bool
	// Binned says that it held values.
	Binned bool
}

// scan reads one file.
func scan(f File, o Options, emit func(*Item)) (s Summary, err error) {
	in, err := rows.OpenInput(f, o.Progress)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if s.Format, err = formats.Choose(in, o.Format); err != nil {
		return s, err
	}
	s.Meta.Column = o.Column
	if s.Meta.Column == "sum" {
		s.Meta.Column = ""
	}
	last := int64(math.MinInt64)
	parseErr := s.Format.Parse(in, &s.Meta, func(it *Item) {
		if s.Meta.Column != "" && it.Series != "" && it.Series != s.Meta.Column {
			return
		}
		if it.At < -maxTime || it.At > maxTime {
			in.Skip("a time beyond 292 years")
			return
		}
		s.add(it, &last)
		emit(it)
	})
	s.Lines, s.Skipped, s.FirstSkipped = in.Lines, in.Skipped, in.FirstSkipped
	if parseErr != nil {
		return s, fmt.Errorf("%s: %w", s.Format.Name, parseErr)
	}
	if s.Items == 0 {
		return s, fmt.Errorf("%s: %w%s", s.Format.Name, ErrNothing, skippedWords(&s))
	}
	if o.Unit != formats.UnitAuto {
		s.Meta.Unit = o.Unit
	}
	if s.Meta.Unit == formats.UnitAuto {
		s.Meta.Unit = formats.UnitRequests
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

// Open opens a file for reading, decompressed and without a byte order mark. progress is told the
// bytes read of the file, and may be nil.
func Open(f File, progress func(int64)) (io.ReadCloser, error) { return rows.Open(f, progress) }
