//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

// adversaryImage is the program that a hostile tenant runs.
const adversaryImage = "testbed/adversary"

// hostileNamespace is the attacker's one namespace, hostileUser the ServiceAccount that acts there.
const hostileNamespace, hostileUser = "hostile", "mallory"

// hostileRights are what an ordinary user of one namespace has: ClusterRole edit, and autoscalers.
const hostileRights = `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: mallory, namespace: hostile}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: autoscalers, namespace: hostile}
rules:
  - {apiGroups: [sluice.dev], resources: [autoscalers], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: autoscalers, namespace: hostile}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: autoscalers}
subjects: [{kind: ServiceAccount, name: mallory, namespace: hostile}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: edit, namespace: hostile}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: mallory, namespace: hostile}]
`

// The resources that the attacker makes.
var (
	hostilePods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	hostileServices    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	hostileDeployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	hostileAutoscalers = schema.GroupVersionResource{Group: "sluice.dev", Version: "v1alpha1", Resource: "autoscalers"}
)

type object = map[string]any

// attacker acts with the ServiceAccount's token and nothing else.
type attacker struct {
	client dynamic.Interface
	// refused are the objects that the API server did not take: a defence, if there is one.
	mu      sync.Mutex
	refused map[string]int
}

func newAttacker(t *testing.T) *attacker {
	t.Helper()
	if err := cluster.EnsureNamespace(t.Context(), hostileNamespace); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Apply(t.Context(), []byte(hostileRights)); err != nil {
		t.Fatal(err)
	}
	token, err := cluster.Kube.CoreV1().ServiceAccounts(hostileNamespace).CreateToken(t.Context(), hostileUser, &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := cluster.REST()
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.QPS = token.Status.Token, -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{client: client, refused: map[string]int{}}
	t.Cleanup(func() { a.leave(t) })
	return a
}

// leave takes the attacker's namespace away, for the tests after this one.
func (a *attacker) leave(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	defer cancel()
	if out, err := cluster.Kubectl(ctx, "delete", "namespace", hostileNamespace, "--timeout=170s"); err != nil {
		t.Errorf("take the attacker's namespace away: %v: %s", err, out)
	}
}

// create makes objects, several at a time.
func (a *attacker) create(ctx context.Context, kind schema.GroupVersionResource, objects ...object) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, o := range objects {
		g.Go(func() error {
			raw, err := json.Marshal(o)
			if err != nil {
				return err
			}
			var u unstructured.Unstructured
			if err := json.Unmarshal(raw, &u.Object); err != nil {
				return err
			}
			if _, err := a.client.Resource(kind).Namespace(hostileNamespace).Create(ctx, &u, metav1.CreateOptions{}); err != nil {
				a.mu.Lock()
				a.refused[kind.Resource+": "+err.Error()[:min(160, len(err.Error()))]]++
				a.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

func hostileMeta(name string) object { return object{"name": name, "namespace": hostileNamespace} }

// deployment has pods of one container; a paused one never has any.
func deployment(name string, replicas int, paused bool, labels object, container object) object {
	return object{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": hostileMeta(name),
		"spec": object{
			"replicas": replicas, "paused": paused, "selector": object{"matchLabels": labels},
			"template": object{
				"metadata": object{"labels": labels},
				"spec":     object{"terminationGracePeriodSeconds": 1, "containers": []any{container}},
			},
		},
	}
}

func service(name string, labels object, ports ...any) object {
	return object{
		"apiVersion": "v1", "kind": "Service", "metadata": hostileMeta(name),
		"spec": object{"selector": labels, "ports": ports},
	}
}

func autoscaler(name, target, service string, more object) object {
	spec := object{"scaleTargetRef": object{"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "minReplicas": 1, "maxReplicas": 10}
	if service != "" {
		spec["serviceRef"], spec["minReplicas"] = object{"name": service}, 0
	}
	maps.Copy(spec, more)
	return object{"apiVersion": "sluice.dev/v1alpha1", "kind": "Autoscaler", "metadata": hostileMeta(name), "spec": spec}
}

func policyOf(name string, parameters object) object {
	return object{"policy": object{"name": name, "parameters": parameters}}
}

// idleContainer is never run: its Deployments are paused.
var idleContainer = object{"name": "app", "image": adversaryImage}

// arsenal says how much of each the attacker brings.
type arsenal struct {
	expositions, expositionBytes int
	services, portsPerService    int
	blackHoles, dryRuns          int
	connections                  int
}

// withPolicies makes Autoscalers with a policy each, on paused Deployments without pods.
func (a *attacker) withPolicies(ctx context.Context, prefix string, n int, spec func(i int) object) error {
	var deployments, autoscalers []object
	for i := range n {
		name := fmt.Sprintf("%s-%d", prefix, i)
		deployments = append(deployments, deployment(name, 1, true, object{"app": name}, idleContainer))
		autoscalers = append(autoscalers, autoscaler(name, name, "", spec(i)))
	}
	return errors.Join(a.create(ctx, hostileDeployments, deployments...), a.create(ctx, hostileAutoscalers, autoscalers...))
}

// blackHolePolicies are Autoscalers whose policy server takes connections and never answers.
func (a *attacker) blackHolePolicies(ctx context.Context, prefix string, n int) error {
	var address string
	if s, err := cluster.Kube.CoreV1().Services(hostileNamespace).Get(ctx, "hostile", metav1.GetOptions{}); err == nil {
		address = s.Spec.ClusterIP
	}
	return a.withPolicies(ctx, prefix, n, func(i int) object {
		host := address
		if i%2 == 1 {
			host = "hostile." + hostileNamespace + ".svc"
		}
		return policyOf("grpc", object{"address": net.JoinHostPort(host, "9099"), "timeout": "10s"})
	})
}

// attack brings everything at once. What the API server refuses is no error.
func (a *attacker) attack(ctx context.Context, w arsenal) error {
	labels := object{"app": "hostile"}
	container := object{
		"name": "app", "image": adversaryImage, "args": []any{"--exposition-bytes=" + strconv.Itoa(w.expositionBytes)},
		"ports":          []any{object{"name": "http", "containerPort": 8012}, object{"name": "sluice-metrics", "containerPort": 9095}},
		"readinessProbe": object{"httpGet": object{"path": "/readyz", "port": 9095}, "periodSeconds": 1},
	}
	http := object{"name": "http", "port": 80, "targetPort": 8012}
	errs := []error{
		// Expositions that cost their reader, and the black hole beside them.
		a.create(ctx, hostileDeployments, deployment("hostile", w.expositions, false, labels, container)),
		a.create(ctx, hostileServices, service("hostile", labels, http, object{"name": "hole", "port": 9099, "targetPort": 9099})),
		a.create(ctx, hostileAutoscalers, autoscaler("hostile", "hostile", "", object{"minReplicas": w.expositions, "maxReplicas": max(w.expositions, 1)})),
		// A gateway that is none.
		a.create(ctx, hostilePods, impostorPod()),
		// Two Autoscalers on one Service.
		a.create(ctx, hostileDeployments, deployment("twice-a", 0, true, object{"app": "twice-a"}, idleContainer), deployment("twice-b", 0, true, object{"app": "twice-b"}, idleContainer)),
		a.create(ctx, hostileServices, service("twice", object{"app": "twice"}, http)),
		a.create(ctx, hostileAutoscalers, autoscaler("twice-a", "twice-a", "twice", nil), autoscaler("twice-b", "twice-b", "twice", nil)),
		// Failure texts: an image that cannot be pulled, with a name that is long.
		a.create(ctx, hostileDeployments, deployment("failing", 1, false, object{"app": "failing"}, object{"name": "app", "image": "none/" + strings.Repeat("x", 100_000)})),
		a.create(ctx, hostileServices, service("failing", object{"app": "failing"}, http)),
		a.create(ctx, hostileAutoscalers, autoscaler("failing", "failing", "failing", nil)),
	}
	// Ports: each has a number of ten thousand.
	for i := range w.services {
		name := fmt.Sprintf("ports-%d", i)
		var ports []any
		for p := range w.portsPerService {
			ports = append(ports, object{"name": fmt.Sprintf("p%d", p), "port": 1000 + p, "targetPort": 8012})
		}
		errs = append(errs,
			a.create(ctx, hostileDeployments, deployment(name, 0, true, object{"app": name}, idleContainer)),
			a.create(ctx, hostileServices, service(name, object{"app": name}, ports...)),
			a.create(ctx, hostileAutoscalers, autoscaler(name, name, name, nil)))
	}
	grow := `"aaaaaaaaaaaaaaaa"`
	for range 6 {
		grow += `.replace("a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")`
	}
	expressions := []string{
		`size(` + grow + `)`,
		strings.TrimSuffix(strings.Repeat(`now.getHours("Europe/Berlin") + `, 200), " + "),
		`[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, now.getHours("America/New_York")))).size()`,
	}
	errs = append(errs,
		a.blackHolePolicies(ctx, "hole", w.blackHoles),
		// Files of the controller's own, and one without an end.
		a.withPolicies(ctx, "file", 3, func(i int) object {
			file := []string{"/dev/zero", "/etc/passwd", "/var/run/secrets/kubernetes.io/serviceaccount/token"}[i]
			return policyOf("grpc", object{"address": "127.0.0.1:9099", "tls": object{"caFile": file}})
		}),
		a.withPolicies(ctx, "probe", 4, func(i int) object {
			return policyOf("grpc", object{"address": []string{"127.0.0.1:9090", "169.254.169.254:80", "198.18.0.1:6443", "unix:///run/x"}[i]})
		}),
		a.withPolicies(ctx, "cel", 3*len(expressions), func(i int) object {
			return policyOf("cel", object{"expression": expressions[i%len(expressions)], "costLimit": 1_000_000})
		}),
		a.withPolicies(ctx, "dry", w.dryRuns, func(int) object { return object{"mode": "DryRun"} }),
		a.intrude(ctx, w.connections),
	)
	return errors.Join(errs...)
}

func impostorPod() object {
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{
			"name": "impostor", "namespace": hostileNamespace,
			"labels": object{"app.kubernetes.io/name": "sluice", "app.kubernetes.io/instance": "sluice", "app.kubernetes.io/component": "sluice-gateway"},
		},
		"spec": object{"terminationGracePeriodSeconds": 1, "containers": []any{object{
			"name": "gateway", "image": "sluice-autoscaler/sluice-gateway:0.1.0", "args": []any{"--name=impostor", "--insecure-control", "--control-listen=:9096", "--metrics-listen=:9097"},
			"ports": []any{object{"name": "sluice-control", "containerPort": 9096}},
		}}},
	}
}

// intrude runs a pod that asks every pod for its drain, and opens connections to the gateways'
// control ports.
func (a *attacker) intrude(ctx context.Context, connections int) error {
	var drains, controls []string
	next, err := newestAddress(ctx)
	if err != nil {
		return err
	}
	for range 120 {
		next = next.Next()
		drains = append(drains, net.JoinHostPort(next.String(), "9095"))
	}
	failing, err := cluster.ServiceURL(ctx, hostileNamespace, "failing")
	if err != nil {
		return err
	}
	gateways, err := cluster.Pods(ctx, kit.Namespace, kit.GatewaySelector)
	if err != nil {
		return err
	}
	for _, g := range gateways {
		controls = append(controls, net.JoinHostPort(g.Status.PodIP, "9096"))
	}
	return a.create(ctx, hostilePods, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": hostileMeta("intruder"),
		"spec": object{"terminationGracePeriodSeconds": 1, "containers": []any{object{
			"name": "app", "image": adversaryImage, "args": []any{
				"--drain=" + strings.Join(drains, ","), "--control=" + strings.Join(controls, ","), "--connections=" + strconv.Itoa(connections),
				"--ask=" + failing,
			},
		}}},
	})
}

// newestAddress is the last that a pod was given; the testbed gives them in order.
func newestAddress(ctx context.Context) (newest netip.Addr, err error) {
	pods, err := cluster.Pods(ctx, "", "")
	for _, p := range pods {
		if a, err := netip.ParseAddr(p.Status.PodIP); err == nil && newest.Compare(a) < 0 {
			newest = a
		}
	}
	return newest, err
}

// memory watches what Sluice's processes take. The testbed enforces no limits, so the watch does: a
// process over the chart's limit is killed, as the kernel would.
type memory struct {
	mu     sync.Mutex
	peak   map[string]float64 // MiB, by program
	killed []string
	stop   func()
}

// limitMiB is the chart's memory limit of controller and gateways.
const limitMiB = 512

func watchMemory(ctx context.Context) *memory {
	ctx, cancel := context.WithCancel(ctx)
	m := &memory{peak: map[string]float64{}}
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for _, program := range []string{"sluice-controller", "sluice-gateway"} {
				for _, p := range cluster.Processes(program) {
					if !strings.HasPrefix(p.Pod, "sluice-") { // an impostor may do as it likes
						continue
					}
					m.look(program, p.PID)
				}
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	m.stop = func() { cancel(); watching.Wait() }
	return m
}

func (m *memory) look(program string, pid int) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return
	}
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak[program] = max(m.peak[program], kib/1024)
	if kib/1024 > limitMiB && syscall.Kill(pid, syscall.SIGKILL) == nil {
		m.killed = append(m.killed, fmt.Sprintf("%s took %.0f MiB, more than its limit of %d", program, kib/1024, limitMiB))
	}
}

// cycle is what one way 0 → N → 0 was like.
type cycle struct {
	wake    time.Duration // first byte to answer
	decided time.Duration // first byte to the write of the scale, as the Autoscaler's status has it
}

// cycles wakes a sleeping workload, puts three pods' load on it and lets it sleep, n times. A
// request that is lost stands in the record; the error is a step that never came.
func cycles(t *testing.T, rec *recorder, ns, url string, n int) ([]cycle, error) {
	t.Helper()
	l := rec.load(t.Context(), ns, url, loadClients, 200)
	defer l.stop()
	sleeps := func() error {
		return cluster.WaitReplicas(t.Context(), 90*time.Second, ns, "web", "no replicas", func(spec, ready int32) bool { return spec == 0 && ready == 0 })
	}
	var all []cycle
	for range n {
		if err := sleeps(); err != nil {
			return all, err
		}
		begin := time.Now()
		_ = rec.ask(t.Context(), ns, url) // it is recorded
		c := cycle{wake: time.Since(begin), decided: -1}
		l.set(loadClients)
		// On the way up there may be more: means of pods that are seconds old are rough. Under a steady
		// load the count is exact.
		err := cluster.WaitReplicas(t.Context(), 90*time.Second, ns, "web", "3 ready", func(spec, ready int32) bool { return spec == loadNeeds && ready == loadNeeds })
		if err != nil {
			return all, err
		}
		l.set(0)
		if as, err := cluster.Autoscaler(t.Context(), ns, "web"); err == nil && as.Status.LastColdStart != nil {
			if s, err := strconv.ParseFloat(strings.TrimSuffix(as.Status.LastColdStart.Decided, "s"), 64); err == nil {
				c.decided = time.Duration(s * float64(time.Second))
			}
		}
		all = append(all, c)
	}
	return all, sleeps()
}

// newVictim makes a workload that goes to sleep within seconds and is under no load.
func newVictim(t *testing.T, ns string) (url string, w promises.Workload) {
	t.Helper()
	url = web(t, ns)
	apply(t, ns, "autoscaler.yaml", quick()...)
	answers(t, url)
	asleep(t, ns)
	return url, promises.Workload{Name: ns, Max: 10}
}

// TestTenants has a user of one namespace do the whole arsenal at once, while another's workload
// goes 0 → 3 → 0: nothing of the victim's is lost, it comes to rest at the three pods at which a twin
// did that was left alone, and no process of Sluice restarts or takes more than 300 MiB. It is not
// parallel: it would disturb the others.
func TestTenants(t *testing.T) {
	const quiet, times = "twin", 2
	twinURL, twin := newVictim(t, quiet)
	rec := newRecorder(twin)
	if _, err := cycles(t, rec, quiet, twinURL, times); err != nil {
		t.Fatal(err)
	}

	const ns = "victim"
	url, victim := newVictim(t, ns)
	before, err := restarts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := watchMemory(t.Context())
	a := newAttacker(t)
	rec = newRecorder(victim)
	if err := a.attack(t.Context(), arsenal{expositions: 6, expositionBytes: 1 << 20, services: 4, portsPerService: 250, blackHoles: 40, dryRuns: 300, connections: 200}); err != nil {
		t.Fatal(err)
	}
	if _, err := cycles(t, rec, ns, url, times); err != nil {
		t.Error(err)
	}
	m.stop()
	h, err := rec.history(record)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, h)
	after, err := restarts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("containers of Sluice restarted %d times, want 0", after-before)
	}
	for _, k := range m.killed {
		t.Error(k)
	}
	for program, peak := range m.peak {
		if peak > mostTenantsMiB {
			t.Errorf("%s took %.0f MiB, want at most %d", program, peak, mostTenantsMiB)
		}
	}
	drained(t, ns)
	t.Logf("%d requests, peak memory %v MiB; refused by the API server: %v", len(h.Requests), m.peak, a.refused)
}

// mostTenantsMiB is what a process of Sluice may take under attack.
const mostTenantsMiB = 300

// drained looks whether the intruder has got another's sidecar to leave.
func drained(t *testing.T, ns string) {
	t.Helper()
	own := map[string]bool{}
	pods, err := cluster.Pods(t.Context(), hostileNamespace, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		own[net.JoinHostPort(p.Status.PodIP, "9095")] = true
	}
	raw, err := cluster.Kube.CoreV1().Pods(hostileNamespace).GetLogs("intruder", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Errorf("read what the intruder was answered: %v", err)
		return
	}
	asked := 0
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line) // drain ADDRESS METHOD STATUS
		if len(fields) < 4 || fields[0] != "drain" || own[fields[1]] {
			continue
		}
		asked++
		if fields[3] == "200" {
			t.Errorf("the intruder has drained a pod: %s", line)
		}
	}
	if asked == 0 {
		t.Errorf("the intruder reached no sidecar of %s: that part of the test shows nothing", ns)
	}
}

