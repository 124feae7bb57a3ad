package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"

	"github.com/sluice-autoscaler/sluice/adapter/server/ownership"
)

const (
	// registrationPeriod is how often the APIServices are looked for, besides at once when one
	// changes.
	registrationPeriod = 5 * time.Second
	// watchRetry is the time between two watches of an APIService.
	watchRetry = time.Second
	// toldAgain is for how long what was told of a writer is not told again: two that write in turn
	// do so many times a minute.
	toldAgain = 5 * time.Minute
)

const apiServicesPath = "/apis/apiregistration.k8s.io/v1/apiservices"

// RegistrationOptions say what APIServices are to be like. The zero value watches none of it.
type RegistrationOptions struct {
	ownership.Owner
	// OnForeign, when given, is told of writes by others. It must return within milliseconds.
	OnForeign func(ForeignWrite)
}

// ForeignWrite is what somebody else wrote to an APIService.
type ForeignWrite struct {
	// APIService and UID name it.
	APIService, UID string
	ownership.Write
}

// registration follows whether the APIServices exist by which the cluster's API server passes
// requests on, and whether they are as Sluice needs them. Without one nobody is answered, and
// nothing else says why. They belong to the chart, so that a missing one is reported and not made.
type registration struct {
	client, watcher rest.Interface
	names           []string
	options         RegistrationOptions
	log             *slog.Logger
	exists          *prometheus.GaugeVec
	foreign         *prometheus.GaugeVec
	writes          *prometheus.CounterVec

	mu      sync.Mutex
	missing map[string]struct{}
	// written are the foreign writes that stand, by APIService.
	written map[string][]ownership.Write
	// told are those that were told, with the time.
	told map[string]time.Time
}

// apiServices are the names of the APIServices of what is served.
func (o Options) apiServices() []string {
	var groups []string
	if o.Custom != nil {
		groups = append(groups, custom_metrics.GroupName)
	}
	if o.External != nil {
		groups = append(groups, external_metrics.GroupName)
	}
	var names []string
	for _, group := range groups {
		for _, gv := range apiserver.Scheme.PrioritizedVersionsForGroup(group) {
			names = append(names, gv.Version+"."+gv.Group)
		}
	}
	if o.Resource != nil {
		names = append(names, "v1beta1.metrics.k8s.io")
	}
	if o.Journal != nil {
		names = append(names, JournalVersion+"."+JournalGroup)
	}
	return names
}

func newRegistration(names []string, o RegistrationOptions, log *slog.Logger, r prometheus.Registerer) (*registration, error) {
	g := &registration{
		names: names, options: o, log: log, missing: map[string]struct{}{}, written: map[string][]ownership.Write{}, told: map[string]time.Time{},
		exists: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_adapter_apiservice_exists", Help: "1 while the APIService exists by which the cluster's API server passes requests on, else 0.",
		}, []string{"apiservice"}),
		foreign: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_adapter_apiservice_foreign", Help: "1 while a field of the APIService (service, caBundle, insecureSkipTLSVerify) is as somebody else wrote it, else 0; the log and an event name the writer.",
		}, []string{"apiservice", "field"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_apiservice_foreign_writes_total", Help: "Writes of others to a field of the APIService that were seen.",
		}, []string{"apiservice", "field"}),
	}
	if r == nil {
		return g, nil
	}
	all := []prometheus.Collector{g.exists}
	if o.Wanted() {
		all = append(all, g.foreign, g.writes)
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return g, nil
}

// run looks until ctx ends: each period, and at once when a watch tells of a change.
func (r *registration) run(ctx context.Context) {
	changed := make(chan string, len(r.names))
	var watching sync.WaitGroup
	defer watching.Wait()
	if r.options.Wanted() {
		for _, name := range r.names {
			watching.Go(func() { r.watch(ctx, name, changed) })
		}
	}
	tick := time.NewTicker(registrationPeriod)
	defer tick.Stop()
	for _, name := range r.names {
		r.look(ctx, name)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-changed:
			r.look(ctx, name)
		case <-tick.C:
			for _, name := range r.names {
				r.look(ctx, name)
			}
		}
	}
}

