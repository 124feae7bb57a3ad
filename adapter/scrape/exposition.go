package scrape

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-autoscaler/sluice/wire"
)

// A pod can answer anything, and the cost of its answer falls on all pods that are read. The text
// parser of prometheus/common checks each label of a sample against all before it, so that 128 KiB
// of labels cost 15 s of CPU and 9 GiB of garbage. It cannot be cancelled and has no bounds.
//
// So an exposition passes a filter first. The filter reads a line, or a message, at a time, and
// keeps those of the few metrics that are wanted. What it keeps is small enough for any parser, and
// the parsers stay those of prometheus/common. The filter costs a comparison of a few bytes for
// each line, and no memory that grows with the answer.
const (
	// maxBody bounds an exposition, in bytes. A sidecar's has some 10 KiB.
	maxBody = 256 << 10
	// maxKept bounds what is kept of an exposition and parsed, in bytes.
	maxKept = 16 << 10
	// maxSample bounds a line of a wanted metric, in bytes, and maxLabels its labels. Sluice's
	// sidecar writes 1 label.
	maxSample, maxLabels = 512, 8
	// maxFamily bounds the message of a wanted metric, in bytes.
	maxFamily = 4 << 10
	// readBuffer is how much is read at a time, in bytes. It holds a wanted line or message whole.
	readBuffer = maxFamily + 64
)

var (
	errTooLarge = fmt.Errorf("the exposition is larger than %d bytes", maxBody)
	errKept     = fmt.Errorf("the exposition has a sample of more than %d bytes or %d labels, or more than %d bytes of samples", maxSample, maxLabels, maxKept)
	errFrames   = errors.New("parse the exposition: a message is longer than all of it")
	errLine     = errors.New("parse the exposition: a line begins with no name")
)

// wanted says whether a metric is among those that are read.
func wanted(name []byte) bool {
	switch string(name) {
	case wire.ConcurrencySeconds, wire.Requests, wire.MonotonicSeconds, wire.StartTime, wire.InFlight, wire.Queued, wire.ConcurrencyLimit:
		return true
	}
	return false
}

// readerFunc is a reader.
type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// bounded reads no more than maxBody bytes of r, and nothing once ctx has ended.
func bounded(ctx context.Context, r io.Reader) io.Reader {
	left := maxBody
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p[:min(len(p), left+1)])
		if left -= n; left < 0 {
			return 0, errTooLarge
		}
		return n, err
	})
}

// filter returns what an exposition says of the wanted metrics, in the same format.
func filter(ctx context.Context, format expfmt.FormatType, body io.Reader) ([]byte, error) {
	in := bufio.NewReaderSize(bounded(ctx, body), readBuffer)
	next := keepLine
	if format == expfmt.TypeProtoDelim {
		next = keepMessage
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
		case len(kept) > maxKept:
			return nil, errKept
		}
	}
}

// keepLine reads a line of the text format and appends it to kept if it is a wanted sample.
// Comments are left out, types among them: a sample of an unknown type is read as a plain number.
// It returns io.EOF at the end.
func keepLine(kept []byte, in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	long := errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !long && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return kept, err
	}
	name := line[:min(len(line), maxSample)]
	if i := bytes.IndexAny(name, "{ \t\n"); i >= 0 {
		name = name[:i]
	}
	switch {
	case wanted(name):
		if len(line) > maxSample || bytes.Count(line, []byte{'='}) > maxLabels {
			return kept, errKept
		}
		return append(kept, line...), nil
	case len(line) > 0 && !beginsLine(line[0]):
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

// beginsLine says whether a line of the text format may begin with c.
func beginsLine(c byte) bool {
	return c == '#' || c == '_' || c == ':' || c == '{' || c == ' ' || c == '\t' || c == '\n' ||
		c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// keepMessage reads a message of the protobuf format, and appends it to kept, with its length, if
// it is that of a wanted metric. It returns io.EOF at the end. The decoder of prometheus/common
// makes room for whatever length it is told, so only what was read whole goes there.
func keepMessage(kept []byte, in *bufio.Reader) ([]byte, error) {
	if _, err := in.Peek(1); err != nil {
		return kept, err
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return kept, cutShort(err)
	}
	if size > maxBody {
		return kept, errFrames
	}
	n := int(size)
	head, err := in.Peek(min(n, maxFamily))
	if err != nil {
		return kept, cutShort(err)
	}
	if wanted(familyName(head)) {
		if n > maxFamily {
			return kept, errKept
		}
		kept = append(binary.AppendUvarint(kept, size), head...)
	}
	if _, err := in.Discard(n); err != nil {
		return kept, cutShort(err)
	}
	return kept, nil
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
