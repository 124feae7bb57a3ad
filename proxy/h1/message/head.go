// Package message reads HTTP/1.1 messages strictly (RFC 9112): what two readers could take for two
// different messages is a fault, not a guess. It knows bytes only: no connection, no clock, no
// allocation in the steady state.
package message

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Fault is why a message is refused. The zero value is no fault and never returned as an error.
type Fault uint8 //nolint:errname // a kind of fault; FaultError would say it twice

// The faults.
const (
	ErrBadLine       Fault = iota + 1 // a start line that is none
	ErrBadVersion                     // another version than HTTP/1.0 and HTTP/1.1
	ErrBadTarget                      // a malformed target, or one not allowed with its method
	ErrBadField                       // a malformed field line, an obs-fold, a control character
	ErrBadLineEnd                     // LF without CR, or CR without LF
	ErrBadHost                        // no Host, several, or one that cannot be a host
	ErrBadLength                      // a Content-Length that is no number, or several
	ErrBadCoding                      // does not end in one chunked, or beside a Content-Length
	ErrUnknownCoding                  // a transfer coding other than chunked
	ErrBadChunk                       // a chunk size or a chunk's end that is none
	ErrBadTrailer                     // a malformed trailer field, or one that changes the framing
	ErrTooLarge                       // a head or trailer section past its bound
)

// Error names the fault.
func (f Fault) Error() string {
	switch f {
	case ErrBadLine:
		return "malformed start line"
	case ErrBadVersion:
		return "HTTP version is neither 1.0 nor 1.1"
	case ErrBadTarget:
		return "malformed request target"
	case ErrBadField:
		return "malformed header field"
	case ErrBadLineEnd:
		return "lines must end in CR LF"
	case ErrBadHost:
		return "want exactly one valid Host"
	case ErrBadLength:
		return "malformed or repeated Content-Length"
	case ErrBadCoding:
		return "ambiguous Transfer-Encoding"
	case ErrUnknownCoding:
		return "transfer coding is not supported"
	case ErrBadChunk:
		return "malformed chunk"
	case ErrBadTrailer:
		return "malformed or forbidden trailer field"
	case ErrTooLarge:
		return "headers are too large"
	default:
		return "no fault"
	}
}

// Status is the status code that answers a request with the fault.
func (f Fault) Status() int {
	switch f {
	case ErrBadVersion:
		return 505
	case ErrUnknownCoding:
		return 501
	case ErrTooLarge:
		return 431
	default:
		return 400
	}
}

// Kind tells the fields apart that a proxy must know.
type Kind uint8

// The kinds; Other is every field that passes a proxy as it is.
const (
	Other Kind = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	HopByHop // ends at the next hop, named or not: Keep-Alive, Proxy-*, HTTP2-Settings
	TE
	Upgrade
	Expect
	UserAgent
	XForwardedFor
	XForwardedHost
	XForwardedProto
	Forwarded
	Date
	ContentType
)

// Field is a header field: its name as it was spelled, its value without surrounding whitespace.
type Field struct {
	Name, Value []byte
	Kind        Kind
}

// Head is the head of a request or a response. Its slices are parts of the bytes that were parsed,
// and live as long as those are left alone. A Head may be parsed into again and again; it keeps its
// memory.
type Head struct {
	// Method and Target are a request's, the target in origin form or "*". Authority is what an
	// absolute-form target named as its host, else the value of Host; nil if there was neither
	// (HTTP/1.0 only).
	Method, Target, Authority []byte
	// Code and Reason are a response's.
	Code   int
	Reason []byte
	// Minor is x of HTTP/1.x, 0 or 1.
	Minor  int
	Fields []Field
	// Length is the Content-Length, −1 without. Chunked says that the message comes in chunks; then
	// Length is −1.
	Length  int64
	Chunked bool
	// Close and KeepAlive are the connection options of those names; Upgrade says that Connection
	// names upgrade and that there is an Upgrade field.
	Close, KeepAlive, Upgrade bool
	// Trailers says that TE allows trailers; Continue that Expect is 100-continue.
	Trailers, Continue bool

	options, hosts int // Connection fields, Host fields
	upgradeField   bool
	upgradeOption  bool
}

