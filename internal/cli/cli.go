// Package cli is the outer shape of every command: signals, exit status, help, version and the
// logger.
//
// A command's main is one line, cli.Main(name, run). Its run parses the flags with Parse,
// validates, works until the context ends, and returns an error. Main turns that error into a
// message and an exit status.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// ErrUsage marks a fault of the command line: the exit status is 2. Its text ends the message.
var ErrUsage = errors.New("see --help")

// Usage marks err as a fault of the command line; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", err, ErrUsage)
}

// Run does the work of a command. It returns when ctx ends or the work is done.
type Run func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Main runs a command and exits: 0 on success, 2 for a fault of the command line, 1 for any other
// failure. SIGINT and SIGTERM end the context. Nothing runs after Main.
func Main(name string, run Run) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(Status(name, err, os.Stderr))
}

// Status writes a command's error to stderr and returns its exit status.
func Status(name string, err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "%s: %v\n", name, err)
	if errors.Is(err, ErrUsage) {
		return 2
	}
	return 1
}

// helpColumns is the width of the help text.
const helpColumns = 110

// Parse parses the arguments of a command that takes flags only, and adds --version to the flags.
// When help or the version was asked for, Parse writes it to stdout and returns true. Help is the
// text usage followed by the flags. Faults are marked by ErrUsage.
func Parse(name, usage string, flags *pflag.FlagSet, args []string, stdout io.Writer) (answered bool, err error) {
	version := flags.Bool("version", false, "print the version and exit")
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		_, err := io.WriteString(stdout, usage+flags.FlagUsagesWrapped(helpColumns))
		return true, err
	case err != nil:
		return false, Usage(err)
	case *version:
		return true, PrintVersion(name, stdout)
	case flags.NArg() > 0:
		return false, Usage(fmt.Errorf("argument %q: want flags only", flags.Arg(0)))
	}
	return false, nil
}

// PrintVersion writes "name version" and a newline.
func PrintVersion(name string, stdout io.Writer) error {
	_, err := fmt.Fprintf(stdout, "%s %s\n", name, Version())
	return err
}

// linked is the version that the linker sets: -ldflags "-X <this package>.linked=1.2.3".
var linked string //nolint:gochecknoglobals // the linker can set nothing else

// Version is the version of this build: the linker's, else that of the main module, else "unknown".
func Version() string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
