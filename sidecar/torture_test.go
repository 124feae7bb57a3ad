package sidecar_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar"
	"github.com/sluice-autoscaler/sluice/wire"
)

// torture is one request by a rule of RFC 9110 or 9112. With code 200 it must reach the app as want
// says, and the request sent behind it on the same connection must be answered, too: both sides
// agree where the message ended. With another code, that is the only answer, the connection ends,
// and nothing reaches the app: neither the request as a whole nor what was sent behind it. Code 0:
// a malformed body, which may be found out before or after an answer has begun.
type torture struct {
	name, send string
	code       int
	want       string // "METHOD target body"
}

// tortures returns the table, by rule.
func tortures() map[string][]torture {
	const host = "Host: a\r\n"
	get := func(fields string) string { return "GET /x HTTP/1.1\r\n" + host + fields + "\r\n" }
	post := func(fields, body string) string { return "POST /x HTTP/1.1\r\n" + host + fields + "\r\n" + body }
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }
	ok := "GET /x "
	rules := map[string][]torture{
		"9112 2.1 lines": {
			{"LF alone after the request line", "GET /x HTTP/1.1\nHost: a\r\n\r\n", 400, ""},
			{"LF alone after a field", "GET /x HTTP/1.1\r\nHost: a\n\r\n", 400, ""},
			{"LF alone as the empty line", "GET /x HTTP/1.1\r\nHost: a\r\n\n", 400, ""},
			{"LF alone everywhere", "GET /x HTTP/1.1\nHost: a\n\n", 400, ""},
			{"CR alone in the request line", "GET /x\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""},
			{"CR CR LF", "GET /x HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, ""},
			{"CR CR LF after a field", get("X: y\r\r\n"), 400, ""},
			{"one empty line before", "\r\n" + get(""), 200, ok},
			{"two empty lines before", "\r\n\r\n" + get(""), 400, ""},
			{"LF before", "\n" + get(""), 400, ""},
			{"whitespace before the first field", "GET /x HTTP/1.1\r\n X: y\r\n" + host + "\r\n", 400, ""},
			{"tab before the first field", "GET /x HTTP/1.1\r\n\tX: y\r\n" + host + "\r\n", 400, ""},
		},
		"9112 3 request line": {
			{"plain", get(""), 200, ok},
			{"leading space", " " + get(""), 400, ""},
			{"two spaces before the target", "GET  /x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"two spaces before the version", "GET /x  HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"space after the version", "GET /x HTTP/1.1 \r\n" + host + "\r\n", 400, ""},
			{"tab between", "GET\t/x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"tab before the version", "GET /x\tHTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"no target", "GET HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"no version", "GET /x\r\n" + host + "\r\n", 400, ""},
			{"method only", "GET\r\n" + host + "\r\n", 400, ""},
			{"two targets", "GET /x /y HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"an unknown method", "BREW /x HTTP/1.1\r\n" + host + "\r\n", 200, "BREW /x "},
			{"a lower-case method is another method", "get /x HTTP/1.1\r\n" + host + "\r\n", 200, "get /x "},
			{"method with a dash", "M-SEARCH /x HTTP/1.1\r\n" + host + "\r\n", 200, "M-SEARCH /x "},
			{"method with a colon", "G:T /x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"method in quotes", "\"GET\" /x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"method with a zero byte", "G\x00T /x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"method with a high byte", "G\xc3T /x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"HTTP/1.0 without a host", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, ok},
			{"HTTP/0.9", "GET /x HTTP/0.9\r\n" + host + "\r\n", 505, ""},
			{"HTTP/1.2", "GET /x HTTP/1.2\r\n" + host + "\r\n", 505, ""},
			{"HTTP/2.0", "GET /x HTTP/2.0\r\n" + host + "\r\n", 505, ""},
			{"HTTP/1.10", "GET /x HTTP/1.10\r\n" + host + "\r\n", 400, ""},
			{"HTTP/01.1", "GET /x HTTP/01.1\r\n" + host + "\r\n", 400, ""},
			{"HTTP/1", "GET /x HTTP/1\r\n" + host + "\r\n", 400, ""},
			{"HTTP/1.x", "GET /x HTTP/1.x\r\n" + host + "\r\n", 400, ""},
			{"HTTP/1,1", "GET /x HTTP/1,1\r\n" + host + "\r\n", 400, ""},
			{"http/1.1", "GET /x http/1.1\r\n" + host + "\r\n", 400, ""},
			{"HTTPS/1.1", "GET /x HTTPS/1.1\r\n" + host + "\r\n", 400, ""},
			{"an almost HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505, ""},
		},
		"9112 3.2 target": {
			{"query", "GET /x?a=b&c HTTP/1.1\r\n" + host + "\r\n", 200, "GET /x?a=b&c "},
			{"empty query", "GET /x? HTTP/1.1\r\n" + host + "\r\n", 200, "GET /x? "},
			{"two slashes", "GET //x HTTP/1.1\r\n" + host + "\r\n", 200, "GET //x "},
			{"dots", "GET /../x HTTP/1.1\r\n" + host + "\r\n", 200, "GET /../x "},
			{"an escape", "GET /%2e%2F HTTP/1.1\r\n" + host + "\r\n", 200, "GET /%2e%2F "},
			{"absolute form", "GET http://b/x HTTP/1.1\r\n" + host + "\r\n", 200, ok},
			{"absolute form, upper case", "GET HTTP://b/x HTTP/1.1\r\n" + host + "\r\n", 200, ok},
			{"absolute form without a path", "GET http://b HTTP/1.1\r\n" + host + "\r\n", 200, "GET / "},
			{"absolute form with a query only", "GET http://b?q HTTP/1.1\r\n" + host + "\r\n", 200, "GET /?q "},
			{"absolute form still wants a host", "GET http://b/x HTTP/1.1\r\n\r\n", 400, ""},
			{"absolute form without a host in it", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"absolute form with userinfo", "GET http://u@b/x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"another scheme", "GET ftp://b/x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"authority form", "GET a:80 HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"asterisk form (which net/http answers itself)", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 200, ""},
			{"asterisk form with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"two asterisks", "OPTIONS ** HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"no slash", "GET x HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"a fragment", "GET /x#y HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"a zero byte", "GET /x\x00 HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"a control character", "GET /x\x01 HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"DEL", "GET /x\x7f HTTP/1.1\r\n" + host + "\r\n", 400, ""},
			{"CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405, ""},
			{"CONNECT with a path", "CONNECT /x HTTP/1.1\r\n" + host + "\r\n", 405, ""},
		},
		"9112 3.2 Host": {
			{"none", "GET /x HTTP/1.1\r\n\r\n", 400, ""},
			{"two", get(host), 400, ""},
			{"two that differ", get("Host: b\r\n"), 400, ""},
			{"two in HTTP/1.0", "GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, ""},
			{"with a port", "GET /x HTTP/1.1\r\nHost: a:8080\r\n\r\n", 200, ok},
			{"IPv6", "GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, ok},
			{"with a path", "GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, ""},
			{"with userinfo", "GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, ""},
			{"with a space", "GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", 400, ""},
			{"with a backslash", "GET /x HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, ""},
			{"with a high byte", "GET /x HTTP/1.1\r\nHost: \xff\r\n\r\n", 400, ""},
		},
		"9112 5 fields": {
			{"no space after the colon", get("X:y\r\n"), 200, ok},
			{"an empty value", get("X:\r\n"), 200, ok},
			{"blanks around a value", get("X: \t y \t\r\n"), 200, ok},
			{"a tab in a value", get("X: a\tb\r\n"), 200, ok},
			{"high bytes in a value", get("X: \xc3\xa4\r\n"), 200, ok},
			{"a colon in a value", get("X: a:b\r\n"), 200, ok},
			{"space before the colon", get("X : y\r\n"), 400, ""},
			{"tab before the colon", get("X\t: y\r\n"), 400, ""},
			{"no colon", get("X\r\n"), 400, ""},
			{"no name", get(": y\r\n"), 400, ""},
			{"a folded value", get("X: a\r\n b\r\n"), 400, ""},
			{"a value folded by a tab", get("X: a\r\n\tb\r\n"), 400, ""},
			{"an empty fold", get("X: a\r\n \r\n"), 400, ""},
			{"many small fields", get(strings.Repeat("X: y\r\n", 500)), 200, ok},
			{"fields past the bound", get("X: " + strings.Repeat("x", 40<<10) + "\r\n"), 431, ""},
			{"many fields past the bound", get(strings.Repeat("X: y\r\n", 8000)), 431, ""},
			{"a target past the bound", "GET /" + strings.Repeat("x", 40<<10) + " HTTP/1.1\r\n" + host + "\r\n", 431, ""},
		},
		"9112 6.2 Content-Length": {
			{"zero", post("Content-Length: 0\r\n", ""), 200, "POST /x "},
			{"three", post("Content-Length: 3\r\n", "abc"), 200, "POST /x abc"},
			{"leading zeros", post("Content-Length: 003\r\n", "abc"), 200, "POST /x abc"},
			{"with GET", get("Content-Length: 3\r\n") + "abc", 200, "GET /x abc"},
			{"with HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 200, "POST /x abc"},
			{"a body that looks like a request", post("Content-Length: 19\r\n", "GET /y HTTP/1.1\r\n\r\n"), 200, "POST /x GET /y HTTP/1.1\r\n\r\n"},
			{"named by Connection", post("Connection: content-length\r\nContent-Length: 3\r\n", "abc"), 200, "POST /x abc"},
			{"equal twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400, ""},
			{"unequal twice", post("Content-Length: 3\r\nContent-Length: 0\r\n", "abc"), 400, ""},
			{"spelled two ways", post("Content-Length: 3\r\ncontent-length: 0\r\n", "abc"), 400, ""},
			{"a space before the colon", post("Content-Length : 3\r\n", "abc"), 400, ""},
		},
		"9112 6.1 Transfer-Encoding": {
			{"chunked", chunked("3\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"blanks around", post("Transfer-Encoding: \t chunked \t\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"named by Connection", post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"with a length behind", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), 400, ""},
			{"with a length before", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, ""},
			{"with a length of 0", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, ""},
			{"twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, ""},
			{"twice, one unknown", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"), 400, ""},
			{"in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
			{"after a fold", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400, ""},
			{"a space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400, ""},
		},
		"9112 7.1 chunks": {
			{"empty", chunked("0\r\n\r\n"), 200, "POST /x "},
			{"several", chunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), 200, "POST /x abcde"},
			{"upper-case size", chunked("A\r\n0123456789\r\n0\r\n\r\n"), 200, "POST /x 0123456789"},
			{"lower-case size", chunked("a\r\n0123456789\r\n0\r\n\r\n"), 200, "POST /x 0123456789"},
			{"leading zeros", chunked("0003\r\nabc\r\n0000\r\n\r\n"), 200, "POST /x abc"},
			{"extension", chunked("3;a=b\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"quoted extension", chunked("3;a=\"b c\"\r\nabc\r\n0;z\r\n\r\n"), 200, "POST /x abc"},
			{"blanks before an extension", chunked("3 ;a\r\nabc\r\n0\r\n\r\n"), 200, "POST /x abc"},
			{"CR LF as data", chunked("4\r\n\r\n\r\n\r\n0\r\n\r\n"), 200, "POST /x \r\n\r\n"},
			{"data that looks like the last chunk", chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), 200, "POST /x 0\r\n\r\n"},
			{"a trailer", chunked("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), 200, "POST /x abc"},
		},
	}
	add := func(rule string, t torture) { rules[rule] = append(rules[rule], t) }
	for _, c := range "\x00\x01\x08\x0b\x0c\x0e\x1f\x7f" {
		add("9110 5.5 values", torture{fmt.Sprintf("%q in a value", c), get("X: a" + string(c) + "b\r\n"), 400, ""})
		add("9110 5.5 values", torture{fmt.Sprintf("%q around chunked", c), post("Transfer-Encoding: "+string(c)+"chunked\r\n", "0\r\n\r\n"), 400, ""})
	}
	for _, c := range "\x00\x0b\"(),/;<=>?@[\\]{}\x7fä" {
		add("9110 5.1 names", torture{fmt.Sprintf("%q in a name", c), get("X" + string(c) + "Y: z\r\n"), 400, ""})
	}
	for _, v := range []string{"", "-3", "+3", "0x3", "3 3", "3,3", "3, 3", ",3", "3,", "3;", "3.0", "3e0", "\"3\"", "three", "1234567890123456789", "99999999999999999999", "٣", "3\v"} {
		add("9112 6.2 Content-Length", torture{fmt.Sprintf("%q", v), post("Content-Length: "+v+"\r\n", "abc"), 400, ""})
	}
	for _, v := range []string{"", "chunked, chunked", "chunked,", ",chunked", "gzip, chunked", "chunked, gzip", "identity, chunked", "\"chunked\"x,y"} {
		add("9112 6.1 Transfer-Encoding", torture{fmt.Sprintf("%q", v), post("Transfer-Encoding: "+v+"\r\n", "0\r\n\r\n"), 400, ""})
	}
	for _, v := range []string{"identity", "gzip", "xchunked", "chunkedx", "chunk", "\"chunked\"", "chunked;q=1", "chunked chunked"} {
		add("9112 6.1 Transfer-Encoding", torture{fmt.Sprintf("%q", v), post("Transfer-Encoding: "+v+"\r\n", "0\r\n\r\n"), 501, ""})
	}
	for _, v := range []string{
		"\r\n", " 3\r\nabc\r\n", "3 \r\nabc\r\n", "+3\r\nabc\r\n", "-3\r\nabc\r\n", "0x3\r\nabc\r\n", "g\r\nabc\r\n", "3g\r\nabc\r\n", "3,\r\nabc\r\n", "3\nabc\r\n", "3\rabc\r\n",
		"3\r\nabc\n", "3\r\nabc\r", "3\r\nabcd\r\n", "3\r\nab\r\n", "3\r\nabc", "1000000000000000\r\nabc\r\n", "10000000000000003\r\nabc\r\n", "ffffffffffffffff\r\nabc\r\n",
		"3;\x00\r\nabc\r\n", "3;\n\r\nabc\r\n", "3;\rx\r\nabc\r\n", "3;" + strings.Repeat("x", 2000) + "\r\nabc\r\n", "00000000000000000003\r\nabc\r\n", "_3\r\nabc\r\n", "3_\r\nabc\r\n", "\v3\r\nabc\r\n",
	} {
		add("9112 7.1 chunks", torture{fmt.Sprintf("%.12q", v), chunked(v + "0\r\n\r\n"), 0, ""})
	}
	for _, v := range []string{"0\r\n\n", "0\n\r\n", "0\r\nX\r\n\r\n", "0\r\nX : y\r\n\r\n", "0\r\n X: y\r\n\r\n", "0\r\nX: y\r\n z\r\n\r\n", "0\r\nX: \x00\r\n\r\n", "0\r\nX: y\n\r\n", "0\r\nContent-Length: 5\r\n\r\n", "0\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\nHost: b\r\n\r\n", "0\r\nConnection: close\r\n\r\n", "0\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n"} {
		add("9112 7.1.2 trailers", torture{fmt.Sprintf("%.24q", v), chunked("3\r\nabc\r\n" + v), 0, ""})
	}
	return rules
}

// TestTorture sends every case at once and again byte by byte: where a read ends must not matter.
func TestTorture(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // cut: not taken for the whole
		}
		text := req.Method + " " + req.RequestURI + " " + string(body)
		mu.Lock()
		seen = append(seen, text)
		mu.Unlock()
		_, _ = io.WriteString(w, text)
	})
	r := start(t, app, func(c *sidecar.Config) { c.MaxHeaderBytes = 32 << 10 })
	n := 0
	for rule, cases := range tortures() {
		for _, c := range cases {
			for _, slow := range []bool{false, true} {
				if slow && len(c.send) > 1<<10 {
					continue
				}
				n++
				t.Run(fmt.Sprintf("%s/%s/slow=%v", rule, c.name, slow), func(t *testing.T) {
					mu.Lock()
					seen = nil
					mu.Unlock()
					conn, in := r.dial()
					defer func() { _ = conn.Close() }()
					written := make(chan struct{})
					go func() {
						defer close(written)
						text := c.send + "GET /behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
						if !slow {
							_, _ = io.WriteString(conn, text)
							return
						}
						for i := range len(text) {
							if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
								return
							}
						}
					}()
					var codes []int
					var bodies []string
					for {
						resp, err := http.ReadResponse(in, nil)
						if err != nil {
							break
						}
						body, _ := io.ReadAll(resp.Body)
						_ = resp.Body.Close()
						codes, bodies = append(codes, resp.StatusCode), append(bodies, string(body))
					}
					_ = conn.Close()
					<-written
					mu.Lock()
					defer mu.Unlock()
					switch c.code {
					case 200:
						if fmt.Sprint(codes) != "[200 200]" || bodies[0] != c.want || bodies[1] != "GET /behind " {
							t.Errorf("answers %d %q, want twice 200, first %q", codes, bodies, c.want)
						}
					case 0:
						if len(codes) > 1 || len(codes) == 1 && codes[0] != 400 || len(seen) > 0 {
							t.Errorf("answers %d %q, the app took %q; want 400 or none, and nothing", codes, bodies, seen)
						}
					default:
						if len(codes) != 1 || codes[0] != c.code || len(seen) > 0 {
							t.Errorf("answers %d %q, the app took %q; want %d, and nothing", codes, bodies, seen, c.code)
						}
					}
				})
			}
		}
	}
	if n < 300 {
		t.Errorf("%d cases only", n)
	}
	r.wait(0, wire.InFlight)
}

// TestPipelining sends many requests in one write; the answers come in their order.
func TestPipelining(t *testing.T) {
	app := serveApp(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		_, _ = io.WriteString(w, req.URL.Path+string(body))
	})
	r := start(t, app, nil)
	conn, in := r.dial()
	const n = 100
	var text strings.Builder
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&text, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		case 1:
			fmt.Fprintf(&text, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", i)
		case 2:
			fmt.Fprintf(&text, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", i)
		}
	}
	go func() { _, _ = io.WriteString(conn, text.String()) }()
	for i := range n {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		want := fmt.Sprintf("/%d", i)
		if i%3 != 0 {
			want += "x"
		}
		if err != nil || string(body) != want {
			t.Fatalf("answer %d is %q, %v, want %q", i, body, err, want)
		}
	}
}

// TestAnswerTorture is an app that answers badly, or oddly.
func TestAnswerTorture(t *testing.T) {
	cases := []struct {
		name, answer string
		code         int // 502, or the answer's; 0: the answer must be seen to be cut
		body         string
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"},
		{"equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok"},
		{"chunks go before a length", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"},
		{"more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, "ok"},
		{"a body with 204", "HTTP/1.1 204 No Content\r\n\r\nevil", 204, ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502, ""},
		{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 502, ""},
		{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", 502, ""},
		{"a fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		{"LF alone", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 502, ""},
		{"CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		{"an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, ""},
		{"another version", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		{"a code of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		{"a code of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", 502, ""},
		{"an upgrade nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 502, ""},
		{"the end in the head", "HTTP/1.1 200 OK\r\nContent-Le", 502, ""},
		{"huge fields", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 502, ""},
		{"the end in the body", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", 0, ""},
		{"the end in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok", 0, ""},
		{"the end between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 0, ""},
		{"a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", 0, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			app := rawApp(t, func(conn net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, c.answer)
			})
			r := start(t, app, nil)
			conn, in := r.dial()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			switch {
			case c.code == 0 && err == nil:
				t.Errorf("answer %d %q seems whole", resp.StatusCode, body)
			case c.code == 502 && (resp.StatusCode != 502 || resp.Header.Get("Sluice-Reason") != "app-error"):
				t.Errorf("answer %d %v, want 502 app-error", resp.StatusCode, resp.Header)
			case c.code != 0 && c.code != 502 && (err != nil || resp.StatusCode != c.code || string(body) != c.body):
				t.Errorf("answer %d %q, %v, want %d %q", resp.StatusCode, body, err, c.code, c.body)
			}
		})
	}
}

// TestUnreadableIsCounted proves that what cannot be read shows in a metric, as no demand.
func TestUnreadableIsCounted(t *testing.T) {
	r := start(t, serveApp(t, func(http.ResponseWriter, *http.Request) {}), func(c *sidecar.Config) {
		c.MaxHeaderBytes, c.HeaderTimeout = 1<<10, 100*time.Millisecond
	})
	for i, c := range []torture{
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, ""},
		{"too large", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2<<10) + "\r\n\r\n", 431, ""},
		{"a coding nobody knows", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501, ""},
		{"a version nobody knows", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, ""},
		{"half a head", "GET / HT", 408, ""},
	} {
		conn, in := r.dial()
		_, _ = io.WriteString(conn, c.send)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != c.code {
			t.Fatalf("%s: answer %v, %v, want %d", c.name, resp, err, c.code)
		}
		_ = resp.Body.Close()
		_ = conn.Close()
		r.wait(float64(i+1), "sluice_sidecar_refused_requests_total", "reason", "bad-request")
	}
	_, _ = r.dial() // who says nothing at all has asked for nothing
	if got := r.metric(wire.ConcurrencySeconds); got != 0 {
		t.Errorf("%v request-seconds of what nobody could read", got)
	}
	if got := r.metric("sluice_sidecar_refused_requests_total", "reason", "bad-request"); got != 5 {
		t.Errorf("%v refused, want 5", got)
	}
}
