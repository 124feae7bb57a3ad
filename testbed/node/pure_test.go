//go:build !e2e

package node_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

func TestExpand(t *testing.T) {
	lookup := func(name string) (string, bool) { v, ok := map[string]string{"A": "1", "B": ""}[name]; return v, ok }
	tests := map[string]string{
		"": "", "plain": "plain", "$(A)": "1", "x$(A)y$(B)z": "x1yz", "$(NO)": "$(NO)", "$$(A)": "$(A)", "$$$(A)": "$1", "$": "$", "$A": "$A",
		"$(A": "$(A", "a$": "a$",
	}
	for in, want := range tests {
		if got := node.Expand(in, lookup); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestInvocation(t *testing.T) {
	images := map[string]string{"sluice/sidecar": "/host/sluice-sidecar", "app:v2": "/host/app", "localhost:5000/tool": "/host/tool"}
	tests := map[string]struct {
		container v1.Container
		want      node.Invocation
		fails     bool
	}{
		"entry point and args": {
			v1.Container{Image: "sluice/sidecar:dev@sha256:aa", Args: []string{"proxy", "$(PORT)"}},
			node.Invocation{Source: "/host/sluice-sidecar", Program: "/usr/local/bin/sluice-sidecar", Args: []string{"/usr/local/bin/sluice-sidecar", "proxy", "80"}},
			false,
		},
		"a port is not a tag": {
			v1.Container{Image: "localhost:5000/tool"},
			node.Invocation{Source: "/host/tool", Program: "/usr/local/bin/tool", Args: []string{"/usr/local/bin/tool"}},
			false,
		},
		"the tag counts if it is listed": {v1.Container{Image: "app:v3"}, node.Invocation{}, true},
		"unknown":                        {v1.Container{Image: "nginx"}, node.Invocation{}, true},
		"the image's own program, wherever": {
			v1.Container{Image: "app:v2", Command: []string{"/ko-app/app", "-v"}, Args: []string{"x"}},
			node.Invocation{Source: "/host/app", Program: "/usr/local/bin/app", Args: []string{"/usr/local/bin/app", "-v", "x"}},
			false,
		},
		"another image's program": {
			v1.Container{Image: "app:v2", Command: []string{"sluice-sidecar", "-v"}},
			node.Invocation{Source: "/host/sluice-sidecar", Program: "/usr/local/bin/sluice-sidecar", Args: []string{"/usr/local/bin/sluice-sidecar", "-v"}},
			false,
		},
		"a program of the host": {
			v1.Container{Image: "app:v2", Command: []string{"sh", "-c"}, Args: []string{"exit 3"}},
			node.Invocation{Program: "sh", Args: []string{"sh", "-c", "exit 3"}},
			false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := node.InvocationOf(images, &tt.container, func(n string) (string, bool) { return "80", n == "PORT" })
			if (err != nil) != tt.fails {
				t.Fatalf("InvocationOf = %v, want failure: %v", err, tt.fails)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("InvocationOf (-want +got):\n%s", diff)
			}
		})
	}
}

// library is configuration in memory.
type library struct {
	stage
	maps     map[string]*v1.ConfigMap
	services []*v1.Service
}

func (l *library) Services(string) []*v1.Service { return l.services }

func TestEnvironment(t *testing.T) {
	pod := podOf(30, nil, v1.Container{
		Name: "main", Image: "app",
		Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1500m")}},
		Env: []v1.EnvVar{
			{Name: "PLAIN", Value: "http://$(API_SERVICE_HOST)/$(NO)"},
			{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "TIER", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['tier']"}}},
			{Name: "CPUS", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "MAYBE", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
				LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Key: "k", Optional: new(true),
			}}},
		},
	})
	pod.Labels = map[string]string{"tier": "front"}
	l := &library{services: []*v1.Service{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "api"}, Spec: v1.ServiceSpec{ClusterIP: "198.19.0.9", Ports: []v1.ServicePort{{Port: 80}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "headless"}, Spec: v1.ServiceSpec{ClusterIP: "None", Ports: []v1.ServicePort{{Port: 80}}}},
	}}
	facts := node.PodFacts{PodIP: "198.18.1.7", Allocatable: v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Gi")}}
	got, err := node.Environment(t.Context(), pod, &pod.Spec.Containers[0], facts, l)
	if err != nil {
		t.Fatalf("Environment: %v", err)
	}
	for k, want := range map[string]string{
		"PLAIN": "http://198.19.0.9/$(NO)", "IP": "198.18.1.7", "TIER": "front", "CPUS": "2", "MEM": "1024", "HOSTNAME": "web",
		"API_SERVICE_PORT": "80", "API_PORT_80_TCP": "tcp://198.19.0.9:80",
	} {
		if got[k] != want {
			t.Errorf("%s = %q, want %q", k, got[k], want)
		}
	}
	for _, k := range []string{"MAYBE", "HEADLESS_SERVICE_HOST"} {
		if v, ok := got[k]; ok {
			t.Errorf("%s = %q, want it unset", k, v)
		}
	}

	pod.Spec.Containers[0].Env[5].ValueFrom.ConfigMapKeyRef.Optional = nil
	if _, err := node.Environment(t.Context(), pod, &pod.Spec.Containers[0], facts, l); !errors.Is(err, node.ErrMissing) {
		t.Errorf("Environment with a missing ConfigMap = %v, want %v", err, node.ErrMissing)
	}
}

