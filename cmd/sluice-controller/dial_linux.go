package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sentFor is how long the API server may leave sent bytes unacknowledged before a connection to it
// counts as dead. The kernel's own answer is a quarter of an hour.
const sentFor = 5 * time.Second

// limitUnacknowledged is a net.Dialer's Control.
func limitUnacknowledged(_, _ string, c syscall.RawConn) error {
	var fault error
	err := c.Control(func(fd uintptr) {
		fault = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(sentFor.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return fault
}
