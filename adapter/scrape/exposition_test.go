package scrape_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/scrape"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/wire"
)

// maxAllocated is what reading one exposition may allocate, in bytes, whatever it is.
const maxAllocated = 256 << 10

var (
	textHeader  = http.Header{"Content-Type": {"text/plain; version=0.0.4"}}
	protoHeader = http.Header{"Content-Type": {"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"}}
)

// allocated is how many bytes f allocates. Nothing else may run.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// cpu is the time that the process has spent on CPUs.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// manyLabels is n bytes of labels, each as short as can be.
func manyLabels(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "a%d=\"\",", i)
	}
	return b.String()
}

// delimited is an exposition in protobuf.
func delimited(t *testing.T, families ...*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	enc := expfmt.NewEncoder(&b, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// family is a gauge with n labels.
func family(name string, value float64, n int) *dto.MetricFamily {
	m := &dto.Metric{Gauge: &dto.Gauge{Value: new(value)}}
	for i := range n {
		m.Label = append(m.Label, &dto.LabelPair{Name: new(fmt.Sprintf("a%d", i)), Value: new("")})
	}
	return &dto.MetricFamily{Name: new(name), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{m}}
}

// good is what a sidecar answers, in protobuf.
func good(t *testing.T, more ...*dto.MetricFamily) string {
	t.Helper()
	var all []*dto.MetricFamily
	for _, name := range []string{wire.ConcurrencySeconds, wire.MonotonicSeconds, wire.StartTime, wire.Requests, wire.InFlight, wire.Queued} {
		all = append(all, family(name, 7, 1))
	}
	return delimited(t, append(all, more...)...)
}

// TestHostileExpositions reads what a pod may answer to make its reading dear. Each is refused, or
// read without what is not wanted, at a cost that does not depend on it. On the code before, 128
// KiB of labels took 15 s of CPU and 9 GiB.
func TestHostileExpositions(t *testing.T) {
	usual := exposition(1000, 5, 3)
	large := manyLabels(scrape.MaxBody / 2)
	many := strings.Repeat(wire.InFlight+" 0\n", scrape.MaxBody/len(wire.InFlight)-100)
	cases := map[string]struct {
		header http.Header
		body   string
		want   string // of the error; empty: there is none
	}{
		"labels of a wanted metric":              {textHeader, usual + wire.Requests + "{" + large + "} 1\n", "or 8 labels"},
		"labels of a wanted metric, few bytes":   {textHeader, usual + wire.Requests + "{" + manyLabels(300) + "} 1\n", "or 8 labels"},
		"a long label of a wanted metric":        {textHeader, usual + wire.Requests + `{a="` + strings.Repeat("x", 100<<10) + "\"} 1\n", "more than 512 bytes"},
		"labels of another metric":               {textHeader, usual + "other{" + large + "} 1\n", ""},
		"a comment without end":                  {textHeader, usual + "# " + large, ""},
		"a name without end":                     {textHeader, usual + strings.Repeat("a", scrape.MaxBody/2), ""},
		"a wanted name without end":              {textHeader, usual + wire.Requests + strings.Repeat(" ", 64<<10), "more than 512 bytes"},
		"many samples of a wanted metric":        {textHeader, usual + many, "more than 16384 bytes"},
		"many samples of another":                {textHeader, usual + strings.Repeat("a 1\n", scrape.MaxBody/4-400), ""},
		"a megabyte":                             {textHeader, usual + "other{" + manyLabels(1<<20) + "} 1\n", "larger than"},
		"labels of a wanted metric, protobuf":    {protoHeader, good(t, family(wire.Requests, 1, 5000)), "more than 16384 bytes"},
		"labels of another metric, protobuf":     {protoHeader, good(t, family("other", 1, 10_000)), ""},
		"many messages of a wanted metric":       {protoHeader, strings.Repeat(good(t), 100), "more than 16384 bytes"},
		"a message longer than all":              {protoHeader, good(t) + "\xff\xff\xff\xff\x0f", "longer than all of it"},
		"a message longer than what comes":       {protoHeader, good(t) + "\xff\x7f\x0a", "longer than all of it"},
		"a length without end":                   {protoHeader, good(t) + strings.Repeat("\xff", 100), "overflows"},
		"no message at all":                      {protoHeader, strings.Repeat("\x00", 100_000) + good(t), ""},
		"a megabyte, protobuf":                   {protoHeader, good(t, family("other", 1, 100_000)), "longer than all of it"},
		"compressed, though nobody asked for it": {http.Header{"Content-Encoding": {"gzip"}}, bomb(t), "compressed"},
		"compressed, without saying so":          {textHeader, bomb(t), "begins with no name"},
		"a sidecar":                              {textHeader, usual, ""},
		"a sidecar, protobuf":                    {protoHeader, good(t), ""},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			var err error
			cost := allocated(func() { _, err = scrape.Parse(t.Context(), tt.header, strings.NewReader(tt.body), time.Now()) })
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, want %q", err, tt.want)
			}
			if cost > maxAllocated {
				t.Errorf("%d bytes were allocated for %d, want %d at most", cost, len(tt.body), maxAllocated)
			}
		})
	}
}

