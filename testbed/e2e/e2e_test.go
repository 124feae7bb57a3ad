//go:build e2e

// Package e2e_test shows on a real control plane that Sluice does what it promises: exact numbers,
// no lost request on the way to zero and back, nothing scaled down on what is unknown, no jump when
// the controller dies.
package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// cluster is the one testbed of this package's tests, with Sluice installed, and record what its API
// server records.
var (
	cluster *kit.Cluster
	record  audit
)

// What `make robustness`, `make faults` and `make bench-tenants` ask for beyond `make e2e`.
var (
	robustnessTime = flag.Duration("robustness", time.Minute, "how long TestRobustness does faults; 0 leaves it out")
	robustnessSeed = flag.Uint64("seed", 4, "the seed of TestRobustness; 0: a new one")
	faultsOut      = flag.String("faults", "", "TestFaults does all faults, and writes its table to this `folder`")
	faultsLong     = flag.String("faults-long", "30,90", "`seconds` for which the API server and etcd are stopped, such as 30,90,600")
	faultsOnly     = flag.String("faults-only", "", "`part` of the names of the faults to do")
	migrationRuns  = flag.Bool("migration", false, "run TestMigration")
	tenantsOut     = flag.String("tenants", "", "TestTenantsBench writes its summary to this `folder`")
	tenantsCycles  = flag.Int("cycles", 20, "how often TestTenantsBench wakes its victim under each attack")
)

func TestMain(m *testing.M) {
	testbed.MaybeChild()
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	place, err := kit.Find()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if record, err = newAudit(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(record.dir) //nolint:errcheck // a temporary folder
	images := map[string]string{
		adversaryImage: filepath.Join(place.Bin, "adversary"), providerImage: filepath.Join(place.Bin, "metrics-provider"),
	}
	if _, err := os.Stat(upstream(place)); err == nil { // TestMigration says if it is not there
		images[upstreamImage] = upstream(place)
	}
	cluster, err = kit.Start(ctx, place, testbed.Options{
		Progress: os.Stderr, Images: images,
		ExtraArgs: map[string][]string{
			"kube-apiserver": record.args(),
			// A node whose API server was stopped for ten minutes is not lost.
			"kube-controller-manager": {"--node-monitor-grace-period=30m"},
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: start the testbed:", err)
		return 1
	}
	defer func() {
		stop, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := cluster.Stop(stop); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: stop the testbed:", err)
		}
	}()
	if err := cluster.Install(ctx, 2*time.Minute); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: install Sluice:", err)
		fmt.Fprintln(os.Stderr, cluster.PodLogs(ctx, kit.Namespace, "", 50))
		return 1
	}
	return m.Run()
}

// logsOnFailure prints the logs of Sluice's pods, and the Autoscaler, when a test has failed.
func logsOnFailure(t *testing.T, namespace string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx := context.WithoutCancel(t.Context())
		if out, err := cluster.Kubectl(ctx, "get", "autoscalers,deploy,hpa,pods,endpointslices", "-n", namespace, "-o", "wide"); err == nil {
			t.Log(out)
		}
		if out, err := cluster.Kubectl(ctx, "get", "autoscalers", "-n", namespace, "-o", "yaml"); err == nil {
			t.Log(out)
		}
		t.Log(cluster.PodLogs(ctx, kit.Namespace, "", 30))
		// who leads requests to pods, and who ends them
		for _, component := range []string{"kube-proxy", "testbed"} {
			if out, err := cluster.Logs(component, 30); err == nil {
				t.Logf("--- %s\n%s", component, out)
			}
		}
	})
}

// web applies the example app in a namespace of its own and returns the address of its Service.
// Each change replaces text in the manifest.
func web(t *testing.T, namespace string, changes ...string) string {
	t.Helper()
	apply(t, namespace, "web.yaml", changes...)
	url, err := cluster.ServiceURL(t.Context(), namespace, "web")
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// apply applies an example with replacements (old, new, …); a text to replace that is not there
// fails the test.
func apply(t *testing.T, namespace, example string, changes ...string) {
	t.Helper()
	logsOnFailure(t, namespace)
	if err := cluster.EnsureNamespace(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(cluster.Place.Example(example))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s has no %q to replace", example, changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	text = strings.ReplaceAll(text, "metadata:\n  name: web\n", "metadata:\n  name: web\n  namespace: "+namespace+"\n")
	if err := cluster.Apply(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// get asks once and returns an error for anything but 200.
func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return getUnbounded(ctx, client, url)
}

// getUnbounded is get without a bound of its own.
func getUnbounded(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// fresh is a client that opens a connection for every request and repeats nothing.
func fresh() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// wait polls until a condition holds.
func wait(t *testing.T, timeout time.Duration, what string, poll func(ctx context.Context) (string, bool)) {
	t.Helper()
	if err := testbed.WaitFor(t.Context(), timeout, what, poll); err != nil {
		t.Fatal(err)
	}
}

// answers waits until a Service that was just made has somebody to answer: until then the cluster
// refuses connections.
func answers(t *testing.T, url string) {
	t.Helper()
	client := fresh()
	wait(t, time.Minute, "an answer of "+url, func(ctx context.Context) (string, bool) {
		err := get(ctx, client, url)
		return fmt.Sprint(err), err == nil
	})
}

// waitReplicas waits for a state of web's replicas.
func waitReplicas(t *testing.T, namespace string, timeout time.Duration, what string, want func(spec, ready int32) bool) {
	t.Helper()
	if err := cluster.WaitReplicas(t.Context(), timeout, namespace, "web", what, want); err != nil {
		t.Fatal(err)
	}
}

// asleep waits until web has no replicas.
func asleep(t *testing.T, namespace string) {
	t.Helper()
	waitReplicas(t, namespace, 90*time.Second, "no replicas", func(spec, ready int32) bool { return spec == 0 && ready == 0 })
}
