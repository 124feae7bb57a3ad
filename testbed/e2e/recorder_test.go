//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

// auditPolicy has the API server record who writes scales and leases, what Sluice asks for, and
// which metrics HorizontalPodAutoscalers read.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Request
    verbs: [create, update, patch]
    resources:
      - {group: apps, resources: [deployments/scale]}
  - level: Request
    verbs: [create, update, patch]
    namespaces: [` + kit.Namespace + `]
    resources:
      - {group: coordination.k8s.io, resources: [leases]}
  - level: Metadata
    users: [` + controllerUser + `]
  - level: Metadata
    users: [` + hpaUser + `]
    resources:
      - {group: custom.metrics.k8s.io}
      - {group: external.metrics.k8s.io}
      - {group: metrics.k8s.io}
  - level: None
`

// controllerUser is the controller's ServiceAccount.
const controllerUser = "system:serviceaccount:" + kit.Namespace + ":sluice-controller"

// hpaUser is the HorizontalPodAutoscaler controller's ServiceAccount.
const hpaUser = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"

// audit is the API server's record, in a folder of its own.
type audit struct{ dir string }

func newAudit() (audit, error) {
	dir, err := os.MkdirTemp("", "sluice-audit-")
	if err != nil {
		return audit{}, err
	}
	a := audit{dir}
	return a, os.WriteFile(a.policy(), []byte(auditPolicy), 0o600)
}

func (a audit) policy() string { return filepath.Join(a.dir, "policy.yaml") }
func (a audit) log() string    { return filepath.Join(a.dir, "audit.log") }

// args are the API server's.
func (a audit) args() []string {
	return []string{"--audit-policy-file=" + a.policy(), "--audit-log-path=" + a.log(), "--audit-log-maxsize=1000"}
}

// auditEvent is what is read of one line.
type auditEvent struct {
	Verb     string    `json:"verb"`
	Received time.Time `json:"requestReceivedTimestamp"`
	Done     time.Time `json:"stageTimestamp"`
	User     struct {
		Extra map[string][]string `json:"extra"`
		Name  string              `json:"username"`
	} `json:"user"`
	Object struct {
		Resource  string `json:"resource"`
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Request struct {
		Spec struct {
			Replicas *int    `json:"replicas"`
			Holder   *string `json:"holderIdentity"`
		} `json:"spec"`
	} `json:"requestObject"`
}

// read returns the writes of scales since an instant, and all changes of the lease. A workload is
// named by its namespace.
func (a audit) read(since time.Time) (writes []promises.Write, leases []promises.Lease, err error) {
	f, err := os.Open(a.log())
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	count := map[string]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // the last line may be half written
		}
		if e.Response.Code < 200 || e.Response.Code > 299 {
			continue
		}
		switch {
		case e.Object.Resource == "leases" && e.Object.Name == "sluice-controller" && e.Request.Spec.Holder != nil:
			holder, _, _ := strings.Cut(*e.Request.Spec.Holder, "_")
			if len(leases) == 0 || leases[len(leases)-1].Holder != holder {
				leases = append(leases, promises.Lease{At: e.Done.Sub(since), Holder: holder})
			}
		case e.Object.Resource == "deployments" && e.Request.Spec.Replicas != nil:
			w := promises.Write{Workload: e.Object.Namespace, At: e.Received.Sub(since), From: count[e.Object.Namespace], To: *e.Request.Spec.Replicas}
			if pod := e.User.Extra["authentication.kubernetes.io/pod-name"]; len(pod) == 1 {
				w.Writer = pod[0]
			}
			count[w.Workload] = w.To
			if w.At >= 0 {
				writes = append(writes, w)
			}
		}
	}
	return writes, leases, lines.Err()
}

// recorder records requests and faults for the checker.
type recorder struct {
	begin time.Time
	mu    sync.Mutex
	h     promises.History
}

// holdTimeout is the chart's default of gateway.holdTimeout.
const holdTimeout = 60 * time.Second

func newRecorder(workloads ...promises.Workload) *recorder {
	return &recorder{begin: time.Now(), h: promises.History{Workloads: workloads, Hold: holdTimeout}}
}

func (r *recorder) now() time.Duration { return time.Since(r.begin) }

// ask sends one request over a connection of its own, and records it.
func (r *recorder) ask(ctx context.Context, workload, url string) error {
	begin := r.now()
	err := getWithin(ctx, url, 2*holdTimeout)
	if ctx.Err() != nil { // the test was stopped
		return ctx.Err()
	}
	q := promises.Request{Workload: workload, Begin: begin, End: r.now()}
	if err != nil {
		q.Failure = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Requests = append(r.h.Requests, q)
	return err
}

func getWithin(ctx context.Context, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return getUnbounded(ctx, fresh(), url)
}

// fault records one.
func (r *recorder) fault(f promises.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Faults = append(r.h.Faults, f)
}

// history is what was recorded until now, with the API server's record.
func (r *recorder) history(a audit) (promises.History, error) {
	writes, leases, err := a.read(r.begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.h
	h.Requests, h.Faults = slices.Clone(h.Requests), slices.Clone(h.Faults)
	known := map[string]bool{}
	for _, w := range h.Workloads {
		known[w.Name] = true
	}
	for _, w := range writes {
		if known[w.Workload] { // others are of other tests
			h.Writes = append(h.Writes, w)
		}
	}
	h.Leases = leases
	return h, err
}

// load keeps requests in flight at a workload, as many as set says.
type load struct {
	want atomic.Int64
	stop func()
}

// load begins with none.
func (r *recorder) load(ctx context.Context, workload, url string, most, ms int) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{}
	var clients sync.WaitGroup
	for i := range int64(most) {
		clients.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if i >= l.want.Load() {
					select {
					case <-ctx.Done():
					case <-tick.C:
					}
					continue
				}
				if r.ask(context.WithoutCancel(ctx), workload, fmt.Sprintf("%s/?ms=%d", url, ms)) != nil {
					select { // a refused connection is refused at once: no storm of them
					case <-ctx.Done():
					case <-tick.C:
					}
				}
			}
		})
	}
	l.stop = func() { cancel(); clients.Wait() }
	return l
}

func (l *load) set(n int) { l.want.Store(int64(n)) }

// verify holds a history against the promises.
func verify(t *testing.T, h promises.History) []promises.Violation {
	t.Helper()
	all := promises.Check(h)
	for i, v := range all {
		if i == 20 {
			t.Errorf("and %d more", len(all)-i)
			break
		}
		t.Error(v)
	}
	return all
}

// leader is the host's number of the process that holds the lease, and its pod; 0 for none.
func leader(ctx context.Context) (pid int, pod string) {
	out, err := cluster.Kubectl(ctx, "get", "lease", "sluice-controller", "-n", kit.Namespace, "-o", "jsonpath={.spec.holderIdentity}")
	if err != nil {
		return 0, ""
	}
	pod, _, _ = strings.Cut(out, "_")
	for _, p := range cluster.Processes("sluice-controller") {
		if p.Pod == pod {
			return p.PID, pod
		}
	}
	return 0, pod
}
