// Package recording reads recorded loads: traces with requests or concurrency per bin, and request
// logs. It is pure: files come as readers.
package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Kind is what the values of a file are.
type Kind uint8

const (
	// KindAuto goes by the column's name: concurrency is KindConcurrency; rate, rps, qps and
	// requests_per_second are KindRate; any other is KindRequests.
	KindAuto Kind = iota
	// KindRequests are requests per bin.
	KindRequests
	// KindConcurrency is the mean number of requests in flight during the bin. By Little's law rate
	// = concurrency / mean service time.
	KindConcurrency
	// KindRate is requests per second.
	KindRate
)

// String implements fmt.Stringer.
func (k Kind) String() string {
	return [...]string{"auto", "requests", "concurrency", "rate"}[k]
}

// Zeros is what a bin of value 0 means. In request counts of web sites by the minute or the hour
// (NASA, Twitter, Wikipedia, the aggregates of ServeGen) they are mostly missing data; in sparse
// traces (single functions, clients, seconds) true idleness.
type Zeros uint8

const (
	// ZerosIdle takes them for idleness.
	ZerosIdle Zeros = iota
	// ZerosInterpolate takes them, and absent rows, for missing data, on a straight line between
	// the neighbours; at an end the nearest value is held.
	ZerosInterpolate
	// ZerosHold takes them, and absent rows, for missing data, and holds the last value; at the
	// start the first one.
	ZerosHold
)

// Options say how to read a file. The zero value reads a file with one column of requests or
// concurrency in which zeros are idle.
type Options struct {
	// Column is the column's name, its number after the time's (1 is the first), or "sum" of all.
	// It may be empty if there is only one.
	Column string
	// Kind is what the values are.
	Kind Kind
	// Service is the mean service time, > 0, needed for concurrency only.
	Service time.Duration
	// Zeros says what zeros are.
	Zeros Zeros
	// Width is the bins' width, needed only for a file of one bin; 0 takes it from the times.
	Width time.Duration
	// Taken is set to what was taken for what, unless it is nil.
	Taken *Taken
}

// Taken is the column that was read, and what its values were taken for.
type Taken struct {
	Column string
	Kind   Kind
}

const (
	// maxLine bounds the memory for a line, maxBins that of absent rows that are filled.
	maxLine = 1 << 20
	maxBins = 10_000_000
)

// Read reads a trace from CSV with a header "t_seconds,column…" and a row per bin, whose time is
// its start. Times are counted from the first row's; they rise by the same width (to 0.1 %). Values
// are finite and ≥ 0. Blank lines and lines that begin with
// # are skipped. Memory is 8 bytes per bin, whatever the number of columns.
//
// An error names the file, line, column, value and remedy. Name is the file's name; the trace is
// called by its base without ending.
func Read(r io.Reader, name string, opts Options) (*trace.Trace, error) {
	t, err := read(r, name, opts)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	return t, nil
}

