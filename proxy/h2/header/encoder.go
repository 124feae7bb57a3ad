package header

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// Encoder writes the header blocks of one connection as frames. NewEncoder makes it; it is not safe
// for concurrent use.
type Encoder struct {
	hpack   *hpack.Encoder
	out     blockWriter
	resized bool // the table's new size is to be told first
}

// NewEncoder returns an Encoder with the table size that every connection begins with.
func NewEncoder() *Encoder {
	e := new(Encoder)
	e.hpack = hpack.NewEncoder(&e.out)
	return e
}

// SetTableSize bounds the table that the peer keeps; never above the size of the beginning.
func (e *Encoder) SetTableSize(size uint32) {
	if size = min(size, frame.FirstTable); size != e.hpack.MaxDynamicTableSize() {
		e.hpack.SetMaxDynamicTableSize(size)
		e.resized = true
	}
}

// blockWriter is where hpack writes.
type blockWriter struct{ p []byte }

// Write appends p.
func (w *blockWriter) Write(p []byte) (int, error) {
	w.p = append(w.p, p...)
	return len(p), nil
}

// begin begins a Headers frame behind out; endFrame ends it.
func (e *Encoder) begin(out []byte) (start int) {
	e.out.p = frame.AppendHeader(out, 0, frame.Headers, frame.EndHeaders, 0)
	return len(out)
}

// put encodes a field.
func (e *Encoder) put(name, value string) {
	e.resized = false
	_ = e.hpack.WriteField(hpack.HeaderField{Name: name, Value: value}) // blockWriter never fails
}

// putOnce encodes a field whose value is not expected to come again: in the table it would only push out others.
func (e *Encoder) putOnce(name, value string) {
	out := append(e.out.p, 0)
	out = append(appendLength(out, len(name)), name...)
	e.out.p = append(appendLength(out, len(value)), value...)
}

// appendLength writes a number with a prefix of 7 bits (RFC 7541, 5.1).
func appendLength(out []byte, n int) []byte {
	const most = 0x7f
	if n < most {
		return append(out, byte(n))
	}
	out = append(out, most)
	for n -= most; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80) //nolint:gosec // the low bits
	}
	return append(out, byte(n))
}

// putField encodes a field as it came.
func (e *Encoder) putField(f *hpack.HeaderField) {
	if !f.Sensitive && !e.resized && once(f.Name) {
		e.putOnce(f.Name, f.Value)
		return
	}
	e.resized = false
	_ = e.hpack.WriteField(*f)
}

// once says whether values of the field seldom come again.
func once(name string) bool {
	switch name {
	case "grpc-timeout", "traceparent", "x-request-id", "content-length", "etag", "b3", "x-b3-traceid", "x-b3-spanid", "x-amzn-trace-id",
		"if-none-match", "if-modified-since", "last-modified", "content-range", "range", "grpc-message", "grpc-status-details-bin", "age":
		return true
	}
	return false
}

// endFrame completes what begin began, in more frames if one cannot hold it.
func (e *Encoder) endFrame(start int, stream uint32, endStream bool) []byte {
	out := e.out.p
	e.out.p = nil
	flags := frame.EndHeaders
	if endStream {
		flags |= frame.EndStream
	}
	n := len(out) - start - frame.HeaderLen
	if n <= frame.MaxFrame {
		_ = frame.AppendHeader(out[:start], n, frame.Headers, flags, stream)
		return out
	}
	block := bytes.Clone(out[start+frame.HeaderLen:])
	out = frame.AppendHeader(out[:start], frame.MaxFrame, frame.Headers, flags&^frame.EndHeaders, stream)
	out = append(out, block[:frame.MaxFrame]...)
	for block = block[frame.MaxFrame:]; ; block = block[frame.MaxFrame:] {
		if len(block) <= frame.MaxFrame {
			out = frame.AppendHeader(out, len(block), frame.Continuation, frame.EndHeaders, stream)
			return append(out, block...)
		}
		out = frame.AppendHeader(out, frame.MaxFrame, frame.Continuation, 0, stream)
		out = append(out, block[:frame.MaxFrame]...)
	}
}

// Request is a request as it goes to the app.
type Request struct {
	Head
	Fields []hpack.HeaderField
	// Peer is the address of the client without the port; empty for none. Secure says that the
	// client came by TLS.
	Peer   string
	Secure bool
}

// AppendRequest appends the head of a request on a stream. What proxies before this one have said
// of the client stays, and the peer is added to it.
func (e *Encoder) AppendRequest(out []byte, stream uint32, r *Request, endStream bool) []byte {
	start := e.begin(out)
	e.put(":method", r.Method)
	e.put(":scheme", "http")
	e.put(":path", r.Path)
	if r.Authority != "" {
		e.put(":authority", r.Authority)
	}
	host, proto := false, false
	chain, forwarded := 0, 0
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Name {
		case "host", "proxy-authorization", "proxy-authenticate", "http2-settings":
			continue
		case "x-forwarded-for":
			chain++
			continue
		case "forwarded":
			forwarded++
			continue
		case "x-forwarded-host":
			host = true
		case "x-forwarded-proto":
			proto = true
		}
		e.putField(f)
	}
	switch {
	case chain > 0:
		e.put("x-forwarded-for", joined(r.Fields, "x-forwarded-for", r.Peer))
	case r.Peer != "":
		e.put("x-forwarded-for", r.Peer)
	}
	if forwarded > 0 {
		e.put("forwarded", joined(r.Fields, "forwarded", string(request.AppendForwarded(nil, r.Peer))))
	}
	if !host && r.Authority != "" {
		e.put("x-forwarded-host", r.Authority)
	}
	if !proto {
		if r.Secure {
			e.put("x-forwarded-proto", "https")
		} else {
			e.put("x-forwarded-proto", "http")
		}
	}
	return e.endFrame(start, stream, endStream)
}

// joined is the values of all fields of a name, and last, as one list.
func joined(fields []hpack.HeaderField, name, last string) string {
	var list []string
	for i := range fields {
		if fields[i].Name == name {
			list = append(list, fields[i].Value)
		}
	}
	if last != "" {
		list = append(list, last)
	}
	return strings.Join(list, ", ")
}

// AppendAnswer appends the head of a client's answer on a stream; date is for a final answer
// without one.
func (e *Encoder) AppendAnswer(out []byte, stream uint32, code int, fields []hpack.HeaderField, date string, endStream bool) []byte {
	start := e.begin(out)
	if code == http.StatusOK {
		e.put(":status", "200")
	} else {
		e.put(":status", strconv.Itoa(code))
	}
	dated := code < 200
	for i := range fields {
		f := &fields[i]
		switch f.Name {
		case "date":
			dated = true
		case "te":
			continue
		}
		e.putField(f)
	}
	if !dated {
		e.put("date", date)
	}
	return e.endFrame(start, stream, endStream)
}

// AppendTrailers appends fields that end a stream.
func (e *Encoder) AppendTrailers(out []byte, stream uint32, fields []hpack.HeaderField) []byte {
	start := e.begin(out)
	for i := range fields {
		e.putField(&fields[i])
	}
	return e.endFrame(start, stream, true)
}
