//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/promtest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// migration is the namespace of prometheus-adapter and of the HPAs, upstreamImage its image.
const (
	migration     = "migration"
	upstreamImage = "prometheus-adapter/prometheus-adapter"
)

// upstream is the program of prometheus-adapter v0.12.0.
func upstream(p kit.Place) string { return filepath.Join(p.Root, ".cache", "bench-adapter", "adapter") }

// migratedConfig is the configuration of both adapters.
const migratedConfig = `rules:
- seriesQuery: '{__name__=~"^(jobs|orders)$",namespace!=""}'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
- seriesQuery: 'queue_depth{namespace!=""}'
  resources: {template: "<<.Resource>>"}
  metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
`

// upstreamManifests are prometheus-adapter, with the rights that its vendor gives it.
const upstreamManifests = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus-adapter, namespace: migration}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus-adapter}
rules:
  - {apiGroups: [""], resources: [nodes, namespaces, pods, services, configmaps], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus-adapter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus-adapter}
subjects: [{kind: ServiceAccount, name: prometheus-adapter, namespace: migration}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus-adapter:delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: prometheus-adapter, namespace: migration}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: prometheus-adapter, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: prometheus-adapter, namespace: migration}]
---
apiVersion: v1
kind: Service
metadata: {name: prometheus-adapter, namespace: migration}
spec:
  selector: {app: prometheus-adapter}
  ports: [{name: https, port: 443, targetPort: 6443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: prometheus-adapter, namespace: migration}
spec:
  replicas: 2
  selector: {matchLabels: {app: prometheus-adapter}}
  template:
    metadata: {labels: {app: prometheus-adapter}}
    spec:
      serviceAccountName: prometheus-adapter
      securityContext: {runAsNonRoot: true, runAsUser: 10001}
      containers:
        - name: prometheus-adapter
          image: prometheus-adapter/prometheus-adapter:v0.12.0
          args: [--cert-dir=/tmp/cert, --config=/etc/adapter/config.yaml, --metrics-relist-interval=1m, --prometheus-url=URL, --secure-port=6443]
          ports: [{name: https, containerPort: 6443}]
          readinessProbe: {httpGet: {path: /healthz, port: https, scheme: HTTPS}, periodSeconds: 2}
          volumeMounts: [{name: config, mountPath: /etc/adapter, readOnly: true}, {name: tmp, mountPath: /tmp}]
      volumes: [{name: config, configMap: {name: prometheus-adapter-config}}, {name: tmp, emptyDir: {}}]
`

// migratedAPIs are the APIServices that prometheus-adapter's chart makes.
var migratedAPIs = []string{"v1beta1.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"}

// migratedApps are a hundred HPAs, and the series that they read: 20 of what is to be done each,
// which are two replicas.
func migratedApps(n int) (apps []app, series []promtest.Series) {
	add := func(name, labels string, v float64) {
		series = append(series, promtest.Series{
			Kind: "gauge", Name: name, Labels: fmt.Sprintf("namespace=%q,%s", migration, labels), Value: func(time.Time) (float64, bool) { return v, true },
		})
	}
	// series of one name follow one another
	for _, kind := range []string{"jobs", "orders", "queue_depth"} {
		for i := range n {
			switch name := fmt.Sprintf("app-%02d", i); {
			case kind == "jobs" && i%5 < 3:
				add(kind, fmt.Sprintf("pod=%q", name+"-0"), 20)
				add(kind, fmt.Sprintf("pod=%q", name+"-1"), 0)
				apps = append(apps, app{name, 1, 2, podsMetric(kind, "10"), "labelSelector=app=" + name})
			case kind == "orders" && i%5 == 3:
				add(kind, fmt.Sprintf("service=%q", name), 20)
				apps = append(apps, app{name, 1, 2, serviceMetric(kind, name, "10"), "/services/" + name + "/orders"})
			case kind == "queue_depth" && i%5 == 4:
				add(kind, fmt.Sprintf("queue=%q", name), 20)
				apps = append(apps, app{name, 1, 2, externalMetric(kind, map[string]string{"queue": name}, "10"), "labelSelector=queue=" + name})
			}
		}
	}
	return apps, series
}

// path is how a reader reads an app's metric.
func (a *app) path() string {
	const custom = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/" + migration
	switch {
	case a.metric.Pods != nil:
		return custom + "/pods/*/jobs?labelSelector=" + url.QueryEscape("app="+a.name)
	case a.metric.Object != nil:
		return custom + "/services/" + a.name + "/orders"
	}
	return "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + migration + "/queue_depth?labelSelector=" + url.QueryEscape("queue="+a.name)
}

// crowd reads the apps' metrics besides their HPAs, so that what a change of hands costs is seen
// however short it is.
type crowd struct {
	mu     sync.Mutex
	reads  int
	slow   time.Duration
	missed []error
	stop   func()
}

// crowdReaders read every crowdPause each.
const crowdReaders, crowdPause = 2, 20 * time.Millisecond

func startCrowd(t *testing.T, apps []app) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{}
	var group sync.WaitGroup
	for i := range crowdReaders {
		group.Go(func() {
			tick := time.NewTicker(crowdPause)
			defer tick.Stop()
			for n := i; ; n += crowdReaders {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				c.read(ctx, &apps[n*7%len(apps)])
			}
		})
	}
	c.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(c.stop)
	return c
}

func (c *crowd) read(ctx context.Context, a *app) {
	began := time.Now()
	raw, err := cluster.Kube.Discovery().RESTClient().Get().RequestURI(a.path()).DoRaw(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil && !strings.Contains(string(raw), `"value":"20"`) {
		err = fmt.Errorf("the answer is %s", raw)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	c.slow = max(c.slow, time.Since(began))
	if err != nil {
		c.missed = append(c.missed, fmt.Errorf("%s %s: %w", began.Format("15:04:05.000"), a.path(), err))
	}
}

// lap returns what was read since the last lap.
func (c *crowd) lap() (reads int, slow time.Duration, missed []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reads, slow, missed = c.reads, c.slow, c.missed
	c.reads, c.slow, c.missed = 0, 0, nil
	return reads, slow, missed
}

// patchAPI changes an APIService in one write.
func patchAPI(t *testing.T, name, patch string) {
	t.Helper()
	if out, err := cluster.Kubectl(t.Context(), "patch", "apiservice", name, "--type=merge", "-p", patch); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// toUpstream and toSluice are the writes by which an APIService changes hands.
const toUpstream = `{"spec":{"service":{"name":"prometheus-adapter","namespace":"migration","port":443},"insecureSkipTLSVerify":true,"caBundle":null}}`

func toSluice(t *testing.T) string {
	t.Helper()
	ca, err := cluster.Kubectl(t.Context(), "get", "apiservice", "v1alpha1.explain.sluice.dev", "-o", "jsonpath={.spec.caBundle}")
	if err != nil || ca == "" {
		t.Fatalf("read Sluice's authority: %q, %v", ca, err)
	}
	return `{"spec":{"service":{"name":"sluice-adapter","namespace":"sluice","port":443},"insecureSkipTLSVerify":false,"caBundle":"` + ca + `"}}`
}

// installUpstream installs prometheus-adapter, and Sluice beside it with the same configuration,
// and lets prometheus-adapter have the APIs.
func installUpstream(t *testing.T, prometheus string) {
	t.Helper()
	for _, namespace := range []string{migration, kit.Namespace} {
		if err := cluster.EnsureNamespace(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		out, err := cluster.Kubectl(t.Context(), "create", "configmap", "prometheus-adapter-config", "-n", namespace, "--from-literal=config.yaml="+migratedConfig)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := cluster.Apply(t.Context(), []byte(strings.ReplaceAll(upstreamManifests, "URL", prometheus))); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Install(t.Context(), 2*time.Minute, installedBeside(prometheus, false)...); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitReplicas(t.Context(), time.Minute, migration, "prometheus-adapter", "2 ready", func(_, ready int32) bool { return ready == 2 }); err != nil {
		t.Fatal(err)
	}
	if out, err := cluster.Kubectl(t.Context(), "delete", "apiservice", "v1beta2.custom.metrics.k8s.io"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range migratedAPIs {
		patchAPI(t, name, toUpstream)
	}
}

func installedBeside(prometheus string, register bool) []string {
	return []string{
		"--set", "prometheus.url=" + prometheus, "--set", "rules.existing=prometheus-adapter-config", "--set", fmt.Sprint("apiServices.register=", register),
	}
}

// removeUpstream gives the APIs back to Sluice and installs the defaults.
func removeUpstream(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	for _, args := range [][]string{
		append([]string{"delete", "apiservice", "--ignore-not-found"}, migratedAPIs...),
		{"delete", "configmap", "prometheus-adapter-config", "-n", kit.Namespace, "--ignore-not-found"},
		{"delete", "clusterrolebinding", "prometheus-adapter", "prometheus-adapter:delegator", "--ignore-not-found"},
		{"delete", "clusterrole", "prometheus-adapter", "--ignore-not-found"},
		{"delete", "rolebinding", "prometheus-adapter", "-n", "kube-system", "--ignore-not-found"},
	} {
		if out, err := cluster.Kubectl(ctx, args...); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if err := cluster.Install(ctx, 2*time.Minute); err != nil {
		t.Error(err)
	}
}

// TestMigration hands the metrics APIs from prometheus-adapter to Sluice and back, by the procedure
// of docs/from-prometheus-adapter.md, under a hundred HPAs: none misses a read, and no replica
// count changes. It is not parallel: it restarts the controller.
func TestMigration(t *testing.T) {
	if !*migrationRuns {
		t.Skip("make migration runs it: it needs prometheus-adapter")
	}
	if _, err := os.Stat(upstream(cluster.Place)); err != nil {
		t.Fatalf("%v: run make prometheus-adapter, which builds it", err)
	}
	began := time.Now()
	apps, series := migratedApps(100)
	prometheus := promtest.Start(t, network.Host().String(), began.Add(-5*time.Minute), began.Add(30*time.Minute), series...)
	t.Cleanup(func() { removeUpstream(t) })
	installUpstream(t, prometheus)
	f := startFleet(t, migration, apps)
	logsOnFailure(t, migration)
	want := func(*app) int32 { return 2 }
	wait(t, time.Minute, "the HPAs to read from prometheus-adapter", f.settled(want))
	f.forget()
	c := startCrowd(t, apps)
	m := &move{fleet: f, crowd: c, began: began}

	had := m.served(t)
	m.stage(t, "prometheus-adapter", func() {})
	if n := m.served(t); n != had {
		t.Errorf("Sluice has answered %v reads while prometheus-adapter has the APIs", n-had)
	}
	m.stage(t, "the APIServices change hands", func() {
		patch := toSluice(t)
		for _, name := range migratedAPIs {
			patchAPI(t, name, patch)
		}
	})
	if n := m.served(t) - had; n < float64(len(apps)) {
		t.Errorf("Sluice has answered %v reads, want one of each HPA at least", n)
	}
	m.stage(t, "Sluice's chart registers, v1beta2 too", func() {
		if err := cluster.Install(t.Context(), 2*time.Minute, installedBeside(prometheus, true)...); err != nil {
			t.Fatal(err)
		}
		m.awaitVersion(t, "v1beta2")
	})
	m.stage(t, "v1beta1 is preferred", func() {
		patchAPI(t, "v1beta2.custom.metrics.k8s.io", `{"spec":{"versionPriority":50}}`)
		m.awaitVersion(t, "v1beta1")
	})
	m.stage(t, "back in prometheus-adapter's hands", func() {
		if out, err := cluster.Kubectl(t.Context(), "delete", "apiservice", "v1beta2.custom.metrics.k8s.io"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, name := range migratedAPIs {
			patchAPI(t, name, toUpstream)
		}
	})
	had = m.served(t)
	m.stage(t, "prometheus-adapter again", func() {})
	if n := m.served(t); n != had {
		t.Errorf("Sluice has answered %v reads more after it gave the APIs back", n-had)
	}
	changes, inactive := f.seen()
	if len(changes) > 0 || len(inactive) > 0 {
		t.Errorf("replicas changed: %v; HPAs were inactive: %v", changes, inactive)
	}
	events, err := cluster.Kube.CoreV1().Events(migration).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=HorizontalPodAutoscaler"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if strings.HasPrefix(e.Reason, "Failed") && e.LastTimestamp.After(m.first) {
			t.Errorf("event of %s: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}

// move is a migration that goes on.
type move struct {
	*fleet
	crowd *crowd
	began time.Time
	// first is when the first stage began.
	first time.Time
}

// stage does something, and waits until each HPA has read twice since then: none may have missed a
// read.
func (m *move) stage(t *testing.T, what string, do func()) {
	t.Helper()
	at := time.Now()
	if m.first.IsZero() {
		m.first = at
	}
	do()
	done := time.Now()
	m.awaitReads(t, 2, func(*app) time.Time { return done })
	reads, missed := 0, 0
	for i := range m.apps {
		for _, r := range m.readsSince(m.apps[i].name, at) {
			reads++
			if r.code != http.StatusOK {
				missed++
				t.Errorf("%s: %s read %s: %d", what, r.at.Format("15:04:05.000"), r.uri, r.code)
			}
		}
	}
	others, slow, errs := m.crowd.lap()
	t.Logf("%4.1f s: %s: %d reads of HPAs, %d missed; %d reads of others, %d missed, the slowest took %d ms",
		time.Since(m.began).Seconds(), what, reads, missed, others, len(errs), slow.Milliseconds())
	if err := errors.Join(errs[:min(len(errs), 5)]...); err != nil {
		t.Errorf("%s: others missed reads, such as %v", what, err)
	}
}

// awaitVersion waits until all HPAs on custom metrics read that version of the API.
func (m *move) awaitVersion(t *testing.T, version string) {
	t.Helper()
	since := time.Now()
	wait(t, time.Minute, "HPAs to read "+version, func(context.Context) (string, bool) {
		if err := m.follow(); err != nil {
			return err.Error(), false
		}
		left := 0
		for i := range m.apps {
			a := &m.apps[i]
			if a.metric.External != nil {
				continue
			}
			reads := m.readsSince(a.name, since)
			if len(reads) == 0 || !strings.Contains(reads[len(reads)-1].uri, "/"+version+"/") {
				left++
			}
		}
		return fmt.Sprint(left, " do not"), left == 0
	})
}

// served is how many reads Sluice has answered from rules.
func (m *move) served(t *testing.T) float64 {
	t.Helper()
	text, err := controllersMetrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return metricSum(text, "sluice_adapter_rules_answers_total")
}
