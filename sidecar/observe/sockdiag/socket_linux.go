package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// netlinkSockDiag is NETLINK_SOCK_DIAG.
const netlinkSockDiag = 4

// batch is how many single questions go out at once: their answers, of about 400 bytes and 1 KiB of
// kernel memory each, must fit the socket's default receive buffer.
const batch = 64

// Socket asks the kernel. Open makes it. It is not safe for concurrent use.
type Socket struct {
	fd       int
	seq      uint32
	out, buf []byte
	parser   Parser
	families []uint8  // to list one after another; 0 is both at once
	counters *os.File // of the namespace; nil where there is no such file
}

// Open opens a socket in the network namespace of the calling thread.
func Open() (*Socket, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return nil, os.NewSyscallError("open a sock_diag socket", err)
	}
	// The kernel answers at once; the bound is for what should never happen.
	err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 1})
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK})
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("set up a sock_diag socket", err)
	}
	s := &Socket{fd: fd, buf: make([]byte, 64<<10), families: []uint8{0}}
	s.counters, _ = os.Open("/proc/thread-self/net/snmp") // without it, Accepted fails
	return s, nil
}

// Close closes the socket.
func (s *Socket) Close() error {
	if s.counters != nil {
		_ = s.counters.Close() // it was only read
	}
	return os.NewSyscallError("close a sock_diag socket", syscall.Close(s.fd))
}

// Accepted counts the TCP connections that were accepted in the namespace since it was made, on any
// port. It wraps where the kernel's counters do. The cost grows with the machine's processors: 15
// µs for two.
func (s *Socket) Accepted() (uint64, error) {
	if s.counters == nil {
		return 0, fmt.Errorf("no TCP counters: %w", errors.ErrUnsupported)
	}
	n, err := s.counters.ReadAt(s.buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read the TCP counters: %w", err)
	}
	return ParseAccepted(s.buf[:n])
}

// List calls each for every connection whose local port is port, and which is Established or in
// CloseWait, over IPv4 and IPv6. What each is given is valid for the call only. The cost grows with
// the size of the kernel's table of all connections of the machine, whether or not it is full: 0.1
// to 1 ms.
func (s *Socket) List(port uint16, each func(*Conn)) error {
	for i := 0; i < len(s.families); i++ {
		s.seq++
		s.out = appendList(s.out[:0], s.seq, s.families[i], 1<<Established|1<<CloseWait, port)
		err := s.ask(1, false, each)
		switch {
		case err == nil:
		// a kernel without the old question
		case s.families[i] == 0 && errors.As(err, new(syscall.Errno)):
			s.families, i = []uint8{syscall.AF_INET, syscall.AF_INET6}, -1
		case s.families[i] == syscall.AF_INET6 && errors.Is(err, syscall.ENOENT): // no IPv6
			s.families = s.families[:i]
		default:
			return err
		}
	}
	return nil
}

// Each calls each for those of the connections that are still there. What each is given is valid
// for the call only. The cost is 1 to 3 µs a connection. A connection may be in any state.
func (s *Socket) Each(ids []ID, families []uint8, each func(*Conn)) error {
	for len(ids) > 0 {
		n := min(len(ids), batch)
		s.seq++
		s.out = s.out[:0]
		for i := range ids[:n] {
			s.out = appendOne(s.out, s.seq, families[i], &ids[i])
		}
		if err := s.ask(n, true, each); err != nil {
			return err
		}
		ids, families = ids[n:], families[n:]
	}
	return nil
}

// ask sends what is in s.out and reads until all questions in it are answered.
func (s *Socket) ask(questions int, single bool, each func(*Conn)) error {
	if _, err := syscall.Write(s.fd, s.out); err != nil {
		return os.NewSyscallError("ask the kernel for connections", err)
	}
	for questions > 0 {
		n, err := syscall.Read(s.fd, s.buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read the kernel's answer", err)
		}
		done, err := s.parser.Parse(s.buf[:n], s.seq, single, each)
		if err != nil {
			return fmt.Errorf("ask for connections: %w", err)
		}
		questions -= done
	}
	return nil
}
