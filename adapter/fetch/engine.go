// Package fetch makes rules answer: it lists what series live Prometheis have, repeats the queries
// that HorizontalPodAutoscalers and other readers need, keeps the answers in memory, and serves
// custom, external and resource metrics from there.
//
// A reader waits for Prometheus only when a query is new. What could not be fetched is unknown, an
// error, and never a number.
package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/telemetry"
	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
)

// Objects lists the names of objects whose own labels match. Implementations are safe for
// concurrent use.
type Objects interface {
	Names(ctx context.Context, resource schema.GroupVersionResource, namespace string, selector labels.Selector) ([]string, error)
	// Pods lists the names of pods by their namespace.
	Pods(selector labels.Selector) (map[string][]string, error)
}

// Mapper knows the cluster's resources.
type Mapper interface {
	// Refresh discovers them, and reports whether they have changed. One goroutine calls it.
	Refresh() (changed bool, err error)
	// Get returns what was last discovered, nil before.
	Get() meta.RESTMapper
}

// Options configure an Engine. Config, Rules, Mapper, Objects, Log and Registerer are needed.
type Options struct {
	Config source.Config
	// Rules is the file of rules: config.yaml or the values of prometheus-adapter's chart. It is
	// read again when it changes.
	Rules   string
	Mapper  Mapper
	Objects Objects
	// Demand, when given, lists the HorizontalPodAutoscalers whose metrics are fetched ahead.
	Demand func() []*autoscalingv2.HorizontalPodAutoscaler
	// Reserved, when given, tells which metrics another source answers, "" for external ones. Rules
	// that make one of that name are passed over, which is logged.
	Reserved   func(resource schema.GroupResource, metric string) bool
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Validate names every fault.
func (o *Options) Validate() error {
	var errs []error
	if o.Rules == "" || o.Mapper == nil || o.Objects == nil || o.Log == nil || o.Registerer == nil {
		errs = append(errs, errors.New("rules, mapper, objects, log and registerer are needed"))
	}
	return errors.Join(append(errs, o.Config.Validate())...)
}

// state is what readers see. It does not change; the engine replaces it.
type state struct {
	set      *rules.Set
	registry *rules.Registry
	mapper   meta.RESTMapper
	custom   []rules.CustomInfo
	external []string
	// plans are the queries of readers, made once for each.
	plans *plans
}

// Engine serves metrics of rules. It is safe for concurrent use; Run runs once.
type Engine struct {
	opts    Options
	began   time.Time
	sources []*source.Source
	memory  *memory.Memory
	metrics telemetry.Instruments
	state   atomic.Pointer[state]
	changes chan struct{}
	relist  chan struct{}

	// Only the goroutine of follow uses what follows.
	rules    *config.MetricsDiscoveryConfig
	set      *rules.Set
	mapper   meta.RESTMapper
	fileSum  [sha256.Size]byte
	fileErr  string
	listed   map[string]kept
	reserved string

	mu         sync.Mutex
	complaints map[string]string
	held       map[heldKey]heldValues
	// fault says why the rules, as the file has them, are not in use.
	fault error
}

// New makes an Engine. A file of rules that cannot be used is no error here: the process has other
// work, and the file may be mended. Until it is there are no rules.
func New(o Options) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make the rules' engine: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	e := &Engine{
		opts: o, began: o.Clock(), metrics: telemetry.New(), changes: make(chan struct{}, 1), relist: make(chan struct{}, 1),
		listed: map[string]kept{}, complaints: map[string]string{}, held: map[heldKey]heldValues{},
	}
	for i := range o.Config.Sources {
		c := &o.Config.Sources[i]
		p, err := source.New(c, o.Clock, e.Observe(c.Name))
		if err != nil {
			return nil, fmt.Errorf("sources[%d]: %w", i, err)
		}
		e.sources = append(e.sources, p)
	}
	e.memory = memory.New(time.Duration(o.Config.Interval), time.Duration(o.Config.KeepQueries), o.Clock, e.ask)
	e.rules = &config.MetricsDiscoveryConfig{}
	if err := e.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return e, nil
}

