package serve_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// TestConnsPerAddress opens more connections of one address than are allowed: the others are
// closed, those of another address are served, and a place that is given up is free again.
func TestConnsPerAddress(t *testing.T) {
	h := &serve.HTTP{
		Name: "web", Address: "127.0.0.1:0", Drain: time.Second, ConnsPerAddress: 2,
		Server: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.NotFoundHandler()},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group serve.Group
	started := make(chan struct{})
	group.Add(h.Service(), serve.Service{Name: "started", Run: func(ctx context.Context) error { close(started); <-ctx.Done(); return nil }})
	done := make(chan error, 1)
	go func() { done <- group.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	}()
	<-started
	// served tells whether a connection is answered; one that is refused ends.
	served := func(conn net.Conn) bool {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := conn.Read(make([]byte, 1))
		return err == nil
	}
	dial := func(from string) net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	first, second := dial("127.0.0.1"), dial("127.0.0.1")
	if !served(first) || !served(second) {
		t.Fatal("connections within the bound are refused")
	}
	if served(dial("127.0.0.1")) {
		t.Error("a connection over the bound is served")
	}
	if !served(dial("127.0.0.2")) {
		t.Error("a connection of another address is refused")
	}
	_ = first.Close()
	for until := time.Now().Add(20 * time.Second); !served(dial("127.0.0.1")); {
		if time.Now().After(until) {
			t.Fatal("a place that was given up is not free")
		}
	}
}
