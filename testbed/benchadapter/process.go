package benchadapter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that is measured, or that a measurement needs.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	// ended is closed once the program has ended.
	ended chan struct{}
	log   string
}

// start runs a program with its output in a file. It ends with this process.
func start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // a log for everybody
	if err != nil {
		return nil, err
	}
	defer out.Close()                     //nolint:errcheck // the child has its own
	cmd := exec.Command(program, args...) //nolint:noctx // stop ends it
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, ended: make(chan struct{}), log: log, began: time.Now()}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended does not matter: it is asked for what it does
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	return p, nil
}

// alive is nil while the program runs.
func (p *process) alive() error {
	select {
	case <-p.ended:
		raw, _ := os.ReadFile(p.log) // for people
		return fmt.Errorf("%s has ended; its log ends with: %s", filepath.Base(p.cmd.Path), bytes.TrimSpace(raw[max(0, len(raw)-1000):]))
	default:
		return nil
	}
}

// pause and resume stop and continue it; an error means that it has ended, which alive tells.
func (p *process) pause()  { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

// stop ends it.
func (p *process) stop() {
	if p == nil {
		return
	}
	p.resume()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// cpu is the time on processors that it has had.
func (p *process) cpu() (time.Duration, error) {
	var t unix.Timespec
	const schedClock = 2 // of a process: the scheduler's exact sum
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|schedClock), &t); err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return time.Duration(t.Nano()), nil
}

// peak is the most memory that it has had resident, in MiB.
func (p *process) peak() (float64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("no VmHWM in the process's status")
}
