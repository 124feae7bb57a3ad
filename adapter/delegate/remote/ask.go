package remote

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"

	"github.com/sluice-autoscaler/sluice/adapter/delegate/config"
)

// Custom asks for values of objects. Of many objects those whose values are too old are left out,
// which a HorizontalPodAutoscaler takes for unknown.
func (p *Provider) Custom(ctx context.Context, c *Call) ([]custom_metrics.MetricValue, error) {
	version := p.catalog.servedVersion()
	if version == "" {
		version = "v1beta2"
		if info, ok := genericapirequest.RequestInfoFrom(ctx); ok && info.APIGroup == custom_metrics.GroupName {
			version = info.APIVersion
		}
	}
	target, err := c.Target(version, keptPath(ctx))
	if err != nil {
		return nil, err
	}
	text, err := p.get(ctx, config.Custom, target, maxAnswer)
	if err != nil {
		return nil, err
	}
	values, err := decodeCustom(text, c)
	if err != nil {
		return nil, p.garbled(err)
	}
	now, had := p.opts.Clock(), len(values)
	var old error
	values = slices.DeleteFunc(values, func(v custom_metrics.MetricValue) bool {
		err := stale(v.Timestamp, now, time.Duration(p.config.MaxAge))
		if err != nil {
			old = err
		}
		return err != nil
	})
	if had > 0 && len(values) == 0 {
		return nil, p.status(old)
	}
	return values, nil
}

// External asks for values of an external metric, which readers add up: if one is too old the sum
// is unknown.
func (p *Provider) External(ctx context.Context, c *Call) ([]external_metrics.ExternalMetricValue, error) {
	// As a path names it, the selector of an external metric is the one for labels.
	asked := *c
	asked.Objects, asked.Metrics = c.Metrics, nil
	target, err := asked.Target("v1beta1", keptPath(ctx))
	if err != nil {
		return nil, err
	}
	text, err := p.get(ctx, config.External, target, maxAnswer)
	if err != nil {
		return nil, err
	}
	values, err := decodeExternal(text, c)
	if err != nil {
		return nil, p.garbled(err)
	}
	for i := range values {
		if err := stale(values[i].Timestamp, p.opts.Clock(), time.Duration(p.config.MaxAge)); err != nil {
			return nil, p.status(err)
		}
	}
	return values, nil
}

// garbled is the error of an answer that cannot be used.
func (p *Provider) garbled(err error) error {
	return p.status(&fault{http.StatusBadGateway, errors.New("its answer cannot be used: " + printable(err.Error()))})
}
