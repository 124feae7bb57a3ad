package portfolio_test

import (
	"container/heap"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
)

// A queue of slots with first come, first served, for sanity: the bench's simulator is the judge.

type ends []float64

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i] < e[j] }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(float64)) }
func (e *ends) Pop() any          { o := *e; x := o[len(o)-1]; *e = o[:len(o)-1]; return x }

type scene struct {
	rates   []float64 // requests per second, by bin
	bin     float64
	service float64
	start   float64
	k       float64
	max     int
	length  float64
}

type outcome struct {
	requests, late, cold int
	podSeconds, work     float64
	changes              int
}

func simulate(p algorithms.Policy, s scene, seed uint64) outcome {
	r := rand.New(rand.NewPCG(seed, 1))
	var (
		out      outcome
		busy     ends
		queue    []float64
		head     int
		ready    int
		current  int
		starting []float64 // instants of readiness, in order
		now      float64
		inN      float64 // integral of N
		answered float64
		inAt     [128]float64
		anAt     [128]float64
	)
	epoch := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	next := 0.0 // arrival
	draw := func(t float64) float64 {
		for {
			i := int(t / s.bin)
			if i >= len(s.rates) {
				return math.Inf(1)
			}
			end := float64(i+1) * s.bin
			if s.rates[i] > 0 {
				if u := t + r.ExpFloat64()/s.rates[i]; u < end {
					return u
				}
			}
			t = end
		}
	}
	next = draw(0)
	serve := func() {
		for head < len(queue) && float64(len(busy)) < float64(ready)*s.k {
			a := queue[head]
			head++
			if now-a > 0.5 {
				out.late++
			}
			heap.Push(&busy, now+r.ExpFloat64()*s.service)
		}
		if head > 1024 && head*2 > len(queue) {
			queue = append(queue[:0], queue[head:]...)
			head = 0
		}
	}
	move := func(t float64) { // passes time
		inN += float64(len(busy)+len(queue)-head) * (t - now)
		out.podSeconds += float64(ready+len(starting)) * (t - now)
		now = t
	}
	decide := func(tick int) {
		o := algorithms.Observation{
			Now: epoch.Add(time.Duration(now * float64(time.Second))), Quiet: true,
			Replicas: algorithms.Replicas{Current: current, Ready: ready, Starting: len(starting)},
			Limits:   algorithms.Limits{Max: s.max, PodConcurrency: s.k},
			StartUp:  algorithms.StartUp{P50: sec(s.start), P90: sec(s.start), P99: sec(s.start), Samples: 20},
		}
		for _, at := range starting {
			o.Replicas.StartingAges = append(o.Replicas.StartingAges, sec(max(now-(at-s.start), 0)))
		}
		for _, n := range p.Needs() {
			w := int(n.Window.Seconds())
			sig := algorithms.Signal{Name: n.Name, Window: n.Window, Known: true, Coverage: 1}
			switch {
			case n.Name == algorithms.Waiting:
				if ready == 0 {
					sig.Value = float64(len(queue) - head)
				}
			case n.Name == algorithms.Concurrency && w > 0:
				if w > 120 {
					w = 120
				}
				w = min(w, max(tick, 1))
				sig.Value = max((inN-inAt[((tick-w)%128+128)%128])/float64(w), 0)
			case n.Name == algorithms.Concurrency:
				sig.Value = float64(len(busy) + len(queue) - head)
			case n.Name == algorithms.Rate:
				w = min(min(w, 120), max(tick, 1))
				sig.Value = (answered - anAt[((tick-w)%128+128)%128]) / float64(w)
			}
			o.Signals = append(o.Signals, sig)
		}
		d := p.Decide(o)
		if !d.Valid || d.Replicas == current {
			return
		}
		out.changes++
		current = d.Replicas
		for ready+len(starting) < current {
			starting = append(starting, now+s.start)
		}
		for ready+len(starting) > current && len(starting) > 0 {
			starting = starting[:len(starting)-1]
		}
		if ready > current {
			ready = current
		}
	}
	second := 0
	for {
		t, what := float64(second+1), 0
		if next < t {
			t, what = next, 1
		}
		if len(busy) > 0 && busy[0] < t {
			t, what = busy[0], 2
		}
		if len(starting) > 0 && starting[0] < t {
			t, what = starting[0], 3
		}
		if t > s.length {
			break
		}
		move(t)
		switch what {
		case 0:
			second++
			inAt[second%128], anAt[second%128] = inN, answered
			if second%2 == 0 {
				decide(second)
			}
		case 1:
			out.requests++
			if ready == 0 {
				out.cold++
			}
			queue = append(queue, now)
			next = draw(now)
			if current == 0 && ready == 0 {
				decide(second)
			}
		case 2:
			heap.Pop(&busy)
			answered++
		case 3:
			ready++
			starting = starting[1:]
		}
		serve()
	}
	for ; head < len(queue); head++ {
		if now-queue[head] > 0.5 {
			out.late++
		}
	}
	for _, v := range s.rates[:min(len(s.rates), int(s.length/s.bin))] {
		out.work += v * s.bin * s.service / s.k
	}
	return out
}

