//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
	"github.com/sluice-autoscaler/sluice/testbed/promises"
)

// faultRow is one fault and what it cost, as out/faults/summary.json has it.
type faultRow struct {
	Fault   string `json:"fault"`
	Seconds int    `json:"seconds"`
	// Awake and Asleep count the requests to a workload under load, and to workloads that slept when
	// the fault began.
	Awake  tally `json:"awake"`
	Asleep tally `json:"asleep"`
	// RecoverSeconds is the time from the fault's end, or from a kill, to the answer of a request to
	// a sleeping workload that is sent then; −1: none within two minutes.
	RecoverSeconds float64 `json:"recoverSeconds"`
	// ColdStart is that wake-up by phase, as the Autoscaler's status has it: seconds since the first
	// request. It tells Sluice's share from the cluster's.
	ColdStart *v1alpha1.ColdStartStatus `json:"coldStart,omitempty"`
	// LeastReplicas and MostReplicas are those of the workload under load, which needs
	// NeededReplicas.
	LeastReplicas  int `json:"leastReplicas"`
	MostReplicas   int `json:"mostReplicas"`
	NeededReplicas int `json:"neededReplicas"`
	// Restarts counts containers of Sluice that ended by themselves.
	Restarts int `json:"restarts"`
	// Violations are the broken promises.
	Violations []string `json:"violations"`
}

type tally struct {
	Sent int `json:"sent"`
	Lost int `json:"lost"`
}

// faultStage is what faults are done to: a workload under a load that needs three pods, and three
// that sleep, of which the last starts slowly.
type faultStage struct {
	rec  *recorder
	load *load
	urls map[string]string
}

const (
	underLoad    = "faults-awake"
	sleeperA     = "faults-a"
	sleeperB     = "faults-b"
	slowSleeper  = "faults-slow"
	doomed       = "faults-doomed"
	heldRequests = 12
	// loadClients are as many as need loadNeeds pods at ten each, whatever noise the readings of
	// several pods have.
	loadClients = 24
	loadNeeds   = 3
)

// sleepy are the changes by which the example goes to sleep within seconds.
func sleepy() []string {
	return []string{
		"name: kpa\n    parameters: {stableWindow: 12s, panicWindowPercentage: 25}", "name: target\n    parameters: {window: 1s, stabilizationWindow: 0s}",
		"after: 12s", "after: 1s",
	}
}

func newFaultStage(t *testing.T) *faultStage {
	t.Helper()
	s := &faultStage{urls: map[string]string{}}
	var workloads []promises.Workload
	for _, ns := range []string{underLoad, sleeperA, sleeperB, slowSleeper} {
		var changes []string
		if ns == slowSleeper {
			changes = []string{"args: [--listen=127.0.0.1:8080]", "args: [--listen=127.0.0.1:8080, --ready-after=4s]"}
		}
		s.urls[ns] = web(t, ns, changes...)
		w := promises.Workload{Name: ns, Max: 10}
		if ns == underLoad {
			apply(t, ns, "autoscaler.yaml", quick()...)
			w.Needed = loadNeeds
		} else {
			apply(t, ns, "autoscaler.yaml", sleepy()...)
		}
		workloads = append(workloads, w)
	}
	s.rec = newRecorder(workloads...)
	answers(t, s.urls[underLoad])
	s.load = s.rec.load(t.Context(), underLoad, s.urls[underLoad], loadClients, 500)
	t.Cleanup(s.load.stop)
	s.load.set(loadClients)
	return s
}

// calm waits until all is as a fault should find it.
func (s *faultStage) calm(t *testing.T) {
	t.Helper()
	s.load.set(loadClients)
	if err := cluster.WaitInstalled(t.Context(), 3*time.Minute); err != nil {
		t.Fatal(err)
	}
	waitReplicas(t, underLoad, 2*time.Minute, "3 ready", func(spec, ready int32) bool { return spec == loadNeeds && ready == loadNeeds })
	for _, ns := range []string{sleeperA, sleeperB, slowSleeper} {
		asleep(t, ns)
	}
}

// restarts sums the restarts of Sluice's containers.
func restarts(ctx context.Context) (int, error) {
	pods, err := cluster.Pods(ctx, kit.Namespace, "app.kubernetes.io/name=sluice")
	n := 0
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			n += int(c.RestartCount)
		}
	}
	return n, err
}

