package demo

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/wire"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The plan must be able to show what it promises, with the examples as they are.
func TestPlan(t *testing.T) {
	for _, file := range []string{"autoscaler.yaml", "hpa.yaml"} {
		text, err := os.ReadFile("../../deploy/examples/" + file)
		if want := fmt.Sprintf("averageValue: %q", fmt.Sprint(podTarget)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s, %v: want %s, which the plan builds on", file, err, want)
		}
	}
	var total time.Duration
	for _, a := range []act{autoscalerAct(), hpaAct()} {
		peak := 0.0
		for _, b := range a.blocks {
			s := b.shape()
			total += s.Length()
			for at := time.Duration(0); at < s.Length(); at += time.Second {
				peak = max(peak, s.Requests(at+time.Second)-s.Requests(at)) // in one second
			}
			if at := b.at(s.Length() - 1); len(b.parts) > 0 && at != b.parts[len(b.parts)-1].name {
				t.Errorf("%s: at its end it names %q, want its last part", a.name, at)
			}
		}
		if need := peak * requestMillis / 1000 / podTarget; need < wantedPods {
			t.Errorf("%s: at its peak of %v/s it needs %v pods, want at least %d", a.name, peak, need, wantedPods)
		}
	}
	if total > 3*time.Minute {
		t.Errorf("planned load takes %v, want at most 3m: waits come on top, and the demo ends within 6", total)
	}
}

func pods(replicas, ready int) Sample { return Sample{Replicas: &replicas, Ready: &ready} }

