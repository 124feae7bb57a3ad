package server

import (
	"context"
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
)

// registrationPeriod is how often the APIServices are looked for.
const registrationPeriod = 5 * time.Second

// registration follows whether the APIServices exist by which the cluster's API server passes
// requests on. Without one nobody is answered, and nothing else says why. They belong to the chart,
// so that a missing one is reported and not made.
type registration struct {
	client rest.Interface
	names  []string
	log    *slog.Logger
	exists *prometheus.GaugeVec

	mu      sync.Mutex
	missing map[string]struct{}
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

func newRegistration(names []string, log *slog.Logger, r prometheus.Registerer) (*registration, error) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_adapter_apiservice_exists", Help: "1 while the APIService exists by which the cluster's API server passes requests on, else 0.",
	}, []string{"apiservice"})
	if r != nil {
		if err := r.Register(g); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return &registration{names: names, log: log, exists: g, missing: map[string]struct{}{}}, nil
}

// run looks until ctx ends.
func (r *registration) run(ctx context.Context) {
	tick := time.NewTicker(registrationPeriod)
	defer tick.Stop()
	for {
		for _, name := range r.names {
			r.look(ctx, name)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look looks for one APIService. Where the API server cannot be asked, nothing is known and nothing
// changes.
func (r *registration) look(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, registrationPeriod)
	defer cancel()
	err := r.client.Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/" + name).Do(ctx).Error()
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
}

// fault names the APIServices that are missing.
func (r *registration) fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.missing) == 0 {
		return nil
	}
	return errors.New("missing: APIService " + strings.Join(slices.Sorted(maps.Keys(r.missing)), ", "))
}
