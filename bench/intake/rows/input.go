// Package rows reads files line by line, decompressed, and the fields, numbers and times in them.
// It knows no format.
package rows

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	// sniffed is how much of a file's beginning formats are recognised by, in bytes.
	sniffed = 64 << 10
	// maxLine bounds a line, in bytes. A longer one is skipped.
	maxLine = 4 << 20
	// maxDecoder bounds the memory of zstd's window.
	maxDecoder = 64 << 20
)

// Input is an open file, decompressed, without a byte order mark.
type Input struct {
	// Name is the file's, without an ending of its compression.
	Name string
	// Reader gives what is left, for formats that are not made of lines.
	Reader *bufio.Reader
	// Lines counts those read; Skipped those that could not be used, and FirstSkipped says why of
	// the first.
	Lines, Skipped int64
	FirstSkipped   string
	file           io.Closer
	more           []func()
	long           []byte
}

// File is what is to be read.
type File struct {
	// Name tells about formats that keep the time in it, and stands in errors.
	Name string
	// Open opens it; it is called once for each pass.
	Open func() (io.ReadCloser, error)
}

// counting counts what goes through it.
type counting struct {
	r    io.Reader
	n    int64
	told int64
	tell func(int64)
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.tell != nil && c.n-c.told >= 1<<20 {
		c.told = c.n
		c.tell(c.n)
	}
	return n, err
}

// OpenInput opens a file, and finds by its first bytes how it is compressed.
func OpenInput(f File, progress func(int64)) (*Input, error) {
	file, err := f.Open()
	if err != nil {
		return nil, err
	}
	in := &Input{Name: f.Name, file: file}
	r := bufio.NewReaderSize(&counting{r: file, tell: progress}, sniffed)
	first, _ := r.Peek(4) // a shorter file says so when it is read
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("gzip: %w", err), file.Close())
		}
		r = bufio.NewReaderSize(z, sniffed)
		in.Name = strings.TrimSuffix(in.Name, ".gz")
	case bytes.Equal(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDecoder), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("zstd: %w", err), file.Close())
		}
		in.more = append(in.more, z.Close)
		r = bufio.NewReaderSize(z, sniffed)
		in.Name = strings.TrimSuffix(strings.TrimSuffix(in.Name, ".zst"), ".zstd")
	}
	if mark, _ := r.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = r.Discard(3) // they are buffered
	}
	in.Reader = r
	return in, nil
}

// Open opens a file for reading, decompressed and without a byte order mark. progress is told the
// bytes read of the file, and may be nil.
func Open(f File, progress func(int64)) (io.ReadCloser, error) {
	in, err := OpenInput(f, progress)
	if err != nil {
		return nil, err
	}
	return reader{in}, nil
}

type reader struct{ in *Input }

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) { return r.in.Reader.Read(p) }

// Close implements io.Closer.
func (r reader) Close() error { return r.in.Close() }

// Close closes the file.
func (in *Input) Close() error {
	for _, f := range in.more {
		f()
	}
	return in.file.Close()
}

// Line gives the next line without its end, valid until the one after; io.EOF at the end. Lines
// that are too long are skipped.
func (in *Input) Line() ([]byte, error) {
	for {
		b, err := in.Reader.ReadSlice('\n')
		if err == nil || errors.Is(err, io.EOF) && len(b) > 0 {
			in.Lines++
			return trimEnd(b), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		in.long = append(in.long[:0], b...)
		for errors.Is(err, bufio.ErrBufferFull) {
			b, err = in.Reader.ReadSlice('\n')
			if len(in.long) <= maxLine {
				in.long = append(in.long, b...)
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		in.Lines++
		if len(in.long) <= maxLine {
			return trimEnd(in.long), nil
		}
		in.Skip("it is longer than 4 MiB")
	}
}

// trimEnd drops a line's end.
func trimEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b
}

// Each calls do with each line that holds something. do says why a line cannot be used, "" if it
// was.
func (in *Input) Each(do func(line []byte) string) error {
	for {
		line, err := in.Line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after line %d: %w", in.Lines, err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if why := do(line); why != "" {
			in.Skip(why)
		}
	}
}

// Skip counts a line that cannot be used.
func (in *Input) Skip(why string) {
	if in.Skipped++; in.Skipped == 1 {
		in.FirstSkipped = fmt.Sprintf("line %d: %s", in.Lines, why)
	}
}

// Head is the beginning of a file, by which its format is recognised.
type Head struct {
	// Name is the file's, in small letters, without folder and the endings of compression.
	Name string
	// All is the beginning as it is; Lines are its whole lines that hold something, at most 20.
	All   []byte
	Lines []string
}

// NewHead looks at the beginning of an input.
func NewHead(in *Input) *Head {
	b, _ := in.Reader.Peek(sniffed) // a fault shows when it is read
	name := strings.ToLower(in.Name)
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	h := &Head{Name: name, All: b}
	rest := b
	for len(rest) > 0 && len(h.Lines) < 20 {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole && len(b) == sniffed && len(h.Lines) > 0 {
			break // it is cut
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			h.Lines = append(h.Lines, string(line))
		}
		rest = after
	}
	return h
}

// Line is the i-th line, "" where there is none.
func (h *Head) Line(i int) string {
	if i >= len(h.Lines) {
		return ""
	}
	return h.Lines[i]
}

// Columns are the fields of the first line, in small letters.
func (h *Head) Columns() []string {
	var out []string
	line := []byte(h.Line(0))
	for _, f := range Split(line, Delimiter(line), nil) {
		out = append(out, strings.ToLower(strings.TrimSpace(string(f))))
	}
	return out
}

// Has reports whether all names are columns of the first line.
func (h *Head) Has(names ...string) bool {
	columns := h.Columns()
	for _, n := range names {
		if Index(columns, n) < 0 {
			return false
		}
	}
	return true
}

// Index is the place of a name among columns, -1 for none.
func Index(columns []string, name string) int {
	for i, c := range columns {
		if c == name {
			return i
		}
	}
	return -1
}

// Table reads a file of columns with a header, in any case.
type Table struct {
	// Columns are the header's names, in small letters; Fields are those of the row.
	Columns   []string
	Fields    [][]byte
	delimiter byte
}

// Start reads the header, which is the first line that is no comment.
func (t *Table) Start(in *Input) error {
	for {
		line, err := in.Line()
		if err != nil {
			return fmt.Errorf("it has no header: %w", err)
		}
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
			continue
		}
		t.delimiter = Delimiter(line)
		for _, f := range Split(line, t.delimiter, nil) {
			t.Columns = append(t.Columns, strings.ToLower(strings.TrimSpace(string(f))))
		}
		return nil
	}
}

// Row cuts a line.
func (t *Table) Row(line []byte) { t.Fields = Split(line, t.delimiter, t.Fields[:0]) }

// At is a field, nil where the line or the header has none.
func (t *Table) At(column int) []byte {
	if column < 0 || column >= len(t.Fields) {
		return nil
	}
	return t.Fields[column]
}

// Find is the place of the first of the names that is a column, -1 for none.
func (t *Table) Find(names ...string) int {
	for _, n := range names {
		if i := Index(t.Columns, n); i >= 0 {
			return i
		}
	}
	return -1
}

// Object reports whether the first line is a JSON object with all of the fields.
func (h *Head) Object(names ...string) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(h.Line(0)), &fields) != nil || len(fields) == 0 {
		return false
	}
	for _, n := range names {
		if _, ok := fields[n]; !ok {
			return false
		}
	}
	return true
}
