package folder_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/page"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/summarytest"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want, runs := summarytest.Small()
	dir := filepath.Join(t.TempDir(), "deep", "out")
	head := want
	head.Notes = want.Notes[:1]
	w, err := folder.Create(dir, head, false)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i, r := range runs {
		all.Go(func() {
			if err := w.Put(i, r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	half, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(half.Summary.Results); n != len(runs) || len(half.Summary.Notes) != 2 {
		t.Errorf("a folder without end has %d results and the notes %q, want %d and one that says so", n, half.Summary.Notes, len(runs))
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	want.Raw = f.Summary.Raw
	if err := errors.Join(folder.Encode(&a, want), folder.Encode(&b, f.Summary)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.String(), b.String()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	for i, r := range runs {
		got, err := f.Run(i)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("run %d (-want +got):\n%s", i, diff)
		}
	}
	if err := os.Remove(filepath.Join(dir, "raw", "0003.json.gz")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Run(3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing raw record: %v, want fs.ErrNotExist", err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(names) != 3 || len(hidden) != 0 {
		t.Errorf("the folder holds %q and %q, want raw, results.csv, summary.json", names, hidden)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s, runs := summarytest.Small()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), []byte("years"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, overwrite := range []bool{false, true} {
		if _, err := folder.Create(foreign, s, overwrite); !errors.Is(err, folder.ErrExists) {
			t.Errorf("Create(overwrite %v) on a foreign folder: %v, want ErrExists", overwrite, err)
		}
	}
	dir := t.TempDir()
	w, err := folder.Create(dir, s, false)
	if err != nil {
		t.Fatalf("Create in an empty folder: %v", err)
	}
	if err := errors.Join(w.Put(0, runs[0]), w.Put(7, runs[1])); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	_, err = folder.Create(dir, s, false)
	if !errors.Is(err, folder.ErrExists) || !strings.Contains(err.Error(), "overwrite") {
		t.Errorf("Create on a bench folder: %v, want ErrExists and what to do", err)
	}
	mine := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if w, err = folder.Create(dir, s, true); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(0, runs[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	raw, _ := filepath.Glob(filepath.Join(dir, "raw", "*"))
	if len(raw) != 1 {
		t.Errorf("after an overwrite raw/ holds %q, want one record", raw)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a file of the user's: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                               "not a bench summary",
		`[]`:                             "not a bench summary",
		`{"name":"web","version":"1.2"}`: "not a bench summary",
		`{"results":[]}`:                 "not a bench summary",
		`{"version":2,"results":[]}`:     "format version 2",
		`{"version":1,"results":[{}],"raw":["../../../etc/passwd"]}`: "want a name like",
		`{"version":1,"results":[{}],"raw":["0000.json.gz","1"]}`:    "1 results",
		`{"version":1,"results":[{"requests":"many"}]}`:              "requests",
	} {
		if _, err := folder.Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want an error with %q", text, err, want)
		}
	}
	if s, err := folder.Decode([]byte(`{"version":1,"results":[{},{}],"later":true}`)); err != nil || len(s.Raw) != 2 {
		t.Errorf("Decode with an unknown field and no names: %v, %v", s.Raw, err)
	}
}

func TestPutRefusesWhatIsNoNumber(t *testing.T) {
	t.Parallel()
	w, err := folder.Create(t.TempDir(), summary.Summary{}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		if err := w.Put(0, score.Run{Result: score.Result{Policy: "kpa", WaitP50: v}}); err == nil || !strings.Contains(err.Error(), "policy kpa") {
			t.Errorf("Put with %v: %v, want an error that names the run", v, err)
		}
	}
	if s, err := w.Finish(); err != nil || len(s.Results) != 0 {
		t.Errorf("Finish = %v, %v", s.Results, err)
	}
}

func FuzzDecode(f *testing.F) {
	s, _ := summarytest.Bench(summarytest.Runs([]string{"t"}, []string{"s"}, summarytest.Plans()[:1], 1, 2), "")
	s.Scenarios, s.Comparison = nil, nil
	var b bytes.Buffer
	if err := folder.Encode(&b, s); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"version":1,"results":[{"podSeconds":1e308},{"podSeconds":1e308}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := folder.Decode(data)
		if err != nil {
			return
		}
		var a, b bytes.Buffer
		if err := folder.Encode(&a, s); err != nil {
			t.Fatalf("a summary that was read cannot be written: %v", err)
		}
		again, err := folder.Decode(a.Bytes())
		if err != nil {
			t.Fatalf("a summary that was written cannot be read: %v", err)
		}
		if err := folder.Encode(&b, again); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("read and written again it differs: %v", err)
		}
		s = summary.Summarize(s)
		for _, write := range []func(io.Writer) error{
			func(w io.Writer) error { return folder.Encode(w, s) },
			func(w io.Writer) error { return report.Text(w, s) },
			func(w io.Writer) error { return folder.CSV(w, s.Results) },
		} {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}

// pack packs what a raw record would hold.
func pack(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

func FuzzDecodeRun(f *testing.F) {
	runs := summarytest.Runs([]string{"t"}, []string{"s"}, summarytest.Plans()[:1], 1, 2)
	text, err := json.Marshal(runs[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, true)
	f.Add(pack(text)[:100], false)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if packed { // few random changes leave gzip's check sum right
			data = pack(data)
		}
		run, err := folder.DecodeRun(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := folder.EncodeRun(&b, run); err != nil {
			t.Fatal(err)
		}
		again, err := folder.DecodeRun(&b)
		if diff := cmp.Diff(run, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("written and read again: %v %s", err, diff)
		}
		if err := report.Sparklines(io.Discard, run, 60); err != nil {
			t.Error(err)
		}
		s, runs := summarytest.Bench([]score.Run{run}, "kpa")
		if err := page.HTML(io.Discard, s, runs, page.Options{}); err != nil {
			t.Error(err)
		}
	})
}

func TestDecodeRunRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{`:                                   "parse",
		`{"series":{"arrivals":[1]}}`:         "series.demand has 0 steps and series.arrivals 1",
		`{"waits":[{"upper":2},{"upper":1}]}`: "rising upper bounds",
		`{"waits":[{"upper":2,"count":-1}]}`:  "counts ≥ 0",
		`{"series":{"step":0,"arrivals":[1],"demand":[1],"waiting":[1],"wanted":[1],"ready":[1],"starting":[1],"coldStarts":[1],"violations":[1],"waitMax":[1]}}`: "series.step",
	} {
		if _, err := folder.DecodeRun(bytes.NewReader(pack([]byte(text)))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("DecodeRun(%s) = %v, want an error with %q", text, err, want)
		}
	}
	whole := pack([]byte(`{}`))
	for n := range len(whole) {
		if _, err := folder.DecodeRun(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("a record cut to %d bytes is read", n)
		}
	}
}
