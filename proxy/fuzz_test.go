package proxy_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// play sends the frames that ops stand for, three bytes each: what to send, on which stream, and a number.
func (p *peer) play(ops []byte, fields ...string) {
	for ; len(ops) >= 3; ops = ops[3:] {
		id, n := uint32(ops[1]%16), ops[2]
		end := n%2 == 1
		switch ops[0] % 16 {
		case 0, 1, 2, 3:
			p.headers(id, end, fields...)
		case 4, 5:
			_ = p.fr.WriteData(id, end, make([]byte, int(n)*30))
		case 6:
			_ = p.fr.WriteDataPadded(id, end, make([]byte, n), make([]byte, n/2))
		case 7:
			_ = p.fr.WriteRSTStream(id, http2.ErrCode(n%14))
		case 8:
			_ = p.fr.WriteWindowUpdate(id, uint32(n)<<(n%24))
		case 9:
			_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingID(id % 8), Val: uint32(n) << (n % 16)})
		case 10:
			_ = p.fr.WritePing(end, [8]byte{n})
		case 11:
			_ = p.fr.WriteGoAway(id, http2.ErrCode(n%14), nil)
		case 12:
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndStream: end})
			_ = p.fr.WriteContinuation(id, n%3 > 0, p.encode("x", "y"))
		case 13:
			p.headers(id, true, "x-sum", "1")
		case 14:
			_ = p.fr.WriteRawFrame(http2.FrameType(n%12), http2.Flags(ops[1]), id, ops[:min(len(ops), int(n))])
		case 15:
			_, _ = p.conn.Write(ops[:min(len(ops), int(n))])
		}
	}
}

func seeds(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 1, 0, 3, 0, 4, 3, 1})
	f.Add([]byte{0, 1, 0, 4, 1, 9, 13, 1, 1, 7, 1, 8})
	f.Add([]byte{0, 1, 0, 8, 0, 60, 8, 1, 60, 9, 4, 30, 4, 1, 200, 4, 1, 201})
	f.Add([]byte{12, 1, 4, 12, 3, 3, 0, 5, 1})
	f.Add([]byte{11, 1, 0, 0, 1, 1, 5, 1, 2, 6, 1, 3})
	f.Add([]byte{14, 4, 1, 14, 37, 1, 15, 0, 20})
}

// FuzzClientFrames lets a client send anything. Nothing may panic, and when it is gone nothing is in flight.
func FuzzClientFrames(f *testing.F) {
	seeds(f)
	app := appOf(f, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			return // without reading
		}
		_, _ = io.Copy(w, r.Body)
	})
	p := proxyTo(f, app, func(s *settings) { s.limit, s.queue = 3, 2 })
	f.Fuzz(func(t *testing.T, ops []byte) {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := newPeer(t, conn)
		_, _ = io.WriteString(conn, http2.ClientPreface)
		_ = c.fr.WriteSettings()
		method := "POST"
		if len(ops) > 3 && ops[3]%4 == 0 {
			method = "PUT"
		}
		c.play(ops, requestFields(method, "/")...)
		if len(ops)%2 == 0 { // leave when the answers have come
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}
		_ = conn.Close()
		p.t = t
		p.atRest()
		p.t = f
	})
}

// FuzzAppFrames lets the app send anything. Nothing may panic, and every request ends.
func FuzzAppFrames(f *testing.F) {
	seeds(f)
	ops := make(chan []byte, 1)
	app := rawApp(f, nil, func(_ int, p *peer) {
		for { // until the first request
			f, err := p.fr.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.MetaHeadersFrame); ok {
				break
			}
		}
		select {
		case o := <-ops:
			p.play(o, ":status", "200")
		default:
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		_, _ = io.Copy(io.Discard, p.conn)
	})
	p := proxyTo(f, app, func(s *settings) { s.limit, s.queue = 3, 2 })
	f.Fuzz(func(t *testing.T, frames []byte) {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		select {
		case <-ops:
		default:
		}
		ops <- frames
		c := newPeer(t, conn)
		c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_, _ = io.WriteString(conn, http2.ClientPreface)
		_ = c.fr.WriteSettings()
		for id := uint32(1); id < 16; id += 2 {
			c.headers(id, id%4 == 1, requestFields("POST", "/")...)
			if id%4 == 3 {
				_ = c.fr.WriteData(id, true, make([]byte, 100))
			}
		}
		ended := map[uint32]bool{}
		for len(ended) < 8 {
			f := c.next(func(f http2.Frame) bool { return f.Header().StreamID != 0 })
			_, reset := f.(*http2.RSTStreamFrame)
			head, ok := f.(*http2.MetaHeadersFrame)
			data, also := f.(*http2.DataFrame)
			if reset || ok && head.StreamEnded() || also && data.StreamEnded() {
				ended[f.Header().StreamID] = true
			}
		}
		p.t = t
		p.atRest()
		p.t = f
	})
}
