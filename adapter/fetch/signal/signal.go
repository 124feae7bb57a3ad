// Package signal makes signals of workloads of what Prometheus has: of metrics of rules, of queries
// that a workload brings, and of presets for what counts its requests. It asks ahead and keeps a
// past in memory, so that a round reads means over its windows and never waits.
//
// What is not known is no number. The age of a signal is that of its oldest sample, and not that of
// the question.
package signal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/ask"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// Rules answer for workloads from memory, and know the operator's sources. fetch.Engine is one.
type Rules interface {
	Ask(q ask.Question) ask.Answer
	Source(name string) (*source.Source, error)
}

// Options configure Signals. All but Clock are needed.
type Options struct {
	Config source.Config
	Rules  Rules
	// Pods names the pods of a workload that Declare told of: those that are ready, and others that
	// exist.
	Pods func(ref loop.Ref) (ready, others []string)
	// Choose finds the preset of a workload; nil where it has none, or has sidecars.
	Choose func(w Workload) (*preset.Choice, error)
	// Elsewhere says that another source has a signal, and no rule makes it; nil: none has.
	Elsewhere func(namespace, signal string) bool
	// Observe returns what is told of requests for tenants to a source.
	Observe    func(source string) func(kind, result string, d time.Duration)
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Tick is how often the memory is looked at; 0 means 1 s.
	Tick time.Duration
}

// Workload is what signals are made for.
type Workload struct {
	Namespace string
	Kind      schema.GroupKind
	Name      string
	// Queries are its own, by signal.
	Queries []Query
}

// Query makes a signal.
type Query struct {
	Signal, PromQL string
	// Source is the name of a Prometheus, "" is the first that takes queries of tenants.
	Source string
	// MaxAge makes older samples unknown, 0 means 2m. Interval is the time between two queries, 0
	// means the sources'.
	MaxAge, Interval time.Duration
}

// same reports whether two describe the same.
func (w *Workload) same(v *Workload) bool {
	return w.Namespace == v.Namespace && w.Kind == v.Kind && w.Name == v.Name && slices.Equal(w.Queries, v.Queries)
}

// Value is a signal over a window.
type Value struct {
	// Value is meaningless unless Known; Missing then says why.
	Value   float64
	Known   bool
	Missing string
	// At is the time of the newest sample, zero for none; Age how old that is.
	At  time.Time
	Age time.Duration
	// Coverage is the share of the window that is known, 0–1.
	Coverage float64
}

// Bounds of what is kept.
const (
	// maxOwn bounds the signals by a namespace's own queries, maxSignals all of a namespace.
	maxOwn, maxSignals = 50, 2000
	// kept is how long a signal is kept that nobody reads.
	kept = 5 * time.Minute
	// defaultMaxAge is the age beyond which a sample is unknown where nothing else is said.
	defaultMaxAge = 2 * time.Minute
	// trusted is the share of a window that has to be known.
	trusted = 0.5
	// choicePeriod is how often annotations are looked at.
	choicePeriod = 5 * time.Second
	// maxWords bounds what is said of an unknown value, in bytes.
	maxWords = 400
	// mostAmount is the largest value that is taken for one: what a quantity can be.
	mostAmount = math.MaxInt64 / 1000
)

// declared is a workload that Declare told of.
type declared struct {
	Workload
	// choice is its preset, fault why that cannot be used; both as of chosen.
	choice *preset.Choice
	fault  string
	pods   bool
	chosen time.Time
}

// entryKey finds an entry. Signals of presets belong to the object, whoever scales it.
type entryKey struct {
	ref  loop.Ref
	name string
}

// entry is one signal. The lock of Signals guards it.
type entry struct {
	namespace string
	own       bool
	// query is what is asked by key; without it a rule is. fault says why nothing can be.
	query bool
	key   memory.Key
	fault string
	// choice is what the query was made of, nil for other queries.
	choice *preset.Choice
	// sort is what the rule was found to describe.
	sort   ask.Sort
	maxAge time.Duration

	// at is the time of the newest answer's sample, looked when the memory was looked at.
	wanted, asked, at, looked time.Time
	track                     track
	// missing says why the value is not known now; partial and coverage are of a sum of which a
	// part is known.
	missing           string
	partial, coverage float64
	bounded           bool
}

// Signals has the signals of Prometheus. It is safe for concurrent use; Run runs once.
type Signals struct {
	opts   Options
	memory *memory.Memory
	lanes  *lanes

	mu        sync.Mutex
	workloads map[loop.Ref]*declared
	entries   map[entryKey]*entry
	counts    map[string]counts
	told      map[string]string
}

