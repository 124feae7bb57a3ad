package socket

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// directSocket reads and writes a non-blocking socket without telling the scheduler of each call. Such calls do not block; but
// one that the kernel interrupts in favour of the peer looks to the scheduler as if it did, and moving the work to another
// thread and back costs more than the call. Waiting is the runtime's network poller's, with deadlines and Close as for
// net.Conn. One goroutine reads and one writes at a time.
type directSocket struct {
	raw         syscall.RawConn
	read, write transfer
}

// transfer is one direction of a socket. Its closure is made once, so that a call allocates nothing.
type transfer struct {
	call func(fd uintptr) (done bool)
	p    []byte
	once bool // do not wait
	n    int
	err  error
}

// direct returns the shortest way to read and write nc.
func direct(nc net.Conn, raw syscall.RawConn) io.ReadWriter {
	if raw == nil {
		return nc
	}
	s := &directSocket{raw: raw}
	s.read.bind(syscall.SYS_READ)
	s.write.bind(syscall.SYS_WRITE)
	return s
}

func (t *transfer) bind(trap uintptr) {
	t.call = func(fd uintptr) bool {
		for {
			n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
			switch errno {
			case 0:
				t.n, t.err = int(n), nil //nolint:gosec // at most len(p)
				return true
			case syscall.EAGAIN:
				return t.once
			case syscall.EINTR:
			default:
				t.n, t.err = 0, errno
				return true
			}
		}
	}
}

// Read reads what is there, or waits.
func (s *directSocket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := &s.read
	t.p, t.n, t.err = p, 0, nil
	err := s.raw.Read(t.call)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.err != nil:
		return 0, t.err
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

// Write writes all of p, or says how much of it.
func (s *directSocket) Write(p []byte) (int, error) {
	t := &s.write
	for n := 0; ; {
		if n == len(p) {
			return n, nil
		}
		t.p, t.n, t.err = p[n:], 0, nil
		err := s.raw.Write(t.call)
		t.p = nil
		switch {
		case err != nil:
			return n, err
		case t.err != nil:
			return n, t.err
		}
		n += t.n
	}
}

// try writes what the network takes of p without waiting, which may be nothing.
func (s *directSocket) try(p []byte) (int, error) {
	t := &s.write
	for n := 0; ; {
		if n == len(p) {
			return n, nil
		}
		t.p, t.n, t.err, t.once = p[n:], 0, nil, true
		err := s.raw.Write(t.call)
		t.p, t.once = nil, false
		switch {
		case err != nil:
			return n, err
		case t.err != nil:
			return n, t.err
		case t.n == 0:
			return n, nil
		}
		n += t.n
	}
}
