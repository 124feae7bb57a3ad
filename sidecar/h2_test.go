package sidecar_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-autoscaler/sluice/wire"
)

// h2case is what a client may do by a rule of RFC 9113, right or wrong, and what must come of it.
// It uses a connection and a path of its own. When no answer 200 comes, no whole request of that
// path may have reached the app.
type h2case struct {
	name string
	send func(c *h2, path string)
	want h2want
}

// Codes, short as the tables use them.
const (
	protocol    = http2.ErrCodeProtocol
	frameSize   = http2.ErrCodeFrameSize
	flowControl = http2.ErrCodeFlowControl
	closed      = http2.ErrCodeStreamClosed
	compression = http2.ErrCodeCompression
	calm        = http2.ErrCodeEnhanceYourCalm
	cancel      = http2.ErrCodeCancel
)

// Flags, likewise.
const (
	endHeaders = http2.FlagHeadersEndHeaders
	endStream  = http2.FlagHeadersEndStream
	padded     = http2.FlagDataPadded
	ranked     = http2.FlagHeadersPriority
)

// h2rules returns the table, by section.
func h2rules() map[string][]h2case {
	rules := map[string][]h2case{
		"4.1 frames": {
			{"an unknown type", func(c *h2, path string) { c.frame(0xfe, 0xff, 0, []byte("?")); c.get(1, path) }, answered(1, "200")},
			{"an unknown type, long", func(c *h2, path string) { c.frame(0x42, 0, 0, make([]byte, 16384)); c.get(1, path) }, answered(1, "200")},
			{"an unknown type on a stream with a body", func(c *h2, path string) {
				c.post(1, path)
				c.frame(0x42, 0xff, 1, []byte("?"))
				c.data(1, true, "abc")
			}, answered(1, "200")},
			{"unknown flags of HEADERS", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|0x10|0x40|0x80, 1, c.block(asking("GET", path)...))
			}, answered(1, "200")},
			{"unknown flags of DATA", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameData, 0x01|0x02|0x04|0x10|0x20|0x40|0x80, 1, []byte("abc"))
			}, answered(1, "200")},
			{"the reserved bit of a stream's number", func(c *h2, path string) {
				block := c.block(asking("GET", path)...)
				c.write(append([]byte{0, 0, byte(len(block)), byte(http2.FrameHeaders), byte(endHeaders | endStream), 0x80, 0, 0, 1}, block...))
			}, answered(1, "200")},
			{"empty DATA frames between", func(c *h2, path string) {
				c.post(1, path)
				for range 5 {
					c.data(1, false, "")
				}
				c.data(1, true, "abc")
			}, answered(1, "200")},
		},
		"4.2 frame size": {
			{"DATA of 16,384 bytes", func(c *h2, path string) { c.post(1, path); c.data(1, true, strings.Repeat("x", 16384)) }, answered(1, "200")},
			{"DATA too large", func(c *h2, path string) { c.post(1, path); c.data(1, true, c.tooLarge()) }, refused(1, frameSize)},
			{"HEADERS too large", func(c *h2, _ string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream, 1, []byte(c.tooLarge()))
			}, broken(frameSize)},
			{"CONTINUATION too large", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endStream, 1, c.block(asking("GET", path)...))
				c.frame(http2.FrameContinuation, endHeaders, 1, []byte(c.tooLarge()))
			}, broken(frameSize)},
			{"SETTINGS too large", func(c *h2, _ string) { c.frame(http2.FrameSettings, 0, 0, []byte(c.tooLarge())) }, broken(frameSize)},
			{"SETTINGS of 5 bytes", func(c *h2, _ string) { c.frame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, broken(frameSize)},
			{"an ack of settings with content", func(c *h2, _ string) {
				c.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6))
			}, broken(frameSize)},
			{"PING of 7 bytes", func(c *h2, _ string) { c.frame(http2.FramePing, 0, 0, make([]byte, 7)) }, broken(frameSize)},
			{"PING of 9 bytes", func(c *h2, _ string) { c.frame(http2.FramePing, 0, 0, make([]byte, 9)) }, broken(frameSize)},
			{"WINDOW_UPDATE of 3 bytes", func(c *h2, _ string) { c.frame(http2.FrameWindowUpdate, 0, 0, make([]byte, 3)) }, broken(frameSize)},
			{"WINDOW_UPDATE of 5 bytes on a stream", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameWindowUpdate, 0, 1, make([]byte, 5))
			}, broken(frameSize)},
			{"RST_STREAM of 3 bytes", func(c *h2, path string) { c.post(1, path); c.frame(http2.FrameRSTStream, 0, 1, make([]byte, 3)) }, broken(frameSize)},
			{"PRIORITY of 4 bytes", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FramePriority, 0, 1, make([]byte, 4))
			}, refused(1, frameSize)},
			{"GOAWAY of 7 bytes", func(c *h2, _ string) { c.frame(http2.FrameGoAway, 0, 0, make([]byte, 7)) }, broken(frameSize)},
			{"HEADERS too short for its priority", func(c *h2, _ string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|ranked, 1, make([]byte, 4))
			}, broken(frameSize, protocol)},
			{"HEADERS too short for its padding's length", func(c *h2, _ string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|padded, 1, nil)
			}, broken(frameSize, protocol)},
			{"DATA too short for its padding's length", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameData, padded, 1, nil)
			}, broken(frameSize, protocol)},
		},
		"4.3 compression": {
			{"index 0", func(c *h2, path string) { c.raw(asking("GET", path), 0x80) }, broken(compression)},
			{"an index beyond the table", func(c *h2, path string) { c.raw(asking("GET", path), 0xff, 0x80, 0x01) }, broken(compression)},
			{"a literal's name beyond the table", func(c *h2, path string) { c.raw(asking("GET", path), 0x7f, 0x7f, 0x01, 'x') }, broken(compression)},
			{"an integer without an end", func(c *h2, path string) {
				c.raw(asking("GET", path), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
			}, broken(compression)},
			{"the end within a literal", func(c *h2, path string) { c.raw(asking("GET", path), 0x40, 0x05, 'x') }, broken(compression)},
			{"Huffman padding of eight bits", func(c *h2, path string) { c.raw(asking("GET", path), 0x40, 0x01, 'x', 0x82, 0x1f, 0xff) }, broken(compression)},
			{"Huffman padding of zeros", func(c *h2, path string) { c.raw(asking("GET", path), 0x40, 0x01, 'x', 0x81, 0x18) }, broken(compression)},
			{"the end of strings in Huffman", func(c *h2, path string) {
				c.raw(asking("GET", path), 0x40, 0x01, 'x', 0x84, 0xff, 0xff, 0xff, 0xff)
			}, broken(compression)},
			{"a table larger than allowed", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream, 1, append([]byte{0x3f, 0xff, 0xff, 0xff, 0x07}, c.block(asking("GET", path)...)...))
			}, broken(compression)},
			{"a table's size behind a field", func(c *h2, path string) { c.raw(asking("GET", path, "x-a", "b"), 0x20) }, broken(compression)},
			{"a table's size at the beginning", func(c *h2, path string) {
				c.enc.SetMaxDynamicTableSize(0)
				c.get(1, path)
			}, answered(1, "200")},
			{"fields of an earlier request", func(c *h2, path string) {
				c.get(1, path, "x", "first")
				c.get(3, path, "x", "first") // by index
				if a := c.expect(3, "200"); !strings.Contains(string(a.body), `x="first"`) {
					c.t.Errorf("the app saw %s, want x of the table", a.body)
				}
			}, answered(3, "200")},
			{"fields of a refused request", func(c *h2, path string) {
				c.get(1, "/malformed", "X-Upper", "y", "x", "kept")
				c.get(3, path, "x", "kept")
				if a := c.expect(3, "200"); !strings.Contains(string(a.body), `x="kept"`) {
					c.t.Errorf("the app saw %s, want x of the table", a.body)
				}
			}, answered(3, "200")},
		},
		"5.1 states": {
			{"DATA on an idle stream", func(c *h2, _ string) { c.data(1, true, "x") }, broken(protocol)},
			{"RST_STREAM on an idle stream", func(c *h2, _ string) { _ = c.fr.WriteRSTStream(1, cancel) }, broken(protocol)},
			{"WINDOW_UPDATE on an idle stream", func(c *h2, _ string) { _ = c.fr.WriteWindowUpdate(1, 100) }, broken(protocol)},
			{"PRIORITY on an idle stream", func(c *h2, path string) { c.priority(5, 0); c.get(1, path) }, answered(1, "200")},
			{"DATA behind the end, running", func(c *h2, _ string) { c.get(1, "/hold"); c.data(1, true, "x") }, refused(1, closed)},
			{"HEADERS behind the end, running", func(c *h2, _ string) {
				c.get(1, "/hold")
				c.headers(1, true, "x", "y")
			}, refused(1, closed, protocol)},
			{"DATA behind the end, answered", func(c *h2, path string) {
				c.get(1, path)
				c.expect(1, "200")
				c.data(1, true, "x")
				c.get(3, path)
			}, answered(3, "200").or("connection STREAM_CLOSED", "connection closed")},
			{"HEADERS behind the end, answered", func(c *h2, path string) {
				c.get(1, "/ok")
				c.expect(1, "200")
				c.get(1, path)
			}, broken(closed, protocol)},
			{"DATA behind a reset", func(c *h2, path string) {
				c.post(1, path)
				_ = c.fr.WriteRSTStream(1, cancel)
				c.data(1, true, "x")
			}, refused(1, closed)},
			{"HEADERS behind a reset", func(c *h2, path string) {
				c.post(1, path)
				_ = c.fr.WriteRSTStream(1, cancel)
				c.headers(1, true, asking("POST", path)...)
			}, refused(1, closed, protocol)},
			{"WINDOW_UPDATE, PRIORITY and RST_STREAM on a closed stream", func(c *h2, path string) {
				c.get(1, path)
				c.expect(1, "200")
				_ = c.fr.WriteWindowUpdate(1, 100)
				c.priority(1, 0)
				_ = c.fr.WriteRSTStream(1, cancel)
				c.get(3, path)
			}, answered(3, "200")},
			{"WINDOW_UPDATE and PRIORITY behind the end, running", func(c *h2, path string) {
				c.get(1, path+"?ms=1")
				_ = c.fr.WriteWindowUpdate(1, 100)
				c.priority(1, 0)
			}, answered(1, "200")},
		},
		"5.1.1 identifiers": {
			{"an even one", func(c *h2, path string) { c.get(2, path) }, broken(protocol)},
			{"zero", func(c *h2, path string) { c.get(0, path) }, broken(protocol)},
			{"a lower one", func(c *h2, path string) { c.get(5, "/ok"); c.expect(5, "200"); c.get(3, path) }, broken(protocol, closed)},
			{"with gaps", func(c *h2, path string) {
				for _, id := range []uint32{1, 7, 1001} {
					c.get(id, path)
				}
				c.expect(1, "200")
				c.expect(7, "200")
			}, answered(1001, "200")},
			{"the last there is", func(c *h2, path string) { c.get(1<<31-1, path) }, answered(1<<31-1, "200").last()},
		},
		"5.3 priority": {
			{"on stream 0", func(c *h2, _ string) { c.priority(0, 0) }, broken(protocol)},
			{"of a stream upon itself", func(c *h2, _ string) { c.priority(1, 1); c.get(1, "/ok") }, answered(1, "200").or("stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR", "connection closed")},
			{"with HEADERS", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|ranked, 1, append([]byte{0x80, 0, 0, 0, 15}, c.block(asking("GET", path)...)...))
			}, answered(1, "200")},
			{"with HEADERS, upon itself", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|ranked, 1, append([]byte{0, 0, 0, 1, 15}, c.block(asking("GET", path)...)...))
			}, answered(1, "200").or("stream PROTOCOL_ERROR", "connection PROTOCOL_ERROR", "connection closed")},
			{"the field of RFC 9218", func(c *h2, path string) { c.get(1, path, "priority", "u=1, i") }, answered(1, "200")},
			{"PRIORITY_UPDATE of RFC 9218", func(c *h2, path string) { c.frame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")); c.get(1, path) }, answered(1, "200")},
		},
		"6.1 DATA": {
			{"on stream 0", func(c *h2, _ string) { c.data(0, true, "x") }, broken(protocol)},
			{"padding is no content", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameData, padded, 1, []byte("\x03abc\x00\x00\x00"))
				c.frame(http2.FrameData, padded|endStream, 1, []byte("\x00d"))
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), `body="abcd"`) {
					c.t.Errorf("the app saw %s, want abcd", a.body)
				}
			}, answered(1, "200")},
			{"all padding", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameData, padded|endStream, 1, []byte("\x03\x00\x00\x00"))
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), `body=""`) {
					c.t.Errorf("the app saw %s, want no body", a.body)
				}
			}, answered(1, "200")},
			{"as much padding as there is frame", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameData, padded|endStream, 1, []byte("\x05abc\x00"))
			}, broken(protocol)},
		},
		"6.2 HEADERS": {
			{"padded", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|padded, 1, slices.Concat([]byte{3}, c.block(asking("GET", path)...), []byte{0, 0, 0}))
			}, answered(1, "200")},
			{"padded, and a priority", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|padded|ranked, 1, slices.Concat([]byte{3, 0, 0, 0, 0, 15}, c.block(asking("GET", path)...), []byte{0, 0, 0}))
			}, answered(1, "200")},
			// net/http resets the stream and leaves the block undecoded, so that both sides' tables
			// differ from here on (4.3).
			{"more padding than frame", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endHeaders|endStream|padded, 1, append([]byte{255}, c.block(asking("GET", path)...)...))
			}, refused(1, protocol).last()},
			{"an empty block", func(c *h2, _ string) { c.headers(1, true) }, malformed()},
		},
		"6.4 RST_STREAM": {
			{"on stream 0", func(c *h2, _ string) { _ = c.fr.WriteRSTStream(0, cancel) }, broken(protocol)},
			{"of a running request, with a code nobody knows", func(c *h2, path string) {
				c.get(1, "/hold")
				_ = c.fr.WriteRSTStream(1, 0xdead)
				c.get(3, path)
			}, answered(3, "200")},
		},
		"6.5 SETTINGS": {
			{"on a stream", func(c *h2, _ string) { c.frame(http2.FrameSettings, 0, 1, nil) }, broken(protocol)},
			{"empty", func(c *h2, path string) { c.acked(); c.get(1, path) }, answered(1, "200")},
			{"an unknown one", func(c *h2, path string) { c.acked(http2.Setting{ID: 0xfafa, Val: 1}); c.get(1, path) }, answered(1, "200")},
			{"each is acknowledged", func(c *h2, path string) {
				for range 3 { // one by one: net/http sends one ACK for several
					c.acked()
				}
				c.get(1, path)
			}, answered(1, "200")},
			{"no push", func(c *h2, path string) { c.acked(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); c.get(1, path) }, answered(1, "200")},
			{"ENABLE_PUSH of 2", func(c *h2, _ string) { c.set(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, broken(protocol)},
			{"INITIAL_WINDOW_SIZE of 2^31", func(c *h2, _ string) { c.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) }, broken(flowControl)},
			{"MAX_FRAME_SIZE of 16,383", func(c *h2, _ string) { c.set(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16383}) }, broken(protocol)},
			{"MAX_FRAME_SIZE of 2^24", func(c *h2, _ string) { c.set(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 24}) }, broken(protocol)},
			{"MAX_FRAME_SIZE of 2^24-1", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1})
				c.get(1, path)
			}, answered(1, "200")},
			{"HEADER_TABLE_SIZE of 0", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
				// From here on an encoder that still used its table would be found out.
				c.fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
				c.get(1, path)
				c.expect(1, "200")
				c.get(3, path)
			}, answered(3, "200")},
			{"HEADER_TABLE_SIZE of 2^32-1", func(c *h2, path string) {
				c.fr.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(1<<32 - 1)
				c.acked(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1<<32 - 1})
				c.get(1, path)
			}, answered(1, "200")},
			{"MAX_HEADER_LIST_SIZE is a hint", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1 << 20})
				c.get(1, path)
			}, answered(1, "200")},
			{"MAX_CONCURRENT_STREAMS of 0 forbids pushes only", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
				c.get(1, path)
			}, answered(1, "200")},
			// net/http takes repetition for an attack.
			{"the same one twice, the last holds", func(c *h2, path string) {
				c.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
				c.get(1, path)
			}, answered(1, "200").except("connection PROTOCOL_ERROR")},
		},
		"6.6 PUSH_PROMISE": {
			{"from a client", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, append([]byte{0, 0, 0, 2}, c.block(asking("GET", path)...)...))
			}, broken(protocol)},
			{"on stream 0", func(c *h2, path string) {
				c.frame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 0, append([]byte{0, 0, 0, 2}, c.block(asking("GET", path)...)...))
			}, broken(protocol)},
		},
		"6.7 PING": {
			{"comes back as it is", func(c *h2, path string) {
				_ = c.fr.WritePing(false, [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
				c.until("an ack", func() bool { return len(c.pongs) > 0 })
				if c.pongs[0] != [8]byte{1, 2, 3, 4, 5, 6, 7, 8} {
					c.t.Errorf("the ack holds %v", c.pongs[0])
				}
				c.get(1, path)
			}, answered(1, "200")},
			{"an ack has no answer", func(c *h2, path string) {
				_ = c.fr.WritePing(true, [8]byte{1})
				c.sync()
				if len(c.pongs) != 1 {
					c.t.Errorf("%d acks, want that of the other ping only", len(c.pongs))
				}
				c.get(1, path)
			}, answered(1, "200")},
			{"within a request's body", func(c *h2, path string) {
				c.post(1, path)
				c.data(1, false, "ab")
				c.sync()
				c.data(1, true, "c")
			}, answered(1, "200")},
			{"on a stream", func(c *h2, _ string) { c.frame(http2.FramePing, 0, 1, make([]byte, 8)) }, broken(protocol)},
		},
		"6.8 GOAWAY": {
			{"on a stream", func(c *h2, _ string) { c.frame(http2.FrameGoAway, 0, 1, make([]byte, 8)) }, broken(protocol)},
			{"of the client lets its requests end", func(c *h2, path string) {
				c.post(1, path)
				_ = c.fr.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
				c.data(1, true, "abc")
			}, answered(1, "200").last()},
		},
		"6.9 flow control": {
			{"an update of 0, connection", func(c *h2, _ string) { c.frame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, broken(protocol)},
			{"an update of 0, stream", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))
			}, refused(1, protocol)},
			{"overflow, connection", func(c *h2, _ string) { _ = c.fr.WriteWindowUpdate(0, 1<<31-1) }, broken(flowControl)},
			{"overflow in two steps, connection", func(c *h2, _ string) {
				_ = c.fr.WriteWindowUpdate(0, 1<<31-65536)
				_ = c.fr.WriteWindowUpdate(0, 1)
			}, broken(flowControl)},
			{"overflow, stream", func(c *h2, path string) { c.post(1, path); _ = c.fr.WriteWindowUpdate(1, 1<<31-1) }, refused(1, flowControl)},
			{"overflow by a setting", func(c *h2, path string) {
				c.post(1, path)
				_ = c.fr.WriteWindowUpdate(1, 1<<31-65536)
				c.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65536})
			}, broken(flowControl)},
			{"the reserved bit of an update", func(c *h2, path string) {
				c.frame(http2.FrameWindowUpdate, 0, 0, []byte{0x80, 0, 0, 1})
				c.get(1, path)
			}, answered(1, "200")},
			{"an empty window holds the body, not the headers", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				c.get(1, path)
				a := c.answer(1)
				c.until("headers", func() bool { return a.status != "" })
				c.sync()
				if len(a.body) > 0 {
					c.t.Errorf("%d bytes beyond the window", len(a.body))
				}
				_ = c.fr.WriteWindowUpdate(1, 1<<16)
			}, answered(1, "200")},
			{"byte by byte", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
				c.get(1, path)
				a := c.answer(1)
				for n := 1; n <= 5; n++ {
					c.until("a byte", func() bool { return len(a.body) >= n })
					c.sync()
					if len(a.body) != n {
						c.t.Fatalf("%d bytes in a window of %d", len(a.body), n)
					}
					_ = c.fr.WriteWindowUpdate(1, 1)
				}
				_ = c.fr.WriteWindowUpdate(1, 1<<16)
			}, answered(1, "200")},
			{"a setting opens the window of what runs", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				c.get(1, path)
				a := c.answer(1)
				c.until("headers", func() bool { return a.status != "" })
				c.set(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
			}, answered(1, "200")},
			{"a window below zero", func(c *h2, _ string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
				c.get(1, "/big?n=300")
				a := c.answer(1)
				c.until("100 bytes", func() bool { return len(a.body) == 100 })
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // now it is -100
				_ = c.fr.WriteWindowUpdate(1, 100)
				c.sync()
				if len(a.body) != 100 {
					c.t.Errorf("%d bytes, the window allows 100", len(a.body))
				}
				_ = c.fr.WriteWindowUpdate(1, 1000)
			}, answered(1, "200")},
			{"the connection's window holds all streams", func(c *h2, _ string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
				c.get(1, "/big?n=60000")
				c.get(3, "/big?n=60000")
				both := func() int { return len(c.answer(1).body) + len(c.answer(3).body) }
				c.until("65,535 bytes", func() bool { return both() >= 65535 })
				c.sync()
				if n := both(); n != 65535 {
					c.t.Errorf("%d bytes, the connection's window is 65,535", n)
				}
				_ = c.fr.WriteWindowUpdate(0, 1<<20)
				c.expect(1, "200")
			}, answered(3, "200")},
			{"one stream without a window does not hold another", func(c *h2, path string) {
				c.acked(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
				c.get(1, "/big?n=1000")
				c.get(3, path)
				_ = c.fr.WriteWindowUpdate(3, 1<<16)
			}, answered(3, "200")},
			{"a client that sends more than the app reads", func(c *h2, _ string) {
				c.post(1, "/hold")
				w := c.apart()
				go func() { // the sidecar reads on until it has enough
					for range 8192 {
						if w.fr.WriteData(1, false, make([]byte, 16384)) != nil {
							return
						}
					}
				}()
			}, refused(1, flowControl)},
			{"a large body within the windows", func(c *h2, path string) {
				c.post(1, path)
				c.upload(1, 4<<20, 16384)
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), "size=4194304") {
					c.t.Errorf("the app saw %s, want 4 MiB", a.body)
				}
			}, answered(1, "200")},
			{"padding gives its window back", func(c *h2, path string) {
				c.post(1, path)
				frame := append([]byte{255, 'x'}, make([]byte, 255)...)
				for range 2000 { // half a megabyte of windows
					c.room(1, len(frame))
					c.frame(http2.FrameData, padded, 1, frame)
					c.spend(1, len(frame))
				}
				c.data(1, true, "")
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), "size=2000 ") {
					c.t.Errorf("the app saw %s, want 2000 bytes", a.body)
				}
			}, answered(1, "200")},
			{"reset streams give the connection's window back", func(c *h2, path string) {
				id := uint32(1)
				for ; id < 400; id += 2 { // 9 MiB that no app reads
					c.post(id, "/hold")
					for range 3 {
						c.room(id, 16384)
						c.data(id, false, strings.Repeat("x", 16384))
					}
					_ = c.fr.WriteRSTStream(id, cancel)
				}
				c.post(id, path)
				c.room(id, 16384)
				c.data(id, true, strings.Repeat("x", 16384))
				c.expect(id, "200")
			}, answered(399+2, "200")},
		},
		"6.10 CONTINUATION": {
			{"a block in pieces of one byte", func(c *h2, path string) {
				block := c.block(asking("GET", path, "x", strings.Repeat("v", 100))...)
				c.frame(http2.FrameHeaders, endStream, 1, block[:1])
				for i := 1; i < len(block)-1; i++ {
					c.frame(http2.FrameContinuation, 0, 1, block[i:i+1])
				}
				c.frame(http2.FrameContinuation, endHeaders, 1, block[len(block)-1:])
			}, answered(1, "200")},
			{"empty pieces", func(c *h2, path string) {
				c.frame(http2.FrameHeaders, endStream, 1, nil)
				c.frame(http2.FrameContinuation, 0, 1, nil)
				c.frame(http2.FrameContinuation, 0, 1, c.block(asking("GET", path)...))
				c.frame(http2.FrameContinuation, endHeaders, 1, nil)
			}, answered(1, "200")},
			{"END_STREAM is of HEADERS", func(c *h2, path string) {
				block := c.block(asking("POST", path)...)
				c.frame(http2.FrameHeaders, 0, 1, block[:5])
				c.frame(http2.FrameContinuation, endHeaders|endStream, 1, block[5:])
				c.data(1, true, "abc")
			}, answered(1, "200")},
			{"without HEADERS", func(c *h2, path string) {
				c.frame(http2.FrameContinuation, endHeaders, 1, c.block(asking("GET", path)...))
			}, broken(protocol)},
			{"behind the end of a block", func(c *h2, path string) {
				c.post(1, path)
				c.frame(http2.FrameContinuation, endHeaders, 1, c.block("x", "y"))
			}, broken(protocol)},
			{"behind DATA", func(c *h2, path string) {
				c.post(1, path)
				c.data(1, false, "x")
				c.frame(http2.FrameContinuation, endHeaders, 1, c.block("x", "y"))
			}, broken(protocol)},
			{"of another stream", func(c *h2, path string) { c.between(path, http2.FrameContinuation, endHeaders, 3, nil) }, broken(protocol)},
			{"of stream 0", func(c *h2, path string) { c.between(path, http2.FrameContinuation, endHeaders, 0, nil) }, broken(protocol)},
			{"DATA between", func(c *h2, path string) { c.between(path, http2.FrameData, 0, 1, []byte("x")) }, broken(protocol)},
			{"HEADERS of the same stream between", func(c *h2, path string) { c.between(path, http2.FrameHeaders, endHeaders, 1, nil) }, broken(protocol)},
			{"HEADERS of another stream between", func(c *h2, path string) { c.between(path, http2.FrameHeaders, endHeaders, 3, nil) }, broken(protocol)},
			{"PRIORITY between", func(c *h2, path string) { c.between(path, http2.FramePriority, 0, 1, make([]byte, 5)) }, broken(protocol)},
			{"RST_STREAM between", func(c *h2, path string) { c.between(path, http2.FrameRSTStream, 0, 1, make([]byte, 4)) }, broken(protocol)},
			{"SETTINGS between", func(c *h2, path string) { c.between(path, http2.FrameSettings, 0, 0, nil) }, broken(protocol)},
			{"PING between", func(c *h2, path string) { c.between(path, http2.FramePing, 0, 0, make([]byte, 8)) }, broken(protocol)},
			{"WINDOW_UPDATE between", func(c *h2, path string) { c.between(path, http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 1}) }, broken(protocol)},
			{"an unknown type between", func(c *h2, path string) { c.between(path, 0x42, 0, 1, nil) }, broken(protocol)},
		},
		"8.1 messages": {
			{"trailers", func(c *h2, path string) {
				c.post(1, path, "trailer", "x-sum")
				c.data(1, false, "abc")
				c.headers(1, true, "x-sum", "7")
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), `body="abc"`) || !strings.Contains(string(a.body), `sum="7"`) {
					c.t.Errorf("the app saw %s, want the body and its trailer", a.body)
				}
			}, answered(1, "200")},
			{"trailers without a body", func(c *h2, path string) { c.post(1, path); c.headers(1, true, "x-sum", "7") }, answered(1, "200")},
			{"trailers that do not end the stream", func(c *h2, path string) {
				c.post(1, path)
				c.headers(1, false, "x-sum", "7")
			}, malformed()},
			{"DATA behind trailers", func(c *h2, path string) {
				c.post(1, "/hold")
				c.headers(1, true, "x-sum", "7")
				c.data(1, true, path)
			}, refused(1, closed)},
			{"a pseudo-header in trailers", func(c *h2, path string) {
				c.post(1, path)
				c.data(1, false, "abc")
				c.headers(1, true, ":path", "/elsewhere")
			}, malformed()},
			{"an early answer lets the connection live", func(c *h2, path string) {
				c.post(1, "/early")
				c.data(1, false, "abc")
				a := c.answer(1)
				c.until("the early answer", func() bool { return a.ended })
				if a.status != "200" || string(a.body) != "early" {
					c.t.Errorf("answer %s %q, want 200 early", a.status, a.body)
				}
				c.get(3, path)
			}, answered(3, "200")},
			{"HEAD", func(c *h2, path string) {
				c.headers(1, true, asking("HEAD", path)...)
				if a := c.expect(1, "200"); len(a.body) > 0 {
					c.t.Errorf("a body of %d bytes", len(a.body))
				}
			}, answered(1, "200")},
			{"expect: 100-continue", func(c *h2, path string) {
				c.post(1, path, "expect", "100-continue")
				a := c.answer(1)
				c.until("100", func() bool { return slices.Contains(a.interim, "100") })
				c.data(1, true, "abc")
			}, answered(1, "200")},
		},
		"8.1.1 content-length": {
			{"right", func(c *h2, path string) { c.post(1, path, "content-length", "3"); c.data(1, true, "abc") }, answered(1, "200")},
			{"right, in two frames", func(c *h2, path string) {
				c.post(1, path, "content-length", "3")
				c.data(1, false, "ab")
				c.data(1, false, "c")
				c.data(1, true, "")
			}, answered(1, "200")},
			{"right, with trailers", func(c *h2, path string) {
				c.post(1, path, "content-length", "3")
				c.data(1, false, "abc")
				c.headers(1, true, "x-sum", "7")
			}, answered(1, "200")},
			{"zero, ended by HEADERS", func(c *h2, path string) { c.headers(1, true, asking("POST", path, "content-length", "0")...) }, answered(1, "200")},
			// The proxy over net/http finds it while it asks the app, and blames that.
			{"more than came", func(c *h2, path string) { c.post(1, path, "content-length", "4"); c.data(1, true, "abc") }, malformed().except("answer 502")},
			{"more than came, behind trailers", func(c *h2, path string) {
				c.post(1, path, "content-length", "4")
				c.data(1, false, "abc")
				c.headers(1, true, "x-sum", "7")
			}, malformed().except("answer 502")},
			{"less than came", func(c *h2, path string) { c.post(1, path, "content-length", "2"); c.data(1, true, "abc") }, malformed()},
			{"less than came, in two frames", func(c *h2, path string) {
				c.post(1, path, "content-length", "2")
				c.data(1, false, "ab")
				c.data(1, true, "c")
			}, malformed()},
			// net/http looks at no length of a request that HEADERS end, and of several at the
			// first; it passes none of them on.
			{"of a body that is not there", func(c *h2, path string) { c.headers(1, true, asking("POST", path, "content-length", "3")...) }, malformed().except("answer 200")},
			{"two that differ", func(c *h2, path string) {
				c.post(1, path, "content-length", "3", "content-length", "4")
				c.data(1, true, "abc")
			}, malformed().except("answer 200")},
		},
		"8.2.1 fields": {
			{"a name with a capital", func(c *h2, path string) { c.get(1, path, "X-Upper", "y") }, malformed()},
			{"an empty name", func(c *h2, path string) { c.get(1, path, "", "y") }, malformed()},
			{"an empty value", func(c *h2, path string) { c.get(1, path, "x", "") }, answered(1, "200")},
			{"bytes beyond ASCII in a value", func(c *h2, path string) { c.get(1, path, "x", "\xc3\xa4") }, answered(1, "200")},
		},
		"8.2.2 connection": {
			{"te: trailers", func(c *h2, path string) { c.get(1, path, "te", "trailers") }, answered(1, "200")},
			{"te: gzip", func(c *h2, path string) { c.get(1, path, "te", "gzip") }, malformed()},
			{"te: trailers, gzip", func(c *h2, path string) { c.get(1, path, "te", "trailers, gzip") }, malformed()},
		},
		"8.2.3 cookies": {
			{"crumbs come together", func(c *h2, path string) {
				c.get(1, path, "cookie", "a=1", "cookie", "b=2", "cookie", "c=3")
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), `cookie="a=1; b=2; c=3"`) {
					c.t.Errorf("the app saw %s", a.body)
				}
			}, answered(1, "200")},
		},
		"8.3.1 pseudo-headers": {
			{"no method", func(c *h2, path string) { c.headers(1, true, ":scheme", "http", ":path", path, ":authority", "a") }, malformed()},
			{"no scheme", func(c *h2, path string) { c.headers(1, true, ":method", "GET", ":path", path, ":authority", "a") }, malformed()},
			{"no path", func(c *h2, _ string) { c.headers(1, true, ":method", "GET", ":scheme", "http", ":authority", "a") }, malformed()},
			{"an empty path", func(c *h2, _ string) { c.headers(1, true, asking("GET", "")...) }, malformed()},
			{"an empty method", func(c *h2, path string) { c.headers(1, true, asking("", path)...) }, malformed()},
			{"a path without a slash", func(c *h2, path string) { c.headers(1, true, asking("GET", path[1:])...) }, malformed()},
			{"host in authority's place", func(c *h2, path string) {
				c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", path, "host", "b")
				if a := c.expect(1, "200"); !strings.Contains(string(a.body), `host="b"`) {
					c.t.Errorf("the app saw %s, want host b", a.body)
				}
			}, answered(1, "200")},
			// net/http passes it on with an empty host.
			{"neither host nor authority", func(c *h2, path string) { c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", path) }, malformed().except("answer 200")},
			{"host and authority that agree", func(c *h2, path string) { c.get(1, path, "host", "a") }, answered(1, "200")},
			// A server should refuse it, and must, if it goes by authority, at least not be misled
			// by host.
			{"host and authority that differ", func(c *h2, path string) {
				c.get(1, path, "host", "evil")
				if c.outcome(1) == "answer 200" && !strings.Contains(string(c.answer(1).body), `host="a"`) {
					c.t.Errorf("the app saw %s, want host a", c.answer(1).body)
				}
			}, malformed().or("answer 200")},
			{"userinfo in authority", func(c *h2, path string) {
				c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", path, ":authority", "u:p@a")
			}, malformed()},
			{"an unknown one", func(c *h2, path string) { c.headers(1, true, asking("GET", path, ":unknown", "x")...) }, malformed()},
			{"one of answers", func(c *h2, path string) { c.headers(1, true, asking("GET", path, ":status", "200")...) }, malformed()},
			{"behind a field", func(c *h2, path string) {
				c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", path, "x", "y", ":authority", "a")
			}, malformed()},
			{"with a capital", func(c *h2, path string) {
				c.headers(1, true, ":Method", "GET", ":scheme", "http", ":path", path, ":authority", "a")
			}, malformed()},
			{"OPTIONS *", func(c *h2, _ string) { c.headers(1, true, asking("OPTIONS", "*")...) }, answered(1, "200")},
			{"a method nobody knows", func(c *h2, path string) { c.headers(1, true, asking("BREW", path)...) }, answered(1, "200")},
		},
		"8.5 CONNECT": {
			{"plain", func(c *h2, _ string) { c.headers(1, false, ":method", "CONNECT", ":authority", "a:80") }, answered(1, "405")},
			{"with a scheme and a path", func(c *h2, path string) { c.headers(1, false, asking("CONNECT", path)...) }, malformed().or("answer 405")},
			{"without an authority", func(c *h2, _ string) { c.headers(1, false, ":method", "CONNECT") }, malformed().or("answer 405")},
			{"extended, which was not offered", func(c *h2, path string) {
				c.headers(1, false, asking("CONNECT", path, ":protocol", "websocket")...)
			}, malformed().or("answer 405", "answer 501")},
		},
	}
	add := func(rule string, c h2case) { rules[rule] = append(rules[rule], c) }
	// net/http takes what is no number for 0, asks the app, and resets the stream when DATA come,
	// often too late.
	for _, v := range []string{"", "-3", "+3", "3,3", "3 ", "0x3", "three", "99999999999999999999"} {
		add("8.1.1 content-length", h2case{fmt.Sprintf("%q", v), func(c *h2, path string) {
			c.post(1, path, "content-length", v)
			c.data(1, true, "abc")
		}, malformed().except("answer 200")})
	}
	for _, name := range []string{"a b", "a:b", "a\x00", "a\r", "a\n", "a\x7f", "\xe4", "a(", " a"} {
		add("8.2.1 fields", h2case{fmt.Sprintf("name %q", name), func(c *h2, path string) { c.get(1, path, name, "y") }, malformed()})
	}
	for _, v := range []string{"a\x00b", "a\rb", "a\nb", "a\r\nx-smuggled: y", "\x00"} {
		add("8.2.1 fields", h2case{fmt.Sprintf("value %q", v), func(c *h2, path string) { c.get(1, path, "x", v) }, malformed()})
	}
	// net/http takes blanks around a value, and passes them on.
	for _, v := range []string{" a", "a ", "\ta", "a\t"} {
		add("8.2.1 fields", h2case{fmt.Sprintf("value %q", v), func(c *h2, path string) { c.get(1, path, "x", v) }, malformed().except("answer 200")})
	}
	for _, f := range []string{"connection: close", "connection: x-hop", "keep-alive: 5", "proxy-connection: keep-alive", "transfer-encoding: chunked", "transfer-encoding: identity", "upgrade: websocket"} {
		name, value, _ := strings.Cut(f, ": ")
		add("8.2.2 connection", h2case{f, func(c *h2, path string) { c.post(1, path, name, value); c.data(1, true, "0\r\n\r\n") }, malformed()})
	}
	for _, p := range []string{":method", ":scheme", ":path", ":authority"} {
		add("8.3.1 pseudo-headers", h2case{"twice " + p, func(c *h2, path string) {
			values := map[string]string{":method": "GET", ":scheme": "http", ":path": path, ":authority": "a"}
			c.headers(1, true, append(asking("GET", path), p, values[p])...)
		}, malformed()})
	}
	// net/http escapes a blank, and reads an absolute URI in the path's place.
	for path, today := range map[string]string{"/a b": "answer 200", "/a\r\nx: y": "", "/a\x00": "", "/a\x7f": "", "http://a/x": "answer 200"} {
		add("8.3.1 pseudo-headers", h2case{fmt.Sprintf("path %q", path), func(c *h2, _ string) { c.headers(1, true, asking("GET", path)...) }, malformed().except(today)})
	}
	// What net/http's server lets through its client refuses: 502, in the app's name.
	for method, today := range map[string]string{"GE T": "answer 502", "GET\r\n": "", "GET /x HTTP/1.1\r\nx: ": ""} {
		add("8.3.1 pseudo-headers", h2case{fmt.Sprintf("method %q", method), func(c *h2, path string) { c.headers(1, true, asking(method, path)...) }, malformed().except(today)})
	}
	for host, today := range map[string]string{"a b": "answer 502", "a/b": "answer 502", "a\r\nx: y": "", "a\x00": ""} {
		add("8.3.1 pseudo-headers", h2case{fmt.Sprintf("authority %q", host), func(c *h2, path string) {
			c.headers(1, true, ":method", "GET", ":scheme", "http", ":path", path, ":authority", host)
		}, malformed().except(today)})
	}
	return rules
}

