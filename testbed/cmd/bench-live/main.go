// Command bench-live holds the simulator against the testbed: `make bench-live` builds what it
// needs and runs it.
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
	"strings"
	"syscall"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/benchlive"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const usage = `usage: bench-live [--only NAME,…] [--again] [--out DIR] [--report DIR] [--note TEXT]

Starts a Kubernetes control plane on this machine, installs Sluice, replays six loads of four minutes under different policies
and start-up times, simulates the same requests, and prints how far the two are apart. Needs root and a calm machine; takes
about half an hour. Ctrl-C stops it cleanly. Exit status: 0 measured, 1 failed, 2 wrong use.

  --only NAMES  these trials only: steady, ramp, bursts, trace, sparse, surges
  --again       replay nothing: simulate what an earlier run left in --out once more
  --out DIR     folder for all that is seen (default: out/bench-live in the repository)
  --report DIR  also write simulated-vs-live.md and .json there
  --note TEXT   a remark for the report, such as on the machine
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
	flags := flag.NewFlagSet("bench-live", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	only := flags.String("only", "", "")
	again := flags.Bool("again", false, "")
	out := flags.String("out", "", "")
	report := flags.String("report", "", "")
	note := flags.String("note", "", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, usage)
		return 0
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%q: takes flags only", flags.Arg(0))
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-live: %v\n%s", err, usage)
		return 2
	}
	if os.Geteuid() != 0 && !*again {
		_, _ = fmt.Fprintln(stderr, "bench-live: it needs root, for the testbed's network, mount and PID namespaces: run it with sudo")
		return 1
	}
	place, err := kit.Find()
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-live: %v\n", err)
		return 1
	}
	if *out == "" {
		*out = filepath.Join(place.Root, "out", "bench-live")
	}
	o := benchlive.Options{Place: place, Out: *out, Report: *report, Note: *note, Again: *again, Stdout: stdout, Stderr: stderr}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	if err := benchlive.Run(ctx, o); err != nil {
		_, _ = fmt.Fprintf(stderr, "bench-live: %v\n", err)
		return 1
	}
	return 0
}
