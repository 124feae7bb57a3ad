package recording_test

import (
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// FuzzRead: what is read is a trace as promised, or an error that names the file; never a panic.
func FuzzRead(f *testing.F) {
	f.Add("t_seconds,requests\n0,1\n60,2.5\n120,0\n", "", uint8(0), int64(0))
	f.Add("t_seconds,a,b\n0,1,2\n1,0,0\n3,4,5\n", "sum", uint8(1), int64(0))
	f.Add("t_seconds,concurrency\n0,1\n", "1", uint8(2), int64(1e9))
	f.Add("\xef\xbb\xbft_seconds,\"a\"\r\n#\r\n0.1,1e300\r\n0.2,-0\r\n", "a", uint8(0), int64(-1))
	f.Fuzz(func(t *testing.T, text, column string, zeros uint8, width int64) {
		opts := recording.Options{Column: column, Zeros: recording.Zeros(zeros % 3), Width: time.Duration(width), Service: time.Second}
		tr, err := recording.Read(strings.NewReader(text), "x.csv", opts)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "read trace x.csv: ") {
				t.Errorf("error %q", err)
			}
			return
		}
		if tr.Len() < 1 || tr.Width() <= 0 || tr.Length() <= 0 || !(tr.PeakRate() > 0) || !(tr.MeanRate() > 0) || tr.PeakRate() > 1.0001e9 {
			t.Errorf("Read(%q) = %d bins of %v, rates %v, %v", text, tr.Len(), tr.Width(), tr.PeakRate(), tr.MeanRate())
		}
		for i := range tr.Len() {
			if b := tr.Bin(i); math.IsNaN(b.Requests) || b.Requests < 0 {
				t.Errorf("bin %+v", b)
			}
		}
		open(t, tr.Source(trace.Model{}))
	})
}

// open reads the beginning and checks it.
func open(t *testing.T, s trace.Source) {
	buf := make([]trace.Request, 1000)
	a := s.Open(seeded(1))
	orderly(t, s, buf[:a.Read(buf)])
	if err := trace.Err(a); err != nil {
		t.Error(err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add("t_seconds\n0\n1\n", false)
	f.Add("t_seconds,service_seconds\n1.5,0.1\n2,\n", true)
	f.Add("t_seconds,service_seconds\n1.5,x\n0,0,0\n", true)
	f.Fuzz(func(t *testing.T, text string, rebase bool) {
		s, err := recording.Log("log.csv", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }, recording.LogOptions{Rebase: rebase})
		if err != nil {
			if !strings.Contains(err.Error(), "log log.csv: ") {
				t.Errorf("error %q", err)
			}
			return
		}
		open(t, s)
	})
}
