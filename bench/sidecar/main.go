// Command sidecar-bench measures what a proxy beside an app costs: Sluice's, Knative's queue-proxy,
// nginx and haproxy, and Sluice's observe mode, against the app alone, in interleaved rounds of one
// run. "make bench-sidecar" builds what it needs.
//
// CPU per request is the proxy's own user and system time over the requests it passed on; it is the
// figure that carries from run to run. Requests per second and latencies are those of a machine
// that load generator, proxy and app share: compare them within one run only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// insideEnv tells the process that it runs in its own network namespace; appEnv that it is the app.
const (
	insideEnv = "SIDECAR_BENCH_INSIDE"
	appEnv    = "SIDECAR_BENCH_APP"
)

// options are the command line.
type options struct {
	sluice, queueProxy string
	out                string
	quick              bool
	rounds             int
	length             time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "sidecar-bench: %v\n", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if os.Getenv(appEnv) != "" {
		return serveApp(ctx)
	}
	var o options
	flags := flag.NewFlagSet("sidecar-bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.sluice, "sluice", "", "`path` of sluice-sidecar (required)")
	flags.StringVar(&o.queueProxy, "queue-proxy", "", "`path` of Knative's queue-proxy; empty leaves it out")
	flags.StringVar(&o.out, "out", "out/bench-sidecar", "`folder` for result.json and cpu.png")
	flags.BoolVar(&o.quick, "quick", false, "32 connections, one short round: a minute")
	flags.IntVar(&o.rounds, "rounds", 2, "how often each measurement is done")
	flags.DurationVar(&o.length, "length", 2*time.Second, "how long each measurement takes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.quick {
		o.rounds, o.length = 1, time.Second
	}
	if o.sluice == "" || flags.NArg() > 0 || o.rounds < 1 || o.length < 100*time.Millisecond {
		return errors.New("want --sluice, no arguments, rounds ≥ 1 and length ≥ 100ms")
	}
	if os.Getenv(insideEnv) == "" {
		return enter(ctx, args, stdout, stderr)
	}
	if err := command(ctx, "ip", "link", "set", "lo", "up").Run(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}

	work, err := os.MkdirTemp("", "sidecar-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.Chmod(work, 0o755); err != nil { // nginx's workers are nobody
		return err
	}
	b := bench{options: o, work: work, out: stdout}
	result, err := b.run(ctx)
	if err != nil {
		return err
	}
	result.print(stdout)
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(o.out, "result.json")
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return err
	}
	chart := filepath.Join(o.out, "cpu.png")
	if err := result.draw(chart); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nraw figures in %s, chart in %s\n", path, chart)
	return err
}

// enter runs this program again in a network namespace of its own: queue-proxy's ports are fixed,
// and may be taken outside.
func enter(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := command(ctx, "/proc/self/exe", args...)
	c.Stdout, c.Stderr = stdout, stderr
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is of the thread that starts the child
	defer runtime.UnlockOSThread()
	if err := c.Run(); err != nil {
		return fmt.Errorf("in a network namespace: %w", err)
	}
	return nil
}

// command is a command that ends with ctx, and with this process.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}