// tenantRow is a row of out/bench-tenants/summary.json.
type tenantRow struct {
	// Attack is none, 40 or 400 policies that never answer, or everything at once.
	Attack string `json:"attack"`
	Cycles int    `json:"cycles"`
	// WakeP50Ms and WakeP99Ms are from the first byte of a request to a sleeping workload to its
	// answer; DecidedP99Ms to the write of the scale. With fewer than 100 cycles p99 is the worst.
	WakeP50Ms    float64 `json:"wakeP50Ms"`
	WakeP99Ms    float64 `json:"wakeP99Ms"`
	DecidedP99Ms float64 `json:"decidedP99Ms"`
	// Ratio is WakeP50Ms over that of the row without an attack.
	Ratio float64 `json:"ratio"`
	// Lost counts the victim's requests that were not answered 200.
	Lost int `json:"lost"`
	// Restarts counts those of Sluice's containers, PeakMiB is the most memory by program, Cores what
	// the controller took of the machine.
	Restarts int                `json:"restarts"`
	PeakMiB  map[string]float64 `json:"peakMiB"`
	Cores    float64            `json:"controllerCores"`
}

// The goals of TestTenantsBench.
const (
	mostDecidedMs = 100
	mostRatio     = 1.2
	mostPodCores  = 0.05
)

