// Package header reads and writes HTTP/2 header blocks: the heads of requests and answers, and
// trailers (RFC 9113, 8). It knows no connection.
package header

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
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

// Role is what a block may be by its place in a stream.
type Role uint8

// The roles.
const (
	OfTrailers Role = iota // of a client: no pseudo-field
	OfRequest              // the head of a request
	OfAnswer               // the head of an answer, or its trailers
)

// Block is a header block that is being read, and what was read last. It belongs to the reader of
// its connection.
type Block struct {
	Stream    uint32 // whose block is not complete yet; 0: none
	EndStream bool   // the stream ends with it

	TooLarge  bool  // past its bound
	Malformed bool  // (RFC 9113, 8.1.1)
	Hop       bool  // has a field that is of HTTP/1.1's connections
	Status    int   // of an answer; 0: none, so these are trailers
	Length    int64 // content-length; −1 without
	Head      Head
	Fields    []hpack.HeaderField

	role    Role
	limit   int // of size
	budget  int // bytes that may still come
	size    int
	regular bool // a field that is no pseudo-field has come
}

// Head is a request's pseudo-fields.
type Head struct{ Method, Scheme, Authority, Path string }

// Begin readies b for the block of a stream, of at most limit bytes.
func (b *Block) Begin(stream uint32, endStream bool, role Role, limit int) {
	*b = Block{Stream: stream, EndStream: endStream, role: role, limit: limit, budget: blockFactor * limit, Length: -1, Fields: b.Fields[:0]}
}

// Spend takes n bytes of the block off what may come, and says whether that many may. last says
// that the block ends with them.
func (b *Block) Spend(n int, last bool) bool {
	if b.budget -= n; !last {
		b.budget -= continuationCost
	}
	return b.budget >= 0
}

// Add takes a decoded field.
func (b *Block) Add(d *hpack.Decoder, f hpack.HeaderField) {
	b.size += len(f.Name) + len(f.Value) + fieldOverhead
	if b.size > b.limit {
		b.TooLarge = true
		d.SetEmitEnabled(false)
		return
	}
	if b.role == OfAnswer {
		f.Value = strings.Trim(f.Value, " \t") // the app's is mended, a client's refused
	}
	if !isFieldValue(f.Value) || f.Name == "" {
		b.Malformed = true
		return
	}
	if f.Name[0] == ':' {
		b.pseudo(f)
		return
	}
	if !isToken(f.Name, false) {
		b.Malformed = true
		return
	}
	b.regular = true
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		b.Hop = true
		return
	case "host":
		b.Malformed = b.Malformed || !message.IsHost(f.Value)
	case "te":
		if !strings.EqualFold(f.Value, "trailers") {
			b.Hop = true
			return
		}
	case "content-length":
		n, err := strconv.ParseInt(f.Value, 10, 64)
		if err != nil || n < 0 || f.Value[0] == '+' || b.Length >= 0 && b.Length != n {
			b.Malformed = true
			return
		}
		if b.Length >= 0 {
			return // the same once more
		}
		b.Length = n
	}
	b.Fields = append(b.Fields, f)
}

func (b *Block) pseudo(f hpack.HeaderField) {
	var to *string
	switch {
	case b.regular:
	case b.role == OfRequest:
		switch f.Name {
		case ":method":
			to = &b.Head.Method
		case ":scheme":
			to = &b.Head.Scheme
		case ":authority":
			to = &b.Head.Authority
		case ":path":
			to = &b.Head.Path
		}
	case b.role == OfAnswer && f.Name == ":status" && b.Status == 0 && len(f.Value) == 3:
		n, err := strconv.Atoi(f.Value)
		if b.Status = n; err == nil && n >= 100 {
			return
		}
	}
	if to == nil || *to != "" || f.Value == "" && f.Name != ":authority" {
		b.Malformed = true
		return
	}
	*to = f.Value
}

// IsRequest says whether the block can be a request's head.
func (b *Block) IsRequest() bool {
	h := &b.Head
	switch {
	case b.Malformed || !isToken(h.Method, true) || !message.IsHost(h.Authority):
		return false
	case h.Method == http.MethodConnect:
		return h.Scheme == "" && h.Path == "" && h.Authority != ""
	case h.Scheme == "" || h.Path == "":
		return false
	case h.Path == "*":
		return h.Method == http.MethodOptions
	}
	if h.Path[0] != '/' {
		return false
	}
	for i := range len(h.Path) {
		if c := h.Path[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
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

// Get returns the value of the first field of the name.
func Get(fields []hpack.HeaderField, name string) string {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return ""
}
