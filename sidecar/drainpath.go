package sidecar

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/sluice-autoscaler/sluice/proxy/drain"
)

// drainHandler starts the drain and answers when it is over. A drain takes the pod out of service
// and cannot be undone. So only two kinds of peers may start it: the pod itself, from a loopback
// address, and holders of the token, such as a kubelet whose preStop hook sends it.
type drainHandler struct {
	drain     *drain.Drain
	tokenFile string // empty: there is no token
}

// ServeHTTP implements http.Handler.
func (h *drainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !fromLoopback(r) && !h.hasToken(r) {
		http.Error(w, "draining is for the pod itself: ask from a loopback address, or send the token of --drain-token-file as \"Authorization: Bearer TOKEN\"", http.StatusForbidden)
		return
	}
	h.drain.Begin()
	select {
	case <-h.drain.Done():
	case <-r.Context().Done(): // who asked has left; the drain goes on
		return
	}
	if err := h.drain.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
		return
	}
	_, _ = io.WriteString(w, "drained\n")
}

// fromLoopback says whether both ends of the connection have loopback addresses. The peer's alone
// proves little: a mesh's proxy in the pod passes requests from anywhere on, from 127.0.0.6 to the
// pod's address.
func fromLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(local.String()) && isLoopback(r.RemoteAddr)
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// hasToken says whether the request brings the token. The file is read each time, since it may be
// rotated.
func (h *drainHandler) hasToken(r *http.Request) bool {
	if h.tokenFile == "" {
		return false
	}
	want, err := readToken(h.tokenFile)
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return err == nil && ok && subtle.ConstantTimeCompare([]byte(got), want) == 1
}

// readToken reads a token: the file without blanks around it, which is not empty.
func readToken(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the drain token: %w", err)
	}
	token := bytes.TrimSpace(text)
	if len(token) == 0 {
		return nil, fmt.Errorf("read the drain token: %s is empty", file)
	}
	return token, nil
}
