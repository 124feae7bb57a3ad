// Package looptest runs scenario files against any shell of the one loop: lines of what is seen,
// and lines of what is to be done. The same file gives the same answers in every shell.
//
// A file is lines of words. "#" begins a comment.
//
//	spec {JSON}     the workload's loop.Spec
//	timing grace=2s tick=2s …
//	view t=0s replicas=1 ready=1 demand=35
//	want scale=4 path=out next=2s phase=Awake reason=TrackTarget
//
// The words of a view, each with its default:
//
//	t=           instant since the beginning
//	replicas=0   the target's count
//	ready=0 starting=0 terminating=0   instances; the same number is the same instance
//	demand=0     concurrency over every window; "unknown" has no value at all
//	coverage=1   share of sources that reported; below 0.5 the value is unknown
//	age=0s       age of the readings
//	waiting=0    requests held by gateways
//	path=out     in, out, or none where nothing holds requests
//	gateways=1   gateways that listen
//	serving=     instances that the platform sends requests to; as many as are ready
//	since=0s     when the instances that are new in this view were created, relative to t
//	born=        when the workload was first to be scaled; long ago
//	limit=0      the instances' own limit
//	blind=0s     for how long what routes requests may not see changes
//	trouble=     why the starting instances cannot start (one word)
//	fault=       no, or what carrying out fails with (one word)
//
// The words of a want: scale (a count, or - for none), path (in, out, or -), next, phase, reason,
// waits (yes or no: whether something is waited for), starts (start-ups known), failure (yes or
// no), and clamps (Rule:from>to, several with commas).
package looptest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Shell is a shell of the loop whose eyes and hands are the test's.
type Shell interface {
	// Needs are the loop's.
	Needs() []algorithms.Need
	// Round sees the view, does one round, and returns what was carried out. A fault, when not nil,
	// is what carrying out fails with.
	Round(v loop.View, fault error) loop.Commands
}

// Bare is the loop without a shell: what the others are held against.
type Bare struct{ *loop.Loop }

// Round implements Shell.
func (b Bare) Round(v loop.View, fault error) loop.Commands {
	c := b.Step(v)
	b.Done(v.Now, c, fault)
	return c
}

// Open makes a shell for a scenario's spec and timing.
type Open func(t *testing.T, s loop.Spec, timing loop.Timing) Shell

// Epoch is the instant at which scenarios begin.
func Epoch() time.Time { return time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC) }

// Scenarios runs every *.txt file of dir.
func Scenarios(t *testing.T, dir string, open Open) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			run(t, file, open)
		})
	}
}

// run plays one file. With UPDATE_GOLDEN it writes what came out into it.
func run(t *testing.T, file string, open Open) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	update := os.Getenv("UPDATE_GOLDEN") != ""
	w := world{timing: loop.DefaultTiming()}
	var out strings.Builder
	var last loop.Commands
	var pending bool
	n := 0
	for in := bufio.NewScanner(strings.NewReader(string(raw))); in.Scan(); {
		n++
		line := strings.TrimSpace(in.Text())
		verb, rest, _ := strings.Cut(line, " ")
		if pending && verb != "want" && update {
			fmt.Fprintf(&out, "want %s\n", describe(&last, nil))
			pending = false
		}
		written := in.Text()
		var err error
		switch verb {
		case "", "#":
		case "spec":
			err = algorithms.Strict(json.RawMessage(rest), &w.spec)
		case "timing":
			err = w.setTiming(rest)
		case "view":
			if w.shell == nil {
				w.shell = open(t, w.spec, w.timing)
			}
			var v loop.View
			var fault error
			if v, fault, err = w.view(rest); err == nil {
				last, pending = w.shell.Round(v, fault), true
			}
		case "want":
			pending = false
			got := describe(&last, keys(rest))
			if got != rest && !update {
				t.Errorf("%s:%d:\n want %s\n  got %s", file, n, rest, got)
			}
			written = "want " + got
		default:
			err = fmt.Errorf("%q: want spec, timing, view, want or a comment", verb)
		}
		if err != nil {
			t.Fatalf("%s:%d: %v", file, n, err)
		}
		out.WriteString(written + "\n")
	}
	if pending && update {
		fmt.Fprintf(&out, "want %s\n", describe(&last, nil))
	}
	if update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil { //nolint:gosec // a test's data
			t.Fatal(err)
		}
	}
}

// world keeps what lasts between views: the instances.
type world struct {
	spec   loop.Spec
	timing loop.Timing
	shell  Shell
	pods   []loop.Instance
}

func words(text string) (map[string]string, error) {
	out := map[string]string{}
	for w := range strings.FieldsSeq(text) {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want name=value", w)
		}
		out[k] = v
	}
	return out, nil
}

func keys(text string) []string {
	var out []string
	for w := range strings.FieldsSeq(text) {
		k, _, _ := strings.Cut(w, "=")
		out = append(out, k)
	}
	return out
}

func (w *world) setTiming(text string) error {
	given, err := words(text)
	if err != nil {
		return err
	}
	for k, v := range given {
		field := map[string]*time.Duration{
			"tick": &w.timing.Tick, "recheck": &w.timing.Recheck, "settle": &w.timing.Settle,
			"settleWake": &w.timing.SettleWake, "grace": &w.timing.Grace, "linger": &w.timing.Linger,
		}[k]
		if field == nil {
			return fmt.Errorf("timing has no %q", k)
		}
		if *field, err = time.ParseDuration(v); err != nil {
			return err
		}
	}
	return nil
}

