package intake

import (
	"bufio"
	"bytes"
	"compress/gzip"
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

// input is an open file, decompressed, without a byte order mark.
type input struct {
	name string
	file io.Closer
	more []func()
	r    *bufio.Reader
	// lines counts those read; skipped those that could not be used.
	lines, skipped int64
	firstSkipped   string
	long           []byte
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

// open opens a file, and finds by its first bytes how it is compressed.
func open(f File, progress func(int64)) (*input, error) {
	file, err := f.Open()
	if err != nil {
		return nil, err
	}
	in := &input{name: f.Name, file: file}
	r := bufio.NewReaderSize(&counting{r: file, tell: progress}, sniffed)
	first, _ := r.Peek(4) // a shorter file says so when it is read
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("gzip: %w", err), file.Close())
		}
		r = bufio.NewReaderSize(z, sniffed)
		in.name = strings.TrimSuffix(in.name, ".gz")
	case bytes.Equal(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDecoder), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("zstd: %w", err), file.Close())
		}
		in.more = append(in.more, z.Close)
		r = bufio.NewReaderSize(z, sniffed)
		in.name = strings.TrimSuffix(strings.TrimSuffix(in.name, ".zst"), ".zstd")
	}
	if mark, _ := r.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = r.Discard(3) // they are buffered
	}
	in.r = r
	return in, nil
}

// Open opens a file for reading, decompressed and without a byte order mark. progress is told the
// bytes read of the file, and may be nil.
func Open(f File, progress func(int64)) (io.ReadCloser, error) {
	in, err := open(f, progress)
	if err != nil {
		return nil, err
	}
	return reader{in}, nil
}

type reader struct{ in *input }

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) { return r.in.r.Read(p) }

// Close implements io.Closer.
func (r reader) Close() error { return r.in.close() }

func (in *input) close() error {
	for _, f := range in.more {
		f()
	}
	return in.file.Close()
}

// line gives the next line without its end, valid until the one after; io.EOF at the end. Lines that
// are too long are skipped.
func (in *input) line() ([]byte, error) {
	for {
		b, err := in.r.ReadSlice('\n')
		if err == nil || errors.Is(err, io.EOF) && len(b) > 0 {
			in.lines++
			return trimEnd(b), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		in.long = append(in.long[:0], b...)
		for errors.Is(err, bufio.ErrBufferFull) {
			b, err = in.r.ReadSlice('\n')
			if len(in.long) <= maxLine {
				in.long = append(in.long, b...)
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		in.lines++
		if len(in.long) <= maxLine {
			return trimEnd(in.long), nil
		}
		in.skip("it is longer than 4 MiB")
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

// each calls do with each line that holds something. do says why a line cannot be used, "" if it was.
func (in *input) each(do func(line []byte) string) error {
	for {
		line, err := in.line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after line %d: %w", in.lines, err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if why := do(line); why != "" {
			in.skip(why)
		}
	}
}

// skip counts a line that cannot be used.
func (in *input) skip(why string) {
	if in.skipped++; in.skipped == 1 {
		in.firstSkipped = fmt.Sprintf("line %d: %s", in.lines, why)
	}
}

// head is the beginning of a file, by which its format is recognised.
type head struct {
	// name is the file's, in small letters, without folder and the endings of compression.
	name string
	// all is the beginning as it is; lines are its whole lines that hold something, at most 20.
	all   []byte
	lines []string
}

// newHead looks at the beginning of an input.
func newHead(in *input) *head {
	b, _ := in.r.Peek(sniffed) // a fault shows when it is read
	name := strings.ToLower(in.name)
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	h := &head{name: name, all: b}
	rest := b
	for len(rest) > 0 && len(h.lines) < 20 {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole && len(b) == sniffed && len(h.lines) > 0 {
			break // it is cut
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			h.lines = append(h.lines, string(line))
		}
		rest = after
	}
	return h
}

// line is the i-th line, "" where there is none.
func (h *head) line(i int) string {
	if i >= len(h.lines) {
		return ""
	}
	return h.lines[i]
}

// columns are the fields of the first line, in small letters.
func (h *head) columns() []string {
	var out []string
	line := []byte(h.line(0))
	for _, f := range split(line, delimiter(line), nil) {
		out = append(out, strings.ToLower(strings.TrimSpace(string(f))))
	}
	return out
}

// has reports whether all names are columns of the first line.
func (h *head) has(names ...string) bool {
	columns := h.columns()
	for _, n := range names {
		if index(columns, n) < 0 {
			return false
		}
	}
	return true
}

func index(columns []string, name string) int {
	for i, c := range columns {
		if c == name {
			return i
		}
	}
	return -1
}
