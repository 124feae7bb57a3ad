// Package binaries builds the control plane's programs from the module that pins them, once, and
// keeps them.
package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// program is one binary and the package it is built from.
type program struct{ name, pkg string }

// programs lists what is built. The largest comes first: it compiles most of what the others share.
func programs() []program {
	return []program{
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
		{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
		{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
		{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
		{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
		{"etcd", "./etcd"},
	}
}

// Cache is a folder of built programs. It may be shared by any number of processes.
type Cache struct {
	// Dir is the folder; each version has one of its own in it.
	Dir string
	// Source is the folder of the module that pins the programs.
	Source string
	// Progress takes lines for people. What builds is written at least every Every.
	Progress io.Writer
	// Every is the longest silence during a build; zero means 10 s.
	Every time.Duration
}

// Ensure builds what is missing and returns the folder that holds all programs. Of several
// processes that call it at once one builds and the others wait. What an interrupted call has
// finished is kept.
func (c Cache) Ensure(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("build the control plane: %w", err)
	}
	toolchain, err := c.goCommand(ctx, "version").Output()
	if err != nil {
		return "", fmt.Errorf("ask go in %s for its version: %w", c.Source, withStderr(err))
	}
	pinned, err := os.ReadFile(filepath.Join(c.Source, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read the control plane's module: %w", err)
	}
	sums, err := os.ReadFile(filepath.Join(c.Source, "go.sum"))
	if err != nil {
		return "", fmt.Errorf("read the control plane's module: %w", err)
	}
	etcd, err := os.ReadFile(filepath.Join(c.Source, "etcd", "main.go"))
	if err != nil {
		return "", fmt.Errorf("read the control plane's module: %w", err)
	}
	flags, err := Flags(pinned)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.Dir, Key(pinned, sums, etcd, toolchain, []byte(strings.Join(flags, "\x00"))))
	if len(missing(dir)) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache of programs: %w", err)
	}
	unlock, err := c.lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	todo := missing(dir)
	for i, p := range todo {
		if err := c.build(ctx, dir, p, flags, fmt.Sprintf("%d/%d", i+1, len(todo))); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Flags returns the arguments of go build for the version of Kubernetes that the go.mod text pins.
func Flags(gomod []byte) ([]string, error) {
	m := regexp.MustCompile(`(?m)^\s*(?:require\s+)?k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`).FindSubmatch(gomod)
	if m == nil {
		return nil, errors.New("the control plane's go.mod does not require k8s.io/kubernetes")
	}
	const version = "k8s.io/component-base/version."
	return []string{
		"-trimpath",
		"-ldflags", fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s", version, m[1], version, m[2], version, m[3]),
	}, nil
}

// Key names the folder of what is built from these inputs.
func Key(inputs ...[]byte) string {
	h := sha256.New()
	for _, in := range inputs {
		// Lengths keep a byte that moves from one input to the next from going unnoticed.
		fmt.Fprintf(h, "%d\x00", len(in))
		h.Write(in)
	}
	fmt.Fprintf(h, "%s/%s", runtime.GOOS, runtime.GOARCH)
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// missing lists the programs that dir does not hold. A program is renamed into place, so what is
// there is whole.
func missing(dir string) []program {
	var out []program
	for _, p := range programs() {
		if _, err := os.Stat(filepath.Join(dir, p.name)); err != nil {
			out = append(out, p)
		}
	}
	return out
}

func (c Cache) build(ctx context.Context, dir string, p program, flags []string, count string) error {
	// Pdeathsig is sent when the thread that started the child ends, so that thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	started := time.Now()
	every := c.Every
	if every == 0 {
		every = 10 * time.Second
	}
	partial := filepath.Join(dir, "."+p.name+".partial")
	args := append([]string{"build", "-o", partial}, flags...)
	cmd := c.goCommand(ctx, append(args, p.pkg)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	fmt.Fprintf(c.Progress, "building %s (%s)\n", p.name, count)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("build %s: %w", p.name, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(c.Progress, "building %s (%s): %.0f s so far\n", p.name, count, time.Since(started).Seconds())
		case err := <-done:
			if ctx.Err() != nil {
				return fmt.Errorf("build %s: %w", p.name, ctx.Err())
			}
			if err != nil {
				return fmt.Errorf("build %s: %w\n%s", p.name, err, lastLines(output.String(), 20))
			}
			if err := os.Rename(partial, filepath.Join(dir, p.name)); err != nil {
				return fmt.Errorf("keep %s: %w", p.name, err)
			}
			fmt.Fprintf(c.Progress, "built %s (%s) in %.0f s\n", p.name, count, time.Since(started).Seconds())
			return nil
		}
	}
}

// goCommand prepares a call of the go command on the module alone, whatever workspace or folder we
// were called from. It ends with ctx, together with the compilers it started, and if this process
// dies.
func (c Cache) goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = c.Source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// lock takes the lock file at path, saying so if another process holds it, and returns how to give
// it back.
func (c Cache) lock(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock of programs: %w", err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	said := false
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !said {
			fmt.Fprintln(c.Progress, "another process builds the same programs: waiting for it")
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for lock %s: %w", path, ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func withStderr(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