// inject does one fault, and tells what it cost.
func (s *faultStage) inject(t *testing.T, in injection) faultRow {
	t.Helper()
	s.calm(t)
	before, err := restarts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	killedBefore := killed.Load()
	first, last := sleeperA, sleeperB
	if in.hits != "" {
		first, last = in.hits, in.hits
	}
	if in.kind == promises.GatewayKilled {
		first = slowSleeper
	}
	var asking sync.WaitGroup
	send := func(ns string, n int) {
		for range n {
			asking.Go(func() { _ = s.rec.ask(t.Context(), ns, s.urls[ns]) }) // it is recorded
		}
	}
	if in.kind == promises.GatewayKilled { // it must hold some when it dies
		send(first, heldRequests)
	}
	began := s.rec.now()
	if err := in.begin(t.Context()); err != nil {
		t.Fatalf("%s: %v", in.kind, err)
	}
	if in.kind == promises.ControllerNoSidecars { // unknown must not look like idle
		s.load.set(0)
	}
	if in.kind != promises.GatewayKilled {
		send(first, 2)
	}
	pause(t, time.Duration(in.seconds)*time.Second)
	if err := in.end(t.Context()); err != nil {
		t.Fatalf("end of %s: %v", in.kind, err)
	}
	ended := s.rec.now()
	s.load.set(loadClients)
	recovered := s.recovery(t.Context(), last)
	if in.untilRecovered {
		ended = s.rec.now()
	}
	asking.Wait()
	if err := cluster.WaitInstalled(t.Context(), 3*time.Minute); err != nil {
		t.Error(err)
	}
	s.rec.fault(promises.Fault{Kind: in.kind, Begin: began, End: ended, Workload: in.hits})
	row := s.row(t, in, began)
	row.RecoverSeconds = recovered
	row.ColdStart = s.coldStart(t.Context(), last, began)
	after, err := restarts(t.Context())
	if err != nil {
		t.Error(err)
	}
	row.Restarts = max(0, after-before-int(killed.Load()-killedBefore))
	return row
}

