package sidecar

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/sluice-autoscaler/sluice/proxy/drain"
)

// drainHandler starts the drain and answers when it is over. A drain takes the pod out of service for
// good, so it is for the pod itself, which asks from a loopback address, and for who has the token,
// such as a kubelet whose preStop hook sends it.
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

func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
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
