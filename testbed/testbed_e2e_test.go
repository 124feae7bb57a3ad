//go:build e2e

package testbed_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/internal/pki"
)

// build compiles a package of this module.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	return out
}

// logWriter writes lines to the test's log.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// get returns the body, or why there is none.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// A connection of its own each time, so that kube-proxy chooses anew.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func manifest(t *testing.T, objects ...map[string]any) []byte {
	t.Helper()
	var out []byte
	for _, o := range objects {
		data, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, "---\n"...), data...)
	}
	return out
}

type object = map[string]any

func app(name string, replicas int, env ...object) []map[string]any {
	labels := object{"app": name}
	return []map[string]any{
		{
			"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": name},
			"spec": object{
				"replicas": replicas, "selector": object{"matchLabels": labels},
				"template": object{"metadata": object{"labels": labels}, "spec": object{"containers": []object{{
					"name": "app", "image": "testbed/app", "env": env,
					"readinessProbe": object{"httpGet": object{"path": "/", "port": 8080}, "periodSeconds": 1},
				}}}},
			},
		},
		{
			"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name},
			"spec": object{"selector": labels, "ports": []object{{"name": "http", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443, "targetPort": 8443}}},
		},
	}
}

// awaitReplicas waits until the Deployment has n ready pods.
func awaitReplicas(t *testing.T, c *testbed.Cluster, name string, n int) {
	t.Helper()
	err := testbed.WaitFor(t.Context(), 30*time.Second, fmt.Sprintf("%d ready pods of %s", n, name), func(ctx context.Context) (string, bool) {
		out, err := c.Kubectl(ctx, "get", "deployment", name, "-o", "jsonpath={.status.readyReplicas}")
		return fmt.Sprintf("%q %v", out, err), out == strconv.Itoa(n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func jsonpath(t *testing.T, c *testbed.Cluster, path string, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), append(append([]string{"get"}, args...), "-o", "jsonpath="+path)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCluster(t *testing.T) {
	begun := time.Now()
	dir := t.TempDir()
	c, err := testbed.Start(t.Context(), testbed.Options{Dir: dir, Images: map[string]string{"testbed/app": build(t, "./testdata/app")}, Progress: logWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Errorf("Kill: %v", err)
		}
	})
	t.Logf("started in %s", time.Since(begun))

	begun = time.Now()
	if err := c.Apply(t.Context(), manifest(t, app("web", 2)...)); err != nil {
		t.Fatal(err)
	}
	awaitReplicas(t, c, "web", 2)
	t.Logf("two pods ready in %s", time.Since(begun))
	service := jsonpath(t, c, "{.spec.clusterIP}", "service", "web")

	t.Run("the host reaches all pods through the Service", func(t *testing.T) {
		seen := map[string]bool{}
		err := testbed.WaitFor(t.Context(), 10*time.Second, "answers of two pods", func(ctx context.Context) (string, bool) {
			body, err := get(ctx, "http://"+service)
			if err == nil {
				seen[body] = true
			}
			return fmt.Sprintf("seen %v, last error %v", seen, err), len(seen) == 2
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("pods reach the Service, themselves included", func(t *testing.T) {
		pod := strings.Fields(jsonpath(t, c, "{.items[*].status.podIP}", "pods", "-l", "app=web"))[0]
		seen := map[string]int{}
		// kube-proxy chooses at random: that 40 choices are all the same has a chance of one in
		// 5e11.
		for range 40 {
			body, err := get(t.Context(), "http://"+pod+":8080/fetch?url=http://"+service)
			if err != nil {
				t.Fatalf("pod %s calls Service %s: %v; seen before: %v", pod, service, err, seen)
			}
			seen[body]++
		}
		if len(seen) != 2 {
			t.Errorf("pod %s saw %v of the Service, want two pods", pod, seen)
		}
	})
	t.Run("kubectl logs", func(t *testing.T) {
		out, err := c.Kubectl(t.Context(), "logs", "deployment/web")
		if err != nil || !strings.Contains(out, "app started") {
			t.Errorf("kubectl logs = %q, %v, want the line that the app wrote", out, err)
		}
	})
	t.Run("an aggregated API is discovered", func(t *testing.T) { aggregated(t, c) })
	t.Run("a second testbed is refused", func(t *testing.T) {
		_, err := testbed.Start(t.Context(), testbed.Options{})
		if want := fmt.Sprintf("process %d runs a testbed already", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start = %v, want an error with %q", err, want)
		}
	})
	t.Run("another process can attach", func(t *testing.T) {
		other, err := testbed.Attach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if out, err := other.Kubectl(t.Context(), "get", "--raw", "/readyz"); err != nil || out != "ok" {
			t.Errorf("readyz = %q, %v, want ok", out, err)
		}
	})

	mine := descendants(t, os.Getpid())
	begun = time.Now()
	if err := c.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("Stop took %s, want a few seconds", took)
	}
	nothingLeft(t, mine, dir)
	if err := c.Err(); err != nil {
		t.Errorf("Err after Stop = %v, want nil", err)
	}
}

// aggregated registers an API that a pod serves, and finds it in discovery.
func aggregated(t *testing.T, c *testbed.Cluster) {
	authority, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Identity{Name: "api", Hosts: []string{"api.default.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Cert, pair.Key); err != nil {
		t.Fatal(err)
	}
	front, err := c.Kubectl(t.Context(), "get", "-n", "kube-system", "configmap", "extension-apiserver-authentication", "-o", `jsonpath={.data.requestheader-client-ca-file}`)
	if err != nil {
		t.Fatal(err)
	}
	objects := append(app("api", 1,
		object{"name": "TLS_CERT", "value": string(pair.Cert)}, object{"name": "TLS_KEY", "value": string(pair.Key)}, object{"name": "FRONT_CA", "value": front},
	), object{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": "v1.test.sluice.dev"},
		"spec": object{
			"group": "test.sluice.dev", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
			"service":  object{"namespace": "default", "name": "api"},
			"caBundle": base64.StdEncoding.EncodeToString(authority.PEM()),
		},
	})
	if err := c.Apply(t.Context(), manifest(t, objects...)); err != nil {
		t.Fatal(err)
	}
	err = testbed.WaitFor(t.Context(), 30*time.Second, "the APIService", func(ctx context.Context) (string, bool) {
		out, err := c.Kubectl(ctx, "get", "apiservice", "v1.test.sluice.dev", "-o", `jsonpath={.status.conditions[?(@.type=="Available")]}`)
		return fmt.Sprintf("%s %v", out, err), strings.Contains(out, `"status":"True"`)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = testbed.WaitFor(t.Context(), 30*time.Second, "its resources in discovery", func(ctx context.Context) (string, bool) {
		out, err := c.Kubectl(ctx, "api-resources", "--api-group=test.sluice.dev", "-o", "name")
		return fmt.Sprintf("%q %v", out, err), out == "things.test.sluice.dev\n"
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := c.Kubectl(t.Context(), "get", "--raw", "/apis/test.sluice.dev/v1"); err != nil {
		t.Errorf("call the API: %v", err)
	}
	out, err := c.Kubectl(t.Context(), "logs", "deployment/api")
	if want := "for testbed-admin by front-proxy-client"; err != nil || !strings.Contains(out, want) {
		t.Errorf("log of the API = %q, %v, want it to hold %q", out, err, want)
	}
}

func TestFailuresAreExplained(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		options testbed.Options
		want    []string
	}{
		{"a component that does not start", testbed.Options{ExtraArgs: map[string][]string{"kube-scheduler": {"--no-such-flag"}}}, []string{"kube-scheduler", "exit status 1", "unknown flag: --no-such-flag"}},
		{"a component that is never ready", testbed.Options{ReadyTimeout: 2 * time.Second, ExtraArgs: map[string][]string{"etcd": {"--listen-client-urls=http://127.0.0.1:2389"}}}, []string{"etcd", "wait 2s", "connection refused"}},
		{"a folder of somebody else", testbed.Options{Dir: foreign}, []string{foreign, "choose another"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := testbed.Start(t.Context(), tc.options)
			if err == nil {
				t.Fatal(errors.Join(errors.New("Start succeeded"), c.Kill()))
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			nothingLeft(t, descendants(t, os.Getpid()), "sluice-testbed-")
		})
	}
	if _, err := os.Stat(filepath.Join(foreign, "precious")); err != nil {
		t.Errorf("a foreign file was touched: %v", err)
	}
}

func TestDeathOfAComponentEndsIt(t *testing.T) {
	c, err := testbed.Start(t.Context(), testbed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill() //nolint:errcheck // asserted by nothingLeft
	mine := descendants(t, os.Getpid())
	for pid, name := range mine {
		if name == "kube-scheduler" {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("still running 20 s after kube-scheduler was killed")
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "kube-scheduler") || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Err = %v, want one that says kube-scheduler was killed", err)
	}
	if err := c.Kill(); err != nil {
		t.Errorf("Kill: %v", err)
	}
	nothingLeft(t, mine, "sluice-testbed-")
}

// command is a running testbed command.
type command struct {
	*exec.Cmd
	lines chan string // of its standard output; closed at its end
}

func up(t *testing.T, program, dir, image string) command {
	t.Helper()
	cmd := exec.Command(program, "up", "--dir", dir, "--image", "testbed/app="+image)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = logWriter{t}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // mostly it has ended
	})
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	select {
	case line := <-lines:
		if !strings.HasPrefix(line, "ready after") {
			t.Fatalf("first line of up = %q, want ready after …", line)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("up was not ready within 2 minutes")
	}
	return command{cmd, lines}
}

// wait returns the exit code.
func (c command) wait(t *testing.T) int {
	t.Helper()
	for range c.lines {
	}
	_ = c.Wait() // an error is the exit code, asserted by the caller
	return c.ProcessState.ExitCode()
}

func TestKillOfTheCommandLeavesNothing(t *testing.T) {
	program, image := build(t, "./cmd/testbed"), build(t, "./testdata/app")
	dir := t.TempDir()
	first := up(t, program, dir, image)
	c, err := testbed.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), manifest(t, app("web", 3)...)); err != nil {
		t.Fatal(err)
	}
	awaitReplicas(t, c, "web", 3)
	started := descendants(t, first.Process.Pid)
	pods := 0
	for _, name := range started {
		if name == "app" {
			pods++
		}
	}
	if pods != 3 {
		t.Errorf("%d processes named app below the command, want 3: %v", pods, started)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// At once, while the kernel still takes the first apart.
	begun := time.Now()
	second := up(t, program, dir, image)
	t.Logf("up again %s after kill -9", time.Since(begun))
	for pid := range started {
		if alive(pid) {
			t.Errorf("process %d (%s) outlived the command", pid, started[pid])
		}
	}
	if code := first.wait(t); code != -1 {
		t.Errorf("exit code of the killed command = %d, want -1", code)
	}

	started = descendants(t, second.Process.Pid)
	begun = time.Now()
	if err := second.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := second.wait(t); code != 0 {
		t.Errorf("exit code after an interrupt = %d, want 0", code)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("stopping took %s, want a few seconds", took)
	}
	nothingLeft(t, started, dir)

	third := up(t, program, dir, image)
	started = descendants(t, third.Process.Pid)
	if out, err := exec.Command(program, "exec", "--", "kubectl", "get", "--raw", "/readyz").CombinedOutput(); err != nil || string(out) != "ok" {
		t.Errorf("exec -- kubectl = %q, %v, want ok", out, err)
	}
	if out, err := exec.Command(program, "down").CombinedOutput(); err != nil {
		t.Errorf("down: %v: %s", err, out)
	}
	if code := third.wait(t); code != 0 {
		t.Errorf("exit code after down = %d, want 0", code)
	}
	nothingLeft(t, started, dir)
}

// descendants returns the processes below pid, by number, with their names.
func descendants(t *testing.T, pid int) map[int]string {
	t.Helper()
	out := map[int]string{}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has just ended
		}
		for field := range strings.FieldsSeq(string(data)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
			if err != nil {
				continue
			}
			out[child] = filepath.Base(exe)
			maps.Copy(out, descendants(t, child))
		}
	}
	return out
}

// alive tells whether the process exists and is more than an entry that nobody has asked for yet.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// nothingLeft checks that the processes are gone, and links and mounts of a testbed with the state
// directory dir too.
func nothingLeft(t *testing.T, processes map[int]string, dir string) {
	t.Helper()
	for pid, name := range processes {
		if alive(pid) {
			t.Errorf("process %d (%s) is still there", pid, name)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Name, "sluice") {
			t.Errorf("network link %s is left", link.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts below %s are left:\n%s", dir, mounts)
	}
	if _, err := testbed.Running(t.Context()); !errors.Is(err, testbed.ErrNotRunning) {
		t.Errorf("Running = %v, want ErrNotRunning", err)
	}
}
