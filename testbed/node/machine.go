package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what a pod's worker needs of the operating system. The worker's tests have one that
// runs nothing.
type machine interface {
	// CreateSandbox makes a pod's network; hostNetwork gives the node's own.
	CreateSandbox(name string, hostNetwork bool) (*sandbox, error)
	RemoveSandbox(*sandbox)
	// Start runs a container's program; an error means that it did not come to run.
	Start(ctx context.Context, sb *sandbox, spec shimSpec, logPath string) (process, error)
	// Exec runs a command inside a running container; a command that ran and failed is a code, not
	// an error.
	Exec(ctx context.Context, p process, argv, env []string) (output []byte, code int, err error)
}

// process is a container's first process; when it has ended, so has every other process of the
// container.
type process interface {
	ID() string
	Signal(sig syscall.Signal) error
	Done() <-chan struct{}
	// Exit tells how it ended; only valid after Done. A process ended by signal n has code 128+n.
	Exit() (code int32, signal int32)
}

// linux is the machine that really runs things.
type linux struct {
	net     *network
	nodeIP  netip.Addr
	scratch string
	pids    string // one file per running container, for tools that enter namespaces
	now     func() time.Time
}

// CreateSandbox implements machine.
func (l *linux) CreateSandbox(name string, hostNetwork bool) (*sandbox, error) {
	if hostNetwork {
		return &sandbox{ip: l.nodeIP, ns: -1}, nil
	}
	return l.net.create(name)
}

// RemoveSandbox implements machine.
func (l *linux) RemoveSandbox(s *sandbox) { l.net.remove(s) }

type linuxProcess struct {
	id   string
	cmd  *exec.Cmd
	done chan struct{}
	code int32
	sig  int32
}

// ID implements process.
func (p *linuxProcess) ID() string { return p.id }

// Done implements process.
func (p *linuxProcess) Done() <-chan struct{} { return p.done }

// Exit implements process.
func (p *linuxProcess) Exit() (code int32, signal int32) { return p.code, p.sig }

// Signal implements process; a process that has ended already takes any.
func (p *linuxProcess) Signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// startTimeout bounds how long a shim may take to become the container's program.
const startTimeout = 60 * time.Second

// Start implements machine.
func (l *linux) Start(ctx context.Context, sb *sandbox, spec shimSpec, logPath string) (process, error) {
	spec.Scratch = l.scratch
	orders, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	log, err := openLog(logPath, l.now)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	stdout, stderr := &lineWriter{log: log, stream: "stdout"}, &lineWriter{log: log, stream: "stderr"}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{shimName}, Env: []string{}, Dir: "/", Stdout: stdout, Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC, Setsid: true,
		},
	}
	failure, err := l.launch(cmd, sb, orders)
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	p := &linuxProcess{id: newID(), cmd: cmd, done: make(chan struct{})}
	pidFile := filepath.Join(l.pids, spec.Name)
	_ = os.WriteFile(pidFile, []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
	go func() {
		_ = cmd.Wait()
		_ = os.Remove(pidFile)
		stdout.flush()
		stderr.flush()
		_ = log.Close()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if p.code = int32(status.ExitStatus()); status.Signaled() {
			p.sig = int32(status.Signal())
			p.code = 128 + p.sig
		}
		close(p.done)
	}()
	message, err := readStartError(ctx, failure)
	if err == nil && message == "" {
		return p, nil
	}
	_ = cmd.Process.Kill()
	<-p.done
	if err != nil {
		return nil, err
	}
	return nil, errors.New(message)
}

// launch starts cmd as a shim in the sandbox's network namespace and hands it its orders. What it
// returns yields the shim's complaint, or nothing once the shim has become the container's program.
func (l *linux) launch(cmd *exec.Cmd, sb *sandbox, orders []byte) (failure *os.File, err error) {
	ordersOut, ordersIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	failureOut, failureIn, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, ordersOut.Close(), ordersIn.Close())
	}
	cmd.ExtraFiles = []*os.File{ordersOut, failureIn}
	err = onOwnThread(func() error {
		if !sb.hostNetwork() {
			if err := unix.Setns(int(sb.ns), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
		}
		return cmd.Start()
	})
	_ = ordersOut.Close()
	_ = failureIn.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start shim: %w", err), ordersIn.Close(), failureOut.Close())
	}
	go func() {
		_, _ = ordersIn.Write(orders) // a shim that dies early says why on the other pipe
		_ = ordersIn.Close()
	}()
	return failureOut, nil
}

func readStartError(ctx context.Context, f *os.File) (string, error) {
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	message, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("wait for the shim: %w", errors.Join(ctx.Err(), err))
	}
	return string(message), nil
}

// maxExecOutput is how much of a probe's or hook's output is kept (bytes), as a kubelet does.
const maxExecOutput = 10 << 10

// Exec implements machine.
func (l *linux) Exec(ctx context.Context, p process, argv, env []string) ([]byte, int, error) {
	lp, ok := p.(*linuxProcess)
	if !ok || len(argv) == 0 {
		return nil, 0, errors.New("nothing to execute")
	}
	out := &headBuffer{limit: maxExecOutput}
	cmd := &exec.Cmd{Args: argv, Env: env, Stdout: out, Stderr: out, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	err := onOwnThread(func() error {
		pidfd, err := unix.PidfdOpen(lp.cmd.Process.Pid, 0)
		if err != nil {
			return fmt.Errorf("find container: %w", err)
		}
		defer func() { _ = unix.Close(pidfd) }()
		// A mount namespace can only be entered by a thread that shares its root with no other.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file system: %w", err)
		}
		flags := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
		if err := unix.Setns(pidfd, flags); err != nil {
			return fmt.Errorf("enter container: %w", err)
		}
		if cmd.Path, err = lookPath(argv[0], env); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, 0, err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Process.Kill()
	})
	defer stop()
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe must not hold the probe
	go func() {
		defer close(done)
		err = cmd.Wait()
	}()
	<-done
	if ctx.Err() != nil {
		return out.Bytes(), 0, ctx.Err()
	}
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed && !errors.Is(err, exec.ErrWaitDelay) {
		return out.Bytes(), 0, err
	}
	return out.Bytes(), cmd.ProcessState.ExitCode(), nil
}

// headBuffer keeps the first limit bytes written to it and drops the rest.
type headBuffer struct {
	bytes.Buffer
	limit int
}

func (b *headBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