// TestTenantsBench measures what an attack costs a victim, and writes summary.json:
// `make bench-tenants`. It fails where a goal is missed, so it wants a calm machine.
func TestTenantsBench(t *testing.T) {
	if *tenantsOut == "" {
		t.Skip("-tenants says where to; make bench-tenants sets it")
	}
	const ns = "victim"
	url, _ := newVictim(t, ns)
	a := newAttacker(t)
	var rows []tenantRow
	hostile := object{"app": "hostile"}
	steps := []struct {
		name  string
		begin func(ctx context.Context) error
	}{
		{"none", nothing},
		{"one pod of 1 MB of labels", func(ctx context.Context) error {
			return a.create(ctx, hostileDeployments, deployment("labels", 1, false, object{"app": "labels"}, object{
				"name": "app", "image": adversaryImage, "ports": []any{object{"name": "sluice-metrics", "containerPort": 9095}},
			}))
		}},
		{"40 policies that never answer", func(ctx context.Context) error {
			return errors.Join(
				a.create(ctx, hostileServices, service("hostile", hostile, object{"name": "hole", "port": 9099, "targetPort": 9099})),
				a.create(ctx, hostilePods, object{
					"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "hole", "namespace": hostileNamespace, "labels": hostile},
					"spec": object{"terminationGracePeriodSeconds": 1, "containers": []any{idleContainer}},
				}),
				a.blackHolePolicies(ctx, "few", 40))
		}},
		{"400 policies that never answer", func(ctx context.Context) error { return a.blackHolePolicies(ctx, "many", 360) }},
		{"everything at once", func(ctx context.Context) error {
			return a.attack(ctx, arsenal{expositions: 16, expositionBytes: 1 << 20, services: 41, portsPerService: 250, blackHoles: 0, dryRuns: 1000, connections: 400})
		}},
	}
	for _, step := range steps {
		if err := step.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, measureTenants(t, step.name, ns, url, *tenantsCycles))
		rows[len(rows)-1].Ratio = rows[len(rows)-1].WakeP50Ms / rows[0].WakeP50Ms
		t.Logf("%+v", rows[len(rows)-1])
	}
	raw, err := json.MarshalIndent(map[string]any{"attacks": rows}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(*tenantsOut, 0o755), os.WriteFile(filepath.Join(*tenantsOut, "summary.json"), append(raw, '\n'), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Lost > 0 || r.Restarts > 0 || r.DecidedP99Ms > mostDecidedMs || r.PeakMiB["sluice-controller"] > mostTenantsMiB || r.PeakMiB["sluice-gateway"] > mostTenantsMiB {
			t.Errorf("%s: a goal is missed: %+v", r.Attack, r)
		}
		if strings.Contains(r.Attack, "policies") && r.Ratio > mostRatio {
			t.Errorf("%s: a wake-up takes %.2f times as long, want at most %.1f", r.Attack, r.Ratio, mostRatio)
		}
	}
	if more := rows[1].Cores - rows[0].Cores; more > mostPodCores {
		t.Errorf("a pod of 1 MB of labels takes %.3f of a core, want at most %.2f", more, mostPodCores)
	}
}

