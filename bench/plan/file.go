package plan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Files says how files of load are read.
type Files struct {
	// Model is how requests fall within the bins of a trace.
	Model trace.Model
	// Zeros is what empty bins are: idle, interpolate or hold.
	Zeros string
	// From and To cut a part out of a trace or a log (trace.ParseDuration); empty is the beginning
	// and the end.
	From, To string
	// Format and Unit say what files are and hold (package intake); empty leaves it to the file.
	Format, Unit string
	// Bin is the width of bins, a multiple of the file's; 0 is the file's.
	Bin time.Duration
	// Stdin is read for the file "-".
	Stdin io.Reader
	// Note is told what was taken for what, in lines; it may be nil.
	Note func(string)
	// Progress is told how much of a file was read, in bytes; it may be nil.
	Progress func(file string, read int64)
}

// open makes a file of a name; "-" is standard input.
func (f *Files) open(name string) (intake.File, error) {
	if name != "-" {
		return intake.File{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(name) }}, nil
	}
	if f.Stdin == nil {
		return intake.File{}, errors.New("there is no standard input here")
	}
	return intake.Stdin(f.Stdin)
}

func (f *Files) note(format string, args ...any) {
	if f.Note != nil {
		f.Note(fmt.Sprintf(format, args...))
	}
}

// progress is what is told of one file.
func (f *Files) progress(name string) func(int64) {
	if f.Progress == nil {
		return nil
	}
	return func(read int64) { f.Progress(name, read) }
}

// check says what is wrong with what does not depend on a file.
func (f *Files) check() error {
	var errs []error
	if f.Zeros != "idle" && f.Zeros != "interpolate" && f.Zeros != "hold" {
		errs = append(errs, fmt.Errorf("--zeros = %q: want idle, interpolate or hold", f.Zeros))
	}
	if f.Unit != "" && !slices.Contains(item.Units(), intake.Unit(f.Unit)) {
		errs = append(errs, fmt.Errorf("--unit = %q: want one of %v", f.Unit, item.Units()))
	}
	if f.Bin < 0 {
		errs = append(errs, fmt.Errorf("--bin = %v: want a time > 0", f.Bin))
	}
	return errors.Join(errs...)
}

// isOwn reports whether a file is in the bench's own form, and is to be read as that.
func (f *Files) isOwn(file intake.File) (bool, error) {
	if f.Format != "" || f.Unit == string(formats.UnitCounter) {
		return false, nil
	}
	_, own, err := formats.Recognise(file)
	if own {
		return true, nil // reading it says more about a fault
	}
	return false, err
}

// mostColumns bounds the loads of FILE#all.
const mostColumns = 1000

