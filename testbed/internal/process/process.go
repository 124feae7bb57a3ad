// Package process runs the components of a testbed: each is a child process with a log file of its
// own.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	// Name names the process in errors and its log file, NAME.log.
	Name string
	// Path is the program, Args its arguments without the program's own name.
	Path string
	Args []string
	// LogDir is the folder of the log file, which takes both output streams.
	LogDir string
}

// Process is a started program. It is safe for concurrent use.
type Process struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended; valid once done is closed
}

// Start starts the program and returns at once. The process is waited for in a goroutine that ends
// with it.
func Start(spec Spec) (*Process, error) {
	log, err := os.OpenFile(spec.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", spec.Name, err)
	}
	defer log.Close()                            //nolint:errcheck // the child has its own copy of the descriptor
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // its life is bounded by Stop and by the PID namespace
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// LogFile returns the path of the log.
func (s Spec) LogFile() string { return filepath.Join(s.LogDir, s.Name+".log") }

// Name returns the name given in the Spec.
func (p *Process) Name() string { return p.spec.Name }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Failure describes, for people, what became of the process, with the last lines of its log.
func (p *Process) Failure(deed string) error {
	state := "is running"
	select {
	case <-p.done:
		state = "ended: " + p.cmd.ProcessState.String()
	default:
	}
	tail, err := Tail(p.spec.LogFile(), 15)
	if err != nil {
		tail = err.Error()
	}
	return fmt.Errorf("%s: %s %s; its log ends with:\n%s", deed, p.spec.Name, state, indent(tail))
}

// Stop sends SIGTERM, and SIGKILL if the process is still there after grace, and returns when it
// has ended.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended already
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Kill sends SIGKILL and returns when the process has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended already
	<-p.done
}

// Tail returns the last n lines of the file at path, or fewer if it has fewer or if they exceed
// 16 KiB.
func Tail(path string, n int) (string, error) {
	const most = 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read log: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("read log %s: %w", path, err)
	}
	start := max(0, size-most)
	buf := make([]byte, size-start)
	if _, err := f.ReadAt(buf, start); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read log %s: %w", path, err)
	}
	if start > 0 { // the first line is cut
		if i := bytes.IndexByte(buf, '\n'); i >= 0 {
			buf = buf[i+1:]
		}
	}
	lines := strings.Split(strings.TrimRight(string(buf), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n"), nil
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
