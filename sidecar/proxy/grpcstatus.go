package proxy

import (
	"net/http"
	"strings"
)

// Codes of gRPC by which the sidecar tells a gRPC caller that it answers in the app's place.
const (
	grpcDeadlineExceeded = "4"
	grpcInternal         = "13"
	grpcUnavailable      = "14"
)

// isGRPC says whether a request of this content type wants its status in grpc-status: a plain answer of HTTP is to a gRPC
// caller a broken server, whose text it does not read.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcStatus is the grpc-status that says what a code of HTTP says. UNAVAILABLE invites to try again, so the app that did not
// answer in time, and may be at it still, gives another.
func grpcStatus(code int) string {
	switch code {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return grpcUnavailable
	case http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	default:
		return grpcInternal
	}
}
