package proxy

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/sidecar/http1"
	"github.com/sluice-autoscaler/sluice/sidecar/http2"
)

const (
	// fieldOverhead is what the protocol reckons for a field beside its name and value, in bytes.
	fieldOverhead = 32
	// blockFactor bounds what is decoded of a header block past the bound of its fields, so that the stream can still be
	// answered 431 and the connection kept: this many times the bound.
	blockFactor = 4
	// continuationCost is what a Continuation frame counts against that at least: many small ones cost more than their bytes.
	continuationCost = 1 << 10
)

// block is a header block that is being read, and what was read last. It belongs to its link's reader.
type block struct {
	stream   uint32 // whose block is not complete yet; 0: none
	end      bool   // the stream ends with it
	request  bool   // may hold a request's pseudo-fields
	response bool   // may hold a response's
	limit    int    // of size
	budget   int    // bytes that may still come

	size    int
	big     bool // size was past limit
	bad     bool // malformed (RFC 9113, 8.1.1)
	hop     bool // has a field that is of HTTP/1.1's connections
	regular bool // a field that is no pseudo-field has come
	status  int
	length  int64 // content-length; −1 without
	head    head
	fields  []hpack.HeaderField
}

// head is a request's pseudo-fields.
type head struct{ method, scheme, authority, path string }

// begin readies b for the block of a stream.
func (b *block) begin(stream uint32, end bool, limit int) {
	*b = block{stream: stream, end: end, limit: limit, budget: blockFactor * limit, length: -1, fields: b.fields[:0]}
}

// emit takes a decoded field.
func (b *block) emit(d *hpack.Decoder, f hpack.HeaderField) {
	b.size += len(f.Name) + len(f.Value) + fieldOverhead
	if b.size > b.limit {
		b.big = true
		d.SetEmitEnabled(false)
		return
	}
	if b.response {
		f.Value = strings.Trim(f.Value, " \t") // the app's is mended, a client's refused
	}
	if !isFieldValue(f.Value) || f.Name == "" {
		b.bad = true
		return
	}
	if f.Name[0] == ':' {
		b.pseudo(f)
		return
	}
	if !isToken(f.Name, false) {
		b.bad = true
		return
	}
	b.regular = true
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		b.hop = true
		return
	case "host":
		b.bad = b.bad || !http1.IsHost(f.Value)
	case "te":
		if !strings.EqualFold(f.Value, "trailers") {
			b.hop = true
			return
		}
	case "content-length":
		n, err := strconv.ParseInt(f.Value, 10, 64)
		if err != nil || n < 0 || f.Value[0] == '+' || b.length >= 0 && b.length != n {
			b.bad = true
			return
		}
		if b.length >= 0 {
			return // the same once more
		}
		b.length = n
	}
	b.fields = append(b.fields, f)
}

func (b *block) pseudo(f hpack.HeaderField) {
	var to *string
	switch {
	case b.regular:
	case b.request:
		switch f.Name {
		case ":method":
			to = &b.head.method
		case ":scheme":
			to = &b.head.scheme
		case ":authority":
			to = &b.head.authority
		case ":path":
			to = &b.head.path
		}
	case b.response && f.Name == ":status" && b.status == 0 && len(f.Value) == 3:
		n, err := strconv.Atoi(f.Value)
		if b.status = n; err == nil && n >= 100 {
			return
		}
	}
	if to == nil || *to != "" || f.Value == "" && f.Name != ":authority" {
		b.bad = true
		return
	}
	*to = f.Value
}

// malformed says whether the block cannot be a request's head.
func (b *block) malformed() bool {
	h := &b.head
	switch {
	case b.bad || !isToken(h.method, true) || !http1.IsHost(h.authority):
		return true
	case h.method == http.MethodConnect:
		return h.scheme != "" || h.path != "" || h.authority == ""
	case h.scheme == "" || h.path == "":
		return true
	case h.path == "*":
		return h.method != http.MethodOptions
	}
	if h.path[0] != '/' {
		return true
	}
	for i := range len(h.path) {
		if c := h.path[i]; c <= ' ' || c == 0x7f || c == '#' {
			return true
		}
	}
	return false
}

// isToken says whether s is a token (RFC 9110, 5.6.2), with capitals or without.
func isToken(s string, capitals bool) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c == '-', c >= '0' && c <= '9', c == '_':
		case c >= 'A' && c <= 'Z':
			if !capitals {
				return false
			}
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0:
			return false
		}
	}
	return s != ""
}

