package lane

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goneInterval is how often a held HTTP/1 request with an unread body is checked for a client that
// left.
const goneInterval = 250 * time.Millisecond

// GoneCheck returns a function that tells whether the peer of conn has closed, without reading from
// it: net/http notices a client's leave only once the body is read, and a held request's body stays
// where it is. Nil: cannot tell.
func GoneCheck(conn net.Conn) func() bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return func() bool {
		gone := false
		err := raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			n, err := unix.Poll(fds, 0)
			gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
		})
		return gone || err != nil
	}
}
