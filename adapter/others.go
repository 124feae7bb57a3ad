package adapter

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	metricsapi "sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/sluice-autoscaler/sluice/adapter/delegate"
	"github.com/sluice-autoscaler/sluice/adapter/delegate/remote"
	"github.com/sluice-autoscaler/sluice/adapter/fetch"
	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/server"
)

// tokenLife is for how long a token for other providers is asked. A shorter one is of less use to
// whoever steals it; ten minutes are the least that Kubernetes gives.
const tokenLife = time.Hour

// delegate makes what passes requests on to other providers.
func (a *Adapter) delegate(client kubernetes.Interface) error {
	d := a.opts.Delegates
	o := delegate.Options{
		File: d.File, Else: a.provider, Reserved: a.provider.Serves, Own: []string{provider.Concurrency, provider.Rate, provider.Waiting},
		UserAgent: a.opts.Config.UserAgent, Log: a.opts.Log, Registerer: a.opts.Registerer, Namespace: labelsOf(client),
	}
	if a.engine != nil {
		o.Rules = a.engine
	}
	if d.ServiceAccount != "" {
		o.Token = tokensOf(client, d.Namespace, d.ServiceAccount)
	}
	var err error
	a.delegates, err = delegate.New(o)
	return err
}

// tokensOf makes tokens of a ServiceAccount that may read metrics and nothing else: a provider that
// is shown one could use it.
func tokensOf(client kubernetes.Interface, namespace, name string) remote.IssueToken {
	return func(ctx context.Context) (string, time.Time, error) {
		seconds := int64(tokenLife.Seconds())
		r, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds},
		}, metav1.CreateOptions{})
		if err != nil {
			return "", time.Time{}, fmt.Errorf("ServiceAccount %s/%s: %w", namespace, name, err)
		}
		return r.Status.Token, r.Status.ExpirationTimestamp.Time, nil
	}
}

// labelsOf reads the labels of namespaces.
func labelsOf(client kubernetes.Interface) func(context.Context, string) (labels.Set, error) {
	return func(ctx context.Context, name string) (labels.Set, error) {
		ns, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return labels.Set{}, nil
		}
		if err != nil {
			return nil, err
		}
		return ns.Labels, nil
	}
}

// gather passes changes of one source on until ctx ends.
func (a *Adapter) gather(ctx context.Context, from <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-from:
		}
		select {
		case a.changes <- struct{}{}:
		default:
		}
	}
}

// explain says how a metric of a rule, or of another provider, is answered.
func (a *Adapter) explain(ctx context.Context, q server.MetricQuestion) (any, error) {
	if a.provider.Serves(q.Resource, q.Metric) {
		return nil, apierrors.NewBadRequest(q.Metric + " is Sluice's own metric, which no rule makes")
	}
	if a.delegates != nil {
		x, ok := a.delegates.Explain(ctx, delegate.Question{
			External: q.Resource.Empty(), Resource: q.Resource, Namespace: q.Namespace, Object: q.Object, Metric: q.Metric, Selector: q.Selector,
		})
		if ok {
			return delegated(q.Metric, x), nil
		}
	}
	if a.engine == nil {
		return nil, metricsapi.NewMetricNotFoundError(q.Resource, q.Metric)
	}
	return a.engine.Explain(ctx, fetch.Question{
		External: q.Resource.Empty(), Resource: q.Resource, Namespace: q.Namespace, Name: q.Object, Metric: q.Metric, Selector: q.Selector,
	}), nil
}

// delegated is how another provider answers, in the words of all explanations.
func delegated(metric string, x delegate.Explanation) fetch.Explanation {
	out := fetch.Explanation{Metric: metric, Delegate: x.Delegate, Values: x.Values, Status: x.Status}
	if x.Where != "" {
		out.Delegate += " at " + x.Where
	}
	if x.Rest {
		out.Delegate += ", which has all that nobody else has"
	}
	if out.Query = x.Path; x.Err != nil {
		out.Error = x.Err.Error()
	}
	return out
}