// pause lets a fault last.
func pause(t *testing.T, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// recovery is how long it takes until a sleeping workload answers, in seconds; −1 if it does not.
func (s *faultStage) recovery(ctx context.Context, ns string) float64 {
	begin := time.Now()
	for time.Since(begin) < 2*holdTimeout {
		if s.rec.ask(ctx, ns, s.urls[ns]) == nil {
			return time.Since(begin).Seconds()
		}
		select {
		case <-ctx.Done():
			return -1
		case <-time.After(100 * time.Millisecond):
		}
	}
	return -1
}

// coldStart is a workload's wake-up since an instant by phase; nil if status does not tell of it.
func (s *faultStage) coldStart(ctx context.Context, ns string, since time.Duration) (seen *v1alpha1.ColdStartStatus) {
	_ = testbed.WaitFor(ctx, 10*time.Second, "the cold start in status", func(ctx context.Context) (string, bool) {
		as, err := cluster.Autoscaler(ctx, ns, "web")
		if err != nil || as.Status.LastColdStart == nil || as.Status.LastColdStart.Detected.Time.Before(s.rec.begin.Add(since)) {
			return "not there", false
		}
		seen = as.Status.LastColdStart
		return "", true
	})
	return seen
}

// row reads from the record what happened since an instant.
func (s *faultStage) row(t *testing.T, in injection, since time.Duration) faultRow {
	t.Helper()
	h, err := s.rec.history(record)
	if err != nil {
		t.Fatal(err)
	}
	row := faultRow{Fault: string(in.kind), Seconds: in.seconds, NeededReplicas: loadNeeds, LeastReplicas: loadNeeds, MostReplicas: loadNeeds, Violations: []string{}}
	for _, r := range h.Requests {
		if r.End < since {
			continue
		}
		at := &row.Asleep
		if r.Workload == underLoad {
			at = &row.Awake
		}
		at.Sent++
		if r.Failure != "" {
			at.Lost++
		}
	}
	for _, w := range h.Writes {
		if w.Workload == underLoad && w.At >= since {
			row.LeastReplicas, row.MostReplicas = min(row.LeastReplicas, w.To), max(row.MostReplicas, w.To)
		}
	}
	// Each fault is judged once, by what began or was written since.
	h.Requests = slices.DeleteFunc(h.Requests, func(r promises.Request) bool { return r.End < since })
	h.Writes = slices.DeleteFunc(h.Writes, func(w promises.Write) bool { return w.At < since })
	for _, v := range verify(t, h) {
		row.Violations = append(row.Violations, v.String())
	}
	return row
}

// allFaults are those of the table. The API server and etcd are stopped for long, in seconds.
func allFaults(long []int) []injection {
	all := []injection{
		olderStandby(), killController(), freezeController(20), killGateway(slowSleeper),
		cutFromAPI(30), cutFromGateways(20), cutFromSidecars(20),
		quotaZero(sleeperA, 10), refuseAdmission(sleeperA, 10),
		remake(promises.ServiceRemade, sleeperA, "service", 5), remake(promises.AutoscalerDeleted, sleeperA, "autoscaler", 5),
		deleteNamespace(doomed), deleteSecrets(10), deleteAPIServices(5),
	}
	for _, seconds := range long {
		all = append(all, halt(promises.APIServerStopped, "kube-apiserver", seconds), halt(promises.EtcdStopped, "etcd", seconds))
	}
	return append(all, growBackOff(3)) // last: a back-off stays grown for ten minutes
}

// TestFaults does faults to a loaded workload and to sleeping ones, and holds what happens against
// the promises: a few short ones in `make test`, all of them in `make faults`, which writes the
// table. Nothing depends on how long anything takes. It is not parallel: it kills what others need.
func TestFaults(t *testing.T) {
	faults := []injection{killGateway(slowSleeper), halt(promises.APIServerStopped, "kube-apiserver", 8), cutFromSidecars(12)}
	if *faultsOut != "" {
		var long []int
		for word := range strings.SplitSeq(*faultsLong, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 {
				t.Fatalf("-faults-long %q: want seconds, such as 30,90", *faultsLong)
			}
			long = append(long, n)
		}
		faults = allFaults(long)
	}
	defer ran.Store(true)
	if err := cluster.EnsureNamespace(t.Context(), doomed); err != nil {
		t.Fatal(err)
	}
	web(t, doomed)
	apply(t, doomed, "autoscaler.yaml", sleepy()...)
	s := newFaultStage(t)
	var rows []faultRow
	for _, in := range faults {
		if !strings.Contains(string(in.kind), *faultsOnly) {
			continue
		}
		t.Run(strings.ReplaceAll(fmt.Sprintf("%s for %d s", in.kind, in.seconds), " ", "_"), func(t *testing.T) {
			row := s.inject(t, in)
			rows = append(rows, row)
			raw, err := json.Marshal(row)
			t.Logf("%s %v", raw, err)
			if row.Restarts > 0 {
				t.Errorf("containers of Sluice restarted %d times by themselves, want 0", row.Restarts)
			}
			if row.RecoverSeconds < 0 && !in.clusters {
				t.Errorf("a sleeping workload does not answer again within %s", 2*holdTimeout)
			}
		})
	}
	if *faultsOut != "" {
		if err := writeFaults(*faultsOut, rows); err != nil {
			t.Error(err)
		}
	}
}

// writeFaults writes the table for programs and for people.
func writeFaults(dir string, rows []faultRow) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(map[string]any{"faults": rows}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "summary.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "faults.md"), []byte(faultTable(rows)), 0o644)
}

const faultIntro = `# What faults cost

` + "`make faults`" + ` makes this table on the testbed. A workload is under a load that needs three pods, and
others sleep. Each fault is done once. Two requests go to a sleeping workload when it begins, and one
to another when it ends. The time to recover is that request's.

- Lost: not answered 200. Which of them may be lost stands in ` + "`testbed/promises`" + `.
- Decided: how much of that time passed before the scale was written. The rest is what the cluster
  takes for a pod, and a gateway to see it. A ReplicaSet's controller that was refused pods tries
  again by its own back-off, up to minutes later.
- Replicas: the least and the most of the workload under load.
- Restarts: containers of Sluice that ended by themselves.
- Not in it: steps of the wall clock. A testbed shares its clock with the machine, and nothing but
  the machine's own clock can be set.

| fault | for | awake: lost of | asleep: lost of | recovered after | decided after | replicas | restarts | broken promises |
|---|---|---|---|---|---|---|---|---|
`

func faultTable(rows []faultRow) string {
	var b strings.Builder
	b.WriteString(faultIntro)
	for _, r := range rows {
		recovered, decided := "never", "?"
		if r.ColdStart != nil && r.ColdStart.Decided != "" {
			decided = strings.TrimSuffix(r.ColdStart.Decided, "s") + " s"
		}
		if r.RecoverSeconds >= 0 {
			recovered = fmt.Sprintf("%.1f s", r.RecoverSeconds)
		}
		fmt.Fprintf(&b, "| %s | %d s | %d of %d | %d of %d | %s | %s | %d–%d | %d | %d |\n", r.Fault, r.Seconds,
			r.Awake.Lost, r.Awake.Sent, r.Asleep.Lost, r.Asleep.Sent, recovered, decided, r.LeastReplicas, r.MostReplicas, r.Restarts, len(r.Violations))
	}
	return b.String()
}

// plain is an object without what the API server adds.
func plain(raw []byte) ([]byte, error) {
	var o map[string]any
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, err
	}
	delete(o, "status")
	if m, ok := o["metadata"].(map[string]any); ok {
		for _, key := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "finalizers"} {
			delete(m, key)
		}
	}
	// The same address again: the clients that wait know no other.
	return json.Marshal(o)
}
