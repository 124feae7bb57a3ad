// Command sluice-sidecar stands beside an app in its pod, passes its requests on, and tells how many there are.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/sidecar"
)

const usage = `sluice-sidecar stands beside an app in its pod.

Usage:
  sluice-sidecar proxy [flags]   pass requests on to the app; count, limit and drain them
  sluice-sidecar observe [flags] measure the app's demand from outside the path of its requests
  sluice-sidecar version         print the version

"sluice-sidecar proxy --help" and "sluice-sidecar observe --help" list the flags.
`

const proxyUsage = `Pass requests on to the app; count, limit and drain them.

Usage:
  sluice-sidecar proxy [flags]

On SIGTERM, and on a GET of the drain path, readiness fails at once, requests are served on for --lame-duck, and running
ones get up to --drain. Give the pod a terminationGracePeriodSeconds above the sum of both.

A drain takes the pod out of service for good, so the drain path is answered to the pod itself (loopback addresses), and
to others with the token of --drain-token-file only; without it they get 403. A kubelet's preStop hook is such an other.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := report(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a fault of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "sluice-sidecar: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		_, _ = fmt.Fprintln(stderr, `"sluice-sidecar proxy --help" and "sluice-sidecar observe --help" list the flags.`)
		return 2
	}
	return 1
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return usageError{errors.New("want a command: proxy, observe or version")}
	}
	switch args[0] {
	case "proxy":
		return proxy(ctx, args[1:], stdout, stderr)
	case "observe":
		return observed(ctx, args[1:], stdout, stderr)
	case "version":
		_, err := fmt.Fprintln(stdout, version())
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return usageError{fmt.Errorf("command %q: want proxy, observe or version", args[0])}
	}
}

// mode is the configuration of a mode: it binds its flags and finds their faults.
type mode interface {
	Bind(flags *pflag.FlagSet)
	Validate() error
}

// parse reads a mode's flags into cfg and validates it; help says that help was asked for and printed instead.
func parse(name, usage string, cfg mode, args []string, stdout io.Writer) (help bool, err error) {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	cfg.Bind(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		_, err := io.WriteString(stdout, usage+flags.FlagUsages())
		return true, err
	case err != nil:
		return false, usageError{err}
	case flags.NArg() > 0:
		return false, usageError{fmt.Errorf("argument %q: want flags only", flags.Arg(0))}
	}
	if err := cfg.Validate(); err != nil {
		return false, usageError{err}
	}
	return false, nil
}

func proxy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg := sidecar.Default()
	if help, err := parse("proxy", proxyUsage, &cfg, args, stdout); help || err != nil {
		return err
	}
	if cfg.Threads > 0 {
		runtime.GOMAXPROCS(cfg.Threads)
	}
	s, err := sidecar.New(cfg, version(), cfg.NewLogger(stderr))
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
