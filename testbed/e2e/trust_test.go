//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// closedLoop keeps n requests in flight, each of the given milliseconds, until stop is called,
// which returns how many were answered and the first fault.
func closedLoop(ctx context.Context, url string, n, ms int) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		mu       sync.Mutex
		answered int
		fault    error
		clients  sync.WaitGroup
	)
	for range n {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				err := get(context.WithoutCancel(ctx), client, fmt.Sprintf("%s/?ms=%d", url, ms))
				mu.Lock()
				if err == nil {
					answered++
				} else if fault == nil {
					fault = err
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, error) {
		cancel()
		clients.Wait()
		return answered, fault
	}
}

// TestExactness holds 7 and 23 requests in flight over three pods each and reads the served value,
// which must be within 2 % of the truth, with the collector reading every 1, 5 and 15 s. Beside the first of these, whose load is light, observe mode is tested on a workload of
// its own. It is not parallel: it restarts the controller.
func TestExactness(t *testing.T) {
	urls := map[int]string{}
	for _, n := range []int{7, 23} {
		ns := fmt.Sprintf("exact-%d", n)
		urls[n] = web(t, ns, "replicas: 1", "replicas: 3")
		waitReplicas(t, ns, time.Minute, "3 ready", func(_, ready int32) bool { return ready == 3 })
		answers(t, urls[n])
	}
	for _, interval := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second} {
		t.Run(interval.String(), func(t *testing.T) {
			if err := cluster.Install(t.Context(), 2*time.Minute, "--set", "controller.collectInterval="+interval.String()); err != nil {
				t.Fatal(err)
			}
			if interval == time.Second {
				t.Run("observe mode", observeMode)
			}
			t.Run("proxies", func(t *testing.T) {
				t.Parallel()
				var loops sync.WaitGroup
				for n, url := range urls {
					loops.Go(func() { exact(t, n, url, interval) })
				}
				loops.Wait()
			})
		})
	}
	// the defaults again, for the tests after this one
	if err := cluster.Install(t.Context(), 2*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// exact keeps n requests in flight and holds what the API serves against that.
func exact(t *testing.T, n int, url string, interval time.Duration) {
	// long ones: between two, on a busy machine, a client is not in flight
	stop := closedLoop(t.Context(), url, n, 2500)
	reads, worst := holds(t, fmt.Sprintf("exact-%d", n), n, metricWindow+interval, 0.02)
	answered, err := stop()
	if err != nil {
		t.Errorf("N = %d: a request was lost: %v", n, err)
	}
	t.Logf("N = %d: %d reads, the worst %.2f %% off; %d requests answered", n, reads, 100*worst, answered)
}

// metricWindow is the window of request_concurrency, and two seconds for the last read of a collector.
const metricWindow = 17 * time.Second

// holds reads what the API serves of web in a namespace, with n requests in flight, each second
// once settle is over: a window and a collection before it is all load. More than the tolerance
// off, as a share, is an error. It reads for 12 s; SLUICE_LONG makes it a minute.
func holds(t *testing.T, namespace string, n int, settle time.Duration, tolerance float64) (reads int, worst float64) {
	hold := 12 * time.Second
	if os.Getenv("SLUICE_LONG") != "" {
		hold = time.Minute
	}
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Since(began) < settle+hold {
		<-tick.C
		if time.Since(began) < settle {
			continue
		}
		m, err := cluster.DeploymentMetric(t.Context(), namespace, "web", "request_concurrency", 0)
		if err != nil {
			t.Errorf("N = %d: read the metric: %v", n, err)
			continue
		}
		reads++
		off := m.Value/float64(n) - 1
		if math.Abs(off) > math.Abs(worst) {
			worst = off
		}
		if math.Abs(off) > tolerance {
			t.Errorf("N = %d: the API serves %.3f, %.1f %% off", n, m.Value, 100*off)
		}
	}
	return reads, worst
}

// watch follows web's spec.replicas and calls seen on every change, until stop is called.
func watch(ctx context.Context, ns string, seen func(spec int32)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := int32(-1)
		for ctx.Err() == nil {
			if spec, _, err := cluster.Replicas(ctx, ns, "web"); err == nil && spec != last {
				last = spec
				seen(spec)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// quick makes the example Autoscaler decide over shorter windows.
func quick() []string {
	return []string{"stableWindow: 12s, panicWindowPercentage: 25", "stableWindow: 6s, panicWindowPercentage: 50", "after: 12s", "after: 6s"}
}

// TestUnknownIsNotZero makes the metrics ports of all of a workload's sidecars unreachable for the
// controller, under load and then without any: replicas must not fall until they can be read again.
func TestUnknownIsNotZero(t *testing.T) {
	t.Parallel()
	const ns = "unknown"
	url := web(t, ns)
	apply(t, ns, "autoscaler.yaml", quick()...)
	answers(t, url)
	stop := closedLoop(t.Context(), url, 30, 500)
	waitReplicas(t, ns, time.Minute, "at least 3 ready", func(_, ready int32) bool { return ready >= 3 })
	waitReplicas(t, ns, time.Minute, "as many ready as wanted", func(spec, ready int32) bool { return ready == spec })

	controllers, err := cluster.Pods(t.Context(), kit.Namespace, kit.ControllerSelector)
	if err != nil || len(controllers) == 0 {
		t.Fatalf("find the controller: %v, %d pods", err, len(controllers))
	}
	var least int32 = math.MaxInt32
	var mu sync.Mutex
	unwatch := watch(t.Context(), ns, func(spec int32) { mu.Lock(); least = min(least, spec); mu.Unlock() })
	before, _, err := cluster.Replicas(t.Context(), ns, "web")
	if err != nil {
		t.Fatal(err)
	}
	pods, err := cluster.Pods(t.Context(), ns, "app=web")
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	for _, c := range controllers {
		from = append(from, c.Status.PodIP)
	}
	for _, p := range pods {
		for _, rule := range []string{"add table ip cut", "add chain ip cut in { type filter hook input priority 0; }", "add rule ip cut in ip saddr {" + strings.Join(from, ",") + "} tcp dport 9095 drop"} {
			if out, err := cluster.InPod(t.Context(), ns, p.Name, append([]string{"nft"}, strings.Fields(rule)...)...); err != nil {
				t.Fatalf("cut off %s: %v: %s", p.Name, err, out)
			}
		}
	}
	held := func(ctx context.Context) (string, bool) {
		as, err := cluster.Autoscaler(ctx, ns, "web")
		if err != nil {
			return err.Error(), false
		}
		for _, c := range as.Status.Conditions {
			if c.Type == "ScalingActive" {
				return c.Reason + ": " + c.Message, c.Status == "False"
			}
		}
		return "no condition", false
	}
	wait(t, 30*time.Second, "ScalingActive=False", held)
	if _, err := cluster.DeploymentMetric(t.Context(), ns, "web", "request_concurrency", 0); err == nil {
		t.Error("the metrics API serves a value of pods that cannot be read, want an error")
	} else {
		t.Logf("the metrics API says: %v", err)
	}
	if _, err := stop(); err != nil {
		t.Errorf("a request was lost: %v", err)
	}
	// Idle and blind for several times the idle time: nothing may happen.
	idle := time.NewTimer(20 * time.Second)
	<-idle.C
	unwatch()
	if least < before {
		t.Errorf("replicas fell from %d to %d on unknown signals", before, least)
	}
	for _, p := range pods {
		if out, err := cluster.InPod(t.Context(), ns, p.Name, "nft", "delete", "table", "ip", "cut"); err != nil {
			t.Fatalf("reconnect %s: %v: %s", p.Name, err, out)
		}
	}
	asleep(t, ns)
}

// TestControllerKilled kills the controller with SIGKILL under a steady load: replicas stay as they
// are, and after its restart decisions go on without a jump, up and down. It is not parallel:
// others need the controller.
func TestControllerKilled(t *testing.T) {
	const ns = "killed"
	url := web(t, ns)
	apply(t, ns, "autoscaler.yaml", quick()...)
	answers(t, url)
	stop := closedLoop(t.Context(), url, 35, 500)
	waitReplicas(t, ns, time.Minute, "4 ready", func(spec, ready int32) bool { return ready == 4 && spec == 4 })
	steady := time.NewTimer(8 * time.Second) // panic is over, the windows are full
	<-steady.C
	before, _, err := cluster.Replicas(t.Context(), ns, "web")
	if err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	var seen []int32
	unwatch := watch(t.Context(), ns, func(spec int32) { mu.Lock(); seen = append(seen, spec); mu.Unlock() })
	pid, err := awaitLeader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := kill(pid); err != nil {
		t.Fatal(err)
	}
	wait(t, time.Minute, "another controller process that leads", func(ctx context.Context) (string, bool) {
		p, _ := leader(ctx)
		return strconv.Itoa(p), p != 0 && p != pid
	})
	if err := cluster.WaitInstalled(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	after := time.NewTimer(20 * time.Second)
	<-after.C
	unwatch()
	for _, spec := range seen {
		if spec != before {
			t.Errorf("replicas went %v around the kill under a steady load, want %d all the time", seen, before)
			break
		}
	}
	more := closedLoop(t.Context(), url, 30, 500)
	waitReplicas(t, ns, time.Minute, "at least 6 ready after more load", func(_, ready int32) bool { return ready >= 6 })
	for _, f := range []func() (int, error){more, stop} {
		if _, err := f(); err != nil {
			t.Errorf("a request was lost: %v", err)
		}
	}
	asleep(t, ns)
}

// TestStockHPA lets a plain HorizontalPodAutoscaler scale on Sluice's metric: 1 → at least 4 → 1,
// with no request lost.
func TestStockHPA(t *testing.T) {
	t.Parallel()
	const ns = "hpa"
	url := web(t, ns)
	apply(t, ns, "hpa.yaml")
	answers(t, url)
	stop := closedLoop(t.Context(), url, 45, 500)
	waitReplicas(t, ns, 90*time.Second, "at least 4 ready", func(_, ready int32) bool { return ready >= 4 })
	out, err := cluster.HPAs(t.Context(), ns)
	if err != nil || strings.Contains(out, "<unknown>") {
		t.Errorf("kubectl get hpa: %v\n%s\nwant a current value", err, out)
	}
	if _, err := stop(); err != nil {
		t.Errorf("a request was lost: %v", err)
	}
	waitReplicas(t, ns, 2*time.Minute, "1 again", func(spec, ready int32) bool { return spec == 1 && ready == 1 })
}
