package message_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
)

// boundary reads one request strictly: how long it is as a whole, and its body. Length 0 says that it is refused or not
// whole.
func boundary(p []byte) (length int, h message.Head, body []byte) {
	end, _, err := message.End(p, 0)
	if err != nil || end == 0 || h.Request(p[:end]) != nil {
		return 0, h, nil
	}
	rest := bytes.Clone(p[end:])
	if !h.Chunked {
		n := int(max(h.Length, 0))
		if n > len(rest) {
			return 0, h, nil
		}
		return end + n, h, rest[:n]
	}
	chunks := message.Chunks{Plain: true}
	keep, used, done, err := chunks.Step(rest)
	if err != nil || !done {
		return 0, h, nil
	}
	return end + used, h, rest[:keep]
}

// FuzzBoundary compares with net/http where each request ends that http1 takes: net/http must take it as well, see the same
// method, body and end. (http1 may refuse what net/http takes: it is to be stricter.)
func FuzzBoundary(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\nGET",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close, te\r\nTE: trailers\r\n\r\n",
		"GET / HTTP/1.0\r\nX: a\r\n b\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		length, h, body := boundary(p)
		if length == 0 {
			return
		}
		in := bufio.NewReaderSize(bytes.NewReader(p), len(p)+16)
		req, err := http.ReadRequest(in)
		if err != nil {
			// These have no bearing on the boundary: net/http parses the target as a URL and knows CONNECT.
			if strings.Contains(err.Error(), "parse ") || string(h.Method) == http.MethodConnect {
				return
			}
			t.Fatalf("net/http refuses what http1 takes: %v", err)
		}
		want, err := io.ReadAll(req.Body)
		if err != nil {
			if strings.Contains(err.Error(), "trailer") { // net/http knows more names that no trailer may have
				return
			}
			t.Fatalf("net/http refuses a body that http1 takes: %v", err)
		}
		if req.Method != string(h.Method) || !bytes.Equal(body, want) {
			t.Errorf("%s with body %q, net/http reads %s with %q", h.Method, body, req.Method, want)
		}
		if got := len(p) - in.Buffered(); got != length {
			t.Errorf("the message ends at %d, by net/http at %d", length, got)
		}
	})
}

// FuzzChunks checks that it does not matter where reads end, and that what is passed on is read by net/http as the same data.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("003;a=\"b\"\r\nabc\r\nA\r\n0123456789\r\n0;x\r\nX: y\r\n\r\nrest"), uint8(3))
	f.Fuzz(func(t *testing.T, p []byte, step uint8) {
		feed := func(plain bool, step int) (out []byte, length int, done bool, err error) {
			chunks := message.Chunks{Plain: plain}
			var buf []byte
			for at := 0; ; {
				n := min(step, len(p)-at)
				buf = append(buf, p[at:at+n]...)
				at += n
				keep, used, done, err := chunks.Step(buf)
				out = append(out, buf[:keep]...)
				length += used
				buf = buf[used:]
				if done || err != nil || at == len(p) {
					return out, length, done, err
				}
			}
		}
		data, length, done, err := feed(true, len(p)+1)
		data2, length2, done2, err2 := feed(true, int(step)+1)
		if done != done2 || (err == nil) != (err2 == nil) || done && (length != length2 || !bytes.Equal(data, data2)) {
			t.Fatalf("at once %q %d %v %v, in steps of %d %q %d %v %v", data, length, done, err, int(step)+1, data2, length2, done2, err2)
		}
		wire, _, _, _ := feed(false, int(step)+1)
		if !done {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(wire))), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("passed on as %q, which net/http reads as %q, %v; want %q", wire, got, err, data)
		}
	})
}

const typical = "GET /some/path?query=1 HTTP/1.1\r\nHost: web.example\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef\r\nConnection: keep-alive\r\n\r\n"

func TestAllocations(t *testing.T) {
	var h message.Head
	p := []byte(typical)
	if got := testing.AllocsPerRun(100, func() {
		end, _, err := message.End(p, 0)
		if err != nil || h.Request(p[:end]) != nil {
			t.Fatal("refused")
		}
	}); got != 0 {
		t.Errorf("%v allocations per head, want none", got)
	}
}

func BenchmarkRequest(b *testing.B) {
	var h message.Head
	p := []byte(typical)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		end, _, err := message.End(p, 0)
		if err != nil || h.Request(p[:end]) != nil {
			b.Fatal("refused")
		}
	}
}
