package main

import (
	"context"
	"io"

	"github.com/sluice-autoscaler/sluice/internal/cli"
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
	if answered, err := parse("observe", observeUsage, &cfg, args, stdout); answered || err != nil {
		return err
	}
	socket, err := sockdiag.Open()
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	o, err := observe.New(cfg, cli.Version(), socket, cfg.Logging.New(stderr))
	if err != nil {
		return err
	}
	return o.Run(ctx)
}