// End looks for the end of a head in p, whose first from bytes it has seen before: it returns the
// head's length, or 0 and the from of the next call. Lines that do not end in CR LF are a fault.
func End(p []byte, from int) (end, next int, err error) {
	for {
		i := bytes.IndexByte(p[from:], '\n')
		if i < 0 {
			return 0, from, nil
		}
		lf := from + i
		if lf == 0 || p[lf-1] != '\r' {
			return 0, from, ErrBadLineEnd
		}
		if lf-1 == from && from > 0 { // an empty line that is not the first
			return lf + 1, lf + 1, nil
		}
		from = lf + 1
	}
}

func (h *Head) reset() {
	fields := h.Fields[:0]
	*h = Head{Fields: fields, Length: -1}
}

// Request parses a whole request head, as long as End said.
func (h *Head) Request(p []byte) error {
	h.reset()
	line, rest, ok := cutLine(p)
	if !ok {
		return ErrBadLineEnd
	}
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 || !isToken(line[:sp]) {
		return ErrBadLine
	}
	h.Method, line = line[:sp], line[sp+1:]
	if sp = bytes.IndexByte(line, ' '); sp <= 0 {
		return ErrBadLine
	}
	target, version := line[:sp], line[sp+1:]
	if bytes.IndexByte(version, ' ') >= 0 {
		return ErrBadLine
	}
	if err := h.version(version); err != nil {
		return err
	}
	if err := h.fields(rest); err != nil {
		return err
	}
	if h.hosts > 1 || h.hosts == 0 && h.Minor == 1 || !IsHost(h.Authority) {
		return ErrBadHost
	}
	return h.target(target)
}

// Response parses a whole response head, as long as End said.
func (h *Head) Response(p []byte) error {
	h.reset()
	line, rest, ok := cutLine(p)
	if !ok {
		return ErrBadLineEnd
	}
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' {
		return ErrBadLine
	}
	if err := h.version(line[:8]); err != nil {
		return err
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return ErrBadLine
		}
		h.Code = h.Code*10 + int(c-'0')
	}
	if h.Code < 100 || len(line) > 12 && line[12] != ' ' {
		return ErrBadLine
	}
	if len(line) > 13 {
		h.Reason = line[13:]
		if !isValue(h.Reason) {
			return ErrBadLine
		}
	}
	return h.responseFields(rest)
}

func (h *Head) version(v []byte) error {
	if len(v) != 8 || string(v[:5]) != "HTTP/" || v[6] != '.' || v[5] < '0' || v[5] > '9' || v[7] < '0' || v[7] > '9' {
		return ErrBadLine
	}
	if v[5] != '1' || v[7] > '1' {
		return ErrBadVersion
	}
	h.Minor = int(v[7] - '0')
	return nil
}

func (h *Head) target(t []byte) error {
	for _, c := range t {
		if c <= ' ' || c == 0x7f || c == '#' {
			return ErrBadTarget
		}
	}
	switch {
	case t[0] == '/':
		h.Target = t
	case string(h.Method) == "CONNECT":
		h.Target = t // authority form; the caller refuses it
	case len(t) == 1 && t[0] == '*' && string(h.Method) == "OPTIONS":
		h.Target = t
	default:
		return h.absolute(t)
	}
	return nil
}

// absolute takes a target in absolute form apart; its authority counts, not the Host field (RFC
// 9112, 3.2.2).
func (h *Head) absolute(t []byte) error {
	switch {
	case len(t) > 7 && EqualFold(t[:7], "http://"):
		t = t[7:]
	case len(t) > 8 && EqualFold(t[:8], "https://"):
		t = t[8:]
	default:
		return ErrBadTarget
	}
	i := bytes.IndexAny(t, "/?")
	if i < 0 {
		i = len(t)
	}
	h.Authority, t = t[:i], t[i:]
	if i == 0 || !IsHost(h.Authority) {
		return ErrBadTarget
	}
	switch {
	case len(t) > 0 && t[0] == '/':
		h.Target = t
	case len(t) > 0:
		h.Target = append([]byte{'/'}, t...)
	case string(h.Method) == "OPTIONS":
		h.Target = []byte{'*'}
	default:
		h.Target = []byte{'/'}
	}
	return nil
}

