package signal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Bounds of queries of tenants, besides those of source.NewTenant.
const (
	// tenantShare bounds the requests of one namespace at once, tenantsAtOnce those of all to a
	// source.
	tenantShare, tenantsAtOnce = 2, 16
	// laneKept is how long a lane is kept that nobody uses.
	laneKept = 10 * time.Minute
	// shownFault bounds what is shown of Prometheus' own words, in bytes.
	shownFault = 200
)

// bounds are what a tenant's query may cost.
func bounds() promql.Bounds {
	return promql.Bounds{Selectors: 10, Range: time.Hour, Steps: 720}
}

// errNoTenants is why a workload's own query is not asked.
var errNoTenants = errors.New("no Prometheus takes queries of Autoscalers: the operator allows it by tenants: true of a source (docs/prometheus.md)")

// prepare makes of a workload's own query the one that is asked.
func (s *Signals) prepare(namespace string, q *Query) (memory.Key, error) {
	from, err := s.tenantSource(q.Source)
	if err != nil {
		return memory.Key{}, err
	}
	parsed, err := promql.Parse(strings.ReplaceAll(q.PromQL, "$namespace", namespace))
	if err != nil {
		return memory.Key{}, fmt.Errorf("the query is no PromQL: %w", err)
	}
	if parsed, err = parsed.Narrow(from.Label(), namespace, bounds()); err != nil {
		return memory.Key{}, err
	}
	return memory.Key{
		From: from.Name, Tenant: namespace, Every: q.Interval,
		Query: source.Query{PromQL: parsed.String(), Times: source.Times(parsed, "")},
	}, nil
}

// tenantSource finds a source that takes queries of tenants.
func (s *Signals) tenantSource(name string) (*source.Prometheus, error) {
	for i := range s.opts.Config.Sources {
		if c := &s.opts.Config.Sources[i]; c.Tenants && (name == "" || c.Name == name) {
			return c, nil
		}
	}
	if name == "" {
		return nil, errNoTenants
	}
	return nil, fmt.Errorf("source %q takes no queries of Autoscalers, or is none; want the name of one with tenants: true, or none", name)
}

// lanes ask for tenants. Each namespace has its own way to a source: what one's queries cost, how
// they fail and how long they take is not another's matter.
type lanes struct {
	config  *source.Config
	clock   func() time.Time
	observe func(source string) func(kind, result string, d time.Duration)

	mu  sync.Mutex
	of  map[laneKey]*lane
	all map[string]chan struct{} // by source
}

type laneKey struct{ source, namespace string }

type lane struct {
	*source.Source
	slots chan struct{}
	all   chan struct{}
	used  time.Time
}

// lane finds or makes a namespace's way to a source.
func (l *lanes) lane(key laneKey) (*lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if to := l.of[key]; to != nil {
		to.used = now
		return to, nil
	}
	for i := range l.config.Sources {
		c := &l.config.Sources[i]
		if c.Name != key.source || !c.Tenants {
			continue
		}
		s, err := source.NewTenant(c, l.clock, l.observe(c.Name))
		if err != nil {
			return nil, err
		}
		if l.all[c.Name] == nil {
			l.all[c.Name] = make(chan struct{}, tenantsAtOnce)
		}
		to := &lane{Source: s, slots: make(chan struct{}, tenantShare), all: l.all[c.Name], used: now}
		l.of[key] = to
		return to, nil
	}
	return nil, fmt.Errorf("source %q takes no queries of Autoscalers", key.source)
}

// fetch asks for a namespace. Its own share comes first, so that it does not keep others from
// waiting for theirs.
func (l *lanes) fetch(ctx context.Context, key memory.Key) (answer.Result, error) {
	to, err := l.lane(laneKey{key.From, key.Tenant})
	if err != nil {
		return answer.Result{}, err
	}
	for _, slots := range []chan struct{}{to.slots, to.all} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return answer.Result{}, context.Cause(ctx)
		}
	}
	return to.Fetch(ctx, key.Query)
}

// sweep drops lanes that nobody uses.
func (l *lanes) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, to := range l.of {
		if now.Sub(to.used) > laneKept {
			to.Close()
			delete(l.of, key)
		}
	}
}

func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, to := range l.of {
		to.Close()
	}
}

// tenantText is what a tenant is told of a fault: what its query has done, and of everything else
// only the class. Addresses, and what other servers say, are not theirs.
func tenantText(err error) string {
	if status, ok := errors.AsType[*prom.StatusError](err); ok && status.OfQuery() {
		text := status.Message
		if len(text) > shownFault {
			text = strings.ToValidUTF8(text[:shownFault], "") + "…"
		}
		return "Prometheus refused the query: " + text
	}
	if _, ok := errors.AsType[*prom.PausedError](err); ok {
		return "Prometheus is not asked for a while, since queries of this namespace failed in a row"
	}
	return "Prometheus gave no usable answer"
}