// tooLarge is content of one byte more than the sidecar takes in a frame.
func (c *h2) tooLarge() string {
	n := uint32(16384)
	if s, ok := c.settings[http2.SettingMaxFrameSize]; ok {
		n = s
	}
	if n == 1<<24-1 {
		c.t.Fatal("every frame is allowed, which invites to hold 16 MiB per connection")
	}
	return strings.Repeat("x", int(n)+1)
}

// raw sends a request whose block ends in what the encoder would not write.
func (c *h2) raw(fields []string, end ...byte) {
	c.frame(http2.FrameHeaders, endHeaders|endStream, 1, append(c.block(fields...), end...))
}

// between sends a frame in the middle of a header block, and the block's rest.
func (c *h2) between(path string, typ http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	block := c.block(asking("POST", path)...)
	c.frame(http2.FrameHeaders, 0, 1, block[:3])
	c.frame(typ, flags, stream, payload)
	c.frame(http2.FrameContinuation, endHeaders, 1, block[3:])
	c.data(1, true, "abc")
}

func (c *h2) priority(stream, on uint32) {
	c.frame(http2.FramePriority, 0, stream, []byte{byte(on >> 24), byte(on >> 16), byte(on >> 8), byte(on), 15})
}

// acked sends settings and waits for their ack.
func (c *h2) acked(settings ...http2.Setting) {
	c.t.Helper()
	n := c.acks
	c.set(settings...)
	c.until("an ack of the settings", func() bool { return c.acks > n })
}