func running(started, ready bool) *node.ContainerRecord {
	return &node.ContainerRecord{State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}, Started: started, Ready: ready, ID: "i"}
}

func exited(code int32) v1.ContainerState {
	return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}
}

func TestStatus(t *testing.T) {
	pod := podOf(30, []v1.Container{container("init"), container("side", sidecar)}, container("main"))
	pod.Generation = 3
	wait := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "PodInitializing"}}
	done := &node.ContainerRecord{State: exited(0), Ready: true}
	tests := map[string]struct {
		init, side, main *node.ContainerRecord
		final            bool
		phase            v1.PodPhase
		initialized      bool
		ready            bool
	}{
		"nothing yet":               {&node.ContainerRecord{State: wait}, &node.ContainerRecord{State: wait}, &node.ContainerRecord{State: wait}, false, v1.PodPending, false, false},
		"init runs":                 {running(true, false), &node.ContainerRecord{State: wait}, &node.ContainerRecord{State: wait}, false, v1.PodPending, false, false},
		"sidecar not started":       {done, running(false, false), &node.ContainerRecord{State: wait}, false, v1.PodPending, false, false},
		"main not created":          {done, running(true, true), &node.ContainerRecord{State: wait}, false, v1.PodPending, true, false},
		"main runs":                 {done, running(true, true), running(true, false), false, v1.PodRunning, true, false},
		"all ready":                 {done, running(true, true), running(true, true), false, v1.PodRunning, true, true},
		"sidecar unready":           {done, running(true, false), running(true, true), false, v1.PodRunning, true, false},
		"sidecar restarts":          {done, &node.ContainerRecord{State: wait, Last: exited(1)}, running(true, true), false, v1.PodRunning, true, false},
		"main in back-off":          {done, running(true, true), &node.ContainerRecord{State: wait, Last: exited(1)}, false, v1.PodRunning, true, false},
		"main ended, sidecar stays": {done, running(true, true), &node.ContainerRecord{State: exited(0)}, false, v1.PodRunning, true, false},
		"over, well":                {done, &node.ContainerRecord{State: exited(137)}, &node.ContainerRecord{State: exited(0)}, true, v1.PodSucceeded, true, false},
		"over, badly":               {done, &node.ContainerRecord{State: exited(0)}, &node.ContainerRecord{State: exited(1)}, true, v1.PodFailed, true, false},
		"over before it began":      {done, running(true, true), &node.ContainerRecord{State: wait}, true, v1.PodFailed, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rec := node.NewPodRecord(pod, "198.18.0.1", time.Unix(1, 0))
			rec.Containers = map[string]*node.ContainerRecord{"init": tt.init, "side": tt.side, "main": tt.main}
			rec.Final = tt.final
			got := node.BuildStatus(pod, &v1.PodStatus{}, &rec, nil, time.Unix(100, 0))
			if got.Phase != tt.phase {
				t.Errorf("phase = %s, want %s", got.Phase, tt.phase)
			}
			for _, c := range got.Conditions {
				want := c.Status
				switch c.Type { //nolint:exhaustive // the others are not the case's matter
				case v1.PodInitialized:
					want = map[bool]v1.ConditionStatus{true: v1.ConditionTrue, false: v1.ConditionFalse}[tt.initialized]
				case v1.PodReady, v1.ContainersReady:
					want = map[bool]v1.ConditionStatus{true: v1.ConditionTrue, false: v1.ConditionFalse}[tt.ready]
				}
				if c.Status != want || c.ObservedGeneration != 3 {
					t.Errorf("condition %s = %s (generation %d), want %s (3)", c.Type, c.Status, c.ObservedGeneration, want)
				}
			}
		})
	}
}

