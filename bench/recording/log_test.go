package recording_test

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// files counts what is open.
type files struct {
	text string
	open int
	fail bool
}

type file struct {
	io.Reader
	f *files
}

// Close counts.
func (f file) Close() error {
	f.f.open--
	return nil
}

// Open opens it anew.
func (f *files) Open() (io.ReadCloser, error) {
	if f.fail {
		return nil, errors.New("it is gone")
	}
	f.open++
	return file{strings.NewReader(f.text), f}, nil
}

func TestLog(t *testing.T) {
	tests := []struct {
		name, text string
		opts       recording.LogOptions
		want       []trace.Request
		length     time.Duration
	}{
		{"times", "t_seconds\n0\n0.5\n0.5\n2\n", recording.LogOptions{}, []trace.Request{{At: 0}, {At: 5e8}, {At: 5e8}, {At: 2e9}}, 3 * time.Second},
		{"service", "t_seconds, service_seconds\n1,0.25\n1.5, 0\n2,\n3\n", recording.LogOptions{}, []trace.Request{{At: 1e9, Service: 25e7}, {At: 15e8}, {At: 2e9}, {At: 3e9}}, 4 * time.Second},
		{"rebased", "t_seconds\n1700000000.25\n1700000001\n", recording.LogOptions{Rebase: true}, []trace.Request{{At: 0}, {At: 75e7}}, time.Second},
		{"length", "t_seconds\n1\n", recording.LogOptions{Length: time.Hour}, []trace.Request{{At: 1e9}}, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &files{text: tt.text}
			s, err := recording.Log("dir/log.csv", f.Open, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				got := all(t, s.Open(nil), 3)
				orderly(t, s, got)
				if !cmp.Equal(got, tt.want) || s.Length() != tt.length || s.Name() != "log" {
					t.Errorf("Log(%q) = %v of %v (%s), want %v of %v", tt.text, got, s.Length(), s.Name(), tt.want, tt.length)
				}
			}
			a := s.Open(nil)
			a.Read(make([]trace.Request, 1))
			if err := a.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
			if f.open != 0 {
				t.Errorf("%d files stay open", f.open)
			}
		})
	}
}

func TestLogErrors(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		opts       recording.LogOptions
		want       []string
	}{
		{"empty", "", recording.LogOptions{}, []string{"log.csv", "empty"}},
		{"header only", "t_seconds\n", recording.LogOptions{}, []string{"no requests"}},
		{"header", "time\n1\n", recording.LogOptions{}, []string{"line 1", `"time"`}},
		{"bad time", "t_seconds\n1\nx\n", recording.LogOptions{}, []string{"line 3", `"x"`}},
		{"bad service", "t_seconds,service_seconds\n1,-1\n", recording.LogOptions{}, []string{"line 2", "service_seconds", `"-1"`}},
		{"fields", "t_seconds\n1,2\n", recording.LogOptions{}, []string{"line 2", "more fields"}},
		{"order", "t_seconds\n2\n1\n", recording.LogOptions{}, []string{"line 3", "sort"}},
		{"beyond", "t_seconds\n2\n", recording.LogOptions{Length: time.Second}, []string{"line 2", "length"}},
		{"length", "t_seconds\n2\n", recording.LogOptions{Length: -1}, []string{"length"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &files{text: tt.text}
			_, err := recording.Log("log.csv", f.Open, tt.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not tell %q", err, w)
				}
			}
			if f.open != 0 {
				t.Errorf("%d files stay open", f.open)
			}
		})
	}
}

// A log that fails after it was checked, by itself or as a part, says so.
func TestLogFailsLater(t *testing.T) {
	f := &files{text: "t_seconds\n1\n2\n"}
	s, err := recording.Log("log.csv", f.Open, recording.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	part, err := trace.Window(s, 0, s.Length()-time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	f.text = "t_seconds\n1\nx\n"
	for _, s := range []trace.Source{s, part} {
		a := s.Open(seeded(1))
		buf := make([]trace.Request, 10)
		for a.Read(buf) > 0 {
		}
		if err := trace.Err(a); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%s: Err() = %v, want line 3", s.Name(), err)
		}
	}
	f.fail = true
	a := s.Open(nil)
	if n := a.Read(make([]trace.Request, 1)); n != 0 || trace.Err(a) == nil {
		t.Errorf("Read = %d, Err = %v, want an error of open", n, trace.Err(a))
	}
	if f.open != 0 {
		t.Errorf("%d files stay open", f.open)
	}
}

// A log of any length is read in the same memory.
func TestLogMemory(t *testing.T) {
	s, err := recording.Log("log.csv", func() (io.ReadCloser, error) { return io.NopCloser(&longLog{n: 100_000}), nil }, recording.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := s.Open(nil)
	buf := make([]trace.Request, 100)
	a.Read(buf)
	if n := testing.AllocsPerRun(500, func() { a.Read(buf) }); n != 0 {
		t.Errorf("%v allocations per Read of %d", n, len(buf))
	}
}

// longLog writes a log as it is read.
type longLog struct {
	n, i int
	rest []byte
	buf  [32]byte
}

// Read implements io.Reader.
func (l *longLog) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		switch {
		case l.i == 0:
			l.rest = []byte("t_seconds,service_seconds\n")
		case l.i > l.n:
			return 0, io.EOF
		default:
			l.rest = append(strconv.AppendInt(l.buf[:0], int64(l.i), 10), ".5,0.25\n"...)
		}
		l.i++
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func BenchmarkLog(b *testing.B) {
	s, err := recording.Log("log.csv", func() (io.ReadCloser, error) { return io.NopCloser(&longLog{n: 1_000_000}), nil }, recording.LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	buf := make([]trace.Request, 1)
	a := s.Open(nil)
	for b.Loop() {
		if a.Read(buf) == 0 {
			a = s.Open(nil)
		}
	}
}