// Traces are the loads of FILE or FILE#COLUMN, one each, or of all columns of FILE#all. Each file
// is read once for each mean work that it is asked with, if that matters.
func (f Files) Traces(spec string) ([]Load, error) {
	name, column, _ := strings.Cut(spec, "#")
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	own, err := f.isOwn(file)
	if err != nil {
		return nil, err
	}
	columns := []string{column}
	if column == "all" {
		if columns, err = f.columns(file, own); err != nil {
			return nil, err
		}
	}
	var loads []Load
	for _, col := range columns {
		read := f.readForeign
		if own {
			read = f.readTrace
		}
		told := false
		l := Recorded(cached(func(service time.Duration) (*trace.Trace, error) {
			t, words, err := read(file, col, service)
			if err == nil && !told {
				told = true
				f.note("%s: %s", spec, strings.Join(words, "; "))
			}
			return t, err
		}), f.Model)
		if _, err := NameOf(l); err != nil {
			return nil, err
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// columns lists the columns or series of a file.
func (f *Files) columns(file intake.File, own bool) (columns []string, err error) {
	if !own {
		return intake.Series(file, intake.Options{Format: f.Format, Unit: intake.Unit(f.Unit)}, mostColumns)
	}
	r, err := intake.Open(file, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return recording.Columns(r, file.Name)
}

// NameOf is the name of a load's arrivals.
func NameOf(l Load) (string, error) {
	src, err := l(&scenario.Scenario{Service: someWork()})
	if err != nil {
		return "", err
	}
	return src.Name(), nil
}

// someWork is a mean work with which a trace is read only to see whether it can be read.
func someWork() scenario.Dist {
	d, err := scenario.ParseDist("1s")
	if err != nil {
		return scenario.Dist{}
	}
	return d
}

// cached remembers the traces read by work.
func cached(read func(time.Duration) (*trace.Trace, error)) func(time.Duration) (*trace.Trace, error) {
	seen := map[time.Duration]*trace.Trace{}
	return func(service time.Duration) (*trace.Trace, error) {
		if t := seen[service]; t != nil {
			return t, nil
		}
		t, err := read(service)
		if err == nil {
			seen[service] = t
		}
		return t, err
	}
}

// readTrace reads a file in the bench's own form.
func (f *Files) readTrace(file intake.File, column string, service time.Duration) (t *trace.Trace, words []string, err error) {
	r, err := intake.Open(file, f.progress(file.Name))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var taken recording.Taken
	opts := recording.Options{Column: column, Service: service, Taken: &taken}
	opts.Zeros = map[string]recording.Zeros{"interpolate": recording.ZerosInterpolate, "hold": recording.ZerosHold}[f.Zeros]
	opts.Kind = map[string]recording.Kind{"requests": recording.KindRequests, "rate": recording.KindRate, "concurrency": recording.KindConcurrency}[f.Unit]
	if opts.Width, err = f.ownWidth(file); err != nil {
		return nil, nil, err
	}
	if t, err = recording.Read(r, strings.TrimSuffix(strings.TrimSuffix(file.Name, ".gz"), ".zst"), opts); err != nil {
		return nil, nil, err
	}
	if f.Bin > 0 && f.Bin != t.Width() {
		if f.Bin < t.Width() || f.Bin%t.Width() != 0 {
			return nil, nil, fmt.Errorf("its bins are %v wide: want --bin to be a multiple of that, not %v", t.Width(), f.Bin)
		}
		if t, err = t.Coarsen(int(f.Bin / t.Width())); err != nil {
			return nil, nil, err
		}
	}
	if t, err = f.cut(t); err != nil {
		return nil, nil, err
	}
	return t, []string{fmt.Sprintf("%d bins of %v, unit %s (column %q), %.12g requests in all", t.Len(), t.Width(), taken.Kind, taken.Column, t.Requests())}, nil
}

// ownWidth is the width given, if the file has one row only.
func (f *Files) ownWidth(file intake.File) (width time.Duration, err error) {
	if f.Bin == 0 {
		return 0, nil
	}
	r, err := intake.Open(file, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rows := bufio.NewScanner(r)
	n := 0
	for n < 3 && rows.Scan() {
		if line := strings.TrimSpace(rows.Text()); line != "" && line[0] != '#' {
			n++
		}
	}
	if n < 3 {
		return f.Bin, nil
	}
	return 0, nil
}

// readForeign reads a file in a form of other people's.
func (f *Files) readForeign(file intake.File, column string, service time.Duration) (*trace.Trace, []string, error) {
	l, err := intake.Bins([]intake.File{file}, intake.Options{
		Format: f.Format, Unit: intake.Unit(f.Unit), Column: column, Service: service, Width: f.Bin, Progress: f.progress(file.Name),
	})
	if err != nil {
		return nil, nil, err
	}
	words := l.Describe()
	if f.Zeros != "idle" {
		l.Fill(f.Zeros == "hold")
	}
	name := intake.Name(file.Name)
	if column != "" {
		name += "." + column
	}
	t, err := l.Trace(name)
	if err == nil {
		t, err = f.cut(t)
	}
	return t, words, err
}

// part is what From and To say of a load of that length.
func (f *Files) part(length time.Duration) (from, to time.Duration, err error) {
	to = length
	if f.From != "" {
		if from, err = trace.ParseDuration(f.From); err != nil {
			return 0, 0, fmt.Errorf("--from: %w", err)
		}
	}
	if f.To != "" {
		if to, err = trace.ParseDuration(f.To); err != nil {
			return 0, 0, fmt.Errorf("--to: %w", err)
		}
	}
	return from, min(to, length), nil
}

// cut takes the part that is asked for.
func (f *Files) cut(t *trace.Trace) (*trace.Trace, error) {
	from, to, err := f.part(t.Length())
	if err != nil || from == 0 && to == t.Length() {
		return t, err
	}
	return t.Slice(from, to)
}

// Log is the load of a request log.
func (f Files) Log(name string) (Load, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	own, err := f.isOwn(file)
	if err != nil {
		return nil, err
	}
	var until func(service time.Duration) trace.Source
	if own {
		until, err = f.ownLog(file)
	}
	if !own || errors.Is(err, recording.ErrOrder) {
		until, err = f.foreignLog(file)
	}
	if err != nil {
		return nil, err
	}
	return func(s *scenario.Scenario) (trace.Source, error) {
		src := until(s.Service.Mean())
		from, to, err := f.part(src.Length())
		if err != nil {
			return nil, err
		}
		return trace.Window(src, from, to)
	}, nil
}

// ownLog reads a log in the bench's own form. It gives the log with the time until its work ends.
func (f *Files) ownLog(file intake.File) (func(time.Duration) trace.Source, error) {
	passes := 0
	src, err := recording.Log(file.Name, func() (io.ReadCloser, error) {
		if passes++; passes > 1 {
			return intake.Open(file, nil)
		}
		return intake.Open(file, f.progress(file.Name))
	}, recording.LogOptions{})
	if err != nil {
		return nil, err
	}
	f.note("%s: %d requests in %v, counted one by one", file.Name, src.Count, src.Length())
	return src.Until, nil
}

// foreignLog reads a log in a form of other people's, and sorts it.
func (f *Files) foreignLog(file intake.File) (func(time.Duration) trace.Source, error) {
	src, err := intake.Spool(intake.Name(file.Name), []intake.File{file}, intake.Options{Format: f.Format, Progress: f.progress(file.Name)})
	if err != nil {
		return nil, err
	}
	f.note("%s: %d requests in %v; %s", file.Name, src.Items, src.Length(), strings.Join(src.Describe(), "; "))
	return func(service time.Duration) trace.Source { return src.Until(service) }, nil
}