func TestReach(t *testing.T) {
	at := func(seconds int, s Sample) Sample {
		s.At = time.Duration(seconds) * time.Second
		return s
	}
	milestones := []milestone{{"asleep", asleep}, {"many", scaledOut}, {"asleep again", asleep}}
	tests := []struct {
		name    string
		samples []Sample
		want    []time.Duration // of those reached
	}{
		{"all in order", []Sample{at(1, pods(0, 0)), at(2, pods(4, 3)), at(3, pods(4, 4)), at(4, pods(0, 0))}, []time.Duration{1, 3, 4}},
		{"a later state does not stand for an earlier one", []Sample{at(1, pods(4, 4)), at(2, pods(0, 0))}, []time.Duration{2}},
		{"a pod that ends is not zero", []Sample{at(1, pods(0, 1))}, nil},
		{"unknown is not zero", []Sample{at(1, Sample{})}, nil},
		{"nothing seen", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []time.Duration
			for _, m := range reach(milestones, tt.samples) {
				if m.Reached {
					got = append(got, m.At/time.Second)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("reached (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	missed := []Milestone{{What: "a", Reached: true}, {What: "b"}, {What: "c"}}
	lost := load.Summary{Sent: 3, OK: 2, Lost: 1, Causes: map[string]int{"status 503": 1}}
	tests := []struct {
		name   string
		report Report
		want   []string
	}{
		{"all well", Report{Acts: []ActReport{{Name: "x", Milestones: missed[:1]}}}, nil},
		{"the first milestone that was missed", Report{Acts: []ActReport{{Name: "x", Milestones: missed}}}, []string{"x: not reached: b"}},
		{"loss with its cause", Report{Acts: []ActReport{{Name: "x", Load: lost}}}, []string{"x: 3 sent, 2 answered, 1 lost (1 status 503)"}},
		{"interrupted: no milestone is missed, a loss is a loss", Report{Interrupted: true, Acts: []ActReport{{Name: "x", Load: lost, Milestones: missed}}}, []string{"x: 3 sent, 2 answered, 1 lost (1 status 503)"}},
		{"faults", Report{Faults: []string{"odd"}}, []string{"odd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.report.Failures()); diff != "" {
				t.Errorf("Failures (-want +got):\n%s", diff)
			}
		})
	}
}

func TestColdStart(t *testing.T) {
	detected := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	status := &v1alpha1.ColdStartStatus{Detected: metav1.NewMicroTime(detected), Decided: "0.004", Started: "0.25", Held: 3}
	if c, ok := coldStart(status); ok {
		t.Errorf("coldStart of one under way = %+v, want none yet", c)
	}
	status.Released = "0.75"
	want := ColdStart{Detected: detected, Held: 3, Phases: []Phase{
		{"scale written", 4 * time.Millisecond}, {"containers started", 250 * time.Millisecond}, {"first request released", 750 * time.Millisecond},
	}}
	if c, ok := coldStart(status); !ok || !cmp.Equal(c, want) {
		t.Errorf("coldStart = %+v, %t, want %+v: phases not seen are left out", c, ok, want)
	}
}

// recorded is a demo as it could have been.
func recorded() Report {
	r := Report{Start: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	for i := range 40 {
		n := min(i, 40-i) / 4
		concurrency := float64(n) * 9
		s := pods(n, max(0, n-1))
		s.At, s.Stage, s.Wanted, s.Answered, s.Concurrency, s.Waiting = time.Duration(i+1)*time.Second, "ramp", float64(10*n), float64(9*n), &concurrency, &n
		r.Samples = append(r.Samples, s)
	}
	r.Samples[7].Waiting, r.Samples[7].Concurrency, r.Samples[7].Replicas, r.Samples[7].Ready = nil, nil, nil, nil
	r.Acts = []ActReport{
		{
			Name: "Autoscaler", To: 20 * time.Second, Load: load.Summary{Sent: 100, OK: 98, Lost: 2, Causes: map[string]int{"timeout": 2}, P50: 203 * time.Millisecond, Max: 1250 * time.Millisecond},
			Milestones: []Milestone{{What: "0 replicas", Reached: true, At: 3 * time.Second}, {What: "<many>"}},
			ColdStarts: []ColdStart{{Held: 7, Phases: []Phase{{"scale written", 10 * time.Millisecond}, {"pod answers", 400 * time.Millisecond}, {"first request released", 400 * time.Millisecond}}}},
		},
		{Name: "stock HPA", From: 20 * time.Second, To: 40 * time.Second, Load: load.Summary{Sent: 50, OK: 50}},
	}
	return r
}

func TestSummaryText(t *testing.T) {
	var b bytes.Buffer
	printer{w: &b}.summary(recorded())
	for _, want := range []string{
		"100 sent, 98 answered, 2 lost (2 timeout)", "median 203 ms", "longest 1.25 s", "✓  0:03  0 replicas", "✗     —  <many>", "cold start 1: 400 ms", "7 waited",
		"pod answers             +390 ms     400 ms   █", "Act 2: stock HPA (0:20 to 0:40)", "requests per second: wanted and answered", "pods: replicas and ready",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("the summary has colours where none were asked for")
	}
}

func TestSampleLine(t *testing.T) {
	var b bytes.Buffer
	p := printer{w: &b}
	s := pods(3, 2)
	s.At, s.Stage, s.Lost = 65*time.Second, "ramp", 4
	p.sample(s)
	p.sample(Sample{})
	known, unknown, _ := strings.Cut(b.String(), "\n")
	for _, want := range []string{"1:05", "ramp", "3, 2 ready", "●●○", "4 LOST"} {
		if !strings.Contains(known, want) {
			t.Errorf("sample line %q lacks %q", known, want)
		}
	}
	if n := strings.Count(unknown, "?"); n != 3 {
		t.Errorf("sample line %q marks %d values as unknown, want 3", unknown, n)
	}
}

func TestPictures(t *testing.T) {
	r := recorded()
	var b bytes.Buffer
	if err := writePNG(&b, r); err != nil {
		t.Fatal(err)
	}
	if image, err := png.Decode(&b); err != nil || image.Bounds().Dx() < 1000 {
		t.Errorf("the PNG is %v, %v", image, err)
	}
	b.Reset()
	if err := writeHTML(&b, r); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"2 lost (2 timeout)", "&lt;many&gt;", "Cold start, 7 waited", "<svg"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	svg := page[strings.Index(page, "<svg") : strings.LastIndex(page, "</svg>")+len("</svg>")]
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the page's picture: %v", err)
		}
	}
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := writeSamples(&b, recorded().Samples); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 41 {
		t.Fatalf("%d rows, %v, want 41", len(rows), err)
	}
	if diff := cmp.Diff([]string{"8.000", "0", "ramp", "10.000", "0.000", "9.000", "0", "0", "", "", "", "", ""}, rows[8]); diff != "" {
		t.Errorf("a row with unknown values (-want +got):\n%s", diff)
	}
	b.Reset()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	result := load.Result{Start: start.Add(90 * time.Second), Records: []load.Record{{Intended: time.Second, Sent: time.Second, Done: 1250 * time.Millisecond, Status: 503, Cause: "status 503", Tries: 1}}}
	if err := writeRequests(&b, start, result); err != nil {
		t.Fatal(err)
	}
	if _, row, _ := strings.Cut(b.String(), "\n"); row != "91.000,91.000,91.250,503,status 503,false,1\n" {
		t.Errorf("a request's row = %q", row)
	}
}

func TestWatcherSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := newWatcher(cluster{namespace: "demo", name: "web"}, nil, printer{w: io.Discard}, start, 1, 5)
		b := block{parts: []part{{"slow", load.Constant(10, 2*time.Second)}, {"fast", load.Constant(30, 2*time.Second)}}}
		w.enter("", b, b.shape())
		report := func(gateway string, waiting int) {
			w.report(wire.Report{Gateway: gateway, Ports: []wire.PortReport{{Namespace: "demo", Service: "web", Waiting: waiting}, {Namespace: "x", Service: "web", Waiting: 99}}})
		}
		report("g1", 7)
		report("g1", 2)
		report("g2", 1)

		seen := make(chan error)
		go func() { seen <- w.wait(t.Context(), scaledOut) }()
		first := ColdStart{Detected: start.Add(time.Second), Held: 1}
		time.Sleep(3 * time.Second)
		got := w.sample(time.Now(), time.Now().Add(-2*time.Second), load.Counts{Sent: 60, OK: 50, Lost: 1, InFlight: 9}, load.Counts{Sent: 20, OK: 20}, observed{coldStart: &first})
		seven := 8
		want := Sample{At: 3 * time.Second, Act: 1, Stage: "fast", Wanted: 20, Sent: 20, Answered: 15, InFlight: 9, Lost: 6, Waiting: &seven}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sample (-want +got):\n%s", diff)
		}
		synctest.Wait()
		select {
		case err := <-seen:
			t.Fatalf("wait ended with %v before its state was seen", err)
		default:
		}
		fuller := first
		fuller.Phases = []Phase{{"pod answers", time.Second}}
		four := 4
		before := ColdStart{Detected: start.Add(-time.Hour)}
		w.sample(time.Now().Add(time.Second), time.Now(), load.Counts{}, load.Counts{}, observed{coldStart: &fuller, ready: &four})
		again := w.sample(time.Now().Add(2*time.Second), time.Now(), load.Counts{}, load.Counts{}, observed{coldStart: &before})
		if err := <-seen; err != nil {
			t.Errorf("wait = %v, want nil when its state was seen", err)
		}
		if *again.Waiting != 3 {
			t.Errorf("held at most = %d, want what is still held: 3", *again.Waiting)
		}
		if _, starts := w.seen(); !cmp.Equal(starts, []ColdStart{fuller}) {
			t.Errorf("cold starts = %+v, want one, in its fullest form, and none from before", starts)
		}
	})
}

// A demo that cannot start says so and leaves nothing.
func TestRunNeedsItsPrograms(t *testing.T) {
	t.Setenv("SLUICE_CACHE", t.TempDir())
	err := Run(t.Context(), Options{Place: kit.Place{Root: t.TempDir(), Bin: t.TempDir()}, Out: t.TempDir(), Stdout: io.Discard})
	if err == nil {
		t.Error("Run without programs = nil error")
	}
}