func read(r io.Reader, name string, opts Options) (*trace.Trace, error) {
	lines := newLines(r)
	columns, err := lines.header()
	if err != nil {
		return nil, err
	}
	column, err := choose(columns, opts.Column, lines.n)
	if err != nil {
		return nil, err
	}
	title := "sum"
	if column > 0 {
		title = columns[column]
	}
	kind := opts.Kind
	if kind == KindAuto {
		kind = kindOf(title)
	}
	if opts.Taken != nil {
		*opts.Taken = Taken{Column: title, Kind: kind}
	}
	if kind == KindConcurrency && opts.Service <= 0 {
		return nil, fmt.Errorf("column %q holds concurrency: give the mean service time (> 0), which turns it into a rate", title)
	}

	b := binner{fill: opts.Zeros != ZerosIdle, width: opts.Width}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		at, value, err := row(line, columns, column, lines.n)
		if err != nil {
			return nil, err
		}
		if err := b.add(at, value, lines.n); err != nil {
			return nil, err
		}
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	if err := fill(b.values, opts.Zeros); err != nil {
		return nil, err
	}
	if kind == KindRate {
		for i := range b.values {
			b.values[i] *= b.width.Seconds()
		}
	}
	if kind == KindConcurrency {
		factor := b.width.Seconds() / opts.Service.Seconds()
		for i := range b.values {
			b.values[i] *= factor
		}
	}
	base := path.Base(strings.ReplaceAll(name, `\`, "/"))
	base = strings.TrimSuffix(base, path.Ext(base))
	if len(columns) > 2 {
		base += "." + title
	}
	return trace.New(base, b.width, b.values)
}

// kindOf is what a column of that name holds.
func kindOf(title string) Kind {
	switch item.UnitOf(title) {
	case item.UnitRate:
		return KindRate
	case item.UnitConcurrency:
		if strings.HasPrefix(title, "concurrency") || strings.HasPrefix(title, "in") {
			return KindConcurrency
		}
	case item.UnitAuto, item.UnitRequests, item.UnitCounter:
	}
	return KindRequests
}

// choose finds the column; 0 is the sum.
func choose(columns []string, want string, line int) (int, error) {
	if columns[0] != "t_seconds" {
		return 0, fmt.Errorf("line %d: the first column is %q: want a header that begins with t_seconds, the bin's start in seconds", line, clip(columns[0]))
	}
	if len(columns) < 2 {
		return 0, fmt.Errorf("line %d: there is no column after t_seconds: want one such as requests or concurrency", line)
	}
	if want == "" {
		if len(columns) > 2 {
			return 0, fmt.Errorf("line %d: there are %d columns (%s): choose one by name or number, or \"sum\"", line, len(columns)-1, some(columns[1:]))
		}
		return 1, nil
	}
	found := 0
	for i, c := range columns[1:] {
		if c != want {
			continue
		}
		if found != 0 {
			return 0, fmt.Errorf("line %d: column %q is there twice: choose by number (%d or %d)", line, want, found, i+1)
		}
		found = i + 1
	}
	if found != 0 {
		return found, nil
	}
	if want == "sum" {
		return 0, nil
	}
	if n, err := strconv.Atoi(want); err == nil && n >= 1 && n < len(columns) {
		return n, nil
	}
	return 0, fmt.Errorf("line %d: no column %q: want one of %s, a number within 1–%d, or \"sum\"", line, want, some(columns[1:]), len(columns)-1)
}

// some joins the first few names.
func some(names []string) string {
	const few = 8
	if len(names) <= few {
		return clip(strings.Join(names, ", "))
	}
	return clip(strings.Join(names[:few], ", ")) + ", …"
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const long = 120
	if len(s) <= long {
		return s
	}
	return strings.ToValidUTF8(s[:long], "") + "…"
}

// row reads a row's time and value.
func row(line []byte, columns []string, column, n int) (time.Duration, float64, error) {
	var at time.Duration
	var value float64
	for i := 0; ; i++ {
		field, rest, more := bytes.Cut(line, []byte{','})
		if i >= len(columns) {
			return 0, 0, fmt.Errorf("line %d has more than the header's %d fields: remove the surplus or name it in the header", n, len(columns))
		}
		switch {
		case i == 0:
			var err error
			if at, err = seconds(field, n, columns[0]); err != nil {
				return 0, 0, err
			}
		case column == 0 || i == column:
			v, err := strconv.ParseFloat(string(bytes.TrimSpace(field)), 64)
			if err != nil || math.IsInf(v, 0) || math.IsNaN(v) || v < 0 {
				return 0, 0, fmt.Errorf("line %d, column %q: %q: want a finite number ≥ 0; write 0 for a missing value and say that zeros are missing data", n, columns[i], clip(string(field)))
			}
			value += v
		}
		if !more {
			if i+1 < len(columns) {
				return 0, 0, fmt.Errorf("line %d has %d of the header's %d fields: write 0 for a missing value and say that zeros are missing data", n, i+1, len(columns))
			}
			return at, value, nil
		}
		line = rest
	}
}

// maxSeconds keeps times well within a time.Duration.
const maxSeconds = 9e9

// seconds reads a time, plain decimals exactly and without allocation.
func seconds(field []byte, n int, column string) (time.Duration, error) {
	if d, ok := decimal(field); ok {
		return d, nil
	}
	s, err := strconv.ParseFloat(string(bytes.TrimSpace(field)), 64)
	if err != nil || math.IsNaN(s) || s < 0 || s > maxSeconds {
		return 0, fmt.Errorf("line %d, column %q: %q: want seconds within 0–%g", n, column, clip(string(field)), maxSeconds)
	}
	whole, fraction := math.Modf(s)
	return time.Duration(whole)*time.Second + time.Duration(math.Round(fraction*1e9)), nil
}

// decimal reads digits with at most 9 behind the point, as most times are written.
func decimal(field []byte) (time.Duration, bool) {
	var v time.Duration
	digits, behind := 0, -1
	for _, c := range field {
		switch {
		case c == '.' && behind < 0:
			behind = 0
			continue
		case c < '0' || c > '9':
			return 0, false
		case behind >= 0:
			behind++
		}
		v = v*10 + time.Duration(c-'0')
		if digits++; digits > 18 {
			return 0, false
		}
	}
	if digits == 0 || behind > 9 {
		return 0, false
	}
	for behind = max(behind, 0); behind < 9; behind++ {
		if v > maxSeconds*1e9/10 {
			return 0, false
		}
		v *= 10
	}
	return v, true
}

// binner collects rows into even bins.
type binner struct {
	fill        bool
	width       time.Duration
	first, last time.Duration
	values      []float64
}

func (b *binner) add(at time.Duration, v float64, line int) error {
	if len(b.values) == 0 {
		b.first, b.last = at, at
		b.values = append(b.values, v)
		return nil
	}
	step := at - b.last
	if step <= 0 {
		return fmt.Errorf("line %d, column \"t_seconds\": %v does not come after %v, the row before: sort the rows and join those of the same time", line, at, b.last)
	}
	if b.width == 0 {
		b.width = step
	}
	slack := b.width / 1000
	near := (step + b.width/2).Truncate(b.width)
	k := near / b.width
	if off := step - near; k == 0 || off > slack || off < -slack {
		return fmt.Errorf("line %d, column \"t_seconds\": %v is %v after the row before, but bins are %v wide: bins must be of equal width; count anew", line, at, step, b.width)
	}
	if k > 1 && !b.fill {
		return fmt.Errorf("line %d, column \"t_seconds\": %v is %v after the row before, so rows of %v are missing: write them with 0 if nothing happened, or say that zeros are missing data", line, at, step, b.width)
	}
	if k > 1 && int64(len(b.values))+int64(k) > maxBins {
		return fmt.Errorf("line %d, column \"t_seconds\": %v is %v after the row before: more than %d bins of %v; cut the trace", line, at, step, maxBins, b.width)
	}
	for ; k > 1; k-- {
		b.values = append(b.values, 0)
	}
	b.values = append(b.values, v)
	b.last = at
	return nil
}

// finish settles the width: the mean one, which rounding of the times has not bent.
func (b *binner) finish() error {
	switch {
	case len(b.values) == 0:
		return errors.New("it has a header but no rows: want a row per bin")
	case b.width <= 0:
		return errors.New("it has one row only, so that the bin's width is unknown: give the width")
	case len(b.values) > 1:
		n := time.Duration(len(b.values) - 1)
		b.width = (b.last - b.first + n/2) / n
	}
	return nil
}

// fill replaces zeros, if they are missing data.
func fill(values []float64, how Zeros) error {
	if how == ZerosIdle {
		return nil
	}
	before := -1 // the last bin that has a value
	for i := 0; i <= len(values); i++ {
		if i < len(values) && values[i] == 0 {
			continue
		}
		for j := before + 1; j < i; j++ {
			switch {
			case before < 0 && i == len(values):
				return errors.New("all values are 0, so there is nothing to fill missing ones from")
			case before < 0:
				values[j] = values[i]
			case i == len(values) || how == ZerosHold:
				values[j] = values[before]
			default:
				share := float64(j-before) / float64(i-before)
				values[j] = values[before] + share*(values[i]-values[before])
			}
		}
		before = i
	}
	return nil
}

// lines yields the lines of a file that hold something, in bounded memory.
type lines struct {
	scan *bufio.Scanner
	// n is the number of the last line, from 1.
	n int
}

func newLines(r io.Reader) *lines {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &lines{scan: s}
}

// header reads the first line.
func (l *lines) header() ([]string, error) {
	head, err := l.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty: want a header such as t_seconds,requests and a row per bin")
		}
		return nil, err
	}
	columns := strings.Split(string(head), ",")
	for i, c := range columns {
		columns[i] = strings.Trim(strings.TrimSpace(c), `"`)
	}
	return columns, nil
}

// Columns reads the names of a file's columns but the time's.
func Columns(r io.Reader, name string) ([]string, error) {
	columns, err := newLines(r).header()
	if err == nil && len(columns) < 2 {
		err = errors.New("it has one column: want a header such as t_seconds,requests")
	}
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	return columns[1:], nil
}

// next gives the next line, valid until the one after; io.EOF at the end.
func (l *lines) next() ([]byte, error) {
	for l.scan.Scan() {
		l.n++
		line := l.scan.Bytes()
		if l.n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		return line, nil
	}
	err := l.scan.Err()
	switch {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d is longer than %d bytes", l.n+1, maxLine)
	default:
		return nil, fmt.Errorf("after line %d: %w", l.n, err)
	}
}
