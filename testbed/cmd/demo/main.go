// Command demo shows Sluice's main job on a testbed: `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/demo"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const usage = `usage: demo [--hold] [--out DIR]

Starts a Kubernetes control plane on this machine, installs Sluice, drives a sample app from 0 to many pods and back under an
Autoscaler and then under a stock HPA, and sums up what was seen. Needs root; takes about 5 minutes. Ctrl-C stops it cleanly.
Exit status: 0 shown as it has to be, 1 not (a lost request, a replica count not reached), 2 wrong use, 130 interrupted.

  --hold     leave everything up after the summary, until Ctrl-C
  --out DIR  folder for the chart and the raw data (default: out/demo in the repository)
`

func main() {
	testbed.MaybeChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	hold := flags.Bool("hold", false, "")
	out := flags.String("out", "", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		return 0
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q: takes flags only", flags.Arg(0))
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "demo: %v\n%s", err, usage)
		return 2
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "demo: it needs root, for the testbed's network, mount and PID namespaces: run it with sudo")
		return 1
	}
	place, err := kit.Find()
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	if *out == "" {
		*out = filepath.Join(place.Root, "out", "demo")
	}
	err = demo.Run(ctx, demo.Options{Place: place, Out: *out, Hold: *hold, Stdout: stdout, Color: terminal(stdout)})
	switch {
	case err == nil:
		return 0
	case errors.Is(err, demo.ErrInterrupted):
		return 130
	default:
		_, _ = fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
}

// terminal tells whether people look at w directly.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