// counts are a namespace's signals.
type counts struct{ all, own int }

// New makes Signals.
func New(o Options) (*Signals, error) {
	if o.Rules == nil || o.Pods == nil || o.Choose == nil || o.Observe == nil || o.Log == nil || o.Registerer == nil {
		return nil, errors.New("rules, pods, choose, observe, log and registerer are needed")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Tick == 0 {
		o.Tick = time.Second
	}
	s := &Signals{opts: o, workloads: map[loop.Ref]*declared{}, entries: map[entryKey]*entry{}, counts: map[string]counts{}, told: map[string]string{}}
	s.lanes = &lanes{config: &s.opts.Config, clock: o.Clock, observe: o.Observe, of: map[laneKey]*lane{}, all: map[string]chan struct{}{}}
	s.memory = memory.New(time.Duration(o.Config.Interval), kept, o.Clock, s.ask)
	for state, known := range map[string]bool{"known": true, "unknown": false} {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_adapter_prometheus_signals", Help: "Signals of workloads that are made of Prometheus' series, by whether their value is known.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(s.count(known)) })
		if err := o.Registerer.Register(g); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return s, nil
}

// count counts the signals that are known, or that are not.
func (s *Signals) count(known bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.entries {
		if (e.missing == "") == known {
			n++
		}
	}
	return n
}

// ask asks for the memory.
func (s *Signals) ask(ctx context.Context, key memory.Key) (answer.Result, error) {
	if key.Tenant != "" {
		return s.lanes.fetch(ctx, key)
	}
	from, err := s.opts.Rules.Source(key.From)
	if err != nil {
		return answer.Result{}, err
	}
	return from.Fetch(ctx, key.Query)
}

// Declare says what a workload is. It does nothing when that has not changed, and costs little
// then.
func (s *Signals) Declare(ref loop.Ref, w Workload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.workloads[ref]; old != nil {
		if old.same(&w) {
			return
		}
		s.drop(ref)
	}
	w.Queries = slices.Clone(w.Queries)
	s.workloads[ref] = &declared{Workload: w}
}

// Forget drops a workload.
func (s *Signals) Forget(ref loop.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.workloads, ref)
	delete(s.told, ref.String())
	s.drop(ref)
}

// drop drops the entries of a workload. The lock is held.
func (s *Signals) drop(ref loop.Ref) {
	for key, e := range s.entries {
		if key.ref == ref {
			s.remove(key, e)
		}
	}
}

func (s *Signals) remove(key entryKey, e *entry) {
	delete(s.entries, key)
	n := s.counts[e.namespace]
	n.all--
	if e.own {
		n.own--
	}
	if n.all == 0 {
		delete(s.counts, e.namespace)
		return
	}
	s.counts[e.namespace] = n
}

// Signal answers a need of a workload from memory; ok is false where it is not for Prometheus to
// answer: a signal of requests of a workload without a preset.
func (s *Signals) Signal(now time.Time, ref loop.Ref, need algorithms.Need) (v Value, ok bool) {
	if need.Name == algorithms.Waiting {
		return v, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workloads[ref]
	requests := need.Name == algorithms.Concurrency || need.Name == algorithms.Rate
	if w == nil {
		return v, false
	}
	own := slices.IndexFunc(w.Queries, func(q Query) bool { return q.Signal == need.Name })
	if own < 0 && (requests || need.Name == preset.Duration) {
		switch {
		case w.choice != nil && w.pods:
			return s.preset(now, w.choice, need), true
		case w.fault != "" && w.pods:
			return Value{Missing: w.fault}, true
		case requests:
			return v, false
		}
	}
	if own < 0 && s.opts.Elsewhere != nil && s.opts.Elsewhere(w.Namespace, need.Name) {
		return v, false
	}
	key := entryKey{ref, need.Name}
	e, missing := s.entry(now, key, w.Namespace, own >= 0, func(e *entry) {
		if own < 0 {
			return
		}
		e.query, e.maxAge = true, w.Queries[own].MaxAge
		var err error
		if e.key, err = s.prepare(w.Namespace, &w.Queries[own]); err != nil {
			e.fault = err.Error()
		}
	})
	if e == nil {
		return Value{Missing: missing}, true
	}
	return e.read(now, need.Window), true
}

// Object answers a signal of a preset from memory.
func (s *Signals) Object(now time.Time, c *preset.Choice, need algorithms.Need) Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preset(now, c, need)
}

// preset answers a signal of a preset. The lock is held.
func (s *Signals) preset(now time.Time, c *preset.Choice, need algorithms.Need) Value {
	key := entryKey{loop.Ref{Driver: "preset " + c.Preset.Name, Namespace: c.Namespace, Kind: c.Kind, Name: c.Workload.Name}, need.Name}
	// its Services or its metric have changed
	if e := s.entries[key]; e != nil && !sameChoice(e.choice, c) {
		s.remove(key, e)
	}
	e, missing := s.entry(now, key, c.Namespace, false, func(e *entry) {
		e.query, e.choice, e.maxAge = true, c, time.Duration(c.MaxAge)
		q, err := c.Query(need.Name)
		if err != nil {
			e.fault = err.Error()
			return
		}
		e.key = memory.Key{From: c.Source, Query: source.Query{PromQL: q.PromQL, Times: source.Times(q.Parsed, "")}}
	})
	if e == nil {
		return Value{Missing: missing}
	}
	return e.read(now, need.Window)
}

// sameChoice reports whether two ask the same.
func sameChoice(a, b *preset.Choice) bool {
	return a.Preset == b.Preset && a.Metric == b.Metric && slices.Equal(a.Services, b.Services)
}

// entry finds or makes an entry; missing says why there can be none. The lock is held.
func (s *Signals) entry(now time.Time, key entryKey, namespace string, own bool, build func(*entry)) (e *entry, missing string) {
	if e = s.entries[key]; e != nil {
		e.wanted = now
		return e, ""
	}
	n := s.counts[namespace]
	if n.all >= maxSignals || own && n.own >= maxOwn {
		return nil, fmt.Sprintf("namespace %s has %d signals of Prometheus, %d by queries of its own: want at most %d and %d", namespace, n.all, n.own, maxSignals, maxOwn)
	}
	e = &entry{namespace: namespace, own: own, wanted: now, missing: "Prometheus has not answered yet"}
	build(e)
	if e.maxAge == 0 {
		e.maxAge = defaultMaxAge
	}
	if e.fault != "" {
		e.missing = shown(e.fault)
	}
	n.all++
	if own {
		n.own++
	}
	s.counts[namespace] = n
	s.entries[key] = e
	if e.query && e.fault == "" {
		s.memory.Look(e.key)
	}
	return e, ""
}

// read answers for a window.
func (e *entry) read(now time.Time, width time.Duration) Value {
	v := Value{At: e.at, Missing: e.missing}
	if !v.At.IsZero() {
		v.Age = max(0, now.Sub(v.At))
	}
	if v.Missing != "" {
		v.Value, v.Coverage = e.partial, e.coverage
		return v
	}
	if v.Age > e.maxAge && !e.bounded {
		v.Missing = fmt.Sprintf("its sample is older than %s", e.maxAge)
		return v
	}
	v.Value, v.Coverage = e.track.over(width)
	if v.Known = v.Coverage >= trusted; !v.Known {
		v.Missing = fmt.Sprintf("less than half of the last %v is known", width)
	}
	return v
}

// Run follows the memory until ctx ends.
func (s *Signals) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.memory.Run(ctx) })
	g.Go(func() error {
		ticker := time.NewTicker(s.opts.Tick)
		defer ticker.Stop()
		for {
			s.follow(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
	err := g.Wait()
	s.lanes.close()
	return err
}

// follow takes what is new, workload by workload, so that no lock is held for long.
func (s *Signals) follow(ctx context.Context) {
	now := s.opts.Clock()
	s.lanes.sweep(now)
	s.mu.Lock()
	refs := slices.Collect(maps.Keys(s.workloads))
	keys := slices.Collect(maps.Keys(s.entries))
	s.mu.Unlock()
	for _, ref := range refs {
		s.choose(ctx, ref, now)
	}
	for _, key := range keys {
		s.take(key, now)
	}
}

// choose looks at the annotations of a workload.
func (s *Signals) choose(ctx context.Context, ref loop.Ref, now time.Time) {
	s.mu.Lock()
	w := s.workloads[ref]
	due := w != nil && now.Sub(w.chosen) >= choicePeriod
	var asked Workload
	if due {
		asked = w.Workload
	}
	s.mu.Unlock()
	if !due {
		return
	}
	choice, err := s.opts.Choose(asked)
	ready, others := s.opts.Pods(ref)
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	s.mu.Lock()
	if w = s.workloads[ref]; w != nil {
		w.choice, w.fault, w.chosen, w.pods = choice, fault, now, len(ready)+len(others) > 0
	}
	of := ref.String()
	told := s.told[of] == fault
	if s.told[of] = fault; fault == "" {
		delete(s.told, of)
	}
	s.mu.Unlock()
	if fault != "" && !told {
		s.opts.Log.WarnContext(ctx, "preset cannot be used", slog.String("workload", asked.Namespace+"/"+asked.Name), slog.String("error", fault))
	}
}

// sample is what is new of an entry.
type sample struct {
	value       float64
	known       bool
	missing     string
	at, asked   time.Time
	coverage    float64
	bounded     bool
	sort        ask.Sort
	outstanding bool
}

// take takes what the memory has of an entry, and drops one that nobody reads.
func (s *Signals) take(key entryKey, now time.Time) {
	s.mu.Lock()
	e := s.entries[key]
	if e != nil && now.Sub(e.wanted) > kept {
		s.remove(key, e)
		e = nil
	}
	if e == nil || e.fault != "" || now.Sub(e.looked) < s.poll() {
		s.mu.Unlock()
		return
	}
	e.looked = now
	query, asked, sort, own := e.query, e.key, e.sort, e.own
	w := s.workloads[key.ref]
	var q ask.Question
	if w != nil {
		q = ask.Question{Namespace: w.Namespace, Metric: key.name, Kind: w.Kind, Name: w.Name, Sort: sort}
	}
	s.mu.Unlock()

	var got sample
	switch {
	case query:
		got = s.look(asked, own, now)
	case w != nil:
		q.Pods, q.Others = s.opts.Pods(key.ref)
		a := s.opts.Rules.Ask(q)
		got = sample{value: a.Value, known: a.Known, missing: a.Missing, at: a.At, asked: a.Asked, coverage: a.Coverage, bounded: a.Bounded, sort: a.Sort}
	default:
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key] == e {
		e.put(got)
	}
}

// poll is how often an entry's memory is looked at: some times between two answers.
func (s *Signals) poll() time.Duration {
	return min(max(time.Duration(s.opts.Config.Interval)/4-s.opts.Tick/2, s.opts.Tick/2), 5*time.Second)
}

// shown bounds the words for what is missing: records of rounds keep them.
func shown(text string) string {
	if len(text) > maxWords {
		return strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return text
}

// put takes a sample.
func (e *entry) put(got sample) {
	if got.outstanding {
		return
	}
	if got.sort != "" {
		e.sort = got.sort
	}
	e.missing, e.partial, e.coverage, e.bounded = shown(got.missing), 0, 0, got.bounded
	if !got.known {
		e.partial, e.coverage = got.value, got.coverage
		if e.missing == "" {
			e.missing = "it is not known"
		}
		e.track.gap()
		return
	}
	e.missing = ""
	if got.asked.Equal(e.asked) {
		return
	}
	e.asked, e.at = got.asked, got.at
	e.track.add(got.at, got.value)
}

// look reads a query's outcome.
func (s *Signals) look(key memory.Key, tenant bool, now time.Time) sample {
	f, ok := s.memory.Look(key)
	switch {
	case !ok:
		return sample{outstanding: true}
	case f.Err != nil && tenant:
		return sample{missing: tenantText(f.Err)}
	case f.Err != nil:
		return sample{missing: f.Err.Error()}
	case now.Sub(f.At) > s.staleAfter(key):
		return sample{missing: fmt.Sprintf("the last answer is older than %s", s.staleAfter(key))}
	}
	got := amount(f.Result)
	got.asked = f.At
	if got.known && got.at.IsZero() {
		got.at = f.At
	}
	return got
}

// staleAfter is the age at which an answer is none: a fetch has been left out and has had the time
// to end.
func (s *Signals) staleAfter(key memory.Key) time.Duration {
	every := key.Every
	if every == 0 {
		every = time.Duration(s.opts.Config.Interval)
	}
	return 2*every + 20*time.Second
}

// amount makes a number of an answer.
func amount(r answer.Result) sample {
	switch len(r.Samples) {
	case 0:
		return sample{missing: "Prometheus has no sample of it"}
	case 1:
	default:
		return sample{missing: fmt.Sprintf("the query gives %d series, %s and %s among them; want one, such as by sum(…)", len(r.Samples), answer.Text(r.Samples[0].Labels), answer.Text(r.Samples[1].Labels))}
	}
	v := r.Samples[0].Value
	if !(v >= 0 && v < mostAmount) { // false for NaN
		return sample{missing: fmt.Sprintf("Prometheus answered %g, which is no amount", v)}
	}
	return sample{value: v, known: true, at: r.Samples[0].Time, coverage: 1}
}