// watch tells of each change of an APIService until ctx ends. Where it cannot be watched, looking
// each period has to do.
func (r *registration) watch(ctx context.Context, name string, changed chan<- string) {
	for {
		stream, err := r.watcher.Get().AbsPath(apiServicesPath).Param("watch", "true").Param("fieldSelector", "metadata.name="+name).Stream(ctx)
		if err == nil {
			lines := bufio.NewReader(stream)
			for err == nil {
				var part bool
				if _, part, err = lines.ReadLine(); err == nil && !part {
					select {
					case changed <- name:
					case <-ctx.Done():
					}
				}
			}
			_ = stream.Close()
		}
		wait := time.NewTimer(watchRetry)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// look looks for one APIService. Where the API server cannot be asked, nothing is known and nothing
// changes.
func (r *registration) look(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, registrationPeriod)
	defer cancel()
	text, err := r.client.Get().AbsPath(apiServicesPath + "/" + name).DoRaw(ctx)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return
	}
	r.mu.Lock()
	_, was := r.missing[name]
	if gone {
		r.missing[name] = struct{}{}
	} else {
		delete(r.missing, name)
	}
	r.mu.Unlock()
	switch {
	case gone && !was:
		r.exists.WithLabelValues(name).Set(0)
		r.log.ErrorContext(ctx, "apiservice is missing, so that nobody is answered: make it again, as the chart does", slog.String("apiservice", name))
	case !gone:
		r.exists.WithLabelValues(name).Set(1)
		if was {
			r.log.InfoContext(ctx, "apiservice is there again", slog.String("apiservice", name))
		}
	}
	if r.options.Wanted() {
		r.compare(ctx, name, text)
	}
}

// compare compares an APIService with what it is to be like, and tells of writes by others. A text
// that is empty is of one that does not exist.
func (r *registration) compare(ctx context.Context, name string, text []byte) {
	var s ownership.APIService
	if len(text) > 0 {
		if err := json.Unmarshal(text, &s); err != nil {
			return // not as the API server writes it, so that nothing is known
		}
	}
	var found []ownership.Write
	if len(text) > 0 {
		found = r.options.Foreign(&s)
	}
	now := time.Now()
	r.mu.Lock()
	had := r.written[name]
	r.written[name] = found
	r.mu.Unlock()
	for _, field := range ownership.Fields() {
		at := slices.IndexFunc(found, func(w ownership.Write) bool { return w.Field == field })
		before := slices.IndexFunc(had, func(w ownership.Write) bool { return w.Field == field })
		if at < 0 {
			r.foreign.WithLabelValues(name, field).Set(0)
			if before >= 0 && len(text) > 0 && r.first("again\x00"+name+"\x00"+field, now) {
				r.log.InfoContext(ctx, "apiservice is Sluice's again", slog.String("apiservice", name), slog.String("field", field))
			}
			continue
		}
		r.foreign.WithLabelValues(name, field).Set(1)
		if before < 0 || had[before] != found[at] {
			r.writes.WithLabelValues(name, field).Inc()
			r.tell(ctx, ForeignWrite{APIService: name, UID: s.Metadata.UID, Write: found[at]}, now)
		}
	}
}

// first reports whether something was not told lately, and takes it for told.
func (r *registration) first(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.told, func(_ string, at time.Time) bool { return now.Sub(at) >= toldAgain })
	_, told := r.told[key]
	if !told {
		r.told[key] = now
	}
	return !told
}

// tell tells of a write, once in a while if it is repeated.
func (r *registration) tell(ctx context.Context, w ForeignWrite, now time.Time) {
	if r.options.OnForeign != nil {
		r.options.OnForeign(w)
	}
	if r.first(w.APIService+"\x00"+w.Field+"\x00"+w.Manager, now) {
		r.log.ErrorContext(ctx, "somebody else wrote to an apiservice of Sluice", slog.String("apiservice", w.APIService), slog.String("field", "spec."+w.Field),
			slog.String("manager", w.Manager), slog.String("is", w.Is), slog.String("remedy", w.Remedy()))
	}
}

// fault names the APIServices that are missing, and those that somebody else has written to.
func (r *registration) fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if len(r.missing) > 0 {
		errs = append(errs, errors.New("missing: APIService "+strings.Join(slices.Sorted(maps.Keys(r.missing)), ", ")))
	}
	for _, name := range slices.Sorted(maps.Keys(r.written)) {
		for _, w := range r.written[name] {
			errs = append(errs, fmt.Errorf("APIService %s: %v", name, w))
		}
	}
	return errors.Join(errs...)
}
