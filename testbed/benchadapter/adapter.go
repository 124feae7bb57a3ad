package benchadapter

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const (
	// syncPeriod is that of the HPA controller: within it each metric is read once.
	syncPeriod = 15 * time.Second
	// patience is how long after the end of a window answers are waited for.
	patience = 3 * time.Second
	api      = "/apis/custom.metrics.k8s.io/v1beta1"
)

// adapter is a running adapter with its way to Prometheus.
type adapter struct {
	name    string
	process *process
	way     *way
	url     string
	client  *http.Client
	token   string
	// firstAnswer is how long after its start it gave an answer with values.
	firstAnswer time.Duration
}

// startAdapter runs an adapter against a Prometheus whose answers take a latency more. It returns
// when it answers for the last of the metrics.
func (b *bed) startAdapter(ctx context.Context, name string, p *prometheus, latency time.Duration, s *shape) (_ *adapter, err error) {
	a := &adapter{name: name, token: b.token, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // it was just started on this machine
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 512, DisableCompression: true,
	}}}
	if a.way, err = newWay(ctx, p.url); err != nil {
		return nil, err
	}
	a.way.latency.Store(int64(latency))
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	a.url = "https://" + address
	program, args, err := b.command(ctx, name, address, a.way.url)
	if err != nil {
		return nil, err
	}
	if a.process, err = start(filepath.Join(b.Out, "logs", name+".log"), program, args...); err != nil {
		return nil, err
	}
	asks := s.asks()
	last := asks[len(asks)-1]
	// Discovery first: a GET of values takes one of the few lists of pods that prometheus-adapter
	// may make.
	listed := false
	err = testbed.WaitFor(ctx, 2*time.Minute, name+" to answer", func(ctx context.Context) (string, bool) {
		if err := a.process.alive(); err != nil {
			return err.Error(), false
		}
		if !listed {
			got, err := a.get(ctx, api, "application/json")
			if listed = err == nil && bytes.Contains(got.body, []byte("pods/"+last.name)); !listed {
				return fmt.Sprintf("its list of metrics has not %s: %d, %v", last.name, got.status, err), false
			}
		}
		n, err := a.items(ctx, s, last)
		return fmt.Sprintf("%d values, %v", n, err), err == nil && n == s.pods
	})
	if err != nil {
		a.close()
		return nil, err
	}
	a.firstAnswer = time.Since(a.process.began)
	return a, nil
}

// command is how an adapter is run: as its vendor ships it but for where things are.
func (b *bed) command(ctx context.Context, name, address, prometheus string) (program string, args []string, err error) {
	kubeconfig := b.cluster.Kubeconfig()
	if name == sluice {
		health, err := freeAddress(ctx)
		return filepath.Join(b.Place.Bin, "sluice-controller"), []string{
			"--kubeconfig=" + kubeconfig, "--namespace=" + kit.Namespace, "--scaler=false", "--api-listen=" + address, "--metrics-listen=" + health,
			"--rules-config=" + b.rules, "--prometheus-url=" + prometheus,
		}, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", nil, err
	}
	certificates, err := os.MkdirTemp(b.dir, "certificates-")
	args = []string{
		"--config=" + b.rules, "--prometheus-url=" + prometheus, "--bind-address=127.0.0.1", "--secure-port=" + port, "--cert-dir=" + certificates,
		"--lister-kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
	}
	switch name {
	case unthrottled:
		args = append(args, "--client-qps=1000", "--client-burst=2000")
	case minutely:
		args = append(args, "--metrics-relist-interval=1m")
	}
	return b.Upstream, args, err
}

func (a *adapter) close() {
	a.process.stop()
	a.way.close()
	a.client.CloseIdleConnections()
}

// answer is what a GET brought.
type answer struct {
	status int
	body   []byte
}

// get asks once. A body that nobody looks at is read all the same.
func get(ctx context.Context, client *http.Client, url string, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, body}, err
}

func (a *adapter) get(ctx context.Context, path, accept string) (answer, error) {
	return get(ctx, a.client, a.url+path, http.Header{"Authorization": {"Bearer " + a.token}, "Accept": {accept}})
}