// read reads and compiles the file. Without a mapper it compiles for no resource, so that faults of
// the file itself are found.
func (e *Engine) read() (*config.MetricsDiscoveryConfig, [sha256.Size]byte, error) {
	text, err := os.ReadFile(e.opts.Rules)
	sum := sha256.Sum256(text)
	if err != nil {
		return nil, sum, fmt.Errorf("read the rules: %w", err)
	}
	cfg, err := config.Parse(text)
	if err != nil {
		return nil, sum, fmt.Errorf("read the rules of %s: %w", e.opts.Rules, err)
	}
	mapper := e.opts.Mapper.Get()
	if mapper == nil {
		mapper = meta.MultiRESTMapper{}
	}
	if _, err := rules.Compile(cfg, rules.Options{Mapper: mapper}); err != nil {
		return nil, sum, fmt.Errorf("read the rules of %s: %s", e.opts.Rules, strings.Join(config.Explain(err), "; "))
	}
	return cfg, sum, nil
}

// Source finds a source by its name, "" for the first.
func (e *Engine) Source(name string) (*source.Source, error) {
	if name == "" {
		return e.sources[0], nil
	}
	for _, s := range e.sources {
		if s.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("source %q is not configured", name)
}

// ask asks a source for the memory.
func (e *Engine) ask(ctx context.Context, key memory.Key) (answer.Result, error) {
	s, err := e.Source(key.From)
	if err != nil {
		return answer.Result{}, err
	}
	return s.Fetch(ctx, key.Query)
}

// Run works until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.memory.Run(ctx) })
	g.Go(func() error { return e.follow(ctx) })
	g.Go(func() error { return e.prefetch(ctx) })
	err := g.Wait()
	for _, s := range e.sources {
		s.Close()
	}
	return err
}

// Periods of follow.
const (
	// filePeriod is how often the file of rules is read.
	filePeriod = 5 * time.Second
	// mapperPeriod is how often the cluster's resources are discovered, and waitingPeriod how often
	// while a rule waits for one.
	mapperPeriod, waitingPeriod = 5 * time.Minute, 15 * time.Second
)

// follow keeps the registry as the file, the cluster's resources and Prometheus say.
func (e *Engine) follow(ctx context.Context) error {
	ticker := time.NewTicker(filePeriod)
	defer ticker.Stop()
	var mapped, listed time.Time
	for {
		now := e.opts.Clock()
		stale := e.set == nil
		period := mapperPeriod
		if e.set == nil || slices.ContainsFunc(e.set.Rules(), func(r *rules.Rule) bool { return r.Err != nil }) {
			period = waitingPeriod
		}
		if e.opts.Mapper.Get() == nil || now.Sub(mapped) >= period {
			mapped = now
			changed, err := e.opts.Mapper.Refresh()
			if err != nil {
				e.complain(ctx, "resources not discovered", "mapper", err)
			} else {
				e.settle("resources not discovered", "mapper")
			}
			stale = stale || changed
		}
		stale = e.reload(ctx) || stale
		if mapper := e.opts.Mapper.Get(); mapper != nil && stale {
			if set, err := rules.Compile(e.rules, rules.Options{Mapper: mapper}); err != nil {
				e.complain(ctx, "rules not compiled", "compile", err)
			} else {
				e.set, e.mapper = set, mapper
				listed = time.Time{}
			}
		}
		if e.set != nil && now.Sub(listed) >= e.relistPeriod() {
			listed = now
			e.publish(ctx, e.set, e.list(ctx, e.set))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.relist:
			listed = time.Time{}
		case <-ticker.C:
		}
	}
}

// relistPeriod is shorter while a rule has no list.
func (e *Engine) relistPeriod() time.Duration {
	period := time.Duration(e.opts.Config.Relist)
	if st := e.state.Load(); st != nil && len(st.registry.Errors()) > 0 {
		period = min(period, 15*time.Second)
	}
	return period
}