func (h *Head) fields(p []byte) error {
	codings, lengths := 0, 0
	err := h.eachField(p, func(f *Field) error {
		switch f.Kind {
		case Host:
			h.hosts++
			h.Authority = f.Value
		case ContentLength:
			lengths++
			n, ok := parseLength(f.Value)
			if !ok || lengths > 1 {
				return ErrBadLength
			}
			h.Length = n
		case TransferEncoding:
			codings++
			if codings > 1 || h.Minor == 0 {
				return ErrBadCoding
			}
			if !EqualFold(f.Value, "chunked") {
				if lastIsChunked(f.Value) || bytes.IndexByte(f.Value, ',') >= 0 || len(f.Value) == 0 {
					return ErrBadCoding
				}
				return ErrUnknownCoding
			}
			h.Chunked = true
		default:
		}
		return nil
	})
	if err == nil && codings > 0 && lengths > 0 {
		return ErrBadCoding
	}
	return err
}

// responseFields are read more mildly where no two readers can differ on the message's end: the app
// is trusted more than clients are. Equal lengths are one; chunks go before a length.
func (h *Head) responseFields(p []byte) error {
	codings := 0
	err := h.eachField(p, func(f *Field) error {
		switch f.Kind {
		case ContentLength:
			n, ok := parseLength(f.Value)
			if !ok || h.Length >= 0 && h.Length != n {
				return ErrBadLength
			}
			h.Length = n
		case TransferEncoding:
			codings++
			if codings > 1 || h.Minor == 0 || !EqualFold(f.Value, "chunked") {
				return ErrBadCoding
			}
			h.Chunked = true
		default:
		}
		return nil
	})
	if h.Chunked && h.Length >= 0 {
		h.Length = -1
		h.Close = true // the app's idea of its messages' ends is not to be relied on again
	}
	return err
}

func (h *Head) eachField(p []byte, framing func(*Field) error) error {
	for {
		line, rest, ok := cutLine(p)
		if !ok {
			return ErrBadLineEnd
		}
		if len(line) == 0 {
			break
		}
		p = rest
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return ErrBadField
		}
		name, value := line[:colon], trim(line[colon+1:])
		if !isToken(name) || !isValue(value) { // a fold begins with whitespace, which is no token
			return ErrBadField
		}
		h.Fields = append(h.Fields, Field{Name: name, Value: value, Kind: kindOf(name)})
		f := &h.Fields[len(h.Fields)-1]
		switch f.Kind {
		case Other:
			continue
		case Host, ContentLength, TransferEncoding:
			if err := framing(f); err != nil {
				return err
			}
		case Connection:
			h.options++
			for o := range elements(value) {
				switch {
				case EqualFold(o, "close"):
					h.Close = true
				case EqualFold(o, "keep-alive"):
					h.KeepAlive = true
				case EqualFold(o, "upgrade"):
					h.upgradeOption = true
				}
			}
		case Upgrade:
			h.upgradeField = true
		case TE:
			for o := range elements(value) {
				h.Trailers = h.Trailers || EqualFold(o, "trailers")
			}
		case Expect:
			h.Continue = h.Continue || EqualFold(value, "100-continue")
		default:
		}
	}
	h.Upgrade = h.upgradeField && h.upgradeOption
	return nil
}

// Named says whether a Connection field names the field as one that ends at the next hop. Fields
// without which a message would mean something else cannot be named away.
func (h *Head) Named(f *Field) bool {
	if h.options == 0 || f.Kind != Other && f.Kind != UserAgent && f.Kind != Expect {
		return false
	}
	for i := range h.Fields {
		if h.Fields[i].Kind != Connection {
			continue
		}
		for o := range elements(h.Fields[i].Value) {
			if len(o) == len(f.Name) && equalFoldBytes(o, f.Name) {
				return true
			}
		}
	}
	return false
}

// Offers says whether an Upgrade field names the protocol.
func (h *Head) Offers(protocol string) bool {
	for i := range h.Fields {
		if h.Fields[i].Kind != Upgrade {
			continue
		}
		for o := range elements(h.Fields[i].Value) {
			if EqualFold(o, protocol) {
				return true
			}
		}
	}
	return false
}

// Get returns the value of the first field of the kind, nil without one.
func (h *Head) Get(k Kind) []byte {
	for i := range h.Fields {
		if h.Fields[i].Kind == k {
			return h.Fields[i].Value
		}
	}
	return nil
}

// cutLine splits p after its first line, which must end in CR LF and hold neither elsewhere.
func cutLine(p []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(p, '\n')
	if i < 1 || p[i-1] != '\r' {
		return nil, nil, false
	}
	return p[:i-1], p[i+1:], true
}