// bomb is a few KiB that are 16 MiB when they are decompressed.
func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(make([]byte, 16<<20))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMegabyteOfLabels reads pods that answer with a megabyte of labels as often as they are read.
// At an interval of a second that may take a twentieth of a core.
func TestMegabyteOfLabels(t *testing.T) {
	const reads = 20
	for name, body := range map[string]string{
		"in one sample":   exposition(1, 1, 1) + wire.Requests + "{" + manyLabels(1<<20) + "} 1\n",
		"in many":         exposition(1, 1, 1) + strings.Repeat("other{"+manyLabels(400)+"} 1\n", 1<<20/400),
		"in allowed ones": exposition(1, 1, 1) + strings.Repeat(wire.Requests+"{"+strings.TrimSuffix(manyLabels(40), ",")+"} 1\n", 150),
	} {
		before := cpu(t)
		for range reads {
			_, _ = scrape.Parse(t.Context(), textHeader, strings.NewReader(body), time.Now())
		}
		if took := (cpu(t) - before) / reads; took > 50*time.Millisecond {
			t.Errorf("%s: a read takes %v of CPU, want 50ms at most", name, took)
		}
	}
}

// The whole of a pod's answer is under the read's deadline, the parsing included.
func TestParseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lines := 0
	endless := readerFunc(func(p []byte) (int, error) {
		if lines++; lines == 10 {
			cancel()
		}
		return copy(p, "a 1\n"), nil
	})
	if _, err := scrape.Parse(ctx, textHeader, endless, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("Parse = %v, want that it was cancelled", err)
	}
	if lines > 11 {
		t.Errorf("%d reads, want none after the end of the context", lines)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A pod that is gone is read no more, and what it has begun to answer is read no further.
func TestReadEndsWithThePod(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	s := newSidecar(t, 1)
	drip := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "# slow\n"); err != nil || http.NewResponseController(w).Flush() != nil {
				break
			}
		}
		select {
		case left <- struct{}{}:
		case <-time.After(patience):
		}
	})
	s.fail.Store(&drip)
	p := newPod(t, "a", s.URL, wire.MetricsPortName)
	c := newCluster(t, nil, p)
	eventually(t, "a read under way", func() bool { return s.reads.Load() > 0 })
	if err := c.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("the pod is read on")
	}
	eventually(t, "gone", func() bool { return len(c.store.List("ns", labels.Everything())) == 0 })
}