func measureTenants(t *testing.T, name, ns, url string, n int) tenantRow {
	t.Helper()
	rec := newRecorder(promises.Workload{Name: ns, Max: 10})
	before, err := restarts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := watchMemory(t.Context())
	cpu, began := cpuSeconds("sluice-controller"), time.Now()
	all, err := cycles(t, rec, ns, url, n)
	if err != nil {
		t.Error(err)
	}
	row := tenantRow{Attack: name, Cycles: n, Cores: (cpuSeconds("sluice-controller") - cpu) / time.Since(began).Seconds()}
	m.stop()
	row.PeakMiB = m.peak
	h, err := rec.history(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range h.Requests {
		if r.Failure != "" {
			row.Lost++
		}
	}
	after, err := restarts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	row.Restarts = after - before
	var wakes, decisions []float64
	for _, c := range all {
		wakes = append(wakes, float64(c.wake.Microseconds())/1000)
		if c.decided >= 0 {
			decisions = append(decisions, float64(c.decided.Microseconds())/1000)
		}
	}
	row.WakeP50Ms, row.WakeP99Ms, row.DecidedP99Ms = quantile(wakes, 0.5), quantile(wakes, 0.99), quantile(decisions, 0.99)
	return row
}

// quantile is the least value that a share of the values does not exceed.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[int(math.Ceil(share*float64(len(values))))-1]
}

// cpuSeconds sums what a program's processes have taken.
func cpuSeconds(program string) float64 {
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux
	sum := 0.0
	for _, p := range cluster.Processes(program) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			continue
		}
		// After the name in brackets: state is field 3, utime 14, stime 15.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		for _, i := range []int{11, 12} {
			if i < len(fields) {
				if ticks, err := strconv.ParseFloat(fields[i], 64); err == nil {
					sum += ticks / ticksPerSecond
				}
			}
		}
	}
	return sum
}
