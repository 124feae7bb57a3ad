// Command bench-scaler measures what rounds cost on the testbed's real API server: `make
// bench-scaler` builds what it needs and runs it.
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
	"time"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/benchscaler"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const usage = `usage: bench-scaler [--quick] [--watch DURATION] [--out DIR]

Starts a Kubernetes control plane on this machine and measures what a round of one Autoscaler costs among 100, 1,000 and
10,000, in one namespace and in a namespace each; then what 1,000, 3,000 and 10,000 Autoscalers that are asked every two
seconds cost the controller, how late their decisions are, and how much they write. Needs root and a calm machine; takes about
fifteen minutes. Exit status: 0 measured and within the goals, 1 not, 2 wrong use.

  --quick           a tenth of the Autoscalers, no goals
  --watch DURATION  how long each number of Autoscalers is watched (default 60s)
  --out DIR         folder for summary.json (default: out/bench-scaler in the repository)
`

func main() {
	testbed.MaybeChild()
	benchscaler.MaybeController()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench-scaler", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	quick := flags.Bool("quick", false, "")
	watch := flags.Duration("watch", time.Minute, "")
	out := flags.String("out", "", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		return 0
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q: takes flags only", flags.Arg(0))
	case err == nil && (*watch < time.Second || *watch > time.Hour):
		err = fmt.Errorf("--watch = %v: want 1s–1h", *watch)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-scaler: %v\n%s", err, usage)
		return 2
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "bench-scaler: it needs root, for the testbed's network, mount and PID namespaces: run it with sudo")
		return 1
	}
	place, err := kit.Find()
	if err == nil {
		if *out == "" {
			*out = filepath.Join(place.Root, "out", "bench-scaler")
		}
		err = benchscaler.Run(ctx, benchscaler.Options{Place: place, Out: *out, Quick: *quick, Watch: *watch, Stdout: stdout, Stderr: stderr})
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-scaler: %v\n", err)
		return 1
	}
	return 0
}