// collector is a scraper at work, whose pods a test sets itself: a fake cluster with hundreds of
// pods takes seconds.
type collector struct {
	*scrape.Scraper
	store *store.Store
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{store: store.New(store.Options{Interval: time.Second})}
	var err error
	c.Scraper, err = scrape.New(scrape.Options{
		Store: c.store, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Interval: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// put sets a ready pod that a server answers for.
func (c *collector) put(t *testing.T, namespace, name, server string) {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.SetPod(t.Context(), now, store.Pod{
		Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name), IP: host, MetricsPort: number,
		State: algorithms.PodReady, Running: true, Created: now, Ready: now,
	})
}

// TestBlackHolesOfATenant has pods of one namespace that never answer, more than may be read at
// once. A pod of another namespace is read at once, and the collector becomes ready: a pod counts
// as tried when its turn does not come in time.
func TestBlackHolesOfATenant(t *testing.T) {
	t.Parallel()
	const rounds = 8 // of 900 ms each, if one waited for them
	hole := newSidecar(t, 1)
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	hole.fail.Store(&silent)
	c := newCollector(t)
	for i := range rounds * scrape.MaxNamespaceReads {
		c.put(t, "attacker", fmt.Sprintf("hole-%d", i), hole.URL)
	}
	c.Synced()
	eventually(t, "the attacker's slots in use", func() bool { return hole.reads.Load() >= scrape.MaxNamespaceReads })
	s := newSidecar(t, 3)
	began := time.Now()
	c.put(t, "victim", "web", s.URL)
	eventually(t, "the victim was read", func() bool { return s.reads.Load() > 0 })
	if took := time.Since(began); took > rounds/2*900*time.Millisecond {
		t.Errorf("the victim was first read after %v", took)
	}
	eventually(t, "ready", func() bool { return c.store.Ready() == nil })
	if took := time.Since(began); took > rounds/2*900*time.Millisecond {
		t.Errorf("ready after %v, which is a wait for reads of the attacker's", took)
	}
}

// TestSlotsAreShared plays many namespaces that take and give slots at random. No bound is broken,
// and one that takes a slot now and then waits for few releases, though another always wants all.
func TestSlotsAreShared(t *testing.T) {
	const all, most = 8, 5
	synctest.Test(t, func(t *testing.T) {
		s := scrape.NewSlots(all, most)
		var held [4]atomic.Int64
		var total atomic.Int64
		work := func(seed uint64, who int, turns int, hold time.Duration) {
			name, random := fmt.Sprint(who), rand.New(rand.NewPCG(seed, 0))
			for range turns {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(1000))*time.Millisecond)
				if s.Acquire(ctx, name) == nil {
					if n := held[who].Add(1); n > most {
						t.Errorf("namespace %d holds %d", who, n)
					}
					if n := total.Add(1); n > all {
						t.Errorf("%d are held", n)
					}
					time.Sleep(time.Duration(random.Int64N(int64(hold))))
					held[who].Add(-1)
					total.Add(-1)
					s.Release(name)
				}
				cancel()
			}
		}
		var greedy sync.WaitGroup
		for i := range 300 {
			greedy.Go(func() { work(uint64(i), i%3, 20, time.Second) })
		}
		synctest.Wait()
		for range 50 {
			began := time.Now()
			if err := s.Acquire(t.Context(), "3"); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited > time.Second {
				t.Errorf("a namespace without a slot waited %v, which is longer than any holds one", waited)
			}
			s.Release("3")
			time.Sleep(10 * time.Millisecond)
		}
		greedy.Wait()
		if waiting, shares := s.Waiting(); waiting != 0 || shares != 0 {
			t.Errorf("%d wait and %d namespaces are known at the end, want none", waiting, shares)
		}
		for range most {
			if s.Acquire(t.Context(), "x") != nil {
				t.Error("a slot was lost")
			}
		}
	})
}

// FuzzExposition: whatever a pod answers, its reading ends within bounds of memory, in both formats
// and with any split into lines or messages.
func FuzzExposition(f *testing.F) {
	f.Add(exposition(1000, 5, 3), "", uint16(1), true)
	f.Add("", wire.Requests+`{a="",b=""} 1`+"\n", uint16(3000), true)
	f.Add(exposition(1, 1, 1), "x{"+manyLabels(200), uint16(900), true)
	f.Add("", "\x04\x0a\x02ab", uint16(20_000), false)
	f.Fuzz(func(t *testing.T, body, repeated string, times uint16, text bool) {
		header := protoHeader
		if text {
			header = textHeader
		}
		body += strings.Repeat(repeated, min(int(times), 2*scrape.MaxBody/(len(repeated)+1)))
		if cost := allocated(func() {
			_, _ = scrape.Parse(t.Context(), header, strings.NewReader(body), time.Unix(1e9, 0))
		}); cost > 4*maxAllocated { // the fuzzer itself allocates meanwhile
			t.Errorf("%d bytes were allocated for %d", cost, len(body))
		}
	})
}
