package sidecar_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2 is a client's HTTP/2 connection that sends whatever a case wants, right or wrong, and notes
// what comes. Nothing reads but the test itself, so nothing happens behind a case's back.
type h2 struct {
	t   *testing.T
	nc  net.Conn
	out io.Writer // nc, unless a test wants to see to the packets itself
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer

	settings map[http2.SettingID]uint32 // the sidecar's
	begun    bool                       // its first frame has come
	acks     int                        // of settings sent
	pongs    [][8]byte
	goaway   *http2.GoAwayFrame
	window   int64 // how much the sidecar lets the connection send
	windows  map[uint32]int64
	answers  map[uint32]*h2answer
	err      error // what ended the connection
}

// h2answer is what has come on one stream.
type h2answer struct {
	status  string // of the final answer
	interim []string
	header  []hpack.HeaderField
	trailer []hpack.HeaderField
	body    []byte
	ended   bool
	reset   *http2.ErrCode
}

// writer is a function that writes.
type writer func(p []byte) (int, error)

// Write calls it.
func (w writer) Write(p []byte) (int, error) { return w(p) }

// dialH2 opens a connection and sends nothing.
func (r *running) dialH2(t *testing.T) *h2 {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	c := &h2{
		t: t, nc: nc, out: nc, settings: map[http2.SettingID]uint32{},
		window: 65535, windows: map[uint32]int64{}, answers: map[uint32]*h2answer{},
	}
	c.fr = http2.NewFramer(writer(func(p []byte) (int, error) { return c.out.Write(p) }), nc)
	c.fr.AllowIllegalWrites = true
	c.fr.SetMaxReadFrameSize(1<<24 - 1)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.buf)
	return c
}

// openH2 opens a connection, exchanges settings, and returns when its own have been acknowledged.
func (r *running) openH2(t *testing.T) *h2 {
	t.Helper()
	c := r.dialH2(t)
	c.hello()
	c.until("an ack of the settings", func() bool { return c.acks == 1 })
	return c
}

// apart returns the connection for writing in another goroutine than the one that reads, and
// answers what is to be answered. Only one of both may send headers from then on.
func (c *h2) apart() *h2 {
	w := &h2{t: c.t, nc: c.nc, out: c.nc, windows: map[uint32]int64{}}
	w.fr = http2.NewFramer(c.nc, nil)
	w.fr.AllowIllegalWrites = true
	w.enc = hpack.NewEncoder(&w.buf)
	return w
}

// hello sends the preface and empty settings.
func (c *h2) hello() {
	c.write([]byte(http2.ClientPreface))
	c.set()
}

// write sends bytes. An error shows in what is read: the sidecar may have said why it reads no
// more.
func (c *h2) write(p []byte) { _, _ = c.out.Write(p) }

// frame sends one frame with any content.
func (c *h2) frame(typ http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	_ = c.fr.WriteRawFrame(typ, flags, stream, payload)
}

func (c *h2) set(settings ...http2.Setting) { _ = c.fr.WriteSettings(settings...) }

// block encodes name, value pairs.
func (c *h2) block(fields ...string) []byte {
	c.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	return bytes.Clone(c.buf.Bytes())
}

// asking is the fields of a good request, and more of them.
func asking(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "a"}, more...)
}

// headers sends a whole header block in one frame.
func (c *h2) headers(stream uint32, end bool, fields ...string) {
	flags := http2.FlagHeadersEndHeaders
	if end {
		flags |= http2.FlagHeadersEndStream
	}
	c.frame(http2.FrameHeaders, flags, stream, c.block(fields...))
}

func (c *h2) get(stream uint32, path string, more ...string) {
	c.headers(stream, true, asking("GET", path, more...)...)
}

func (c *h2) post(stream uint32, path string, more ...string) {
	c.headers(stream, false, asking("POST", path, more...)...)
}

// data sends a DATA frame, whatever the windows say.
func (c *h2) data(stream uint32, end bool, p string) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	c.frame(http2.FrameData, flags, stream, []byte(p))
	c.spend(stream, len(p))
}

// spend notes that n bytes of both windows were used.
func (c *h2) spend(stream uint32, n int) {
	c.window -= int64(n)
	c.windows[stream] = c.left(stream) - int64(n)
}

// left is the window of a stream.
func (c *h2) left(stream uint32) int64 {
	if w, ok := c.windows[stream]; ok {
		return w
	}
	if w, ok := c.settings[http2.SettingInitialWindowSize]; ok {
		return int64(w)
	}
	return 65535
}

// room waits until both windows have n bytes.
func (c *h2) room(stream uint32, n int) {
	c.t.Helper()
	c.until("a window to send in", func() bool { return c.window >= int64(n) && c.left(stream) >= int64(n) })
}

func (c *h2) answer(stream uint32) *h2answer {
	a := c.answers[stream]
	if a == nil {
		a = &h2answer{}
		c.answers[stream] = a
	}
	return a
}