func TestStatusKeepsTimesAndConditionsOfOthers(t *testing.T) {
	pod := podOf(30, nil, container("main"))
	pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	rec := node.NewPodRecord(pod, "198.18.0.1", time.Unix(1, 0))
	rec.Containers["main"] = running(true, true)
	early := metav1.NewTime(time.Unix(5, 0))
	old := v1.PodStatus{Conditions: []v1.PodCondition{
		{Type: v1.PodScheduled, Status: v1.ConditionTrue, LastTransitionTime: early},
		{Type: v1.ContainersReady, Status: v1.ConditionTrue, LastTransitionTime: early},
		{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: early},
		{Type: "example.com/gate", Status: v1.ConditionFalse, LastTransitionTime: early},
	}}
	got := map[v1.PodConditionType]v1.PodCondition{}
	for _, c := range node.BuildStatus(pod, &old, &rec, nil, time.Unix(100, 0)).Conditions {
		got[c.Type] = c
	}
	late := metav1.NewTime(time.Unix(100, 0))
	want := map[v1.PodConditionType]v1.PodCondition{
		v1.PodReadyToStartContainers: {Status: v1.ConditionFalse, LastTransitionTime: late},
		v1.PodInitialized:            {Status: v1.ConditionTrue, LastTransitionTime: late},
		v1.ContainersReady:           {Status: v1.ConditionTrue, LastTransitionTime: early},
		v1.PodReady:                  {Status: v1.ConditionFalse, LastTransitionTime: late, Reason: "ReadinessGatesNotReady"},
		v1.PodScheduled:              {Status: v1.ConditionTrue, LastTransitionTime: early},
		"example.com/gate":           {Status: v1.ConditionFalse, LastTransitionTime: early},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(v1.PodCondition{}, "Type", "Message")); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}

	now := node.BuildStatus(pod, &old, &rec, nil, time.Unix(100, 0))
	patch, err := node.StatusPatch(pod, &now, &now)
	if err != nil || patch != nil {
		t.Errorf("patch of nothing = %s, %v; want none", patch, err)
	}
	patch, err = node.StatusPatch(pod, &old, &now)
	if err != nil || !strings.Contains(string(patch), `"uid":"u1"`) || strings.Contains(string(patch), "example.com/gate\",\"status") {
		t.Errorf("patch = %s, %v; want one bound to the UID that leaves the gate alone", patch, err)
	}
}

