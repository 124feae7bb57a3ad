package gateway

import "net"

// TCPBuffered is how many first bytes of a held TCP connection are read.
const TCPBuffered = tcpBuffered

// ReadFirst begins to read the first bytes of a held connection; stop returns them, and whether the
// client has ended its direction.
func ReadFirst(conn net.Conn, left func()) (stop func() ([]byte, bool)) {
	return readFirst(conn, left).stop
}
