// Command sluice-sample is a tiny web app to try Sluice on. It is a sample, not a part of the product.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/sampleapp"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

const usage = `A tiny web app to try Sluice on; a sample, not a part of the product.

  GET /?ms=200   200 "ok" after 200 ms
  POST /         200 with the size of the body
  GET /healthz   200

HTTP/1.1 and h2c. On SIGTERM it finishes what runs, and exits.

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg := sampleapp.Default()
	flags := pflag.NewFlagSet("sluice-sample", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.Listen, "listen", cfg.Listen, "`address` to listen on")
	flags.DurationVar(&cfg.ReadyAfter, "ready-after", cfg.ReadyAfter, "listen only after so long, to stand for a slow start")
	flags.DurationVar(&cfg.Drain, "drain", cfg.Drain, "how long running requests may take after SIGTERM")
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		_, _ = io.WriteString(stdout, usage+flags.FlagUsages())
		return 0
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("argument %q: want flags only", flags.Arg(0))
	}
	if err = errors.Join(err, cfg.Validate()); err != nil {
		_, _ = fmt.Fprintf(stderr, "sluice-sample: %v\n", err)
		return 2
	}
	var g serve.Group
	g.Add(sampleapp.Service(cfg))
	if err := g.Run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		_, _ = fmt.Fprintf(stderr, "sluice-sample: %v\n", err)
		return 1
	}
	return 0
}
