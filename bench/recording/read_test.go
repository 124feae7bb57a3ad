package recording_test

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// all reads everything, in reads of a size.
func all(tb testing.TB, a trace.Arrivals, size int) []trace.Request {
	tb.Helper()
	var out []trace.Request
	buf := make([]trace.Request, size)
	for n := a.Read(buf); n > 0; n = a.Read(buf) {
		out = append(out, buf[:n]...)
	}
	if err := trace.Err(a); err != nil {
		tb.Fatal(err)
	}
	if n := a.Read(buf); n != 0 {
		tb.Errorf("Read after the end = %d, want 0", n)
	}
	return out
}

// orderly checks what Arrivals promise.
func orderly(tb testing.TB, s trace.Source, requests []trace.Request) {
	tb.Helper()
	var last time.Duration
	for i, r := range requests {
		if r.At < last || r.At >= s.Length() || r.Service < 0 {
			tb.Fatalf("%s: request %d = %+v after %v of %v", s.Name(), i, r, last, s.Length())
		}
		last = r.At
	}
}

func values(t *trace.Trace) []float64 {
	var out []float64
	for i := range t.Len() {
		out = append(out, t.Bin(i).Requests)
	}
	return out
}

func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		opts       recording.Options
		wantName   string
		wantWidth  time.Duration
		want       []float64
	}{
		{"requests", "t_seconds,requests\n0,1\n60,2.5\n120,0\n", recording.Options{}, "x", time.Minute, []float64{1, 2.5, 0}},
		{"bom, crlf, quotes, blanks, comments", "\xef\xbb\xbf\"t_seconds\", \"requests\"\r\n# so\r\n\r\n0, 1 \r\n5,2\r\n", recording.Options{}, "x", 5 * time.Second, []float64{1, 2}},
		{"starts late", "t_seconds,requests\n3600,1\n3660,2\n", recording.Options{}, "x", time.Minute, []float64{1, 2}},
		{"fractions of seconds", "t_seconds,requests\n0,1\n0.1,2\n0.2,3\n0.30000000000000004,4\n", recording.Options{}, "x", 100 * time.Millisecond, []float64{1, 2, 3, 4}},
		{"rounded times", "t_seconds,requests\n0,1\n0.333333,2\n0.666667,3\n1,4\n", recording.Options{}, "x", 333333333, []float64{1, 2, 3, 4}},
		{"concurrency", "t_seconds,concurrency\n0,1\n60,0.5\n", recording.Options{Service: 2 * time.Second}, "x", time.Minute, []float64{30, 15}},
		{"concurrency by option", "t_seconds,app\n0,1\n60,0.5\n", recording.Options{Kind: recording.KindConcurrency, Service: time.Minute}, "x", time.Minute, []float64{1, 0.5}},
		{"requests by option", "t_seconds,concurrency\n0,1\n60,0.5\n", recording.Options{Kind: recording.KindRequests}, "x", time.Minute, []float64{1, 0.5}},
		{"wide by name", "t_seconds,a,b\n0,1,2\n1,3,4\n", recording.Options{Column: "b"}, "x.b", time.Second, []float64{2, 4}},
		{"wide by number", "t_seconds,a,b\n0,1,2\n1,3,4\n", recording.Options{Column: "1"}, "x.a", time.Second, []float64{1, 3}},
		{"name before number", "t_seconds,2,1\n0,1,2\n1,3,4\n", recording.Options{Column: "1"}, "x.1", time.Second, []float64{2, 4}},
		{"sum", "t_seconds,a,b\n0,1,2\n1,3,4\n", recording.Options{Column: "sum"}, "x.sum", time.Second, []float64{3, 7}},
		{"a column called sum", "t_seconds,a,sum\n0,1,2\n1,3,4\n", recording.Options{Column: "sum"}, "x.sum", time.Second, []float64{2, 4}},
		{"one row with a width", "t_seconds,requests\n0,7\n", recording.Options{Width: time.Hour}, "x", time.Hour, []float64{7}},
		{"interpolated", "t_seconds,requests\n0,0\n1,2\n2,0\n3,0\n5,8\n6,0\n", recording.Options{Zeros: recording.ZerosInterpolate}, "x", time.Second, []float64{2, 2, 3.5, 5, 6.5, 8, 8}},
		{"held", "t_seconds,requests\n0,0\n1,2\n2,0\n3,0\n5,8\n6,0\n", recording.Options{Zeros: recording.ZerosHold}, "x", time.Second, []float64{2, 2, 2, 2, 2, 8, 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := recording.Read(strings.NewReader(tt.text), "dir/x.csv", tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name() != tt.wantName || got.Width() != tt.wantWidth || !cmp.Equal(values(got), tt.want) {
				t.Errorf("Read(%q) = %s, %v, %v, want %s, %v, %v", tt.text, got.Name(), got.Width(), values(got), tt.wantName, tt.wantWidth, tt.want)
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	const two = "t_seconds,requests\n0,1\n60,2\n"
	tests := []struct {
		name, text string
		opts       recording.Options
		want       []string
	}{
		{"empty", "", recording.Options{}, []string{"x.csv", "it is empty", "t_seconds"}},
		{"header only", "t_seconds,requests\n", recording.Options{}, []string{"no rows"}},
		{"no header", "0,1\n60,2\n", recording.Options{}, []string{"line 1", `"0"`, "t_seconds"}},
		{"no column", "t_seconds\n0\n", recording.Options{}, []string{"line 1", "no column"}},
		{"one row", "t_seconds,requests\n0,1\n", recording.Options{}, []string{"width"}},
		{"which column", "t_seconds,a,b\n0,1,2\n", recording.Options{}, []string{"2 columns", "a, b", "choose"}},
		{"no such column", "t_seconds,a,b\n0,1,2\n", recording.Options{Column: "c"}, []string{`"c"`, "a, b", "1–2"}},
		{"column out of range", "t_seconds,a,b\n0,1,2\n", recording.Options{Column: "3"}, []string{`"3"`}},
		{"column twice", "t_seconds,a,a\n0,1,2\n", recording.Options{Column: "a"}, []string{"twice", "1 or 2"}},
		{"NaN", two + "120,NaN\n", recording.Options{}, []string{"line 4", `"requests"`, `"NaN"`, "finite"}},
		{"infinite", two + "120,inf\n", recording.Options{}, []string{"line 4", `"inf"`}},
		{"negative", two + "120,-1\n", recording.Options{}, []string{"line 4", `"-1"`}},
		{"blank value", two + "120,\n", recording.Options{}, []string{"line 4", `""`, "write 0"}},
		{"a bad value in a sum", "t_seconds,a,b\n0,1,x\n", recording.Options{Column: "sum"}, []string{"line 2", `column "b"`, `"x"`}},
		{"too few fields", two + "120\n", recording.Options{}, []string{"line 4", "1 of the header's 2"}},
		{"too many fields", two + "120,1,2\n", recording.Options{}, []string{"line 4", "more than"}},
		{"bad time", two + "later,1\n", recording.Options{}, []string{"line 4", `"t_seconds"`, `"later"`}},
		{"negative time", "t_seconds,requests\n-1,1\n", recording.Options{}, []string{"line 2", `"-1"`}},
		{"time stands still", two + "60,1\n", recording.Options{}, []string{"line 4", "does not come after"}},
		{"time goes back", two + "30,1\n", recording.Options{}, []string{"line 4", "does not come after"}},
		{"uneven", two + "130,1\n", recording.Options{}, []string{"line 4", "equal width"}},
		{"too close", two + "61,1\n", recording.Options{}, []string{"line 4", "equal width"}},
		{"rows missing", two + "180,1\n", recording.Options{}, []string{"line 4", "missing"}},
		{"too many rows missing", two + "6000000000,1\n", recording.Options{Zeros: recording.ZerosHold}, []string{"line 4", "cut the trace"}},
		{"no requests", "t_seconds,requests\n0,0\n1,0\n", recording.Options{}, []string{"no request"}},
		{"nothing to fill from", "t_seconds,requests\n0,0\n1,0\n", recording.Options{Zeros: recording.ZerosHold}, []string{"all values are 0"}},
		{"no service time", "t_seconds,concurrency\n0,1\n1,2\n", recording.Options{}, []string{"mean service time"}},
		{"too much", "t_seconds,requests\n0,1\n1,1e12\n", recording.Options{}, []string{"bin 1", "1e+12"}},
		{"a long line", "t_seconds,requests\n0," + strings.Repeat("1", 2<<20), recording.Options{}, []string{"line 2", "longer"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := recording.Read(strings.NewReader(tt.text), "x.csv", tt.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not tell %q", err, w)
				}
			}
		})
	}
}

// The shared traces read, as their README says.
func TestSharedTraces(t *testing.T) {
	dir := os.Getenv("SLUICE_TRACES")
	if dir == "" {
		dir = "../../../shared/traces"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no traces at %s; set SLUICE_TRACES. Read is tested with made ones", dir)
	}
	mean := map[string]float64{ // requests or concurrency per bin
		"alibaba_genai_sd_a": 0.638, "alibaba_genai_sd_a_conc": 0.2853, "appserver_hourly_2015_16": 1.418e5,
		"azure_llm_2023_code": 2.567, "mooncake_conversation": 3.401, "nab_elb_requests": 61.71, "nab_tweets_aapl": 85.55,
		"nab_tweets_ups": 5.456, "nasa_jul13_1s": 1.553, "nasa_jul95": 47.66, "servegen_m_large": 1.175e5, "servegen_m_mid": 1.074e6,
		"servegen_m_small": 7.046e5, "servegen_mm_image": 5685, "twitter_aug21_1s": 60.4, "twitter_aug21_1s_b": 57.21,
		"twitter_aug21_a": 3829, "wc98_may_jun": 9592, "wikipedia_hourly_a": 1.56e7, "wikipedia_hourly_b": 1.586e7,
	}
	read := 0
	for _, name := range files {
		base := strings.TrimSuffix(filepath.Base(name), ".csv")
		if strings.HasSuffix(base, "_reference") {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		opts := recording.Options{Service: time.Second}
		if strings.Contains(base, "apps") || strings.Contains(base, "clients") {
			opts.Column = "sum"
		}
		tr, err := recording.Read(f, name, opts)
		_ = f.Close()
		if err != nil {
			t.Error(err)
			continue
		}
		read++
		want, ok := mean[base]
		if !ok {
			continue
		}
		if strings.HasSuffix(base, "_conc") {
			want *= 60
		}
		got := tr.Requests() / float64(tr.Len())
		if math.Abs(got/want-1) > 1e-3 {
			t.Errorf("%s has %v requests per bin of %v, want %v", base, got, tr.Width(), want)
		}
	}
	t.Logf("%d traces read", read)
}