// read takes one frame in, and returns what ended the connection.
func (c *h2) read() error {
	if c.err != nil {
		return c.err
	}
	f, err := c.fr.ReadFrame()
	if err != nil {
		c.err = err
		return err
	}
	if !c.begun {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			c.t.Errorf("the first frame is %v, want SETTINGS (RFC 9113, 3.4)", f)
		}
		c.begun = true
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acks++
			return nil
		}
		_ = f.ForeachSetting(func(s http2.Setting) error { c.settings[s.ID] = s.Val; return nil })
		_ = c.fr.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			c.pongs = append(c.pongs, f.Data)
		} else {
			_ = c.fr.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		kept := *f
		c.goaway = &kept
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else {
			c.windows[f.StreamID] = c.left(f.StreamID) + int64(f.Increment)
		}
	case *http2.RSTStreamFrame:
		code := f.ErrCode
		if a := c.answer(f.StreamID); a.reset == nil {
			a.reset = &code
		}
	case *http2.MetaHeadersFrame:
		a := c.answer(f.StreamID)
		status := f.PseudoValue("status")
		switch {
		case status == "":
			a.trailer = f.RegularFields()
		case strings.HasPrefix(status, "1"):
			a.interim = append(a.interim, status)
		default:
			a.status, a.header = status, f.RegularFields()
		}
		a.ended = a.ended || f.StreamEnded()
	case *http2.DataFrame:
		a := c.answer(f.StreamID)
		a.body = append(a.body, f.Data()...)
		a.ended = a.ended || f.StreamEnded()
	}
	return nil
}

// until reads until holds.
func (c *h2) until(what string, holds func() bool) {
	c.t.Helper()
	for !holds() {
		if err := c.read(); err != nil {
			c.t.Fatalf("waited for %s: %v; %s", what, err, c.ended())
		}
	}
}

// sync returns when the sidecar has taken in all that was sent before.
func (c *h2) sync() {
	c.t.Helper()
	n := len(c.pongs)
	_ = c.fr.WritePing(false, [8]byte{'s', 'y', 'n', 'c'})
	c.until("a PING's ack", func() bool { return len(c.pongs) > n })
}

// expect reads the answer of a stream and returns it.
func (c *h2) expect(stream uint32, status string) *h2answer {
	c.t.Helper()
	a := c.answer(stream)
	c.until(fmt.Sprintf("the answer on stream %d", stream), func() bool { return a.ended || a.reset != nil })
	if !a.ended || a.status != status {
		c.t.Fatalf("stream %d: status %q, ended %v, reset %v; want %s", stream, a.status, a.ended, a.reset, status)
	}
	return a
}

// ended says how the connection ended, "" when it has not.
func (c *h2) ended() string {
	switch {
	case c.goaway != nil && c.goaway.ErrCode != http2.ErrCodeNo:
		return "connection " + c.goaway.ErrCode.String()
	case c.err == nil:
		return ""
	}
	if nerr, ok := errors.AsType[net.Error](c.err); ok && nerr.Timeout() {
		return "nothing"
	}
	return "connection closed"
}

// outcome reads until a stream, or for 0 the connection, has ended, and says how: "answer 200",
// "stream CODE", "connection CODE", "connection closed", or "nothing" when the test's patience is
// at its end.
func (c *h2) outcome(stream uint32) string {
	for {
		if s := c.ended(); s != "" {
			return s
		}
		if stream != 0 {
			switch a := c.answer(stream); {
			case a.ended:
				return "answer " + a.status
			case a.reset != nil:
				return "stream " + a.reset.String()
			}
		}
		_ = c.read()
	}
}

// closes reads on and fails the test unless the connection is closed in the end.
func (c *h2) closes() {
	_ = c.nc.SetDeadline(time.Now().Add(patience))
	for c.read() == nil {
	}
	if s := c.err; !errors.Is(s, io.EOF) {
		if nerr, ok := errors.AsType[net.Error](s); ok && nerr.Timeout() {
			c.t.Error("the connection is open after GOAWAY with an error (RFC 9113, 5.4.1)")
		}
	}
}

// field returns the values of a field.
func field(fields []hpack.HeaderField, name string) []string {
	var all []string
	for _, f := range fields {
		if f.Name == name {
			all = append(all, f.Value)
		}
	}
	return all
}

// h2want is what may come of a case.
type h2want struct {
	stream   uint32 // the one that is looked at; 0 for the connection
	outcomes []string
	// today is one more outcome that net/http's server, which serves HTTP/2 today, comes to, and
	// the RFC does not allow.
	today string
	// final says that the connection serves no other request after this.
	final bool
}

// named is the want's outcomes of error codes, each as "what CODE".
func named(what string, codes []http2.ErrCode) []string {
	var all []string
	for _, code := range codes {
		all = append(all, what+" "+code.String())
	}
	return all
}

// broken wants a connection error. RFC 9113, 5.4.1: a GOAWAY should tell the code, the close may be
// all.
func broken(codes ...http2.ErrCode) h2want {
	return h2want{outcomes: append(named("connection", codes), "connection closed")}
}

// refused wants a stream error, or the same as a connection error (RFC 9113, 5.4.2 and 5.4.3).
func refused(stream uint32, codes ...http2.ErrCode) h2want {
	w := broken(codes...)
	w.stream, w.outcomes = stream, append(w.outcomes, named("stream", codes)...)
	return w
}

// malformed wants the message on stream 1 to be refused: by a stream error, or an answer that says
// so (RFC 9113, 8.1.1).
func malformed() h2want {
	w := refused(1, http2.ErrCodeProtocol)
	w.outcomes = append(w.outcomes, "answer 400")
	return w
}

// answered wants an answer.
func answered(stream uint32, status string) h2want {
	return h2want{stream: stream, outcomes: []string{"answer " + status}}
}

// or allows another answer.
func (w h2want) or(outcomes ...string) h2want {
	w.outcomes = slices.Concat(w.outcomes, outcomes)
	return w
}

// except notes what comes today against the RFC.
func (w h2want) except(outcome string) h2want {
	w.today = outcome
	return w
}

// last says that the connection is not used again.
func (w h2want) last() h2want {
	w.final = true
	return w
}
