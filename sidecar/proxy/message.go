package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/http1"
)

// appendRequest writes the head of the app's request to out. The sidecar is of the app's own pod: what proxies before it
// have said of the client stays, and the peer is added to it.
func (c *conn) appendRequest() {
	h := &c.req
	out := append(c.out[:0], h.Method...)
	out = append(append(append(out, ' '), h.Target...), " HTTP/1.1\r\nHost: "...)
	if h.Authority == nil { // HTTP/1.0 only
		out = append(out, c.e.pool.address...)
	} else {
		out = append(out, h.Authority...)
	}
	out = append(out, "\r\n"...)
	host, proto := false, false
	var chain, forwarded int
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.Kind {
		case http1.Host, http1.ContentLength, http1.TransferEncoding, http1.Connection, http1.HopByHop, http1.TE, http1.Upgrade:
			continue
		case http1.XForwardedFor:
			chain++
			continue
		case http1.Forwarded:
			forwarded++
			continue
		case http1.XForwardedHost:
			host = true
		case http1.XForwardedProto:
			proto = true
		default:
			if h.Named(f) {
				continue
			}
		}
		out = appendField(out, f)
	}
	if chain > 0 || c.peer != "" {
		out = append(out, "X-Forwarded-For: "...)
		if chain > 0 {
			out = appendJoined(out, h, http1.XForwardedFor)
			if c.peer != "" {
				out = append(out, ", "...)
			}
		}
		out = append(append(out, c.peer...), "\r\n"...)
	}
	if forwarded > 0 {
		out = append(out, "Forwarded: "...)
		out = appendJoined(out, h, http1.Forwarded)
		switch {
		case strings.Contains(c.peer, ":"):
			out = append(append(append(out, `, for="[`...), c.peer...), `]"`...)
		case c.peer != "":
			out = append(append(out, ", for="...), c.peer...)
		}
		out = append(out, "\r\n"...)
	}
	if !host && h.Authority != nil {
		out = append(append(append(out, "X-Forwarded-Host: "...), h.Authority...), "\r\n"...)
	}
	if !proto {
		if c.secure {
			out = append(out, "X-Forwarded-Proto: https\r\n"...)
		} else {
			out = append(out, "X-Forwarded-Proto: http\r\n"...)
		}
	}
	if h.Trailers {
		out = append(out, "TE: trailers\r\n"...)
	}
	switch {
	case h.Chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case h.Length >= 0:
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, h.Length, 10), "\r\n"...)
	}
	switch {
	case c.x.upgrade:
		out = append(out, "Connection: Upgrade\r\nUpgrade: "...)
		out = append(appendJoined(out, h, http1.Upgrade), "\r\n"...)
	case h.Trailers:
		out = append(out, "Connection: TE\r\n"...)
	}
	c.out = append(out, "\r\n"...)
}

// appendResponse writes the head of the client's answer to out.
func (c *conn) appendResponse(frame framing, keep bool) {
	h := &c.resp
	out := appendStatus(c.out[:0], h)
	dated := false
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.Kind {
		case http1.ContentLength, http1.TransferEncoding, http1.Connection:
			continue
		case http1.HopByHop:
			if len(f.Name) != len("Proxy-Authenticate") {
				continue
			}
		case http1.Upgrade:
			if h.Code != http.StatusUpgradeRequired {
				continue
			}
		case http1.Date:
			dated = true
		default:
			if h.Named(f) {
				continue
			}
		}
		out = appendField(out, f)
	}
	if !dated {
		out = c.e.h.appendDate(out)
	}
	switch {
	case h.Length >= 0 && (frame == byLength || frame == noBody && h.Code != http.StatusNoContent):
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, h.Length, 10), "\r\n"...)
	case (frame == byChunks || frame == byClose) && c.x.minor == 1, frame == noBody && c.x.head && h.Chunked && c.x.minor == 1:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if h.Code == http.StatusUpgradeRequired && keep {
		out = append(out, "Connection: Upgrade\r\n"...)
	} else {
		out = appendConnection(out, keep, c.x.minor)
	}
	c.out = append(out, "\r\n"...)
}

func appendConnection(out []byte, keep bool, minor int) []byte {
	switch {
	case !keep:
		return append(out, "Connection: close\r\n"...)
	case minor == 0:
		return append(out, "Connection: keep-alive\r\n"...)
	}
	return out
}

func appendStatus(out []byte, h *http1.Head) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(h.Code), 10), ' ')
	return append(append(out, h.Reason...), "\r\n"...)
}

func appendField(out []byte, f *http1.Field) []byte {
	out = append(append(out, f.Name...), ": "...)
	return append(append(out, f.Value...), "\r\n"...)
}

// appendJoined writes the values of all fields of a kind as one list.
func appendJoined(out []byte, h *http1.Head, k http1.Kind) []byte {
	first := true
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Kind == k {
			if !first {
				out = append(out, ", "...)
			}
			out = append(out, f.Value...)
			first = false
		}
	}
	return out
}

// date is a Date field that was written once and serves for a second.
type date struct {
	second      int64
	text, value string
}

func (h *Handler) now() *date {
	now := time.Now()
	d := h.date.Load()
	if d == nil || d.second != now.Unix() {
		value := now.UTC().Format(http.TimeFormat)
		d = &date{second: now.Unix(), text: "Date: " + value + "\r\n", value: value}
		h.date.Store(d)
	}
	return d
}

// appendDate writes a Date field, for answers without one (RFC 9110, 6.6.1).
func (h *Handler) appendDate(out []byte) []byte { return append(out, h.now().text...) }

// dateValue is the value of one.
func (h *Handler) dateValue() string { return h.now().value }
