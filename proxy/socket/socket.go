// Package socket holds what HTTP engines need of a connection below HTTP: its address, reads and
// writes that cost the scheduler nothing, and a look at what the next read would find.
package socket

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"syscall"
)

// Address splits the address of an app: "unix:/path" names a socket, everything else is host:port.
func Address(app string) (network, address string) {
	if path, ok := strings.CutPrefix(app, "unix:"); ok {
		return "unix", path
	}
	return "tcp", app
}

// Conn is a connection. One goroutine reads and one writes at a time; Peek and closing Net are safe
// for concurrent use.
type Conn struct {
	// Net is the connection as package net has it: for deadlines, closing and splicing.
	Net net.Conn
	// IO reads and writes Net, by a shorter way if there is one.
	IO  io.ReadWriter
	raw syscall.RawConn
}

// New returns the Conn of nc, which may be a TLS connection.
func New(nc net.Conn) Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return Conn{Net: nc, IO: nc, raw: rawOf(t.NetConn())}
	}
	raw := rawOf(nc)
	return Conn{Net: nc, IO: direct(nc, raw), raw: raw}
}

func rawOf(nc net.Conn) syscall.RawConn {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// CloseWrite ends what is sent; the peer can still be read, if the connection has two directions.
func (c *Conn) CloseWrite() error { return CloseWrite(c.Net) }

// CloseWrite ends what is sent on nc, and closes it when it cannot be half closed.
func CloseWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nc.Close()
}

// TryWrite writes what the network takes of p without waiting, which may be nothing. It is false
// when the connection can only be written to by waiting.
func (c *Conn) TryWrite(p []byte) (n int, err error, ok bool) { //nolint:revive // ok belongs last
	s, ok := c.IO.(*directSocket)
	if !ok {
		return 0, nil, false
	}
	n, err = s.try(p)
	return n, err, true
}

// Incoming is what waits to be read on a connection.
type Incoming int

// What may wait. End is the end of what the peer sends, or an error.
const (
	Nothing Incoming = iota
	Data
	End
)

// Peek tells what the next read would find, without reading. A reader may be under way.
func (c *Conn) Peek() Incoming {
	if c.raw == nil {
		return Nothing
	}
	found := End
	err := c.raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n > 0:
			found = Data
		case err == syscall.EAGAIN || err == syscall.EINTR:
			found = Nothing
		}
	})
	if err != nil {
		return End
	}
	return found
}

// Client is the connection of a client.
type Client struct {
	Conn
	// Peer is the client's address without the port; empty for a client without one.
	Peer string
	// Secure says that the client came by TLS.
	Secure bool
}

// NewClient returns the Client of an accepted connection.
func NewClient(nc net.Conn) Client {
	c := Client{Conn: New(nc)}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.Peer = a.IP.String()
	}
	_, c.Secure = nc.(*tls.Conn)
	return c
}
