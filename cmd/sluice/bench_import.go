package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/runner"
)

const importLong = `Turn the files that you have into a trace or a request log of the bench: CSV, to standard output or to --out.
What was recognised and what was taken for what goes to standard error, with totals. --trace and --log read the same formats.

Several FILEs are one load. They may be compressed (gzip, zstd) and in any order of time; - is standard input.
FILE#COLUMN takes one series or column of several.

Formats:
`

// formatLines lists the formats for the help.
func formatLines() string {
	var b strings.Builder
	for _, f := range intake.Formats() {
		fmt.Fprintf(&b, "  %-22s %s\n", f.Name, f.Title)
	}
	return strings.TrimRight(b.String(), "\n")
}

func benchImport() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "import FILE…", Short: "Turn access logs, results of load tests, metrics and data sets into a trace or a log", Args: usage(cobra.MinimumNArgs(1)),
		Long: importLong + formatLines(),
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
		if f.as, err = f.kind(files, o); err != nil {
			return err
		}
	}
	write := f.writeTrace
	if f.as == "log" {
		write = f.writeLog
	}
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
		err = f.writeTimes(files, o)
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
	bad(f.format == "" || slices.Contains(intake.Names(), f.format), "--format = %q: want one of %s", f.format, strings.Join(intake.Names(), ", "))
	bad(f.unit == "" || slices.Contains(intake.Units(), o.Unit), "--unit = %q: want one of %v", f.unit, intake.Units())
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
	o.Progress = func() func(int64) {
		tell := runner.ReadProgress(cmd.ErrOrStderr())
		return func(n int64) { tell(strings.Join(args, " "), n) }
	}()
	return files, o, errors.Join(errs...)
}

// kind tells what the first file holds.
func (f *importFlags) kind(files []intake.File, o intake.Options) (string, error) {
	stop := errors.New("seen")
	kind := ""
	_, err := intake.First(files[0], o, func(it *intake.Item) error {
		kind = "log"
		if it.Bin {
			kind = "trace"
		}
		return stop
	})
	if kind != "" {
		return kind, nil
	}
	return "", err
}

func (f *importFlags) writeTrace(w io.Writer, files []intake.File, o intake.Options) ([]string, error) {
	l, err := intake.Bins(files, o)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(w, "t_seconds,requests")
	var b []byte
	for i, v := range l.Requests {
		b = strconv.AppendFloat(b[:0], (time.Duration(i) * l.Width).Seconds(), 'f', -1, 64)
		b = append(b, ',')
		b = strconv.AppendFloat(b, v, 'f', -1, 64)
		b = append(b, '\n')
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	return l.Describe(), nil
}

func (f *importFlags) writeLog(w io.Writer, files []intake.File, o intake.Options) (words []string, err error) {
	l, err := intake.Spool("import", files, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	tokens := l.In+l.Out > 0
	header := "t_seconds,service_seconds"
	if tokens {
		header += ",prompt_tokens,output_tokens"
	}
	fmt.Fprintln(w, header)
	var b []byte
	r := l.Requests()
	for {
		q, in, out, ok := r.Next()
		if !ok {
			break
		}
		b = appendSeconds(b[:0], q.At)
		b = append(b, ',')
		if q.Service > 0 {
			b = appendSeconds(b, q.Service)
		}
		if tokens {
			b = append(strconv.AppendInt(append(b, ','), int64(in), 10), ',')
			b = strconv.AppendInt(b, int64(out), 10)
		}
		b = append(b, '\n')
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	return l.Describe(), r.Err()
}

// appendSeconds writes a time without rounding it.
func appendSeconds(b []byte, d time.Duration) []byte {
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	rest := d % time.Second
	if rest == 0 {
		return b
	}
	text := strconv.FormatInt(int64(rest+time.Second), 10)[1:]
	return append(append(b, '.'), strings.TrimRight(text, "0")...)
}

// mostTimes bounds the file of service times.
const mostTimes = 100_000

// writeTimes writes a random sample of the times that requests took, shortest first.
func (f *importFlags) writeTimes(files []intake.File, o intake.Options) error {
	var times []time.Duration
	n := 0
	rng := rand.New(rand.NewPCG(1, 1))
	if _, err := intake.Read(files, o, func(it *intake.Item) {
		if it.Service <= 0 {
			return
		}
		n++
		if len(times) < mostTimes {
			times = append(times, it.Service)
		} else if i := rng.IntN(n); i < mostTimes {
			times[i] = it.Service
		}
	}); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("--service-times: nothing in the file says how long requests took")
	}
	slices.Sort(times)
	var b []byte
	for _, d := range times {
		b = append(appendSeconds(b, d), '\n')
	}
	if err := os.WriteFile(f.times, b, 0o644); err != nil {
		return fmt.Errorf("--service-times: %w", err)
	}
	return nil
}
