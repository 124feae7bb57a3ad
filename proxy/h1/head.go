package h1

import (
	"net/http"
	"strconv"

	"github.com/sluice-autoscaler/sluice/proxy/h1/message"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// appendRequest writes the head of the app's request to out. The proxy is of the app's own pod: what proxies
// before it have said of the client stays, and the peer is added to it.
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
	var has forwarding
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.Kind {
		case message.Host, message.ContentLength, message.TransferEncoding, message.Connection, message.HopByHop, message.TE, message.Upgrade:
			continue
		case message.XForwardedFor:
			has.chain = true
			continue
		case message.Forwarded:
			has.forwarded = true
			continue
		case message.XForwardedHost:
			has.host = true
		case message.XForwardedProto:
			has.proto = true
		default:
			if h.Named(f) {
				continue
			}
		}
		out = appendField(out, f)
	}
	out = c.appendForwarding(out, has)
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
	case c.upgrade:
		out = append(out, "Connection: Upgrade\r\nUpgrade: "...)
		out = append(appendJoined(out, h, message.Upgrade), "\r\n"...)
	case h.Trailers:
		out = append(out, "Connection: TE\r\n"...)
	}
	c.out = append(out, "\r\n"...)
}

// forwarding says which fields proxies before this one have added.
type forwarding struct{ chain, forwarded, host, proto bool }

// appendForwarding writes what is known of the client, and what the proxies before have said of it.
func (c *conn) appendForwarding(out []byte, has forwarding) []byte {
	h := &c.req
	if has.chain || c.Peer != "" {
		out = append(out, "X-Forwarded-For: "...)
		if has.chain {
			out = appendJoined(out, h, message.XForwardedFor)
			if c.Peer != "" {
				out = append(out, ", "...)
			}
		}
		out = append(append(out, c.Peer...), "\r\n"...)
	}
	if has.forwarded {
		out = append(out, "Forwarded: "...)
		out = appendJoined(out, h, message.Forwarded)
		if c.Peer != "" {
			out = request.AppendForwarded(append(out, ", "...), c.Peer)
		}
		out = append(out, "\r\n"...)
	}
	if !has.host && h.Authority != nil {
		out = append(append(append(out, "X-Forwarded-Host: "...), h.Authority...), "\r\n"...)
	}
	if !has.proto {
		if c.Secure {
			out = append(out, "X-Forwarded-Proto: https\r\n"...)
		} else {
			out = append(out, "X-Forwarded-Proto: http\r\n"...)
		}
	}
	return out
}

// appendResponse writes the head of the client's answer to out.
func (c *conn) appendResponse(frame framing, keep bool) {
	h := &c.resp
	out := appendStatus(c.out[:0], h)
	dated := false
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.Kind {
		case message.ContentLength, message.TransferEncoding, message.Connection:
			continue
		case message.HopByHop:
			if len(f.Name) != len("Proxy-Authenticate") {
				continue
			}
		case message.Upgrade:
			if h.Code != http.StatusUpgradeRequired {
				continue
			}
		case message.Date:
			dated = true
		default:
			if h.Named(f) {
				continue
			}
		}
		out = appendField(out, f)
	}
	if !dated {
		out = c.appendDate(out)
	}
	switch {
	case h.Length >= 0 && (frame == byLength || frame == noBody && h.Code != http.StatusNoContent):
		out = append(out, "Content-Length: "...)
		out = append(strconv.AppendInt(out, h.Length, 10), "\r\n"...)
	case (frame == byChunks || frame == byClose) && c.minor == 1, frame == noBody && c.headOnly && h.Chunked && c.minor == 1:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if h.Code == http.StatusUpgradeRequired && keep {
		out = append(out, "Connection: Upgrade\r\n"...)
	} else {
		out = appendConnection(out, keep, c.minor)
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

func appendStatus(out []byte, h *message.Head) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(h.Code), 10), ' ')
	return append(append(out, h.Reason...), "\r\n"...)
}

func appendField(out []byte, f *message.Field) []byte {
	out = append(append(out, f.Name...), ": "...)
	return append(append(out, f.Value...), "\r\n"...)
}

// appendJoined writes the values of all fields of a kind as one list.
func appendJoined(out []byte, h *message.Head, k message.Kind) []byte {
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

func (c *conn) appendDate(out []byte) []byte {
	return append(append(append(out, "Date: "...), c.e.Rules.Date()...), "\r\n"...)
}