func (s *shape) path(k ask) string {
	return api + "/namespaces/" + namespaceOf(s.pods) + "/pods/*/" + k.name + "?labelSelector=app%3D" + workload(k.workload)
}

// values asks for an HPA metric and returns its values by pod.
func (a *adapter) values(ctx context.Context, s *shape, k ask) (map[string]string, error) {
	got, err := a.get(ctx, s.path(k), "application/json")
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.200s", got.status, got.body)
	}
	var list struct {
		Items []struct {
			DescribedObject struct {
				Name string `json:"name"`
			} `json:"describedObject"`
			Value string `json:"value"`
		} `json:"items"`
	}
	if err := json.Unmarshal(got.body, &list); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, i := range list.Items {
		all[i.DescribedObject.Name] = i.Value
	}
	return all, nil
}

func (a *adapter) items(ctx context.Context, s *shape, k ask) (int, error) {
	all, err := a.values(ctx, s, k)
	return len(all), err
}

// windowOf is how long a shape is measured: where there are many metrics, a part of them is enough.
func (s *shape) windowOf() time.Duration {
	if s.span > 0 {
		return s.span
	}
	if s.metrics < 1000 {
		return syncPeriod
	}
	return 10 * time.Second
}

// window sends GETs as the HPA controller does, each metric once in its period, evenly and in a
// random order that is the same for all, and measures.
func (a *adapter) window(ctx context.Context, s *shape) (Run, error) {
	const seed = 14
	asks := s.asks()
	random := rand.New(rand.NewPCG(seed, uint64(len(asks))))
	random.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
	span := s.windowOf()
	n := int(int64(len(asks)) * int64(span) / int64(syncPeriod))
	took, ok := make([]float64, n), make([]bool, n)
	cpu, err := a.process.cpu()
	if err != nil {
		return Run{}, err
	}
	queries, began := a.way.count.Load(), time.Now()
	deadline, cancel := context.WithDeadline(ctx, began.Add(span+patience))
	defer cancel()
	var group sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range n {
		timer.Reset(time.Until(began.Add(time.Duration(int64(syncPeriod) * int64(i) / int64(len(asks))))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			group.Wait()
			return Run{}, context.Cause(ctx)
		}
		group.Go(func() {
			sent := time.Now()
			got, err := a.get(deadline, s.path(asks[i]), "application/vnd.kubernetes.protobuf,application/json")
			took[i], ok[i] = float64(time.Since(sent))/1e6, err == nil && got.status == http.StatusOK
			if !ok[i] { // a quick refusal is no quick answer
				took[i] = float64(began.Add(span+patience).Sub(sent)) / 1e6
			}
		})
	}
	// What is to be counted is counted at the end of the window; answers that are late may come.
	timer.Reset(time.Until(began.Add(span)))
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	after, err := a.process.cpu()
	asked := a.way.count.Load() - queries
	group.Wait()
	if err = errors.Join(err, a.process.alive(), context.Cause(ctx)); err != nil {
		return Run{}, err
	}
	failed := 0
	for _, good := range ok {
		if !good {
			failed++
		}
	}
	peak, err := a.process.peak()
	if err != nil {
		return Run{}, err
	}
	discovery, err := a.get(ctx, api, "application/json")
	if err != nil {
		return Run{}, fmt.Errorf("read discovery: %w", err)
	}
	return Run{
		Adapter: a.name, Metrics: s.metrics, Pods: s.pods, Series: s.series, Names: s.names(), PrometheusLatencyMs: int(a.way.latency.Load() / 1e6),
		GetP50Ms: quantile(took, 0.5), GetP99Ms: quantile(took, 0.99), Queries: int(asked), RSSMiB: peak,
		CPUSecondsPer1000Gets: (after - cpu).Seconds() * 1000 / float64(n), Gets: n, Failed: failed, WindowSeconds: span.Seconds(),
		DiscoveryBytes: len(discovery.body), FirstAnswerSeconds: a.firstAnswer.Seconds(),
	}, nil
}
