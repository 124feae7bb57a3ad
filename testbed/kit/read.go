package kit

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/wire"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

// Metric is one value of a metrics API.
type Metric struct {
	// Object is the name of the described object; "" for external metrics.
	Object string
	// Value is in the metric's unit: request_concurrency in requests, request_rate in requests per
	// second.
	Value float64
	// Time is the instant that the value speaks of, Window the time over which it is a mean; 0 if
	// it is not said.
	Time   time.Time
	Window time.Duration
}

// get reads a path of the API server, as `kubectl get --raw` does, into an object.
func (c *Cluster) get(ctx context.Context, path string, query url.Values, into any) error {
	request := c.Kube.Discovery().RESTClient().Get().AbsPath(path)
	for key, values := range query {
		for _, v := range values {
			request = request.Param(key, v)
		}
	}
	raw, err := request.DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// CustomMetrics reads a metric of objects through the aggregation layer: resource is pods, services
// or deployments.apps, name the object's or * for all. A positive window, in whole seconds, asks
// for the mean over that time instead of the server's default.
func (c *Cluster) CustomMetrics(ctx context.Context, namespace, resource, name, metric string, window time.Duration) ([]Metric, error) {
	query := url.Values{}
	if window > 0 {
		query.Set("metricLabelSelector", "window="+seconds(window))
	}
	var list custommetrics.MetricValueList
	path := fmt.Sprintf("/apis/custom.metrics.k8s.io/v1beta2/namespaces/%s/%s/%s/%s", namespace, resource, name, metric)
	if err := c.get(ctx, path, query, &list); err != nil {
		return nil, err
	}
	var all []Metric
	for _, m := range list.Items {
		all = append(all, Metric{
			Object: m.DescribedObject.Name, Value: m.Value.AsApproximateFloat64(), Time: m.Timestamp.Time, Window: window64(m.WindowSeconds),
		})
	}
	return all, nil
}

// DeploymentMetric reads a metric of one Deployment through the aggregation layer, as a stock HPA
// does; see CustomMetrics.
func (c *Cluster) DeploymentMetric(ctx context.Context, namespace, deployment, metric string, window time.Duration) (Metric, error) {
	all, err := c.CustomMetrics(ctx, namespace, "deployments.apps", deployment, metric, window)
	if err != nil {
		return Metric{}, err
	}
	if len(all) != 1 {
		return Metric{}, fmt.Errorf("get %s of Deployment %s/%s: %d values, want 1", metric, namespace, deployment, len(all))
	}
	return all[0], nil
}

// ExternalMetrics reads an external metric through the aggregation layer; selector is a label
// selector such as deployment=web.
func (c *Cluster) ExternalMetrics(ctx context.Context, namespace, metric, selector string) ([]Metric, error) {
	query := url.Values{}
	if selector != "" {
		query.Set("labelSelector", selector)
	}
	var list externalmetrics.ExternalMetricValueList
	path := fmt.Sprintf("/apis/external.metrics.k8s.io/v1beta1/namespaces/%s/%s", namespace, metric)
	if err := c.get(ctx, path, query, &list); err != nil {
		return nil, err
	}
	var all []Metric
	for _, m := range list.Items {
		all = append(all, Metric{Value: m.Value.AsApproximateFloat64(), Time: m.Timestamp.Time, Window: window64(m.WindowSeconds)})
	}
	return all, nil
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

func window64(seconds *int64) time.Duration {
	if seconds == nil {
		return 0
	}
	return time.Duration(*seconds) * time.Second
}

// Autoscaler reads an Autoscaler.
func (c *Cluster) Autoscaler(ctx context.Context, namespace, name string) (*v1alpha1.Autoscaler, error) {
	var a v1alpha1.Autoscaler
	err := c.get(ctx, fmt.Sprintf("/apis/%s/namespaces/%s/autoscalers/%s", v1alpha1.GroupVersion(), namespace, name), nil, &a)
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// Autoscalers lists a namespace's Autoscalers.
func (c *Cluster) Autoscalers(ctx context.Context, namespace string) ([]v1alpha1.Autoscaler, error) {
	var list v1alpha1.AutoscalerList
	err := c.get(ctx, fmt.Sprintf("/apis/%s/namespaces/%s/autoscalers", v1alpha1.GroupVersion(), namespace), nil, &list)
	return list.Items, err
}

// APIService is the state of one registration with the aggregation layer.
type APIService struct {
	Name      string
	Available bool
	// Message tells why it is not Available.
	Message string
}

// apiServiceList is the part of the aggregator's type that is looked at.
type apiServiceList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Service *struct {
				Namespace string `json:"namespace"`
			} `json:"service"`
		} `json:"spec"`
		Status struct {
			Conditions []struct {
				Type    string `json:"type"`
				Status  string `json:"status"`
				Message string `json:"message"`
			} `json:"conditions"`
		} `json:"status"`
	} `json:"items"`
}

