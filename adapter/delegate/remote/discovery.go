package remote

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

const (
	// DiscoverPeriod is the usual time between two lists of a provider's metrics, discoverRetry the
	// one after a list that failed.
	DiscoverPeriod, discoverRetry = time.Minute, 15 * time.Second
	// maxList bounds the bytes of a list, maxListed the metrics that are taken of it.
	maxList, maxListed = 16 << 20, 20_000
)

// catalog is what a provider lists. It is kept when the provider fails.
type catalog struct {
	mu       sync.Mutex
	custom   []metricsapi.CustomMetricInfo
	external []metricsapi.ExternalMetricInfo
	// version is that of custom.metrics.k8s.io that the provider serves, empty while not known.
	version string
	// at is when all lists last succeeded, zero for never.
	at time.Time
}

func (c *catalog) get() (custom []metricsapi.CustomMetricInfo, external []metricsapi.ExternalMetricInfo, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.custom, c.external, c.at
}

// Listed is what the provider listed when it last did, and when that was, zero for never.
func (p *Provider) Listed() (custom []metricsapi.CustomMetricInfo, external []metricsapi.ExternalMetricInfo, at time.Time) {
	return p.catalog.get()
}

// Version is the version of custom.metrics.k8s.io that the provider serves, empty while not known.
func (p *Provider) Version() string { return p.catalog.servedVersion() }

func (c *catalog) servedVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// discover lists what the provider has, and reports whether that has changed.
func (p *Provider) discover(ctx context.Context) (changed bool, err error) {
	var custom []metricsapi.CustomMetricInfo
	var external []metricsapi.ExternalMetricInfo
	var errs []error
	version := ""
	customOK, externalOK := false, false
	if slices.Contains(p.config.APIs, config.Custom) {
		var names []metav1.APIResource
		for _, version = range []string{"v1beta2", "v1beta1"} {
			names, err = p.list(ctx, custom_metrics.GroupName+"/"+version)
			if s, ok := errors.AsType[*apierrors.StatusError](err); !ok || s.ErrStatus.Code != http.StatusNotFound {
				break
			}
		}
		errs = append(errs, err)
		if customOK = err == nil; customOK {
			custom = p.customInfos(names)
		}
	}
	if slices.Contains(p.config.APIs, config.External) {
		names, err := p.list(ctx, external_metrics.GroupName+"/v1beta1")
		errs = append(errs, err)
		if externalOK = err == nil; externalOK {
			external = p.externalInfos(names)
		}
	}
	c := &p.catalog
	c.mu.Lock()
	defer c.mu.Unlock()
	if customOK {
		changed = !slices.Equal(c.custom, custom)
		c.custom, c.version = custom, version
	}
	if externalOK {
		changed = changed || !slices.Equal(c.external, external)
		c.external = external
	}
	err = errors.Join(errs...)
	if err == nil {
		c.at = p.opts.Clock()
	}
	return changed, err
}

// list asks for the list of a version of an API.
func (p *Provider) list(ctx context.Context, groupVersion string) ([]metav1.APIResource, error) {
	text, err := p.get(ctx, kindDiscovery, "/apis/"+groupVersion, maxList)
	if err != nil {
		return nil, err
	}
	var l metav1.APIResourceList
	if err := decode(text, &l); err != nil {
		return nil, p.status(&fault{http.StatusBadGateway, fmt.Errorf("read the list of %s: %w", groupVersion, err)})
	}
	if l.Kind != "APIResourceList" {
		return nil, p.status(&fault{http.StatusBadGateway, fmt.Errorf("read the list of %s: it is a %q: want an APIResourceList", groupVersion, printable(l.Kind))})
	}
	return l.APIResources, nil
}

func (p *Provider) customInfos(names []metav1.APIResource) []metricsapi.CustomMetricInfo {
	seen := map[metricsapi.CustomMetricInfo]bool{}
	var out []metricsapi.CustomMetricInfo
	for i := range names {
		resource, metric, ok := strings.Cut(names[i].Name, "/")
		info := metricsapi.CustomMetricInfo{GroupResource: schema.ParseGroupResource(resource), Namespaced: names[i].Namespaced, Metric: metric}
		if !ok || usable(resource) != nil || usable(metric) != nil || seen[info] || !p.config.Lists(metric) || len(out) >= maxListed {
			continue
		}
		seen[info] = true
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b metricsapi.CustomMetricInfo) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (p *Provider) externalInfos(names []metav1.APIResource) []metricsapi.ExternalMetricInfo {
	seen := map[string]bool{}
	var out []metricsapi.ExternalMetricInfo
	for i := range names {
		n := names[i].Name
		if usable(n) != nil || seen[n] || !p.config.Lists(n) || len(out) >= maxListed {
			continue
		}
		seen[n] = true
		out = append(out, metricsapi.ExternalMetricInfo{Metric: n})
	}
	slices.SortFunc(out, func(a, b metricsapi.ExternalMetricInfo) int { return strings.Compare(a.Metric, b.Metric) })
	return out
}

// Follow lists what the provider has until ctx ends, and calls listed after each attempt.
func (p *Provider) Follow(ctx context.Context, listed func(changed bool, err error)) {
	for {
		changed, err := p.discover(ctx)
		if ctx.Err() != nil {
			return
		}
		listed(changed, err)
		period := p.opts.DiscoverPeriod
		if err != nil {
			period = min(period, discoverRetry)
		}
		wait := time.NewTimer(spread(p.config.Name, period))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// spread is a time between three quarters of d and d that belongs to a name, so that not all come
// at once.
func spread(name string, d time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return d*3/4 + time.Duration(h.Sum64()%uint64(d/4)) //nolint:gosec // both are > 0
}