// isFieldValue says whether s holds no control character but tabs, and no blanks around it.
func isFieldValue(s string) bool {
	if n := len(s); n > 0 && (s[0] == ' ' || s[0] == '\t' || s[n-1] == ' ' || s[n-1] == '\t') {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// get returns the first field of the name.
func get(fields []hpack.HeaderField, name string) string {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return ""
}

// blockWriter is where a link's encoder writes.
type blockWriter struct{ out []byte }

// Write appends p.
func (w *blockWriter) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// beginBlock begins a Headers frame in out; the caller holds mu, puts fields, and ends it by endBlock.
func (l *link) beginBlock() (start int) {
	start = len(l.out)
	l.block.out = http2.AppendHeader(l.out, 0, http2.Headers, http2.EndHeaders, 0)
	return start
}

// put encodes a field.
func (l *link) put(name, value string) {
	l.resized = false
	_ = l.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) // blockWriter never fails
}

// putOnce encodes a field whose value is not expected to come again: in the table it would only push out others.
func (l *link) putOnce(name, value string) {
	out := append(l.block.out, 0)
	out = append(appendLength(out, len(name)), name...)
	l.block.out = append(appendLength(out, len(value)), value...)
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
func (l *link) putField(f *hpack.HeaderField) {
	if !f.Sensitive && !l.resized && once(f.Name) {
		l.putOnce(f.Name, f.Value)
		return
	}
	l.resized = false
	_ = l.enc.WriteField(*f)
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

// endBlock completes what beginBlock began, in more frames if one cannot hold it.
func (l *link) endBlock(start int, stream uint32, end bool) {
	out := l.block.out
	l.block.out = nil
	flags := http2.EndHeaders
	if end {
		flags |= http2.EndStream
	}
	n := len(out) - start - http2.HeaderLen
	if n <= http2.MaxFrame {
		_ = http2.AppendHeader(out[:start], n, http2.Headers, flags, stream)
		l.out = out
		return
	}
	whole := bytes.Clone(out[start+http2.HeaderLen:])
	out = http2.AppendHeader(out[:start], http2.MaxFrame, http2.Headers, flags&^http2.EndHeaders, stream)
	out = append(out, whole[:http2.MaxFrame]...)
	for whole = whole[http2.MaxFrame:]; ; whole = whole[http2.MaxFrame:] {
		if len(whole) <= http2.MaxFrame {
			out = http2.AppendHeader(out, len(whole), http2.Continuation, http2.EndHeaders, stream)
			l.out = append(out, whole...)
			return
		}
		out = http2.AppendHeader(out, http2.MaxFrame, http2.Continuation, 0, stream)
		out = append(out, whole[:http2.MaxFrame]...)
	}
}

// putRequest writes the head of the app's request, by the rules of appendRequest. The caller holds l.mu and s.mu.
func (l *link) putRequest(s *stream, id uint32, end bool) {
	start := l.beginBlock()
	h := &s.head
	l.put(":method", h.method)
	l.put(":scheme", "http")
	l.put(":path", h.path)
	if h.authority != "" {
		l.put(":authority", h.authority)
	}
	host, proto := false, false
	chain, forwarded := 0, 0
	for i := range s.fields {
		f := &s.fields[i]
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
		l.putField(f)
	}
	switch {
	case chain > 0:
		l.put("x-forwarded-for", joined(s.fields, "x-forwarded-for", s.peer))
	case s.peer != "":
		l.put("x-forwarded-for", s.peer)
	}
	if forwarded > 0 {
		last := ""
		switch {
		case strings.Contains(s.peer, ":"):
			last = `for="[` + s.peer + `]"`
		case s.peer != "":
			last = "for=" + s.peer
		}
		l.put("forwarded", joined(s.fields, "forwarded", last))
	}
	if !host && h.authority != "" {
		l.put("x-forwarded-host", h.authority)
	}
	if !proto {
		if s.secure {
			l.put("x-forwarded-proto", "https")
		} else {
			l.put("x-forwarded-proto", "http")
		}
	}
	l.endBlock(start, id, end)
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

// putResponse writes the head of a client's answer. The caller holds l.mu.
func (l *link) putResponse(id uint32, code int, fields []hpack.HeaderField, date string, end bool) {
	start := l.beginBlock()
	if code == http.StatusOK {
		l.put(":status", "200")
	} else {
		l.put(":status", strconv.Itoa(code))
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
		l.putField(f)
	}
	if !dated {
		l.put("date", date)
	}
	l.endBlock(start, id, end)
}

// putTrailers writes fields that end a stream. The caller holds l.mu.
func (l *link) putTrailers(id uint32, fields []hpack.HeaderField) {
	start := l.beginBlock()
	for i := range fields {
		l.putField(&fields[i])
	}
	l.endBlock(start, id, true)
}