// APIServices lists those that a Service of Namespace serves.
func (c *Cluster) APIServices(ctx context.Context) ([]APIService, error) {
	var list apiServiceList
	if err := c.get(ctx, "/apis/apiregistration.k8s.io/v1/apiservices", nil, &list); err != nil {
		return nil, err
	}
	var all []APIService
	for _, i := range list.Items {
		if i.Spec.Service == nil || i.Spec.Service.Namespace != Namespace {
			continue
		}
		a := APIService{Name: i.Metadata.Name, Message: "nobody has looked at it yet"}
		for _, condition := range i.Status.Conditions {
			if condition.Type == "Available" {
				a.Available, a.Message = condition.Status == "True", condition.Message
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// maxReport bounds a gateway's report, in bytes.
const maxReport = 1 << 20

// GatewayReports asks each ready gateway for its present report.
func (c *Cluster) GatewayReports(ctx context.Context) ([]wire.Report, error) {
	pods, err := c.Pods(ctx, Namespace, GatewaySelector)
	if err != nil {
		return nil, err
	}
	config, err := c.controllerTLS(ctx)
	if err != nil {
		return nil, err
	}
	var all []wire.Report
	var errs []error
	for _, p := range pods {
		address := reportsAddress(p)
		if address == "" {
			continue
		}
		enough := errors.New("enough")
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := reports(asking, config, address, func(r wire.Report) error {
			all = append(all, r)
			return enough
		})
		cancel()
		if !errors.Is(err, enough) {
			errs = append(errs, fmt.Errorf("ask gateway %s for its report: %w", p.Name, err))
		}
	}
	return all, errors.Join(errs...)
}

// FollowGateways calls handle, from several goroutines, with each report of each ready gateway as
// it comes, until ctx ends. It looks for gateways once a second.
func (c *Cluster) FollowGateways(ctx context.Context, handle func(wire.Report)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	followed := map[string]bool{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		pods, _ := c.Pods(ctx, Namespace, GatewaySelector) // asked again in a second
		for _, p := range pods {
			address := reportsAddress(p)
			mu.Lock()
			begin := address != "" && !followed[address]
			if begin {
				followed[address] = true
			}
			mu.Unlock()
			if !begin {
				continue
			}
			wg.Go(func() {
				if config, err := c.controllerTLS(ctx); err == nil {
					// A stream that ends is followed again in a second.
					_ = reports(ctx, config, address, func(r wire.Report) error { handle(r); return nil })
				}
				mu.Lock()
				defer mu.Unlock()
				delete(followed, address)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reportsAddress is where a gateway serves its reports; "" if it is not ready.
func reportsAddress(p corev1.Pod) string {
	port := controlPort(p)
	if !podReady(p) || port == 0 {
		return ""
	}
	return "https://" + net.JoinHostPort(p.Status.PodIP, strconv.Itoa(int(port))) + wire.ReportsPath
}

// Waiting returns how many requests the gateways hold for a Service now.
func (c *Cluster) Waiting(ctx context.Context, namespace, service string) (int, error) {
	reports, err := c.GatewayReports(ctx)
	n := 0
	for _, r := range reports {
		for _, p := range r.Ports {
			if p.Namespace == namespace && p.Service == service {
				n += p.Waiting
			}
		}
	}
	return n, err
}

// controllerTLS speaks to gateways as a controller does, with its certificate.
func (c *Cluster) controllerTLS(ctx context.Context) (*tls.Config, error) {
	s, err := c.Kube.CoreV1().Secrets(Namespace).Get(ctx, pki.ControllerSecret, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the controller's certificate: %w", err)
	}
	pair := pki.Pair{Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey], CA: s.Data["ca.crt"]}
	return pki.ClientConfig(pair, pki.Gateway(Namespace).Names[0])
}

// reports reads the endless answer of a gateway, line by line, until handle returns an error.
func reports(ctx context.Context, config *tls.Config, address string, handle func(wire.Report) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	// A connection of its own, since the answer never ends.
	response, err := (&http.Transport{DisableKeepAlives: true, TLSClientConfig: config}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var r wire.Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("decode report: %w", err)
		}
		if err := handle(r); err != nil {
			return err
		}
	}
	return errors.Join(errors.New("the reports ended"), lines.Err())
}

func controlPort(p corev1.Pod) int32 {
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == wire.ControlPortName {
				return port.ContainerPort
			}
		}
	}
	return 0
}

func podReady(p corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// HPAs returns what `kubectl get hpa` prints for a namespace.
func (c *Cluster) HPAs(ctx context.Context, namespace string) (string, error) {
	out, err := c.Kubectl(ctx, "get", "hpa", "--namespace", namespace)
	return strings.TrimRight(out, "\n"), err
}

// GatewaySlices counts the endpoint slices by which Sluice's gateways are on a Service now: 0 while
// requests go straight to the pods.
func (c *Cluster) GatewaySlices(ctx context.Context, namespace, service string) (int, error) {
	selector := discoveryv1.LabelServiceName + "=" + service + "," + discoveryv1.LabelManagedBy + "=" + wire.Domain
	list, err := c.Kube.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return 0, fmt.Errorf("list endpoint slices %s in %s: %w", selector, namespace, err)
	}
	return len(list.Items), nil
}