// reload reads the file again, and reports whether it has other rules that can be used. A file that
// cannot be used changes nothing.
func (e *Engine) reload(ctx context.Context) bool {
	cfg, sum, err := e.read()
	if err != nil {
		e.mu.Lock()
		e.fault = err
		e.mu.Unlock()
		e.metrics.ReloadSuccess.Set(0)
		if e.fileErr != err.Error() {
			e.fileErr = err.Error()
			e.opts.Log.ErrorContext(ctx, "rules not taken over, the ones before stay in use", slog.Any("error", err))
		}
		return false
	}
	e.mu.Lock()
	e.fault = nil
	e.mu.Unlock()
	e.fileErr = ""
	e.metrics.ReloadSuccess.Set(1)
	if sum == e.fileSum {
		return false
	}
	e.metrics.ReloadTime.Set(float64(e.opts.Clock().Unix()))
	e.opts.Log.InfoContext(ctx, "rules read", slog.Int("rules", len(cfg.Rules)), slog.Int("external_rules", len(cfg.ExternalRules)))
	e.rules, e.fileSum = cfg, sum
	return true
}

// publish makes the registry that readers see.
func (e *Engine) publish(ctx context.Context, set *rules.Set, listings map[*rules.Rule]rules.Listing) {
	if ctx.Err() != nil {
		return
	}
	st := &state{set: set, registry: set.Registry(listings), mapper: e.mapper, plans: newPlans()}
	var reserved []string
	for _, info := range st.registry.Custom() {
		if e.isReserved(info.GroupResource, info.Metric) {
			reserved = append(reserved, info.String())
			continue
		}
		st.custom = append(st.custom, info)
	}
	for _, name := range st.registry.External() {
		if e.isReserved(schema.GroupResource{}, name) {
			reserved = append(reserved, name)
			continue
		}
		st.external = append(st.external, name)
	}
	if text := strings.Join(reserved, ", "); text != e.reserved {
		e.reserved = text
		if text != "" {
			e.opts.Log.WarnContext(ctx, "metrics of rules are not served, since Sluice's own have these names", slog.String("metrics", text))
		}
	}
	for rule, err := range st.registry.Errors() {
		e.complain(ctx, "rule makes no metrics, or fewer than it should", rule.Field, err)
	}
	old := e.state.Swap(st)
	if old == nil || !slices.Equal(old.custom, st.custom) || !slices.Equal(old.external, st.external) {
		e.opts.Log.InfoContext(ctx, "metrics of rules changed", slog.Int("custom", len(st.custom)), slog.Int("external", len(st.external)))
		select {
		case e.changes <- struct{}{}:
		default:
		}
	}
}

func (e *Engine) isReserved(r schema.GroupResource, metric string) bool {
	return e.opts.Reserved != nil && e.opts.Reserved(r, metric)
}

// complain logs a fault once, until its text changes or settle is called.
func (e *Engine) complain(ctx context.Context, message, of string, err error) {
	e.mu.Lock()
	known := e.complaints[message+of] == err.Error()
	e.complaints[message+of] = err.Error()
	e.mu.Unlock()
	if !known {
		e.opts.Log.WarnContext(ctx, "rules of Prometheus", slog.String("fault", message), slog.String("of", strings.ReplaceAll(strings.TrimPrefix(of, "\x00"), "\x00", " ")), slog.Any("error", err))
	}
}

func (e *Engine) settle(message, of string) {
	e.mu.Lock()
	delete(e.complaints, message+of)
	e.mu.Unlock()
}

// Changes is sent to when the lists of metrics have changed.
func (e *Engine) Changes() <-chan struct{} { return e.changes }

// patience is how long others wait for the first list. A Prometheus that hangs is not to keep the
// process from what it does without one; until then each of its metrics is unknown.
const patience = 15 * time.Second

// Ready says why nothing can be answered yet; nil once series were listed, or could not be, or have
// been waited for.
func (e *Engine) Ready() error {
	if e.state.Load() == nil && e.opts.Clock().Sub(e.began) < patience {
		return errors.New("the metrics of rules are not listed yet")
	}
	return nil
}

// Healthy says what is wrong with the sources and with the file of rules, nil for nothing.
func (e *Engine) Healthy() error {
	e.mu.Lock()
	errs := []error{e.fault}
	e.mu.Unlock()
	for _, s := range e.sources {
		if h := s.Health(); h.Failures > 0 {
			errs = append(errs, fmt.Errorf("source %s (%s) failed %d times in a row: %w", s.Name, s.URL(), h.Failures, h.Last))
		}
	}
	return errors.Join(errs...)
}
