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
// for a while. So where there is a token, only its holders may start one, such as a kubelet whose
// preStop hook sends it. Where there is none, only the pod itself may.
type drainHandler struct {
	drain     *drain.Drain
	tokenFile string // empty: there is no token
}

// ServeHTTP implements http.Handler.
func (h *drainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.tokenFile != "" && !h.hasToken(r):
		http.Error(w, "draining needs the token of --drain-token-file, as \"Authorization: Bearer TOKEN\"", http.StatusForbidden)
		return
	case h.tokenFile == "" && !fromPod(r):
		http.Error(w, "draining is for the pod itself: ask http://127.0.0.1 without a proxy, or give the sidecar a --drain-token-file and send the token as \"Authorization: Bearer TOKEN\"", http.StatusForbidden)
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

// fromPod says whether a request comes from the pod itself, as far as it shows. Both ends of the
// connection must have loopback addresses: a mesh's proxy in the pod passes requests from anywhere
// on, from 127.0.0.6 to the pod's address. And the request must be what a client in the pod sends:
// a proxy in the pod that passes requests on to 127.0.0.1 leaves the host that its client named, or
// adds a field of its own.
func fromPod(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !isLoopback(local.String()) || !isLoopback(r.RemoteAddr) || !isLoopbackHost(r.Host) {
		return false
	}
	for name := range r.Header {
		switch {
		case name == "Forwarded", name == "Via", name == "X-Real-Ip", name == "X-Client-Ip",
			strings.HasPrefix(name, "X-Forwarded-"), strings.HasPrefix(name, "X-Envoy-"):
			return false
		}
	}
	return true
}

// isLoopbackHost says whether a Host is a loopback address or localhost, with or without a port.
func isLoopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	a, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && a.Unmap().IsLoopback()
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// hasToken says whether the request brings the token. The file is read each time, since it may be
// rotated.
func (h *drainHandler) hasToken(r *http.Request) bool {
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
