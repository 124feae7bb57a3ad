package intake_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-autoscaler/sluice/bench/intake"
	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/item"
)

func sample(name string) intake.File {
	path := filepath.Join("testdata", name)
	return intake.File{Name: path, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

func text(name, content string) intake.File {
	return intake.File{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

func unix(s string) int64 {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t.UnixNano()
}

// want is what a sample holds, counted by hand.
type want struct {
	format   string
	requests float64
	first    int64
	served   int64
	service  time.Duration
	in, out  int64
	skipped  int64
	width    time.Duration
	bins     int
}

const ms = int64(time.Millisecond)

// samples are one of each format at least, with its totals.
func samples() map[string]want {
	oct10 := unix("2025-10-10T13:55:36Z")
	return map[string]want{
		"common.log":               {format: "common", requests: 4, first: unix("2025-10-10T13:55:36+02:00"), skipped: 1, width: time.Second, bins: 61},
		"combined.log":             {format: "combined", requests: 3, first: oct10, width: time.Second, bins: 5},
		"nginx-rt.log":             {format: "combined", requests: 2, first: oct10 - 250*ms, served: 2, service: time.Second, width: time.Second, bins: 2},
		"apache-d.log":             {format: "combined", requests: 2, first: oct10, served: 2, service: time.Second, width: time.Second, bins: 2},
		"nginx.json":               {format: "nginx-json", requests: 3, first: oct10, served: 3, service: time.Second, width: time.Second, bins: 2},
		"envoy.json":               {format: "envoy-json", requests: 2, first: oct10 + 100*ms, served: 2, service: 60 * time.Millisecond, width: time.Second, bins: 1},
		"envoy.log":                {format: "envoy", requests: 2, first: oct10 + 100*ms, served: 2, service: 300 * time.Millisecond, width: time.Second, bins: 2},
		"istio.log":                {format: "envoy", requests: 2, first: oct10 + 100*ms, served: 2, service: 10 * time.Millisecond, width: time.Second, bins: 3},
		"alb.log":                  {format: "aws-alb", requests: 3, first: oct10 + 84*ms, served: 2, service: 300 * time.Millisecond, width: time.Second, bins: 4},
		"cloudfront.log":           {format: "cloudfront", requests: 2, first: oct10 - 500*ms, served: 2, service: 750 * time.Millisecond, width: time.Second, bins: 2},
		"haproxy.log":              {format: "haproxy", requests: 3, first: oct10 + 655*ms, served: 2, service: 100 * time.Millisecond, width: time.Second, bins: 3},
		"k6.csv":                   {format: "k6-csv", requests: 2, first: oct10 - 120500*int64(time.Microsecond), served: 2, service: 200 * time.Millisecond, width: time.Second, bins: 2},
		"k6.json":                  {format: "k6-json", requests: 2, first: oct10 + 399500*int64(time.Microsecond), served: 2, service: 200 * time.Millisecond, width: time.Second, bins: 2},
		"vegeta.csv":               {format: "vegeta-csv", requests: 3, first: oct10 + 500*ms, served: 2, service: 2 * time.Millisecond, width: time.Second, bins: 1},
		"vegeta.json":              {format: "vegeta-json", requests: 2, first: oct10 + 500*ms, served: 2, service: 2 * time.Millisecond, width: time.Second, bins: 1},
		"hey.csv":                  {format: "hey-csv", requests: 3, served: 3, service: 600 * time.Millisecond, width: time.Second, bins: 2},
		"locust_stats_history.csv": {format: "locust", requests: 20, first: oct10, width: time.Second, bins: 3},
		"wrk2.txt":                 {format: "hdrhistogram", requests: 600, served: 600, service: -1, width: time.Second, bins: 30},
		"latencies.hgrm":           {format: "hdrhistogram", requests: 8, served: 8, service: -1, width: time.Second, bins: 1},
		"prometheus.json":          {format: "prometheus", requests: 60 * 7, first: unix("2025-10-10T13:55:00Z"), skipped: 1, width: time.Minute, bins: 3},
		"counter.json":             {format: "prometheus", requests: 30 + 10 + 5, first: unix("2025-10-10T13:55:00Z"), width: 15 * time.Second, bins: 3},
		"openmetrics.txt":          {format: "openmetrics", requests: 60 + 40 + 4, first: unix("2025-10-10T13:55:00Z"), width: 15 * time.Second, bins: 2},
		"tsdb-dump.txt":            {format: "tsdb-dump", requests: 100, first: unix("2025-10-10T13:55:00.012Z"), width: 15 * time.Second, bins: 2},
		"invocations_per_function_md.anon.d02.csv": {format: "azure2019", requests: 2 + 24, first: int64(24 * time.Hour), width: time.Minute, bins: 1440},
		"AzureFunctionsInvocationTrace2021.csv":    {format: "azure2021", requests: 3, served: 3, service: 1829 * time.Millisecond, width: time.Second, bins: 11},
		"azurellm2023.csv":                         {format: "azurellm", requests: 3, first: unix("2023-11-16T18:17:03.97996Z"), in: 8098, out: 45, width: time.Second, bins: 62},
		"azurellm2024.csv":                         {format: "azurellm", requests: 2, first: unix("2024-05-10T00:00:00.00993Z"), in: 4561, out: 11, width: time.Second, bins: 1},
		"day_001.csv":                              {format: "huawei2023", requests: 3 + 7 + 2 + 3, first: int64(24 * time.Hour), width: time.Minute, bins: 3},
		"huawei2025.csv":                           {format: "huawei2025", requests: 2, first: 2600186971363 * int64(time.Microsecond), served: 2, service: 147274 * time.Microsecond, width: time.Second, bins: 2},
		"huawei2025-starts.csv":                    {format: "huawei2025-starts", requests: 2, first: 51937425 * ms, width: time.Second, bins: 2},
		"BurstGPT.csv":                             {format: "burstgpt", requests: 3, first: 5 * int64(time.Second), in: 1976, out: 524, width: time.Second, bins: 114},
		"mooncake.jsonl":                           {format: "mooncake", requests: 3, in: 21035, out: 1042, width: time.Second, bins: 28},
		"MSCallGraph_0.csv":                        {format: "alibaba-microservices", requests: 3, first: 1005 * ms, served: 3, service: 20 * time.Millisecond, width: time.Second, bins: 2},
		"lora_request_trace.csv":                   {format: "alibaba-genai", requests: 2, first: unix("2026-01-01T00:00:01Z"), served: 2, service: 51 * time.Second, width: time.Second, bins: 31},
		"nab.csv":                                  {format: "csv", requests: 350, first: unix("2014-04-10T00:04:00Z"), width: 5 * time.Minute, bins: 5},
		"pageviews-20150701-010000":                {format: "wikipedia", requests: 1555, first: unix("2015-07-01T01:00:00Z"), width: time.Hour, bins: 1},
		"pageviews.json":                           {format: "wikipedia-json", requests: 1500, first: unix("2015-07-01T00:00:00Z"), width: 24 * time.Hour, bins: 2},
		"european.csv":                             {format: "csv", requests: 1200 + 1234567 + 12, first: unix("2025-03-01T00:00:00Z"), width: time.Minute, bins: 3},
		"rate.csv":                                 {format: "csv", requests: 60 * 30, first: unix("2025-03-01T00:00:00+01:00"), width: time.Minute, bins: 3},
		"tabs.tsv":                                 {format: "csv", requests: 11, first: unix("2025-10-10T13:55:00Z"), width: time.Minute, bins: 2},
		"micros.csv":                               {format: "csv", requests: 3, first: unix("2025-10-10T13:55:00Z"), served: 3, service: 2250 * time.Millisecond, width: time.Second, bins: 2},
		"nanos.csv":                                {format: "csv", requests: 2, first: unix("2025-10-10T13:55:00Z"), width: time.Second, bins: 2},
	}
}

// TestSamples reads every sample, and holds its totals against those counted by hand.
func TestSamples(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for name, w := range samples() {
		seen[w.format] = true
		l, err := intake.Bins([]intake.File{sample(name)}, intake.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := l.Summary
		if w.service < 0 {
			s.Service = w.service
		}
		var sum float64
		for _, v := range l.Requests {
			sum += v
		}
		got := want{s.Format.Name, s.Requests, s.First, s.Served, s.Service, s.In, s.Out, s.Skipped, l.Width, len(l.Requests)}
		if w.width == 0 {
			w.width = got.width
		}
		if got != w || math.Abs(sum-w.requests) > 1e-9 {
			t.Errorf("%s:\n got %+v (bins sum to %v)\nwant %+v\n%s", name, got, sum, w, strings.Join(l.Describe(), "\n"))
		}
	}
	for _, name := range formats.Names() {
		if !seen[name] && name != "json" {
			t.Errorf("there is no sample of %s", name)
		}
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := samples()[f.Name()]; !ok && !f.IsDir() {
			t.Errorf("testdata/%s is in no test", f.Name())
		}
	}
}

// TestForms reads one sample compressed, with other ends of lines, and with a byte order mark.
func TestForms(t *testing.T) {
	t.Parallel()
	plain, err := os.ReadFile("testdata/combined.log")
	if err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	if _, err := z.Write(plain); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"gzip": gz.String(), "zstd": string(enc.EncodeAll(plain, nil)), "crlf": strings.ReplaceAll(string(plain), "\n", "\r\n"),
		"bom": "\xef\xbb\xbf" + string(plain), "no end": strings.TrimSpace(string(plain)), "blank lines": "\n\n" + strings.ReplaceAll(string(plain), "\n", "\n\n"),
	} {
		s, err := intake.Read([]intake.File{text(name, content)}, intake.Options{}, func(*intake.Item) {})
		if err != nil || s.Requests != 3 || s.Skipped != 0 || s.Format.Name != "combined" {
			t.Errorf("%s: %+v, %v; want 3 requests", name, s, err)
		}
	}
	if _, err := intake.Read([]intake.File{text("cut.gz", gz.String()[:gz.Len()/2])}, intake.Options{}, func(*intake.Item) {}); err == nil {
		t.Error("half of a gzip was taken for all of it")
	}
}

// TestTimes reads one instant in the forms that people write.
func TestTimes(t *testing.T) {
	t.Parallel()
	want := unix("2025-10-10T13:55:36.5Z")
	for _, form := range []string{
		"1760104536.5", "1760104536500", "1760104536500.0", "1760104536500000", "1760104536500000000",
		"2025-10-10T13:55:36.5Z", "2025-10-10 13:55:36.500", "2025-10-10T15:55:36.500+02:00", "2025-10-10T08:55:36,5-0500", "2025/10/10 13:55:36.5", "10/Oct/2025:15:55:36.500 +0200",
	} {
		s, err := intake.Read([]intake.File{text("x.csv", "time;requests\n"+form+";1\n")}, intake.Options{Format: "csv"}, func(*intake.Item) {})
		if err != nil || s.First != want || s.Meta.Relative {
			t.Errorf("%s: %v, %v; want %v", form, time.Unix(0, s.First).UTC(), err, time.Unix(0, want).UTC())
		}
	}
	s, err := intake.Read([]intake.File{text("x.csv", "t_seconds,requests\n12.25,1\n")}, intake.Options{}, func(*intake.Item) {})
	if err != nil || s.First != 12250*ms || !s.Meta.Relative {
		t.Errorf("12.25: %+v, %v; want 12.25 s after its own beginning", s, err)
	}
}

// TestUnits tells what a column is by its name, and takes the user's word.
func TestUnits(t *testing.T) {
	t.Parallel()
	for column, unit := range map[string]intake.Unit{
		"requests": formats.UnitRequests, "count": formats.UnitRequests, "rate": formats.UnitRate, "rps": formats.UnitRate, "qps": formats.UnitRate,
		"requests_per_second": formats.UnitRate, "concurrency": formats.UnitConcurrency, "in_flight": formats.UnitConcurrency, "views": formats.UnitRequests,
	} {
		for _, said := range append(item.Units(), formats.UnitAuto) {
			l, err := intake.Bins([]intake.File{text("x.csv", "time,"+column+"\n2025-10-10 00:00:00,2\n2025-10-10 00:01:00,4\n2025-10-10 00:02:00,6\n")}, intake.Options{Unit: said, Service: 2 * time.Second})
			if err != nil {
				t.Errorf("%s as %q: %v", column, said, err)
				continue
			}
			u := said
			if said == formats.UnitAuto {
				u = unit
			}
			want := map[intake.Unit]float64{formats.UnitRequests: 12, formats.UnitRate: 720, formats.UnitConcurrency: 360, formats.UnitCounter: 12}[u]
			if l.Meta.Unit != u || l.Summary.Requests != want || !strings.Contains(strings.Join(l.Describe(), " "), string(u)) {
				t.Errorf("%s as %q: %v requests of unit %s, want %v of %s", column, said, l.Summary.Requests, l.Meta.Unit, want, u)
			}
		}
	}
}

// TestColumns chooses a series of those of a file.
func TestColumns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file, column string
		want         float64
	}{
		{"invocations_per_function_md.anon.d02.csv", "f2", 24},
		{"day_001.csv", "2", 8},
		{"prometheus.json", "b", 60},
		{"pageviews-20150701-010000", "en", 1200},
		{"openmetrics.txt", "http_requests_total", 104},
		{"AzureFunctionsInvocationTrace2021.csv", "a1/f2", 1},
		{"day_001.csv", "sum", 15},
		{"nab.csv", "value", 350},
	} {
		l, err := intake.Bins([]intake.File{sample(tt.file)}, intake.Options{Column: tt.column})
		if err != nil || l.Summary.Requests != tt.want {
			t.Errorf("%s#%s: %+v, %v; want %v requests", tt.file, tt.column, l, err, tt.want)
		}
	}
	if _, err := intake.Bins([]intake.File{sample("nab.csv")}, intake.Options{Column: "nosuch"}); err == nil || !strings.Contains(err.Error(), `no column "nosuch"`) {
		t.Errorf("a column that is not there: %v", err)
	}
}

// TestWidths takes wider bins, and refuses finer ones than there are.
func TestWidths(t *testing.T) {
	t.Parallel()
	l, err := intake.Bins([]intake.File{sample("nab.csv")}, intake.Options{Width: 10 * time.Minute})
	if err != nil || !slices.Equal(l.Requests, []float64{150, 187, 13}) || l.Missing != 0 {
		t.Errorf("bins of 10 min: %+v, %v", l, err)
	}
	if l, err = intake.Bins([]intake.File{sample("nab.csv")}, intake.Options{}); err != nil || l.Missing != 1 {
		t.Fatalf("%+v, %v; want one bin of which nothing is known", l, err)
	}
	if l.Fill(false); l.Requests[3] != 100 {
		t.Errorf("the missing bin is %v, want 100 between 187 and 13", l.Requests[3])
	}
	if l, err = intake.Bins([]intake.File{sample("common.log")}, intake.Options{Width: time.Minute}); err != nil || !slices.Equal(l.Requests, []float64{3, 1}) {
		t.Errorf("requests in bins of a minute: %+v, %v", l, err)
	}
	for _, width := range []time.Duration{time.Minute, 7 * time.Minute} {
		if _, err := intake.Bins([]intake.File{sample("nab.csv")}, intake.Options{Width: width}); err == nil || !strings.Contains(err.Error(), "5m0s wide") {
			t.Errorf("bins of %v out of bins of 5 min: %v", width, err)
		}
	}
	if _, err := intake.Bins([]intake.File{text("x.csv", "time,requests\n2025-10-10,5\n")}, intake.Options{}); err == nil || !strings.Contains(err.Error(), "--bin") {
		t.Errorf("one bin of no width: %v", err)
	}
}

// TestSeveralFiles are one load: two days, in any order.
func TestSeveralFiles(t *testing.T) {
	t.Parallel()
	first, second := text("day_000.csv", "day,time,0\n0,0,5\n0,60,6\n"), text("day_001.csv", "day,time,0\n0,120,7\n0,180,8\n")
	for _, files := range [][]intake.File{{first, second}, {second, first}} {
		l, err := intake.Bins(files, intake.Options{})
		if err != nil || !slices.Equal(l.Requests, []float64{5, 6, 7, 8}) {
			t.Errorf("%+v, %v; want 5 6 7 8", l, err)
		}
	}
	if _, err := intake.Bins([]intake.File{first, sample("nab.csv")}, intake.Options{}); err == nil || !strings.Contains(err.Error(), "do not go together") {
		t.Errorf("two clocks in one load: %v", err)
	}
}

// TestSpoolSorts puts requests of several files into order, with their work and tokens.
func TestSpoolSorts(t *testing.T) {
	t.Parallel()
	l, err := intake.Spool("x", []intake.File{text("b.csv", "t,duration,input_tokens\n5,2,7\n3,0.5,8\n"), text("a.csv", "t,duration,input_tokens\n4,9,9\n3,0.25,10\n")}, intake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	var got []string
	for r := l.Requests(); ; {
		q, in, _, ok := r.Next()
		if !ok {
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			break
		}
		got = append(got, q.At.String()+" "+q.Service.String()+" "+strconv.Itoa(in))
	}
	if want := []string{"0s 500ms 8", "0s 250ms 10", "1s 9s 9", "2s 2s 7"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if l.Length() != 3*time.Second || l.Until(0).Length() != 10*time.Second {
		t.Errorf("it lasts %v, and until its work ends %v; want 3s and 10s", l.Length(), l.Until(0).Length())
	}
	if _, err := intake.Spool("x", []intake.File{sample("nab.csv")}, intake.Options{}); err == nil || !strings.Contains(err.Error(), "--trace") {
		t.Errorf("values taken for requests: %v", err)
	}
}

// accessLines writes n lines of an access log, in an order of the sort that threads give.
type accessLines struct {
	n, i int
	rest []byte
}

func (a *accessLines) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.i == a.n {
			return 0, io.EOF
		}
		at := time.Unix(1760104536+int64(a.i/50)-int64(a.i*7919%40), 0).UTC()
		a.rest = append(a.rest[:0], `203.0.113.7 - - [`...)
		a.rest = at.AppendFormat(a.rest, "02/Jan/2006:15:04:05 -0700")
		a.rest = append(a.rest, `] "GET /a/path HTTP/1.1" 200 2326 "-" "Mozilla/5.0 (X11; Linux x86_64)" rt=0.0`...)
		a.rest = strconv.AppendInt(a.rest, int64(10+a.i%90), 10)
		a.rest = append(a.rest, '\n')
		a.i++
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func lines(n int) intake.File {
	return intake.File{Name: "big.log", Open: func() (io.ReadCloser, error) { return io.NopCloser(&accessLines{n: n}), nil }}
}

// TestMemory reads many lines, not in order, and keeps neither lines nor requests in memory.
func TestMemory(t *testing.T) {
	n, limit := 100_000, uint64(64<<20)
	if os.Getenv("SLUICE_LONG") != "" {
		n, limit = 10_000_000, 200<<20
	}
	var peak uint64
	watch := intake.Options{Progress: func(int64) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse+m.StackInuse)
	}}
	began := time.Now()
	b, err := intake.Bins([]intake.File{lines(n)}, watch)
	if err != nil || b.Summary.Requests != float64(n) {
		t.Fatalf("%v requests, %v; want %d", b.Summary.Requests, err, n)
	}
	binned := time.Since(began)
	l, err := intake.Spool("big", []intake.File{lines(n)}, watch)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	last, count := time.Duration(-1), 0
	for r := l.Requests(); ; count++ {
		q, _, _, ok := r.Next()
		if !ok {
			break
		}
		if q.At < last {
			t.Fatalf("request %d at %v comes after %v", count, q.At, last)
		}
		last = q.At
	}
	if count != n || !l.Unsorted {
		t.Errorf("%d requests, unsorted %t; want %d, true", count, l.Unsorted, n)
	}
	if peak > limit {
		t.Errorf("%d MiB of heap for %d lines, want at most %d", peak>>20, n, limit>>20)
	}
	t.Logf("%d lines: %v into bins, %v in all, %d MiB of heap", n, binned.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), peak>>20)
}

// FuzzRead reads anything, by every format: nothing panics, and what is read is finite and within
// bounds.
func FuzzRead(f *testing.F) {
	for name := range samples() {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 2000)], "")
	}
	for _, name := range formats.Names() {
		f.Add([]byte("{\"timestamp\":1e300}\n,,,\n[10/Oct/2025:13:55:36 +0200] \"\n"), name)
	}
	f.Fuzz(func(t *testing.T, content []byte, format string) {
		l, err := intake.Bins([]intake.File{text("x", string(content))}, intake.Options{Format: format, Service: time.Second})
		if err != nil {
			return
		}
		for _, v := range l.Requests {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Fatalf("a bin of %v requests", v)
			}
		}
		if l.Width <= 0 || len(l.Describe()) == 0 {
			t.Errorf("bins of %v", l.Width)
		}
	})
}

// TestHostile refuses what would take much memory, and does not take it for something else.
func TestHostile(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"t,requests\n1,1\n2,1\n99999999,1\n":                                  "bins",
		"time\n1000000000\n4000000000\n":                                      "want wider ones, --bin",
		"time,requests\n0001-01-01,1\n":                                       "nothing in it",
		"t,requests\n1,1e400\n2,nan\n":                                        "nothing in it",
		"Value Percentile TotalCount 1/(1-Percentile)\n1 1.0 99999999999 inf": "want 1–50000000",
		"": "nothing in it",
	} {
		_, err := intake.Bins([]intake.File{text("x.csv", content)}, intake.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", content, err, want)
		}
	}
	s, err := intake.Read([]intake.File{text("x.log", "time\n2025-01-01\n"+strings.Repeat("x", 5<<20)+"\n2025-01-02\n")}, intake.Options{}, func(*intake.Item) {})
	if err != nil || s.Requests != 2 || s.Skipped != 1 {
		t.Errorf("a line of 5 MiB: %+v, %v; want it skipped", s, err)
	}
}
