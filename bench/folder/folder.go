// Package folder keeps a bench on disk: a summary, one raw record a run, and the results as CSV.
// No other package knows the layout of the files.
package folder

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
)

// Names of what a bench folder holds.
const (
	summaryFile = "summary.json"
	CSVFile     = "results.csv"
	PageFile    = "report.html"
	LoadFile    = "load.png"
	ParetoFile  = "pareto.png"
	rawFolder   = "raw"
	rawEnding   = ".json.gz"
)

// maxRaw bounds what a raw record may unpack to, in bytes, so that a broken one cannot fill the
// memory.
const maxRaw = 1 << 30

// ErrExists is returned by Create for a folder that holds something already.
var ErrExists = errors.New("the folder is not empty")

// Writer writes a bench folder. Its methods are safe for concurrent use. It holds the results,
// never the raw records.
type Writer struct {
	dir     string
	summary summary.Summary

	mu   sync.Mutex
	done map[int]score.Result
}

// Create makes or takes the folder, and writes a summary there that says that it is unfinished. Of
// head, the fields count that say what is run: Sluice, Commit, Command, Baseline, Scenarios, Notes.
// A folder with anything in it is refused (ErrExists), unless it is a bench folder and overwrite is
// true: then what the bench had written there is removed, and other files stay.
func Create(dir string, head summary.Summary, overwrite bool) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the bench folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look into the bench folder: %w", err)
	}
	if len(entries) > 0 {
		old, err := readSummary(dir)
		switch {
		case err != nil && !errors.As(err, new(*versionError)):
			return nil, fmt.Errorf("%s is no bench folder: choose a new or an empty one: %w", dir, ErrExists)
		case !overwrite:
			return nil, fmt.Errorf("%s holds the bench of %q: choose another folder, or ask to overwrite it: %w", dir, strings.Join(old.Command, " "), ErrExists)
		}
		if err := clearFolder(dir); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, rawFolder), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of raw records: %w", err)
	}
	w := &Writer{dir: dir, summary: head, done: map[int]score.Result{}}
	w.summary.Version, w.summary.Unfinished = summary.Version, true
	w.summary.Results, w.summary.Raw, w.summary.Comparison, w.summary.Overall, w.summary.Pareto = nil, nil, nil, nil, nil
	return w, writeSummary(dir, w.summary)
}

// clearFolder removes what a bench wrote. The summary goes last, so that a folder half cleared is
// still known for what it is, and the new one takes its place in one step.
func clearFolder(dir string) error {
	for _, name := range []string{CSVFile, PageFile, LoadFile, ParetoFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear the bench folder: %w", err)
		}
	}
	names, err := rawNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, rawFolder, name)); err != nil {
			return fmt.Errorf("clear the bench folder: %w", err)
		}
	}
	return nil
}

// rawNames are the names of the raw records that are there, in the order of their numbers.
func rawNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, rawFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the raw records: %w", err)
	}
	var names []string
	for _, e := range entries {
		if rawName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return names, nil
}

func rawName(s string) bool { return regexp.MustCompile(`^\d{4,}\.json\.gz$`).MatchString(s) }