// reader reads words, and remembers the first fault.
type reader struct {
	words map[string]string
	err   error
}

func (r *reader) text(name, otherwise string) string {
	v, ok := r.words[name]
	delete(r.words, name)
	if !ok {
		return otherwise
	}
	return v
}

func (r *reader) number(name string, otherwise float64) float64 {
	text := r.text(name, "")
	if text == "" {
		return otherwise
	}
	v, err := strconv.ParseFloat(text, 64)
	r.err = errors.Join(r.err, err)
	return v
}

func (r *reader) span(name string) time.Duration {
	v, err := time.ParseDuration(r.text(name, "0s"))
	r.err = errors.Join(r.err, err)
	return v
}

func (w *world) view(text string) (loop.View, error, error) {
	given, err := words(text)
	r := &reader{words: given, err: err}
	now := Epoch().Add(r.span("t"))
	v := loop.View{Now: now, Born: Epoch(), Replicas: int(r.number("replicas", 0))}
	if born := r.text("born", ""); born != "" {
		d, err := time.ParseDuration(born)
		r.err = errors.Join(r.err, err)
		v.Born = Epoch().Add(d)
	} else {
		v.Born = time.Time{}
	}
	ready := int(r.number("ready", 0))
	w.instances(now, ready, int(r.number("starting", 0)), int(r.number("terminating", 0)), r.span("since"), r.number("limit", 0), r.text("trouble", ""))
	v.Instances = w.pods
	if d := r.span("blind"); d > 0 {
		v.BlindUntil = now.Add(d)
	}
	waiting := r.number("waiting", 0)
	w.signals(&v, r.text("demand", "0"), r.number("coverage", 1), r.span("age"), waiting)
	path := r.text("path", "out")
	serving := int(r.number("serving", float64(ready)))
	gateways := int(r.number("gateways", 1))
	if path != "none" {
		v.Path = &loop.Path{In: path == "in", Ready: serving, Listening: gateways, Waiting: int(waiting)}
	}
	var fault error
	if what := r.text("fault", "no"); what != "no" {
		fault = errors.New(what)
	}
	for k := range r.words {
		r.err = errors.Join(r.err, fmt.Errorf("a view has no %q", k))
	}
	return v, fault, r.err
}

// instances keeps the lives of numbered instances: the same number is the same instance.
func (w *world) instances(now time.Time, ready, starting, terminating int, since time.Duration, limit float64, trouble string) {
	n := ready + starting + terminating
	pods := make([]loop.Instance, n)
	for i := range n {
		p := loop.Instance{ID: fmt.Sprintf("pod-%d", i), Created: now.Add(since), InFlight: -1}
		if i < len(w.pods) {
			p = w.pods[i]
		}
		switch {
		case i < ready:
			p.State, p.Limit, p.Trouble = algorithms.PodReady, limit, ""
			if p.Ready.IsZero() {
				p.Ready = now
			}
		case i < ready+starting:
			p.State, p.Trouble = algorithms.PodStarting, trouble
		default:
			p.State = algorithms.PodTerminating
		}
		pods[i] = p
	}
	w.pods = pods
}

func (w *world) signals(v *loop.View, demand string, coverage float64, age time.Duration, waiting float64) {
	value, err := strconv.ParseFloat(demand, 64)
	known := err == nil && coverage >= 0.5
	if err != nil {
		coverage = 0
	}
	for _, n := range w.shell.Needs() {
		s := algorithms.Signal{Name: n.Name, Window: n.Window, Value: value, Known: known, Coverage: coverage, Age: age}
		if n.Name == algorithms.Waiting {
			s = algorithms.Signal{Name: n.Name, Window: n.Window, Value: waiting, Known: true, Coverage: 1}
		}
		v.Signals = append(v.Signals, s)
	}
}

// describe writes commands in words: those named, or the usual ones.
func describe(c *loop.Commands, names []string) string {
	if names == nil {
		names = []string{"scale", "path", "next", "phase", "reason", "waits"}
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	var out []string
	for _, name := range names {
		value := "?"
		switch name {
		case "scale":
			value = "-"
			if c.Scale != nil {
				value = strconv.Itoa(*c.Scale)
			}
		case "path":
			value = "-"
			if c.Path != nil {
				value = map[bool]string{true: "in", false: "out"}[c.Path.In]
			}
		case "next":
			value = c.Next.String()
		case "phase":
			value = string(c.Record.Phase)
		case "reason":
			value = c.Record.Reason
		case "waits":
			value = yes(c.Record.Waiting != "")
		case "starts":
			value = strconv.Itoa(c.Record.StartUp.Samples)
		case "failure":
			value = yes(c.Path != nil && c.Path.Failure != "")
		case "limit":
			value = strconv.FormatFloat(c.Record.Limits.PodConcurrency, 'g', -1, 64)
		case "to":
			value = strconv.Itoa(c.Record.To)
		case "clamps":
			var all []string
			for _, k := range c.Record.Clamps {
				all = append(all, fmt.Sprintf("%s:%d>%d", k.Rule, k.From, k.To))
			}
			value = strings.Join(all, ",")
		}
		out = append(out, name+"="+value)
	}
	return strings.Join(out, " ")
}