// upload sends size bytes in frames, as the windows allow, and the end.
func (c *h2) upload(stream uint32, size, frame int) {
	c.t.Helper()
	chunk := strings.Repeat("x", frame)
	for size > 0 {
		n := min(size, frame)
		c.room(stream, n)
		size -= n
		c.data(stream, size == 0, chunk[:n])
	}
}

// h2app is an app that says what it saw, and remembers which requests came whole.
type h2app struct {
	mu    sync.Mutex
	whole map[string]int
}

func (a *h2app) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch req.URL.Path {
	case "/hold":
		<-req.Context().Done()
		return
	case "/early":
		_, _ = io.WriteString(w, "early")
		return
	case "/big":
		var n int
		_, _ = fmt.Sscan(req.URL.Query().Get("n"), &n)
		_, _ = io.WriteString(w, strings.Repeat("x", n))
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // cut: not taken for the whole
	}
	a.mu.Lock()
	a.whole[req.URL.Path]++
	a.mu.Unlock()
	size := len(body)
	_, _ = fmt.Fprintf(w, "size=%d method=%q uri=%q host=%q body=%q x=%q cookie=%q sum=%q", size, req.Method, req.RequestURI, req.Host,
		body[:min(size, 64)], req.Header.Get("X"), req.Header.Get("Cookie"), req.Trailer.Get("X-Sum"))
}

