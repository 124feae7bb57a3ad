package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/sidecar/observe"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

const observeUsage = `Measure the app's demand from outside the path of its requests, by the kernel's view of its connections.

Usage:
  sluice-sidecar observe [flags]

It needs no capability and no root, only the app's network namespace: any container of the pod will do. It cannot tell
health checks from other requests, nor see into HTTP/2 or streams; docs/observe.md says how good its figures are.

Flags:
`

// observed runs the observe mode.
func observed(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg := observe.Default()
	flags := pflag.NewFlagSet("observe", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	cfg.Bind(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		_, err := io.WriteString(stdout, observeUsage+flags.FlagUsages())
		return err
	case err != nil:
		return usageError{err}
	case flags.NArg() > 0:
		return usageError{fmt.Errorf("argument %q: want flags only", flags.Arg(0))}
	}
	if err := cfg.Validate(); err != nil {
		return usageError{err}
	}
	socket, err := sockdiag.Open()
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	o, err := observe.New(cfg, version(), socket, cfg.NewLogger(stderr))
	if err != nil {
		return err
	}
	return o.Run(ctx)
}