func TestAddressesAreNotUsedAgainSoon(t *testing.T) {
	n, err := node.NewNetwork("br", netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.0.0.0/29"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	take := func() netip.Addr {
		a, err := n.Allocate()
		if err != nil {
			got = append(got, err.Error())
			return a
		}
		got = append(got, a.String())
		return a
	}
	first := take()
	n.Release(first)
	for range 6 {
		take()
	}
	want := []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "no free pod address"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestVolumeFilesSwitchAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vol")
	write := func(files map[string]node.File) {
		t.Helper()
		if err := node.ReplaceFiles(dir, files); err != nil {
			t.Fatalf("ReplaceFiles: %v", err)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "none"
		}
		return string(b)
	}
	write(map[string]node.File{"a": {Data: []byte("1"), Mode: 0o600}, "sub/b": {Data: []byte("2"), Mode: 0o644}})
	if read("a") != "1" || read("sub/b") != "2" {
		t.Errorf("a, sub/b = %q, %q; want 1, 2", read("a"), read("sub/b"))
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	write(map[string]node.File{"a": {Data: []byte("1"), Mode: 0o600}, "sub/b": {Data: []byte("2"), Mode: 0o644}})
	if after, _ := os.Readlink(filepath.Join(dir, "..data")); after != before {
		t.Error("files that did not change were written anew")
	}
	write(map[string]node.File{"a": {Data: []byte("3"), Mode: 0o600}})
	if read("a") != "3" || read("sub/b") != "none" {
		t.Errorf("a, sub/b = %q, %q; want 3, none", read("a"), read("sub/b"))
	}
	if err := node.ReplaceFiles(dir, map[string]node.File{"../evil": {}}); err == nil {
		t.Error("a path out of the volume was accepted")
	}
}

func TestLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c", "0.log")
	clock := time.Unix(1000, 0)
	log, err := node.OpenLog(path, func() time.Time { clock = clock.Add(time.Second); return clock })
	if err != nil {
		t.Fatal(err)
	}
	w := node.Lines(log, "stdout")
	for _, part := range []string{"one\ntw", "o\n", "\nlast without end"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		query map[string][]string
		want  string
	}{
		"all":        {nil, "one\ntwo\n\nlast without end\n"},
		"tail":       {map[string][]string{"tailLines": {"2"}}, "\nlast without end\n"},
		"tail none":  {map[string][]string{"tailLines": {"0"}}, ""},
		"since":      {map[string][]string{"sinceTime": {"1970-01-01T00:16:43Z"}}, "\nlast without end\n"},
		"limit":      {map[string][]string{"limitBytes": {"5"}}, "one\nt"},
		"timestamps": {map[string][]string{"timestamps": {"true"}, "tailLines": {"1"}}, "1970-01-01T00:16:44Z last without end\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := node.ParseLogOptions(tt.query, clock)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			var got strings.Builder
			if err := node.CopyLog(t.Context(), &got, func() {}, f, o, func() bool { return false }); err != nil {
				t.Fatal(err)
			}
			if got.String() != tt.want {
				t.Errorf("log = %q, want %q", got.String(), tt.want)
			}
		})
	}

	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	looks := 0
	grows := func() bool {
		if looks++; looks == 2 {
			line := "2026-01-01T00:00:00Z stdout P grown\n2026-01-01T00:00:00Z stdout F  up\n"
			if err := os.WriteFile(path, append(mustRead(t, path), line...), 0o600); err != nil {
				t.Error(err)
			}
		}
		return looks < 2
	}
	tailOne, err := node.ParseLogOptions(map[string][]string{"tailLines": {"1"}}, clock)
	if err != nil {
		t.Fatal(err)
	}
	var followed strings.Builder
	if err := node.CopyLog(t.Context(), &followed, func() {}, f, tailOne, grows); err != nil {
		t.Fatal(err)
	}
	if want := "last without end\ngrown up\n"; followed.String() != want {
		t.Errorf("followed log = %q, want %q", followed.String(), want)
	}
	if _, err := node.ParseLogOptions(map[string][]string{"tailLines": {"many"}}, clock); err == nil {
		t.Error("tailLines=many was accepted")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return b
}