// TestH2 goes through the rules of RFC 9113. After a connection error the connection is closed;
// after anything else, it serves the next request.
func TestH2(t *testing.T) {
	app := &h2app{whole: map[string]int{}}
	r := start(t, serveApp(t, app.ServeHTTP), nil)
	rules := h2rules()
	type result struct{ name, got string }
	var (
		n       int
		silent  int
		broke   []*h2
		results = map[string]result{} // by path
		today   []string
	)
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		for _, cs := range rules[rule] {
			n++
			path := fmt.Sprintf("/%d", n)
			c := r.openH2(t)
			t.Run(rule+"/"+cs.name, func(t *testing.T) {
				c.t = t
				cs.send(c, path)
				got := c.outcome(cs.want.stream)
				if cs.want.today == "" {
					results[path] = result{t.Name(), got}
				}
				switch {
				case slices.Contains(cs.want.outcomes, got):
				case got == cs.want.today:
					today = append(today, t.Name()+": "+got)
				default:
					t.Fatalf("%s, want %s", got, strings.Join(cs.want.outcomes, " or "))
				}
				switch {
				case c.ended() == "connection closed":
					silent++
				case c.ended() != "":
					broke = append(broke, c)
					return
				case !cs.want.final:
					const next = 1<<30 + 1
					c.get(next, "/next")
					_ = c.fr.WriteWindowUpdate(0, 1<<10)
					_ = c.fr.WriteWindowUpdate(next, 1<<10)
					c.expect(next, "200")
				}
				_ = c.nc.Close()
			})
		}
	}
	for _, c := range broke {
		c.t = t
		c.closes()
	}
	r.wait(0, wire.InFlight)
	app.mu.Lock()
	defer app.mu.Unlock()
	for path, res := range results {
		if res.got != "answer 200" && app.whole[path] > 0 {
			t.Errorf("%s ended in %s, and the app took it for whole", res.name, res.got)
		}
	}
	t.Logf("%d cases; %d connections were closed without a GOAWAY that says why; against the RFC: %q", n, silent, today)
}
