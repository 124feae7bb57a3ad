package request

import (
	"fmt"
	"net/http"
	"strings"
)

// Status codes of gRPC by which a proxy tells a gRPC caller that it answers in the app's place.
const (
	grpcDeadlineExceeded = 4
	grpcInternal         = 13
	grpcUnavailable      = 14
)

// IsGRPC says whether a request of this content type wants its status in grpc-status: a plain
// answer of HTTP is to a gRPC caller a broken server, whose text it does not read.
func IsGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// GRPCStatus is the grpc-status that says what a status code of HTTP says. UNAVAILABLE invites to
// try again, so an app that did not answer in time, and may still be at it, gives another.
func GRPCStatus(code int) int {
	switch code {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return grpcUnavailable
	case http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	default:
		return grpcInternal
	}
}

// GRPCMessage encodes a text for grpc-message: what a header field cannot hold is percent-encoded.
func GRPCMessage(text string) string {
	plain := true
	for i := range len(text) {
		plain = plain && isPlain(text[i])
	}
	if plain {
		return text
	}
	var b strings.Builder
	for _, c := range []byte(text) {
		if isPlain(c) {
			b.WriteByte(c)
			continue
		}
		_, _ = fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func isPlain(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
