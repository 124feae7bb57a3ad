// Package filter keeps the wanted samples of an exposition, and bounds what the rest may cost.
//
// A pod can answer anything, and the cost of its answer falls on all pods that are read. The text
// parser of prometheus/common checks each label of a sample against all before it, so that 128 KiB
// of labels cost 15 s of CPU and 9 GiB of garbage. It cannot be cancelled and has no bounds.
//
// So an exposition passes a filter first. The filter reads a line, or a message, at a time, and
// keeps those of the few metrics that are wanted. What it keeps is small enough for any parser. The
// filter costs a comparison of a few bytes for each line, and no memory that grows with the answer.
package filter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protowire"
)

// Filter says what is wanted of an exposition, and its bounds. All fields are needed.
type Filter struct {
	// Body bounds an exposition, in bytes, and Kept what is kept of it.
	Body, Kept int
	// Sample bounds a line of a wanted metric, in bytes, and Labels its labels.
	Sample, Labels int
	// Family bounds the message of a wanted metric, in bytes.
	Family int
	// Wanted says whether a metric is kept. In the text formats it is asked for the names of
	// samples, such as a histogram's with _sum, in protobuf for the histogram's own.
	Wanted func(name []byte) bool
}

// readBuffer is how much is read at a time, in bytes. The name of a line or of a message must be
// within nameWithin bytes of its beginning.
const (
	readBuffer = 4<<10 + 64
	nameWithin = 512
)

// What is wrong with an exposition.
var (
	// ErrTooLarge: it is larger than its bound.
	ErrTooLarge = errors.New("too large")
	// ErrKept: what is wanted of it is larger than its bounds.
	ErrKept = errors.New("too much is wanted of it")
	// ErrFormat: it is no exposition.
	ErrFormat = errors.New("parse the exposition")
)

var (
	errFrames = fmt.Errorf("%w: a message is longer than all of it", ErrFormat)
	errLine   = fmt.Errorf("%w: a line begins with no name", ErrFormat)
)

// BoundError is an exposition that is over a bound.
type BoundError struct {
	kind error
	text string
}

// Error says which bound.
func (e *BoundError) Error() string { return e.text }

// Unwrap returns ErrTooLarge or ErrKept.
func (e *BoundError) Unwrap() error { return e.kind }

func (f *Filter) tooLarge() error {
	return &BoundError{ErrTooLarge, fmt.Sprintf("the exposition is larger than %d bytes", f.Body)}
}

func (f *Filter) tooMuch() error {
	return &BoundError{ErrKept, fmt.Sprintf("the exposition has a sample of more than %d bytes or %d labels, or more than %d bytes of samples", f.Sample, f.Labels, f.Kept)}
}

// readerFunc is a reader.
type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Bounded reads no more than Body bytes of r, and nothing once ctx has ended.
func (f *Filter) Bounded(ctx context.Context, r io.Reader) io.Reader {
	left := f.Body
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p[:min(len(p), left+1)])
		if left -= n; left < 0 {
			return 0, f.tooLarge()
		}
		return n, err
	})
}

// Read returns what an exposition says of the wanted metrics, in the same format. Comments are left
// out, types among them.
func (f *Filter) Read(ctx context.Context, format expfmt.FormatType, body io.Reader) ([]byte, error) {
	in := bufio.NewReaderSize(f.Bounded(ctx, body), readBuffer)
	next := f.keepLine
	if format == expfmt.TypeProtoDelim {
		next = f.keepMessage
	}
	kept := make([]byte, 0, 1<<10)
	for {
		var err error
		kept, err = next(kept, in)
		switch {
		case errors.Is(err, io.EOF):
			return kept, nil
		case err != nil:
			return nil, err
		case len(kept) > f.Kept:
			return nil, f.tooMuch()
		}
	}
}

// keepLine reads a line of a text format and appends it to kept if it is a wanted sample. It
// returns io.EOF at the end.
func (f *Filter) keepLine(kept []byte, in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	long := errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !long && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return kept, err
	}
	if !f.Wanted(sampleName(line[:min(len(line), nameWithin)])) {
		if len(line) > 0 && !beginsLine(line[0]) {
			return kept, errLine
		}
		for long {
			_, err = in.ReadSlice('\n')
			long = errors.Is(err, bufio.ErrBufferFull)
		}
		if errors.Is(err, io.EOF) {
			err = nil // it comes again
		}
		return kept, err
	}
	begin := len(kept)
	for {
		kept = append(kept, line...)
		if sample := kept[begin:]; len(sample) > f.Sample || bytes.Count(sample, []byte{'='}) > f.Labels {
			return kept, f.tooMuch()
		}
		if !long {
			break
		}
		line, err = in.ReadSlice('\n')
		long = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !long && !errors.Is(err, io.EOF) {
			return kept, err
		}
	}
	if kept[len(kept)-1] != '\n' {
		kept = append(kept, '\n') // the last line may have no end
	}
	return kept, nil
}

// sampleName returns the name at the beginning of a line. A name that is no identifier stands in
// quotes, within the braces.
func sampleName(line []byte) []byte {
	if quoted, ok := bytes.CutPrefix(line, []byte(`{"`)); ok {
		name, _, _ := bytes.Cut(quoted, []byte{'"'})
		return name
	}
	if i := bytes.IndexAny(line, "{ \t\n"); i >= 0 {
		return line[:i]
	}
	return line
}

// beginsLine says whether a line of the text format may begin with c.
func beginsLine(c byte) bool {
	return c == '#' || c == '_' || c == ':' || c == '{' || c == ' ' || c == '\t' || c == '\n' || c == '\r' ||
		c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// keepMessage reads a message of the protobuf format, and appends it to kept, with its length, if
// it is that of a wanted metric. It returns io.EOF at the end. Decoders make room for whatever
// length they are told, so only what was read whole goes there.
func (f *Filter) keepMessage(kept []byte, in *bufio.Reader) ([]byte, error) {
	if _, err := in.Peek(1); err != nil {
		return kept, err
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return kept, cutShort(err)
	}
	if size > uint64(f.Body) { //nolint:gosec // a bound is no negative number
		return kept, errFrames
	}
	n := int(size) //nolint:gosec // at most Body
	head, err := in.Peek(min(n, nameWithin))
	if err != nil {
		return kept, cutShort(err)
	}
	if !f.Wanted(familyName(head)) {
		_, err = in.Discard(n)
		return kept, cutShort(err)
	}
	if n > f.Family || len(kept)+n > f.Kept {
		return kept, f.tooMuch()
	}
	kept = binary.AppendUvarint(kept, size)
	at := len(kept)
	kept = slices.Grow(kept, n)[:at+n]
	_, err = io.ReadFull(in, kept[at:])
	return kept, cutShort(err)
}

// cutShort returns errFrames for the end of the input, and other errors as they are.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errFrames
	}
	return err
}

// familyName returns the name of a MetricFamily from the beginning of its message, of which it is
// the first field. Nil: it has none there.
func familyName(head []byte) []byte {
	const nameField = 1
	number, kind, n := protowire.ConsumeTag(head)
	if n < 0 || number != nameField || kind != protowire.BytesType {
		return nil
	}
	name, n := protowire.ConsumeBytes(head[n:])
	if n < 0 {
		return nil
	}
	return name
}
