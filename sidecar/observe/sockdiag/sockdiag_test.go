//go:build linux

package sockdiag_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

// patience bounds the wait for the kernel.
const patience = 20 * time.Second

func open(t *testing.T) *sockdiag.Socket {
	t.Helper()
	s, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestRealConnections(t *testing.T) {
	for _, test := range []struct{ name, network, address, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", ""},
		{"IPv6", "tcp6", "[::1]:0", ""},
		{"IPv4-mapped", "tcp", ":0", "127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			port, clients, servers := connect(t, test.network, test.address, test.dial, 3)
			s := open(t)
			var ids []sockdiag.ID
			var families []uint8
			found := map[string]sockdiag.Conn{}
			if n, err := s.Accepted(); err != nil || n < 3 {
				t.Errorf("Accepted = %d, %v; want 3 at least", n, err)
			}
			keep := func(c *sockdiag.Conn) {
				found[c.ID.Remote(c.Family).Addr().Unmap().String()+fmt.Sprint(":", c.ID.Remote(c.Family).Port())] = *c
			}
			list := func() {
				clear(found)
				ids, families = ids[:0], families[:0]
				err := s.List(port, func(c *sockdiag.Conn) { keep(c); ids, families = append(ids, c.ID), append(families, c.Family) })
				if err != nil || len(ids) != 3 {
					t.Fatalf("List: %d connections, %v; want 3", len(ids), err)
				}
			}
			// remote is how a client's end is shown.
			remote := func(i int) string {
				return strings.NewReplacer("[::ffff:", "", "[", "", "]", "").Replace(clients[i].LocalAddr().String())
			}
			if _, err := io.WriteString(clients[0], "0123456789"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(servers[1], "01234"); err != nil {
				t.Fatal(err)
			}
			check := func(what string) {
				t.Helper()
				for i, want := range []sockdiag.Conn{{Received: 10, SegmentsIn: 1, Unread: 10}, {Sent: 5, SegmentsOut: 1}, {}} {
					got, ok := found[remote(i)]
					if !ok || got.State != sockdiag.Established || got.Received != want.Received || got.Sent != want.Sent ||
						got.SegmentsIn != want.SegmentsIn || got.SegmentsOut != want.SegmentsOut || got.Unread != want.Unread {
						t.Errorf("%s: connection %d is %+v (%v), want %+v", what, i, got, ok, want)
					}
				}
			}
			list()
			check("List")
			clear(found)
			if err := s.Each(ids, families, keep); err != nil {
				t.Fatal(err)
			}
			check("Each")

			// A connection that has gone is no error, and none that lives is missed for it.
			_ = servers[2].Close()
			_ = clients[2].Close()
			live := 0
			if err := s.Each(ids, families, func(c *sockdiag.Conn) {
				if c.State == sockdiag.Established {
					live++
				}
			}); err != nil || live != 2 {
				t.Errorf("Each after a close: %d established, %v; want 2", live, err)
			}
		})
	}
}

// TestSentAgain has a client that hears nothing for a while, so that both ends send again what the
// other has.
func TestSentAgain(t *testing.T) {
	port, clients, servers := connect(t, "tcp4", "127.0.0.1:0", "", 1)
	s := open(t)
	look := func() (c sockdiag.Conn) {
		t.Helper()
		if err := s.List(port, func(k *sockdiag.Conn) { c = *k }); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var got [8]byte
	pass := func(from, to net.Conn) {
		t.Helper()
		if _, err := io.WriteString(from, "request"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, got[:7]); err != nil {
			t.Fatal(err)
		}
	}
	pass(clients[0], servers[0])
	pass(servers[0], clients[0])

	control := func(c net.Conn, f func(fd int) error) {
		t.Helper()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if failed := raw.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil || err != nil {
			t.Fatal(failed, err)
		}
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET}} // keeps no byte of a packet
	control(clients[0], func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	pass(clients[0], servers[0]) // the acknowledgement does not come
	for deadline := time.Now().Add(patience); look().SegmentsIn < 3; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("the request was not sent again: %+v", look())
		}
	}
	if c := look(); c.Received != 14 {
		t.Errorf("%d bytes received, want 14: those sent again count once", c.Received)
	}
	if _, err := io.WriteString(servers[0], "answer!"); err != nil {
		t.Fatal(err)
	}
	again := func() (n uint32) {
		control(servers[0], func(fd int) error {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				n = info.Total_retrans
			}
			return err
		})
		return n
	}
	for deadline := time.Now().Add(patience); again() < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("the answer was not sent again: %+v", look())
		}
	}
	if c := look(); c.Sent != 14 || c.SegmentsOut != 2 {
		t.Errorf("%d bytes in %d segments sent, want 14 in 2: those sent again count once", c.Sent, c.SegmentsOut)
	}
}

// TestUnprivileged asks as nobody, with no capability at all, and not even the right to open a file
// of root.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("not root: all other tests here are this one")
		return
	}
	port, _, _ := connect(t, "tcp4", "127.0.0.1:0", "", 1)
	type result struct {
		n    int
		caps string
		err  error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and its user with it
		const nobody = 65534
		var r result
		defer func() { results <- r }()
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
			r.err = e
			return
		}
		status, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			r.err = err
			return
		}
		for line := range strings.Lines(string(status)) {
			if caps, ok := strings.CutPrefix(line, "CapEff:"); ok {
				r.caps = strings.TrimSpace(caps)
			}
		}
		s, err := sockdiag.Open()
		if err != nil {
			r.err = err
			return
		}
		var ids []sockdiag.ID
		var families []uint8
		r.err = errors.Join(
			s.List(port, func(c *sockdiag.Conn) { ids, families = append(ids, c.ID), append(families, c.Family) }),
			s.Each(ids, families, func(*sockdiag.Conn) { r.n++ }),
			s.Close(),
		)
	}()
	if r := <-results; r.err != nil || r.n != 1 || strings.Trim(r.caps, "0") != "" {
		t.Errorf("as nobody: %d connections, capabilities %s, %v; want 1, none and no error", r.n, r.caps, r.err)
	}
}