// Put writes the raw record of the bench's n-th run, n ≥ 0, and remembers its result. Runs may come
// in any order; the summary is in the order of their numbers. A number that was put before is
// replaced.
func (w *Writer) Put(n int, run score.Run) error {
	if n < 0 {
		return fmt.Errorf("put run %d: want a number ≥ 0", n)
	}
	name := fmt.Sprintf("%04d%s", n, rawEnding)
	err := WriteFile(filepath.Join(w.dir, rawFolder, name), func(out io.Writer) error { return EncodeRun(out, run) })
	if err != nil {
		return fmt.Errorf("write raw record %d (policy %s, trace %s, seed %d): %w", n, run.Result.Policy, run.Result.Trace, run.Result.Seed, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[n] = run.Result
	return nil
}

// Finish writes the summary and results.csv for the runs that were put, however many of the planned
// ones these are, and returns the summary. Notes are added to the head's. If no baseline was given,
// DefaultBaseline chooses.
func (w *Writer) Finish(notes ...string) (summary.Summary, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.summary
	s.Unfinished = false
	s.Notes = append(slices.Clone(s.Notes), notes...)
	numbers := make([]int, 0, len(w.done))
	for n := range w.done {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		s.Results = append(s.Results, w.done[n])
		s.Raw = append(s.Raw, fmt.Sprintf("%04d%s", n, rawEnding))
	}
	if s.Baseline == "" {
		s.Baseline = summary.DefaultBaseline(s.Results)
	}
	s = summary.Summarize(s)
	if err := WriteFile(filepath.Join(w.dir, CSVFile), func(out io.Writer) error { return CSV(out, s.Results) }); err != nil {
		return s, fmt.Errorf("write the CSV: %w", err)
	}
	return s, writeSummary(w.dir, s)
}

func writeSummary(dir string, s summary.Summary) error {
	err := WriteFile(filepath.Join(dir, summaryFile), func(out io.Writer) error { return Encode(out, s) })
	if err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

// WriteFile writes a file under a temporary name and renames it, so that a reader never finds half
// of it.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	b := bufio.NewWriter(f)
	if err := errors.Join(write(b), b.Flush(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Encode writes a summary as indented JSON.
func Encode(w io.Writer, s summary.Summary) error {
	if s.Command == nil {
		s.Command = []string{}
	}
	if s.Scenarios == nil {
		s.Scenarios = []json.RawMessage{}
	}
	if s.Results == nil {
		s.Results = []score.Result{}
	}
	if s.Raw == nil {
		s.Raw = []string{}
	}
	if s.Comparison == nil {
		s.Comparison = []summary.Row{}
	}
	if s.Pareto == nil {
		s.Pareto = []summary.Front{}
	}
	if s.Notes == nil {
		s.Notes = []string{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// versionError is a format that this package does not read.
type versionError struct{ got int }

func (e *versionError) Error() string {
	return fmt.Sprintf("format version %d, and this sluice reads version %d only: use the sluice that wrote it, or run the bench again", e.got, summary.Version)
}

// Decode reads a summary. Fields that it does not know are ignored; a version other than
// summary.Version is an error.
func Decode(data []byte) (summary.Summary, error) {
	var head struct {
		Version *int             `json:"version"`
		Results *json.RawMessage `json:"results"`
		Command []string         `json:"command"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return summary.Summary{}, fmt.Errorf("not a bench summary: %w", err)
	}
	if head.Version == nil || head.Results == nil {
		return summary.Summary{}, errors.New("not a bench summary: want a JSON object with version and results")
	}
	if *head.Version != summary.Version {
		return summary.Summary{Command: head.Command}, &versionError{*head.Version}
	}
	var s summary.Summary
	if err := json.Unmarshal(data, &s); err != nil {
		return summary.Summary{}, fmt.Errorf("bench summary: %w", err)
	}
	if len(s.Raw) == 0 {
		for i := range s.Results {
			s.Raw = append(s.Raw, fmt.Sprintf("%04d%s", i, rawEnding))
		}
	}
	if len(s.Raw) != len(s.Results) {
		return summary.Summary{}, fmt.Errorf("bench summary: %d results, but %d names of raw records", len(s.Results), len(s.Raw))
	}
	for _, name := range s.Raw {
		if !rawName(name) {
			return summary.Summary{}, fmt.Errorf("bench summary: raw record %q: want a name like 0000%s", name, rawEnding)
		}
	}
	return s, nil
}

func readSummary(dir string) (summary.Summary, error) {
	path := filepath.Join(dir, summaryFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return summary.Summary{}, fmt.Errorf("%s is no bench folder: %w", dir, err)
	}
	s, err := Decode(data)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// EncodeRun writes a raw record: JSON, packed by gzip. It has no time stamp, so that the same run
// makes the same bytes.
func EncodeRun(w io.Writer, run score.Run) error {
	z := gzip.NewWriter(w)
	return errors.Join(json.NewEncoder(z).Encode(run), z.Close())
}

// DecodeRun reads a raw record and checks that its series fit together.
func DecodeRun(r io.Reader) (score.Run, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return score.Run{}, fmt.Errorf("unpack: %w", err)
	}
	limited := &io.LimitedReader{R: z, N: maxRaw}
	var run score.Run
	d := json.NewDecoder(limited)
	if err := d.Decode(&run); err != nil {
		if limited.N <= 0 {
			return score.Run{}, fmt.Errorf("it unpacks to more than %d bytes", maxRaw)
		}
		return score.Run{}, fmt.Errorf("parse: %w", err)
	}
	// The rest of the stream carries gzip's check sum.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return score.Run{}, fmt.Errorf("unpack: %w", err)
	}
	return run, checkRun(run)
}

func checkRun(run score.Run) error {
	var errs []error
	s := run.Series
	n := len(s.Arrivals)
	for _, x := range fieldsOf(s) {
		if len(x.values) != n {
			errs = append(errs, fmt.Errorf("series.%s has %d steps and series.arrivals %d", x.name, len(x.values), n))
		}
	}
	if n > 0 && (s.Step <= 0 || s.Step > math.MaxFloat32) { // JSON has no NaN
		errs = append(errs, fmt.Errorf("series.step = %v: want a length > 0 (s)", s.Step))
	}
	for i, b := range run.Waits {
		if b.Count < 0 || (i > 0 && b.Upper <= run.Waits[i-1].Upper) {
			errs = append(errs, fmt.Errorf("waits[%d]: want rising upper bounds and counts ≥ 0", i))
			break
		}
	}
	return errors.Join(errs...)
}

// field is one of a series' slices.
type field struct {
	name   string
	values []float32
}

// fieldsOf are the slices of a series, by their names in JSON.
func fieldsOf(s score.Series) []field {
	return []field{
		{"arrivals", s.Arrivals},
		{"demand", s.Demand},
		{"waiting", s.Waiting},
		{"wanted", s.Wanted},
		{"ready", s.Ready},
		{"starting", s.Starting},
		{"coldStarts", s.ColdStarts},
		{"violations", s.Violations},
		{"waitMax", s.WaitMax},
	}
}

// Folder is a bench folder that was read. It is a Source: raw records are read when they are asked
// for.
type Folder struct {
	// Dir is the folder, Summary what its summary says.
	Dir     string
	Summary summary.Summary
}

// Open reads a folder's summary. If the bench was killed before it wrote one, the results are taken
// from the raw records, and a note says so.
func Open(dir string) (*Folder, error) {
	s, err := readSummary(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir, Summary: s}
	if !s.Unfinished {
		return f, nil
	}
	names, err := rawNames(dir)
	if err != nil {
		return nil, err
	}
	s.Results, s.Raw = nil, nil
	broken := 0
	for _, name := range names {
		run, err := readRun(dir, name)
		if err != nil {
			broken++
			continue
		}
		s.Results, s.Raw = append(s.Results, run.Result), append(s.Raw, name)
	}
	note := fmt.Sprintf("The bench ended before its end: these are the %d runs that it had written.", len(s.Results))
	if broken > 0 {
		note += fmt.Sprintf(" %d raw records cannot be read.", broken)
	}
	s.Notes = append(s.Notes, note)
	if s.Baseline == "" {
		s.Baseline = summary.DefaultBaseline(s.Results)
	}
	f.Summary = summary.Summarize(s)
	return f, nil
}

// Run implements Source: it reads the i-th result's raw record.
func (f *Folder) Run(i int) (score.Run, error) {
	if i < 0 || i >= len(f.Summary.Raw) {
		return score.Run{}, fmt.Errorf("run %d of %d: %w", i, len(f.Summary.Raw), summary.ErrNoRun)
	}
	return readRun(f.Dir, f.Summary.Raw[i])
}

func readRun(dir, name string) (score.Run, error) {
	path := filepath.Join(dir, rawFolder, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return score.Run{}, fmt.Errorf("read a raw record: %w", err)
	}
	run, err := DecodeRun(bytes.NewReader(data))
	if err != nil {
		return score.Run{}, fmt.Errorf("raw record %s: %w", path, err)
	}
	return run, nil
}
