package frame_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	oracle "golang.org/x/net/http2"

	"github.com/sluice-autoscaler/sluice/proxy/h2/frame"
)

// TestAppend has golang.org/x/net read what this package writes.
func TestAppend(t *testing.T) {
	var out []byte
	out = frame.AppendSettings(out, frame.Setting{Parameter: frame.InitialWindow, Value: 1 << 20}, frame.Setting{Parameter: frame.MaxStreams, Value: 7})
	out = frame.AppendSettingsAck(out)
	out = frame.AppendPing(out, frame.Ack, []byte("12345678"))
	out = frame.AppendWindowUpdate(out, 5, 1<<31-1)
	out = frame.AppendReset(out, 1<<31-1, frame.EnhanceYourCalm)
	out = frame.AppendGoAway(out, 9, frame.ProtocolError)
	out = append(frame.AppendHeader(out, 5, frame.Data, frame.EndStream, 3), "hello"...)

	fr := oracle.NewFramer(nil, bytes.NewReader(out))
	var got []string
	for {
		f, err := fr.ReadFrame()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text := f.Header().String()
		switch f := f.(type) {
		case *oracle.SettingsFrame:
			for i := range f.NumSettings() {
				text += " " + f.Setting(i).String()
			}
		case *oracle.WindowUpdateFrame:
			text += " " + cmp.Diff(uint32(1<<31-1), f.Increment)
		case *oracle.RSTStreamFrame:
			text += " " + f.ErrCode.String()
		case *oracle.GoAwayFrame:
			text += " " + f.ErrCode.String() + cmp.Diff(uint32(9), f.LastStreamID)
		case *oracle.DataFrame:
			text += " " + string(f.Data())
		case *oracle.PingFrame:
			text += " " + string(f.Data[:])
		}
		got = append(got, text)
	}
	want := []string{
		"[FrameHeader SETTINGS len=12] [INITIAL_WINDOW_SIZE = 1048576] [MAX_CONCURRENT_STREAMS = 7]",
		"[FrameHeader SETTINGS flags=ACK len=0]",
		"[FrameHeader PING flags=ACK len=8] 12345678",
		"[FrameHeader WINDOW_UPDATE stream=5 len=4] ",
		"[FrameHeader RST_STREAM stream=2147483647 len=4] ENHANCE_YOUR_CALM",
		"[FrameHeader GOAWAY len=8] PROTOCOL_ERROR",
		"[FrameHeader DATA flags=END_STREAM stream=3 len=5] hello",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("frames (-want +got):\n%s", d)
	}
}

// FuzzAgainstFramer compares what is taken for a good frame, and for its content, with golang.org/x/net's reading.
func FuzzAgainstFramer(f *testing.F) {
	for _, seed := range []string{
		"\x00\x00\x05\x00\x01\x00\x00\x00\x03hello", "\x00\x00\x05\x00\x08\x00\x00\x00\x03\x02hell", "\x00\x00\x07\x01\x2c\x00\x00\x00\x03\x01\x80\x00\x00\x03\x10x",
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x80\x00\x00\x00", "\x00\x00\x04\x08\x00\x80\x00\x00\x01\x80\x00\x00\x01", "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02",
		"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", "\x00\x00\x05\x02\x00\x00\x00\x00\x01\x00\x00\x00\x01\x05", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < frame.HeaderLen {
			return
		}
		h := frame.Parse(p)
		if len(p) < frame.HeaderLen+h.Length {
			return
		}
		payload := p[frame.HeaderLen : frame.HeaderLen+h.Length]
		fr := oracle.NewFramer(nil, bytes.NewReader(p))
		fr.AllowIllegalReads = true // order is not this package's
		read, err := fr.ReadFrame()
		good := h.Check() == frame.NoError
		var content []byte
		switch h.Type {
		case frame.Data, frame.Headers:
			var ok bool
			content, _, ok = h.Content(payload)
			good = good && ok
		case frame.Settings:
			for rest := payload; good && len(rest) > 0; {
				var s frame.Setting
				s, rest = frame.NextSetting(rest)
				// x/net looks at the window alone when it reads the frame.
				good = s.Parameter != frame.InitialWindow || s.Check() == frame.NoError
			}
		case frame.Priority, frame.Reset, frame.Ping, frame.GoAway, frame.WindowUpdate:
		default:
			return // not read by the sidecar, or only as fragments
		}
		if h.Type == frame.WindowUpdate && good && frame.Number(payload) == 0 {
			good = false // the sidecar looks at that when it knows the stream
		}
		if good != (err == nil) {
			t.Fatalf("%q: good: %v; x/net: %v", p, good, err)
		}
		if !good {
			return
		}
		switch f := read.(type) {
		case *oracle.DataFrame:
			if !bytes.Equal(f.Data(), content) {
				t.Errorf("%q: data %q, want %q", p, content, f.Data())
			}
		case *oracle.HeadersFrame:
			if !bytes.Equal(f.HeaderBlockFragment(), content) {
				t.Errorf("%q: fragment %q, want %q", p, content, f.HeaderBlockFragment())
			}
		case *oracle.WindowUpdateFrame:
			if f.Increment != frame.Number(payload) {
				t.Errorf("%q: increment %d, want %d", p, frame.Number(payload), f.Increment)
			}
		case *oracle.GoAwayFrame:
			if f.LastStreamID != frame.Number(payload) {
				t.Errorf("%q: last stream %d, want %d", p, frame.Number(payload), f.LastStreamID)
			}
		}
	})
}
