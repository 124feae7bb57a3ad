//go:build linux

package sockdiag_test

import (
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

// connect makes n connections on loopback, to host if it is given, and returns the port of their
// listener.
func connect(tb testing.TB, network, address, host string, n int) (port uint16, clients, servers []net.Conn) {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), network, address)
	if err != nil {
		tb.Skipf("no %s on this machine: %v", network, err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	port = uint16(l.Addr().(*net.TCPAddr).Port)
	target := l.Addr().String()
	if host != "" {
		target = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	for range n {
		c, err := new(net.Dialer).DialContext(context.Background(), network, target)
		if err != nil {
			tb.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _, _ = c.Close(), s.Close() })
		clients, servers = append(clients, c), append(servers, s)
	}
	return port, clients, servers
}

func BenchmarkList64(b *testing.B) {
	port, _, _ := connect(b, "tcp4", "127.0.0.1:0", "", 64)
	s, err := sockdiag.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for b.Loop() {
		n := 0
		if err := s.List(port, func(*sockdiag.Conn) { n++ }); err != nil || n != 64 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkEach64(b *testing.B) {
	port, _, _ := connect(b, "tcp4", "127.0.0.1:0", "", 64)
	s, err := sockdiag.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var ids []sockdiag.ID
	var families []uint8
	if err := s.List(port, func(c *sockdiag.Conn) { ids, families = append(ids, c.ID), append(families, c.Family) }); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := 0
		if err := s.Each(ids, families, func(*sockdiag.Conn) { n++ }); err != nil || n != 64 {
			b.Fatal(n, err)
		}
	}
}