// message builds a netlink message.
func message(kind uint16, seq uint32, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, 2)
	b = binary.NativeEndian.AppendUint32(b, seq)
	return append(binary.NativeEndian.AppendUint32(b, 0), body...)
}

// conn builds an inet_diag_msg in a state with a tcp_info of so many bytes.
func conn(state byte, info int) []byte {
	b := make([]byte, 72)
	b[0], b[1] = syscall.AF_INET, state
	if info > 0 {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+info))
		b = binary.NativeEndian.AppendUint16(b, 2)
		b = append(b, make([]byte, info)...)
	}
	return b
}

func errorBody(e syscall.Errno) []byte {
	return append(binary.NativeEndian.AppendUint32(nil, uint32(-int32(e))), make([]byte, 16)...)
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name             string
		b                []byte
		single           bool
		completed, conns int
		err              error
	}{
		{name: "nothing"},
		{name: "end of a list", b: message(3, 7, make([]byte, 4)), completed: 1},
		{name: "end of another list", b: message(3, 6, make([]byte, 4))},
		{name: "a connection and the end", b: append(message(20, 7, conn(1, 232)), message(3, 7, make([]byte, 4))...), completed: 1, conns: 1},
		{name: "one connection", b: message(20, 7, conn(1, 280)), single: true, completed: 1, conns: 1},
		{name: "one in TIME_WAIT", b: message(20, 7, conn(6, 0)), single: true, completed: 1, conns: 1},
		{name: "an old kernel", b: message(20, 7, conn(1, 192)), err: sockdiag.ErrKernel},
		{name: "no details", b: message(20, 7, conn(1, 0)), err: sockdiag.ErrKernel},
		{name: "gone", b: message(2, 7, errorBody(syscall.ENOENT)), single: true, completed: 1},
		{name: "another in its place", b: message(2, 7, errorBody(syscall.ESTALE)), single: true, completed: 1},
		{name: "not supported", b: message(2, 7, errorBody(syscall.ENOENT)), completed: 1, err: syscall.ENOENT},
		{name: "forbidden", b: message(2, 7, errorBody(syscall.EPERM)), single: true, completed: 1, err: syscall.EPERM},
		{name: "a list that fails at its end", b: message(3, 7, errorBody(syscall.EINTR)), completed: 1, err: syscall.EINTR},
	} {
		t.Run(test.name, func(t *testing.T) {
			conns := 0
			completed, err := new(sockdiag.Parser).Parse(test.b, 7, test.single, func(*sockdiag.Conn) { conns++ })
			if completed != test.completed || conns != test.conns || !errors.Is(err, test.err) {
				t.Errorf("Parse = %d, %v with %d connections; want %d, %v with %d", completed, err, conns, test.completed, test.err, test.conns)
			}
		})
	}
}

func TestParseAccepted(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       uint64
		fails      bool
	}{
		{name: "usual", text: "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens AttemptFails\nTcp: 1 197086 146538 606\nUdp: InDatagrams\nUdp: 3\n", want: 146538},
		{name: "negative before it", text: "\nTcp: MaxConn PassiveOpens\nTcp: -1 7\n", want: 7},
		{name: "no TCP", text: "Ip: Forwarding\nIp: 1\n", fails: true},
		{name: "no such counter", text: "\nTcp: ActiveOpens\nTcp: 1\n", fails: true},
		{name: "cut off", text: "\nTcp: ActiveOpens PassiveOpens\nTcp: 1", fails: true},
		{name: "no number", text: "\nTcp: PassiveOpens\nTcp: many\n", fails: true},
		{name: "nothing", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := sockdiag.ParseAccepted([]byte(test.text)); got != test.want || (err != nil) != test.fails {
				t.Errorf("ParseAccepted = %d, %v; want %d and an error: %v", got, err, test.want, test.fails)
			}
		})
	}
}

func FuzzParseAccepted(f *testing.F) {
	f.Add([]byte("\nTcp: MaxConn PassiveOpens\nTcp: -1 7\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := sockdiag.ParseAccepted(b); err == nil && !strings.Contains(string(b), fmt.Sprint(n)) && !strings.Contains(string(b), "0") {
			t.Errorf("%d is not in %q", n, b)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(append(message(20, 7, conn(1, 232)), message(3, 7, make([]byte, 4))...), false)
	f.Add(message(2, 7, errorBody(syscall.ENOENT)), true)
	f.Add(message(20, 7, conn(6, 0)), true)
	f.Fuzz(func(t *testing.T, b []byte, single bool) {
		conns := 0
		completed, _ := new(sockdiag.Parser).Parse(b, 7, single, func(*sockdiag.Conn) { conns++ })
		if completed > len(b)/16 || conns > len(b)/(16+72) {
			t.Errorf("%d completed, %d connections in %d bytes", completed, conns, len(b))
		}
	})
}