func sec(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// load reads a column of a trace and scales its peak to pods.
func load(t *testing.T, file string, column int, pods, service, k, skip, length float64) scene {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := func(i, j int) float64 {
		v, _ := strconv.ParseFloat(rows[i][j], 64)
		return v
	}
	s := scene{bin: at(2, 0) - at(1, 0), service: service, k: k, max: 2 * int(pods)}
	peak := 0.0
	for i := 1; i < len(rows); i++ {
		v := at(i, column)
		if float64(i-1)*s.bin >= skip && float64(i-1)*s.bin < skip+length {
			s.rates = append(s.rates, v)
			peak = max(peak, v)
		}
	}
	scale := pods * k / service / peak
	for i := range s.rates {
		s.rates[i] *= scale
	}
	s.length = min(length, float64(len(s.rates))*s.bin)
	return s
}

// TestTwin prints a table for the traces in SLUICE_TRACES: policies (SLUICE_POLICIES, NAME or NAME{json}, separated by ;) by start-up.
func TestTwin(t *testing.T) {
	dir := os.Getenv("SLUICE_TRACES")
	if dir == "" {
		t.Skip("SLUICE_TRACES names no folder of traces")
	}
	policies := strings.Split(os.Getenv("SLUICE_POLICIES"), ";")
	hours, _ := strconv.ParseFloat(os.Getenv("SLUICE_HOURS"), 64)
	if hours == 0 {
		hours = 6
	}
	service, _ := strconv.ParseFloat(os.Getenv("SLUICE_SERVICE"), 64)
	if service == 0 {
		service = 0.5
	}
	starts := []float64{0.1, 2, 10, 60}
	if v := os.Getenv("SLUICE_START"); v != "" {
		f, _ := strconv.ParseFloat(v, 64)
		starts = []float64{f}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.csv"))
	sort.Strings(files)
	for _, file := range files {
		base := strings.TrimSuffix(filepath.Base(file), ".csv")
		if m := os.Getenv("SLUICE_MATCH"); m != "" && !strings.Contains(m, base) || strings.HasSuffix(base, "reference") {
			continue
		}
		skip := 0.0
		if base == "wc98_may_jun" {
			skip = 33 * 86400
		}
		s := load(t, file, 1, 20, service, 10, skip, hours*3600)
		for _, start := range starts {
			s.start = start
			line := fmt.Sprintf("%-22s %5.1f", base, start)
			for _, spec := range policies {
				name, params, _ := strings.Cut(spec, "{")
				if params != "" {
					params = "{" + params
				}
				p, err := catalog.New(name, 7, json.RawMessage(params))
				if err != nil {
					t.Fatal(err)
				}
				p, err = guard.New(guard.Default(), p)
				if err != nil {
					t.Fatal(err)
				}
				o := simulate(p, s, 1)
				line += fmt.Sprintf(" | %6.3f%% %6.2f c%-5d ~%-5d", 100*float64(o.late)/float64(max(o.requests, 1)), o.podSeconds/max(o.work, 1), o.cold, o.changes)
			}
			fmt.Println(line)
		}
	}
}
