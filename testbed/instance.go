package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketName is an abstract Unix socket. Such a name exists once per network namespace, as the
// testbed's addresses do; it needs no file, and the kernel frees it with its process, however that
// ends.
const socketName = "@sluice-testbed-198.18.0.0/15"

// ErrNotRunning is returned when no testbed holds the host's address range.
var ErrNotRunning = errors.New("no testbed is running (testbed up starts one)")

// Instance tells where a running testbed is.
type Instance struct {
	// Ready tells that it has started; until then other fields than PID may be empty.
	Ready bool
	// PID is the process that started it and that SIGTERM stops.
	PID int
	// InitPID is process 1 of the testbed's PID namespace, numbered as the host does.
	InitPID int
	// Dir is the state directory.
	Dir string
	// Bin is the folder of the control plane's programs, kubectl among them.
	Bin string
	// Kubeconfig is the path of the administrator's kubeconfig; its server is reached from the
	// host.
	Kubeconfig string
}

// Running asks the testbed that holds this host's address range about itself. The error is
// ErrNotRunning if there is none.
func Running(ctx context.Context) (Instance, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socketName)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return Instance{}, ErrNotRunning
	}
	if err != nil {
		return Instance{}, fmt.Errorf("ask the running testbed: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only read
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return Instance{}, fmt.Errorf("ask the running testbed: %w", err)
	}
	var i Instance
	if err := json.NewDecoder(conn).Decode(&i); err != nil {
		return Instance{}, fmt.Errorf("ask the running testbed (process %d): %w", peerPID(conn), err)
	}
	return i, nil
}

// ending is how long a testbed that was killed may take to be gone, and how often that is looked
// at.
const ending, endingLook = 10 * time.Second, 20 * time.Millisecond

// claim takes the address range for this process. One that holds it and does not answer is being
// taken apart by the kernel, and waited for.
func claim(ctx context.Context) (net.Listener, error) {
	wait, cancel := context.WithTimeout(ctx, ending)
	defer cancel()
	for {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "unix", socketName)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("claim the testbed's addresses: %w", err)
		}
		other, err := Running(wait)
		switch {
		case err == nil:
			return nil, fmt.Errorf("process %d runs a testbed already, and the host's addresses 198.18.0.0/15 serve one at a time (testbed down ends it)", other.PID)
		case errors.Is(err, ErrNotRunning), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		default:
			return nil, fmt.Errorf("another testbed holds the addresses 198.18.0.0/15: %w", err)
		}
		select {
		case <-wait.Done():
			return nil, fmt.Errorf("another testbed does not end: %w", context.Cause(wait))
		case <-time.After(endingLook):
		}
	}
}

// serve answers every caller with the instance until the listener is closed.
func serve(l net.Listener, instance func() Instance) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		// a caller that does not read must not keep others waiting
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_ = json.NewEncoder(conn).Encode(instance()) // the caller notices
		_ = conn.Close()
	}
}

// peerPID returns the process at the other end of a Unix socket, or 0.
func peerPID(conn net.Conn) int {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Down stops the running testbed and returns when its process has ended. When ctx ends first, it is
// killed.
func Down(ctx context.Context) error {
	i, err := Running(ctx)
	if err != nil {
		return err
	}
	// A descriptor names this process even after its number was given to another.
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", i.PID, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only a handle
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("stop process %d: %w", i.PID, err)
	}
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", i.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", i.PID, err)
	}
	return fmt.Errorf("process %d did not stop in time and was killed: %w", i.PID, ctx.Err())
}
