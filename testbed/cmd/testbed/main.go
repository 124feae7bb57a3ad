// Command testbed runs a real Kubernetes control plane and a node on one machine. Run it without
// arguments for its usage.
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
)

const usage = `usage:
  testbed up [--dir DIR] [--image NAME=PROGRAM]... [--hpa-sync-period 5s]
      Start etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and a node in namespaces of their
      own, and stay until Ctrl-C. The first time, build them (8 to 10 minutes on 2 cores). Needs root and nft.
  testbed down
      Stop the running testbed.
  testbed kubeconfig
      Print the path of the running testbed's kubeconfig; it works on the host.
  testbed exec [--pod NAMESPACE/NAME] -- COMMAND [ARGUMENT]...
      Run a command in the testbed's or a pod's network, with KUBECONFIG set and kubectl on the PATH.
  testbed build
      Build the control plane's programs into the cache and print their folder.

Built programs are kept in $SLUICE_CACHE, or else in sluice in the user's cache directory.
`

// errUsage marks mistakes in the command line.
var errUsage = errors.New("wrong usage")

func main() {
	testbed.MaybeChild()
	os.Exit(exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)))
}

func exit(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "testbed: %v\n%s", err, usage)
		return 2
	default:
		fmt.Fprintf(os.Stderr, "testbed: %v\n", err)
		return 1
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: a command is missing", errUsage)
	}
	flags := flag.NewFlagSet("testbed "+args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch args[0] {
	case "up":
		return up(ctx, flags, args[1:], stdout, stderr)
	case "down":
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return testbed.Down(ctx)
	case "kubeconfig":
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		c, err := testbed.Attach(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, c.Kubeconfig())
		return err
	case "exec":
		return enter(ctx, flags, args[1:])
	case "build":
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		dir, err := testbed.Build(ctx, testbed.Options{Progress: stderr})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, dir)
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("%w: no command %q", errUsage, args[0])
	}
}

// parse parses flags of a command that takes no further arguments.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %s takes no argument %q", errUsage, flags.Name(), flags.Arg(0))
	}
	return nil
}

func up(ctx context.Context, flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	images := testbed.Images{}
	dir := flags.String("dir", "", "state directory")
	period := flags.Duration("hpa-sync-period", 5*time.Second, "how often the HorizontalPodAutoscaler controller decides")
	flags.Var(images, "image", "NAME=PROGRAM: pods with image NAME run PROGRAM")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *dir == "" {
		cache, err := testbed.DefaultCache()
		if err != nil {
			return err
		}
		*dir = filepath.Join(cache, "testbed")
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-started:
		}
	}()
	begun := time.Now()
	c, err := testbed.Start(starting, testbed.Options{Dir: *dir, Images: images, HPASyncPeriod: *period, Progress: stderr})
	close(started)
	if err != nil {
		if starting.Err() != nil { // asked for: not a failure
			fmt.Fprintln(stderr, "stopped while starting")
			return nil
		}
		return err
	}
	_, err = fmt.Fprintf(stdout, "ready after %.1f s; stop it with Ctrl-C\nexport KUBECONFIG=%s\n", time.Since(begun).Seconds(), c.Kubeconfig())
	if err != nil {
		return errors.Join(err, c.Kill())
	}
	select {
	case <-signals:
	case <-starting.Done(): // the signal came just as it got ready
	case <-c.Done():
		return errors.Join(c.Err(), c.Kill())
	}
	fmt.Fprintln(stderr, "stopping (Ctrl-C again kills)")
	stopping, kill := context.WithTimeout(ctx, 20*time.Second)
	defer kill()
	go func() {
		select {
		case <-signals:
			kill()
		case <-stopping.Done():
		}
	}()
	return c.Stop(stopping)
}

func enter(ctx context.Context, flags *flag.FlagSet, args []string) error {
	pod := flags.String("pod", "", "NAMESPACE/NAME of the pod whose network to use")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() == 0 {
		return fmt.Errorf("%w: exec needs a command", errUsage)
	}
	c, err := testbed.Attach(ctx)
	if err != nil {
		return err
	}
	return c.Exec(*pod, flags.Args())
}
