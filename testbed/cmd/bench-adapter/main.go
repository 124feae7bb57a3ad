// Command bench-adapter measures Sluice's adapter beside prometheus-adapter on the testbed's real
// API server: `make bench-adapter` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/benchadapter"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const usage = `usage: bench-adapter --upstream PROGRAM [--quick] [--limit DURATION] [--out DIR]

Starts a Kubernetes control plane and a Prometheus on this machine and measures two metrics adapters in turns, with the same
rules, series and GETs: prometheus-adapter v0.12.0 and Sluice. Then it measures what reading 1,000 to 10,000 sidecars a second
costs. Needs root, a Prometheus in the PATH and a calm machine. Exit status: 0 measured and within the goals, 1 not, 2 wrong
use.

  --upstream PROGRAM  prometheus-adapter
  --quick             one size of each kind, no goals that fail; two minutes
  --limit DURATION    what has not begun by then is left out (default 20m, with --quick 4m)
  --out DIR           folder for summary.json (default: out/bench-adapter in the repository)
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
	flags := flag.NewFlagSet("bench-adapter", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	upstream := flags.String("upstream", "", "")
	quick := flags.Bool("quick", false, "")
	limit := flags.Duration("limit", 0, "")
	out := flags.String("out", "", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		return 0
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q: takes flags only", flags.Arg(0))
	case err == nil && *upstream == "":
		err = errors.New("--upstream is missing: want the path of prometheus-adapter")
	case err == nil && (*limit < 0 || *limit > 0 && *limit < time.Minute || *limit > 3*time.Hour):
		err = fmt.Errorf("--limit = %v: want 1m–3h", *limit)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-adapter: %v\n%s", err, usage)
		return 2
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "bench-adapter: it needs root, for the testbed's network, mount and PID namespaces: run it with sudo")
		return 1
	}
	if *limit == 0 {
		*limit = 20 * time.Minute
		if *quick {
			*limit = 4 * time.Minute
		}
	}
	o := benchadapter.Options{Upstream: *upstream, Out: *out, Quick: *quick, Limit: *limit, Stdout: stdout, Stderr: stderr}
	if o.Place, err = kit.Find(); err == nil {
		if o.Out == "" {
			o.Out = filepath.Join(o.Place.Root, "out", "bench-adapter")
		}
		if o.Prometheus, err = exec.LookPath("prometheus"); err == nil {
			err = benchadapter.Measure(ctx, o)
		}
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-adapter: %v\n", err)
		return 1
	}
	return 0
}
