// Command sluice-sidecar stands beside an app in its pod, passes its requests on, and tells how
// many there are.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/sidecar"
)

const name = "sluice-sidecar"

const usage = `sluice-sidecar stands beside an app in its pod.

Usage:
  sluice-sidecar proxy [flags]   pass requests on to the app; count, limit and drain them
  sluice-sidecar observe [flags] measure the app's demand from outside the path of its requests
  sluice-sidecar version         print the version, as --version does with the name

"sluice-sidecar proxy --help" and "sluice-sidecar observe --help" list the flags.
`

const proxyUsage = `Pass requests on to the app; count, limit and drain them.

Usage:
  sluice-sidecar proxy [flags]

On SIGTERM, and on a GET of the drain path, readiness fails at once, requests are served on for --lame-duck, and running
ones get up to --drain. Give the pod a terminationGracePeriodSeconds above the sum of both.

A drain takes the pod out of service, until SIGTERM or for --drain-undo. So where there is a --drain-token-file, the drain
path is answered to who sends the token, and to nobody else. Where there is none it is answered to the pod itself: over
loopback addresses, by a loopback address or localhost as the host, and without a proxy between. Others get 403. A
kubelet's preStop hook of the kind httpGet comes from the node, so it needs the token.

Flags:
`

func main() { cli.Main(name, run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return cli.Usage(errors.New("want a command: proxy, observe or version"))
	}
	switch args[0] {
	case "proxy":
		return proxy(ctx, args[1:], stdout, stderr)
	case "observe":
		return observed(ctx, args[1:], stdout, stderr)
	case "version":
		_, err := fmt.Fprintln(stdout, cli.Version())
		return err
	case "--version":
		return cli.PrintVersion(name, stdout)
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return cli.Usage(fmt.Errorf("command %q: want proxy, observe or version", args[0]))
	}
}

// mode is the configuration of a mode: it binds its flags and finds their faults.
type mode interface {
	Bind(flags *pflag.FlagSet)
	Validate() error
}

// parse reads a mode's flags into cfg and validates it. It returns true when help or the version
// was asked for and printed.
func parse(command, usage string, cfg mode, args []string, stdout io.Writer) (answered bool, err error) {
	flags := pflag.NewFlagSet(command, pflag.ContinueOnError)
	cfg.Bind(flags)
	if answered, err := cli.Parse(name, usage, flags, args, stdout); answered || err != nil {
		return answered, err
	}
	return false, cli.Usage(cfg.Validate())
}

func proxy(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg := sidecar.Default()
	if answered, err := parse("proxy", proxyUsage, &cfg, args, stdout); answered || err != nil {
		return err
	}
	if cfg.Threads > 0 {
		runtime.GOMAXPROCS(cfg.Threads)
	}
	s, err := sidecar.New(cfg, cli.Version(), cfg.Logging.New(stderr))
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