func trim(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// elements yields the elements of a comma-separated list; empty ones are left out.
func elements(v []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(v) > 0 {
			var e []byte
			if i := bytes.IndexByte(v, ','); i >= 0 {
				e, v = trim(v[:i]), v[i+1:]
			} else {
				e, v = trim(v), nil
			}
			if len(e) > 0 && !yield(e) {
				return
			}
		}
	}
}

func lastIsChunked(v []byte) bool {
	if i := bytes.LastIndexByte(v, ','); i >= 0 {
		v = v[i+1:]
	}
	return EqualFold(trim(v), "chunked")
}

// parseLength reads decimal digits, and nothing else, of a number that an int64 holds.
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// EqualFold compares b with s, whose letters are lower case, and takes upper-case ASCII letters of
// b for lower-case ones.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

func equalFoldBytes(a, b []byte) bool {
	for i, c := range a {
		d := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if d >= 'A' && d <= 'Z' {
			d |= 0x20
		}
		if c != d {
			return false
		}
	}
	return true
}

// Sets of ASCII characters, a bit each: below 64, and from 64 on.
const (
	letters   = 0x07fffffe07fffffe // of the upper half
	digits    = 0x03ff << '0'
	tokenLow  = digits | 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.'
	tokenHigh = letters | 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64)
	// unreserved, percent, sub-delims, and what IPv6 literals and ports add (RFC 3986, 3.2.2)
	hostLow  = digits | 1<<'-' | 1<<'.' | 1<<'%' | 1<<'!' | 1<<'$' | 1<<'&' | 1<<'\'' | 1<<'(' | 1<<')' | 1<<'*' | 1<<'+' | 1<<',' | 1<<';' | 1<<'=' | 1<<':'
	hostHigh = letters | 1<<('_'-64) | 1<<('~'-64) | 1<<('['-64) | 1<<(']'-64)
)

func isToken(p []byte) bool {
	for _, c := range p {
		if !in(c, tokenLow, tokenHigh) {
			return false
		}
	}
	return len(p) > 0
}

// IsHost says whether h has only characters that the host and port of an authority may have.
func IsHost[T string | []byte](h T) bool {
	for i := range len(h) {
		if !in(h[i], hostLow, hostHigh) {
			return false
		}
	}
	return true
}

func in(c byte, low, high uint64) bool {
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < 128 && high>>(c-64)&1 != 0
}

// isValue says whether v has no control character but tabs.
func isValue(v []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for len(v) >= 8 { // eight at a time: below 0x20, or 0x7f
		x := binary.LittleEndian.Uint64(v)
		del := x ^ 0x7f*ones
		if bits.OnesCount64(((x-0x20*ones)&^x|(del-ones)&^del)&tops) != 0 {
			break
		}
		v = v[8:]
	}
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func kindOf(name []byte) Kind {
	var want string
	var k Kind
	switch len(name) {
	case 2:
		want, k = "te", TE
	case 4:
		if name[0]|0x20 == 'h' {
			want, k = "host", Host
		} else {
			want, k = "date", Date
		}
	case 6:
		want, k = "expect", Expect
	case 7:
		want, k = "upgrade", Upgrade
	case 9:
		want, k = "forwarded", Forwarded
	case 10:
		switch name[0] | 0x20 {
		case 'c':
			want, k = "connection", Connection
		case 'k':
			want, k = "keep-alive", HopByHop
		default:
			want, k = "user-agent", UserAgent
		}
	case 12:
		want, k = "content-type", ContentType
	case 14:
		if name[0]|0x20 == 'c' {
			want, k = "content-length", ContentLength
		} else {
			want, k = "http2-settings", HopByHop
		}
	case 15:
		want, k = "x-forwarded-for", XForwardedFor
	case 16:
		switch {
		case name[0]|0x20 == 'p':
			want, k = "proxy-connection", HopByHop
		case name[len(name)-1]|0x20 == 't':
			want, k = "x-forwarded-host", XForwardedHost
		}
	case 17:
		switch name[0] | 0x20 {
		case 't':
			want, k = "transfer-encoding", TransferEncoding
		case 'x':
			want, k = "x-forwarded-proto", XForwardedProto
		}
	case 18:
		want, k = "proxy-authenticate", HopByHop
	case 19:
		want, k = "proxy-authorization", HopByHop
	}
	if k != Other && EqualFold(name, want) {
		return k
	}
	return Other
}
