package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/convert"
	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/runner"
)

const importLong = `Turn the files that you have into a trace or a request log of the bench: CSV, to standard output or to --out.
What was recognised and what was taken for what goes to standard error, with totals. --trace and --log read the same formats.

Several FILEs are one load. They may be compressed (gzip, zstd) and in any order of time; - is standard input.
FILE#COLUMN takes one series or column of several.

Formats:
`

func benchImport() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "import FILE…", Short: "Turn access logs, results of load tests, metrics and data sets into a trace or a log", Args: usage(cobra.MinimumNArgs(1)),
		Long: importLong + formats.List(),
		Example: `  sluice bench import access.log.gz --out requests.csv
  sluice bench import day_*.csv --bin 1m --as trace --out trace.csv
  sluice bench import latencies.hgrm --service-times times.txt && sluice bench run --service empirical:@times.txt …`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := c.Flags()
	flags.AddReading(fl, &f.format, &f.unit, &f.bin)
	fl.StringVar(&f.as, "as", "", "what to write: log (a line a request) or trace (bins) (default: log for requests, trace for values over time)")
	fl.StringVar(&f.out, "out", "", "the `FILE` to write (default: standard output)")
	fl.StringVar(&f.times, "service-times", "", "write times that requests took to this `FILE`, for --service empirical:@FILE")
	fl.DurationVar(&f.service, "service", 0, "mean time that a request takes, which turns concurrency into requests")
	return c
}

type importFlags struct {
	format, unit, as, out, times string
	bin, service                 time.Duration
}

func (f *importFlags) run(cmd *cobra.Command, args []string) error {
	files, o, err := f.files(cmd, args)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if f.as == "" {
		if f.as, err = convert.Kind(files, o); err != nil {
			return err
		}
	}
	write := map[string]func(io.Writer, []intake.File, intake.Options) ([]string, error){"trace": convert.Trace, "log": convert.Log}[f.as]
	out := cmd.OutOrStdout()
	var named *os.File
	if f.out != "" {
		if named, err = os.Create(f.out); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		out = named
	}
	w := bufio.NewWriter(out)
	words, err := write(w, files, o)
	if err == nil {
		err = w.Flush()
	}
	if named != nil {
		err = errors.Join(err, named.Close())
	}
	for _, line := range words {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	if err == nil && f.times != "" {
		err = convert.Times(f.times, files, o)
	}
	return err
}

// files opens what is asked for.
func (f *importFlags) files(cmd *cobra.Command, args []string) ([]intake.File, intake.Options, error) {
	o := intake.Options{Format: f.format, Unit: intake.Unit(f.unit), Width: f.bin, Service: f.service}
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(f.as == "" || f.as == "log" || f.as == "trace", "--as = %q: want log or trace", f.as)
	bad(f.format == "" || slices.Contains(formats.Names(), f.format), "--format = %q: want one of %s", f.format, strings.Join(formats.Names(), ", "))
	bad(f.unit == "" || slices.Contains(item.Units(), o.Unit), "--unit = %q: want one of %v", f.unit, item.Units())
	bad(f.bin >= 0, "--bin = %v: want a time > 0", f.bin)
	bad(f.service >= 0, "--service = %v: want a time > 0", f.service)
	var files []intake.File
	for _, a := range args {
		name, column, _ := strings.Cut(a, "#")
		bad(o.Column == "" || column == o.Column, "%s: all files must have the same #COLUMN", a)
		o.Column = column
		if name != "-" {
			files = append(files, intake.File{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(name) }})
			continue
		}
		in, err := intake.Stdin(cmd.InOrStdin())
		errs = append(errs, err)
		files = append(files, in)
	}
	tell := runner.ReadProgress(cmd.ErrOrStderr())
	o.Progress = func(n int64) { tell(strings.Join(args, " "), n) }
	return files, o, errors.Join(errs...)
}
