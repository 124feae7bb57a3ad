package appcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// healthMethod is the one call of gRPC that is made, spoken by hand: a gRPC library would make
	// the binary a third larger.
	healthMethod = "/grpc.health.v1.Health/Check"
	// grpcType is the content type of gRPC's messages.
	grpcType = "application/grpc"
	// grpcPrefix is the size of what precedes a message: whether it is compressed, and its length.
	grpcPrefix = 5
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
	// serving is grpc.health.v1.HealthCheckResponse.SERVING.
	serving = 1
)

// GRPC returns a Checker that holds when the app's health service (grpc.health.v1) at address, over
// HTTP/2 without TLS, answers within timeout that service is SERVING. An empty service stands for
// the app as a whole. It uses a connection of its own each time, as a kubelet does.
func GRPC(network, address, service string, timeout time.Duration) *Checker {
	t := transport(network, address)
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	call := appendMessage(nil, service)
	return &Checker{timeout: timeout, ask: func(ctx context.Context) error {
		if err := askHealth(ctx, t, host(network, address), call, timeout); err != nil {
			return fmt.Errorf("gRPC health of service %q: %w", service, err)
		}
		return nil
	}}
}

func askHealth(ctx context.Context, t *http.Transport, host string, call []byte, timeout time.Duration) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+healthMethod, bytes.NewReader(call))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", grpcType)
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Grpc-Timeout", strconv.FormatInt(max(1, timeout.Milliseconds()), 10)+"m")
	resp, err := t.RoundTrip(req)
	// the app, told of it, may end the request before our own timer has
	if end, ok := ctx.Deadline(); err != nil && ok && !time.Now().Before(end) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if err != nil { // one that speaks HTTP/1.1 only ends the connection in one of several ways
		return fmt.Errorf("%w; want gRPC over HTTP/2 without TLS on this port", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), grpcType) {
		return fmt.Errorf("answered %d with content type %q: the app speaks no gRPC on this port; use --app-ready-path, or neither for TCP", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	// The status is in the headers when there is nothing else to an answer.
	trailer := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" {
		trailer = resp.Header
	}
	switch status := trailer.Get("Grpc-Status"); status {
	case "0":
	case "":
		return errors.New("the answer ended without a grpc-status")
	case "5":
		return errors.New("NOT_FOUND: the app's health service does not know it; set its status in the app, or change --app-ready-grpc-service")
	case "12":
		return errors.New("UNIMPLEMENTED: the app has no grpc.health.v1.Health; register it in the app, or use --app-ready-path, or neither for TCP")
	default:
		return fmt.Errorf("grpc-status %s: %s", status, unescape(trailer.Get("Grpc-Message")))
	}
	status, err := readStatus(body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if status != serving {
		return fmt.Errorf("it is %s, want SERVING", statusName(status))
	}
	return nil
}

// appendMessage appends a HealthCheckRequest, with its prefix.
func appendMessage(out []byte, service string) []byte {
	var m []byte
	if service != "" {
		m = protowire.AppendTag(m, 1, protowire.BytesType)
		m = protowire.AppendString(m, service)
	}
	out = append(out, 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(m))) //nolint:gosec // a flag's length
	return append(out, m...)
}

// readStatus reads the status of a HealthCheckResponse with its prefix.
func readStatus(p []byte) (uint64, error) {
	if len(p) < grpcPrefix {
		return 0, io.ErrUnexpectedEOF
	}
	if p[0] != 0 {
		return 0, errors.New("it is compressed, which was not asked for")
	}
	if n := binary.BigEndian.Uint32(p[1:grpcPrefix]); uint64(n) != uint64(len(p)-grpcPrefix) {
		return 0, fmt.Errorf("a message of %d bytes in %d", n, len(p)-grpcPrefix)
	}
	var status uint64
	for p = p[grpcPrefix:]; len(p) > 0; {
		field, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if !field.IsValid() {
			return 0, fmt.Errorf("a field of number %d", field)
		}
		p = p[n:]
		if field == 1 && typ == protowire.VarintType {
			if status, n = protowire.ConsumeVarint(p); n < 0 {
				return 0, protowire.ParseError(n)
			}
		} else if n = protowire.ConsumeFieldValue(field, typ, p); n < 0 {
			return 0, protowire.ParseError(n)
		}
		p = p[n:]
	}
	return status, nil
}

func statusName(status uint64) string {
	switch status {
	case 0:
		return "UNKNOWN"
	case 2:
		return "NOT_SERVING"
	case 3:
		return "SERVICE_UNKNOWN"
	}
	return strconv.FormatUint(status, 10)
}

// unescape reads a grpc-message, in which bytes that a header cannot hold are percent-encoded.
func unescape(message string) string {
	if s, err := url.PathUnescape(message); err == nil {
		return s
	}
	return message
}
