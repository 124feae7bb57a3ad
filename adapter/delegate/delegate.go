// Package delegate passes requests for metrics on to the providers that have them, such as KEDA's,
// Datadog's or kube-metrics-adapter, which all want the one APIService that Sluice holds.
//
// A file says what is whose (package config). A provider is asked with an identity of Sluice's own;
// what it answers is bounded in size and time, is checked, and passes unchanged. A provider that
// fails harms its own metrics alone, and its failure is an error and never a number.
package delegate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
	"github.com/sluice-autoscaler/sluice/adapter/delegate/remote"
)

// Rules are a source that is asked before delegates.
type Rules interface {
	metricsapi.MetricsProvider
	// Makes reports whether it answers for a metric, an external one if the resource is empty. An
	// error means that it is not known yet.
	Makes(resource schema.GroupResource, namespace, metric string) (bool, error)
}

// Options configure Delegates. File, Else, Log and Registerer are needed.
type Options struct {
	// File is the file of delegates. It is read again when it changes.
	File string
	// Rules, when given, are asked first.
	Rules Rules
	// Else answers what nobody has, with an error that says so.
	Else metricsapi.MetricsProvider
	// Reserved, when given, tells which metrics are answered before anybody here is asked, "" for
	// external ones.
	Reserved func(resource schema.GroupResource, metric string) bool
	// Own, when given, are the names of the reserved metrics.
	Own []string
	// Token, when given, makes tokens of the ServiceAccount that Sluice is to providers.
	Token remote.IssueToken
	// Namespace reads the labels of a namespace, nil for one that does not exist.
	Namespace func(ctx context.Context, namespace string) (labels.Set, error)
	// UserAgent names Sluice.
	UserAgent  string
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// FilePeriod is how often the file is read, 0 for 5 s; DiscoverPeriod how often providers list
	// what they have, 0 for 1 m.
	FilePeriod, DiscoverPeriod time.Duration
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

// Validate names every fault.
func (o *Options) Validate() error {
	if o.File == "" || o.Else == nil || o.Log == nil || o.Registerer == nil {
		return errors.New("file, else, log and registerer are needed")
	}
	return nil
}

// table is what readers see. It does not change; Delegates replace it.
type table struct {
	config    *config.Config
	providers []*remote.Provider
}

// Delegates answer for the rules and for other providers. They are safe for concurrent use; Run
// runs once.
type Delegates struct {
	opts       Options
	remote     remote.Options
	tokens     *remote.Tokens
	namespaces namespaces
	table      atomic.Pointer[table]
	changes    chan struct{}
	metrics    *instruments

	// Only Run uses what follows.
	sum     [sha256.Size]byte
	fileErr string
	stops   map[*remote.Provider]func()

	mu         sync.Mutex
	fault      error
	complaints map[string]string
	collisions map[string]bool
}

// New makes Delegates. A file that cannot be used is no error here: the process has other work, and
// the file may be mended. Until it is there are no delegates.
func New(o Options) (*Delegates, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("make the delegates: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.FilePeriod, o.DiscoverPeriod = cmp.Or(o.FilePeriod, filePeriod), cmp.Or(o.DiscoverPeriod, remote.DiscoverPeriod)
	if o.Namespace == nil {
		o.Namespace = func(context.Context, string) (labels.Set, error) {
			return nil, errors.New("labels of namespaces are not read here")
		}
	}
	d := &Delegates{opts: o, metrics: newInstruments(), changes: make(chan struct{}, 1), stops: map[*remote.Provider]func(){}, complaints: map[string]string{}, collisions: map[string]bool{}}
	d.tokens = remote.NewTokens(o.Token, o.Clock)
	d.remote = remote.Options{Clock: o.Clock, UserAgent: o.UserAgent, DiscoverPeriod: o.DiscoverPeriod, Observe: d.metrics.observe}
	d.namespaces = namespaces{read: o.Namespace, clock: o.Clock, kept: map[string]namespaceLabels{}}
	d.table.Store(&table{config: &config.Config{}})
	m := d.metrics
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.reloadSuccess, m.reloadTime, m.collisions, newState(d)} {
		if err := o.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return d, nil
}

// filePeriod is how often the file is read.
const filePeriod = 5 * time.Second

// Run works until ctx ends.
func (d *Delegates) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { d.tokens.Run(ctx) })
	tick := time.NewTicker(d.opts.FilePeriod)
	defer tick.Stop()
	for ctx.Err() == nil {
		d.reload(ctx, &running)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	running.Wait()
	for _, p := range d.table.Load().providers {
		p.Close()
	}
	return nil
}

// read reads the file.
func (d *Delegates) read() (*config.Config, [sha256.Size]byte, error) {
	text, err := os.ReadFile(d.opts.File)
	sum := sha256.Sum256(text)
	if err != nil {
		return nil, sum, fmt.Errorf("read the delegates: %w", err)
	}
	c, err := config.Parse(text)
	if err != nil {
		return nil, sum, fmt.Errorf("read the delegates of %s: %w", d.opts.File, err)
	}
	return c, sum, nil
}

// reload takes the file over when it has changed. One that cannot be used changes nothing.
func (d *Delegates) reload(ctx context.Context, running *sync.WaitGroup) {
	c, sum, err := d.read()
	next := &table{config: c}
	if err == nil && sum != d.sum {
		next.providers, err = d.providers(c)
	}
	d.mu.Lock()
	d.fault = err
	d.mu.Unlock()
	if err != nil {
		d.metrics.reloadSuccess.Set(0)
		if d.fileErr != err.Error() {
			d.fileErr = err.Error()
			d.opts.Log.ErrorContext(ctx, "delegates not taken over, the ones before stay in use", slog.Any("error", err))
		}
		return
	}
	d.fileErr = ""
	if sum != d.sum {
		d.sum = sum
		d.opts.Log.InfoContext(ctx, "delegates read", slog.Int("delegates", len(c.Delegates)))
		d.replace(ctx, next, running)
		d.metrics.reloadTime.Set(float64(d.opts.Clock().Unix()))
	}
	d.metrics.reloadSuccess.Set(1)
}

// providers makes the providers of a file. One that the file leaves as it was stays.
func (d *Delegates) providers(c *config.Config) ([]*remote.Provider, error) {
	out := make([]*remote.Provider, len(c.Delegates))
	var errs []error
	for i := range c.Delegates {
		for _, old := range d.table.Load().providers {
			if old.Is(&c.Delegates[i]) {
				out[i] = old
			}
		}
		if out[i] == nil {
			var err error
			out[i], err = remote.New(&c.Delegates[i], d.remote, d.tokens)
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// replace puts providers to use, starts those that are new, and ends those that are gone.
func (d *Delegates) replace(ctx context.Context, next *table, running *sync.WaitGroup) {
	stays, names := map[*remote.Provider]bool{}, map[string]bool{}
	for _, p := range next.providers {
		stays[p], names[p.Name()] = true, true
	}
	d.metrics.keep(names)
	old := d.table.Swap(next)
	d.mu.Lock()
	clear(d.collisions)
	d.mu.Unlock()
	for _, p := range old.providers {
		if stays[p] {
			continue
		}
		d.stops[p]()
		delete(d.stops, p)
		p.Close()
	}
	for _, p := range next.providers {
		if d.stops[p] != nil {
			continue
		}
		own, stop := context.WithCancel(ctx)
		d.stops[p] = stop
		running.Go(func() {
			p.Follow(own, func(changed bool, err error) { d.listed(own, p, changed, err) })
		})
	}
	d.collide(ctx)
	d.changed()
}

// listed is told of each attempt to list a provider's metrics.
func (d *Delegates) listed(ctx context.Context, p *remote.Provider, changed bool, err error) {
	if err != nil {
		d.complain(ctx, p.Name(), err)
	} else {
		d.settle(ctx, p.Name())
	}
	if changed {
		d.collide(ctx)
		d.changed()
	}
}

func (d *Delegates) changed() {
	select {
	case d.changes <- struct{}{}:
	default:
	}
}

// complain logs a provider's fault once, until its text changes or it is settled.
func (d *Delegates) complain(ctx context.Context, of string, err error) {
	d.mu.Lock()
	known := d.complaints[of] == err.Error()
	d.complaints[of] = err.Error()
	d.mu.Unlock()
	if !known {
		d.opts.Log.WarnContext(ctx, "metrics of a delegate not listed, what it had stays", slog.String("delegate", of), slog.Any("error", err))
	}
}

func (d *Delegates) settle(ctx context.Context, of string) {
	d.mu.Lock()
	_, was := d.complaints[of]
	delete(d.complaints, of)
	d.mu.Unlock()
	if was {
		d.opts.Log.InfoContext(ctx, "metrics of a delegate listed again", slog.String("delegate", of))
	}
}

// Changes is sent to when the lists of metrics have changed.
func (d *Delegates) Changes() <-chan struct{} { return d.changes }

// Healthy says what is wrong with the providers and with their file, nil for nothing.
func (d *Delegates) Healthy() error {
	d.mu.Lock()
	errs := []error{d.fault}
	d.mu.Unlock()
	for _, p := range d.table.Load().providers {
		errs = append(errs, p.Health())
	}
	return errors.Join(errs...)
}
