// Command sluice-sample is a tiny web app to try Sluice on. It is a sample, not a part of the
// product.
package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/cli"
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

func main() { cli.Main("sluice-sample", run) }

func run(ctx context.Context, args []string, stdout, _ io.Writer) error {
	cfg := sampleapp.Default()
	flags := pflag.NewFlagSet("sluice-sample", pflag.ContinueOnError)
	flags.StringVar(&cfg.Listen, "listen", cfg.Listen, "`address` to listen on")
	flags.DurationVar(&cfg.ReadyAfter, "ready-after", cfg.ReadyAfter, "listen only after so long, to stand for a slow start")
	flags.DurationVar(&cfg.Drain, "drain", cfg.Drain, "how long running requests may take after SIGTERM")
	if answered, err := cli.Parse("sluice-sample", usage, flags, args, stdout); answered || err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return cli.Usage(err)
	}
	var g serve.Group
	g.Add(sampleapp.Service(cfg))
	if err := g.Run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}
