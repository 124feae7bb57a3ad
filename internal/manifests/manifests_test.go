package manifests_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// render returns the chart's manifests.
func render(t *testing.T, args ...string) []byte {
	t.Helper()
	helm := os.Getenv("HELM")
	if helm == "" {
		helm = filepath.Join(root, ".cache", "tools", "helm")
		if _, err := os.Stat(helm); err != nil {
			helm = "helm"
		}
	}
	cmd := exec.CommandContext(t.Context(), helm, append([]string{"template", "sluice", filepath.Join(root, "deploy", "chart"), "--namespace", "sluice"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("render the chart: %v: %s (make .cache/tools/helm builds helm; or set HELM to its path)", err, stderr.String())
	}
	return out
}

// document is one manifest, read as far as all are alike.
type document struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	raw               []byte
}

func documents(t *testing.T, text []byte) []document {
	t.Helper()
	var all []document
	for part := range bytes.SplitSeq(text, []byte("\n---")) {
		d := document{raw: part}
		if err := yaml.Unmarshal(part, &d); err != nil {
			t.Fatalf("read %s: %v", part, err)
		}
		if d.Kind != "" {
			all = append(all, d)
		}
	}
	return all
}

func decode[T any](t *testing.T, d document) *T {
	t.Helper()
	into := new(T)
	if err := yaml.UnmarshalStrict(d.raw, into); err != nil {
		t.Fatalf("read %s %s: %v", d.Kind, d.Name, err)
	}
	return into
}

// restricted names every rule of the Pod Security Standard "restricted" that a pod breaks, and a
// root file system that is not read-only.
func restricted(p *corev1.PodSpec) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.HostNetwork || p.HostPID || p.HostIPC {
		fault("host namespaces")
	}
	pod := p.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if len(pod.Sysctls) > 0 {
		fault("sysctls")
	}
	for i := range p.Volumes {
		if v := &p.Volumes[i]; v.ConfigMap == nil && v.CSI == nil && v.DownwardAPI == nil && v.EmptyDir == nil && v.Ephemeral == nil &&
			v.PersistentVolumeClaim == nil && v.Projected == nil && v.Secret == nil {
			fault("volume %s is of a kind that is not allowed", v.Name)
		}
	}
	for _, c := range slices.Concat(p.InitContainers, p.Containers) {
		s := c.SecurityContext
		if s == nil {
			s = &corev1.SecurityContext{}
		}
		is := func(own, inherited *bool, want bool) bool {
			if own == nil {
				own = inherited
			}
			return own != nil && *own == want
		}
		seccomp := s.SeccompProfile
		if seccomp == nil {
			seccomp = pod.SeccompProfile
		}
		user := s.RunAsUser
		if user == nil {
			user = pod.RunAsUser
		}
		switch {
		case !is(s.AllowPrivilegeEscalation, nil, false):
			fault("container %s: want allowPrivilegeEscalation: false", c.Name)
		case !is(s.RunAsNonRoot, pod.RunAsNonRoot, true):
			fault("container %s: want runAsNonRoot: true", c.Name)
		case user != nil && *user == 0:
			fault("container %s: want a runAsUser that is not root", c.Name)
		case !is(s.ReadOnlyRootFilesystem, nil, true):
			fault("container %s: want readOnlyRootFilesystem: true", c.Name)
		case seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault:
			fault("container %s: want seccompProfile: {type: RuntimeDefault}", c.Name)
		case s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0:
			fault("container %s: want capabilities: {drop: [ALL]}", c.Name)
		case s.Privileged != nil && *s.Privileged, s.ProcMount != nil, s.SELinuxOptions != nil, s.WindowsOptions != nil:
			fault("container %s: want no privileges", c.Name)
		}
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				fault("container %s: host port %d", c.Name, port.HostPort)
			}
		}
	}
	return errors.Join(errs...)
}

// TestPodsAreRestricted holds every pod of the chart and of the examples against the Pod Security
// Standard "restricted".
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	texts := map[string][]byte{
		"chart": render(t), "chart with a history": render(t, "--set", "controller.history.prometheus=http://p", "--set", "controller.history.bearerTokenSecret=p"),
		"chart with rules": render(t, "--set", "prometheus.url=http://p", "--set", "prometheus.bearerTokenSecret=p", "--set", "apiServices.resource=true", "--set", "controller.history.prometheus=http://p"),
	}
	examples, err := filepath.Glob(filepath.Join(root, "deploy", "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range examples {
		if texts[filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	pods := 0
	for name, text := range texts {
		for _, d := range documents(t, text) {
			switch d.Kind {
			case "Deployment":
				pods++
				if err := restricted(&decode[appsv1.Deployment](t, d).Spec.Template.Spec); err != nil {
					t.Errorf("%s: Deployment %s: %v", name, d.Name, err)
				}
			case "Pod", "StatefulSet", "DaemonSet", "Job", "CronJob":
				t.Errorf("%s: %s %s: this test does not know its pods", name, d.Kind, d.Name)
			}
		}
	}
	if pods < 6 {
		t.Errorf("%d Deployments, want those of the chart, twice, and of the examples", pods)
	}
}

// TestRestrictedFindsFaults breaks each rule.
func TestRestrictedFindsFaults(t *testing.T) {
	t.Parallel()
	good := func() *corev1.PodSpec {
		return &corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "app", SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}}},
		}
	}
	if err := restricted(good()); err != nil {
		t.Fatalf("a good pod: %v", err)
	}
	for name, spoil := range map[string]func(p *corev1.PodSpec){
		"no security context": func(p *corev1.PodSpec) { p.Containers[0].SecurityContext = nil },
		"no seccomp":          func(p *corev1.PodSpec) { p.SecurityContext.SeccompProfile = nil },
		"root":                func(p *corev1.PodSpec) { p.SecurityContext.RunAsNonRoot = nil },
		"user 0":              func(p *corev1.PodSpec) { p.SecurityContext.RunAsUser = new(int64(0)) },
		"writable":            func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil },
		"capabilities":        func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.Capabilities.Drop = nil },
		"escalation":          func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(true) },
		"privileged":          func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.Privileged = new(true) },
		"host network":        func(p *corev1.PodSpec) { p.HostNetwork = true },
		"host port":           func(p *corev1.PodSpec) { p.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} },
		"host path": func(p *corev1.PodSpec) {
			p.Volumes = []corev1.Volume{{Name: "x", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		},
	} {
		p := good()
		if spoil(p); restricted(p) == nil {
			t.Errorf("%s: no fault, want one", name)
		}
	}
}

// TestEveryPartSurvivesANode sees that each Deployment of the chart has two replicas that are
// spread over nodes and zones, a budget of disruption and a NetworkPolicy.
func TestEveryPartSurvivesANode(t *testing.T) {
	t.Parallel()
	all := documents(t, render(t))
	selects := func(s *metav1.LabelSelector, labels map[string]string) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		return err == nil && !selector.Empty() && selector.Matches(set(labels))
	}
	parts := 0
	for _, d := range all {
		if d.Kind != "Deployment" {
			continue
		}
		parts++
		dep := decode[appsv1.Deployment](t, d)
		labels := dep.Spec.Template.Labels
		if dep.Spec.Replicas == nil || *dep.Spec.Replicas < 2 {
			t.Errorf("%s has %v replicas, want 2", d.Name, dep.Spec.Replicas)
		}
		var keys []string
		for _, c := range dep.Spec.Template.Spec.TopologySpreadConstraints {
			if selects(c.LabelSelector, labels) && c.WhenUnsatisfiable == corev1.ScheduleAnyway {
				keys = append(keys, c.TopologyKey)
			}
		}
		if want := []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"}; !slices.Equal(keys, want) {
			t.Errorf("%s is spread over %v, want %v", d.Name, keys, want)
		}
		budgets, policies := 0, 0
		for _, x := range all {
			switch x.Kind {
			case "PodDisruptionBudget":
				if selects(decode[policyv1.PodDisruptionBudget](t, x).Spec.Selector, labels) {
					budgets++
				}
			case "NetworkPolicy":
				if selects(&decode[networkingv1.NetworkPolicy](t, x).Spec.PodSelector, labels) {
					policies++
				}
			}
		}
		if budgets != 1 || policies != 1 {
			t.Errorf("%s has %d budgets of disruption and %d NetworkPolicies, want one of each", d.Name, budgets, policies)
		}
	}
	if parts != 2 {
		t.Errorf("%d Deployments, want controller and gateway", parts)
	}
}

type set map[string]string

func (s set) Has(key string) bool                       { _, ok := s[key]; return ok }
func (s set) Get(key string) string                     { return s[key] }
func (s set) Lookup(key string) (value string, ok bool) { value, ok = s[key]; return value, ok }

// TestControlPortIsForControllers reads the one port of the gateway's NetworkPolicy that names who
// may come.
func TestControlPortIsForControllers(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t, render(t)) {
		if d.Kind != "NetworkPolicy" || d.Name != "sluice-gateway" {
			continue
		}
		for _, rule := range decode[networkingv1.NetworkPolicy](t, d).Spec.Ingress {
			for _, p := range rule.Ports {
				end := p.Port.IntVal
				if p.EndPort != nil {
					end = *p.EndPort
				}
				control := p.Port.IntVal <= 9096 && 9096 <= end
				if control != (len(rule.From) == 1 && rule.From[0].PodSelector.MatchLabels["app.kubernetes.io/component"] == "sluice-controller") {
					t.Errorf("ports %v–%d are open to %+v", p.Port, end, rule.From)
				}
			}
		}
		return
	}
	t.Error("the gateway has no NetworkPolicy")
}

// TestScopeToNamespaces sees that with named namespaces the controller may change nothing elsewhere
// but its own APIServices.
func TestScopeToNamespaces(t *testing.T) {
	t.Parallel()
	var within []string
	for _, d := range documents(t, render(t, "--set", "controller.watchNamespaces={shop,bank}")) {
		switch {
		case d.Kind == "Role" && d.Name == "sluice-controller:scale":
			within = append(within, d.Namespace)
		case d.Kind == "ClusterRole" && d.Name == "sluice-controller":
			for _, r := range decode[rbacv1.ClusterRole](t, d).Rules {
				for _, verb := range r.Verbs {
					if verb != "list" && verb != "watch" && !slices.Equal(r.Resources, []string{"apiservices"}) {
						t.Errorf("the controller may %s %v everywhere", verb, r.Resources)
					}
				}
			}
		}
	}
	if !slices.Equal(within, []string{"shop", "bank"}) {
		t.Errorf("roles in %v, want shop, bank", within)
	}
}

// TestNoRightIsWide refuses wildcards but the one that scaling anything needs, and a right to read
// Secrets that are not Sluice's own.
func TestNoRightIsWide(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t, render(t)) {
		if d.Kind != "ClusterRole" && d.Kind != "Role" || d.Name == "sluice-metrics-reader" {
			continue
		}
		for _, r := range decode[rbacv1.ClusterRole](t, d).Rules {
			wide := slices.Contains(r.Verbs, "*") || slices.ContainsFunc(slices.Concat(r.APIGroups, r.Resources), func(s string) bool { return strings.Contains(s, "*") })
			if ofScales := slices.Equal(r.Resources, []string{"*/scale"}) && slices.Equal(r.Verbs, []string{"get", "patch"}); wide && !ofScales {
				t.Errorf("%s %s: %v on %v of %v", d.Kind, d.Name, r.Verbs, r.Resources, r.APIGroups)
			}
			if slices.Contains(r.Resources, "secrets") && !slices.Equal(r.Verbs, []string{"create"}) && len(r.ResourceNames) == 0 {
				t.Errorf("%s %s: %v on all Secrets", d.Kind, d.Name, r.Verbs)
			}
		}
	}
}

// TestAdmissionAsksAboutTheWriter sees that the chart's policy denies, and fails closed, and asks
// for the target's scale and for the Service.
func TestAdmissionAsksAboutTheWriter(t *testing.T) {
	t.Parallel()
	text := string(render(t))
	for _, want := range []string{
		"kind: ValidatingAdmissionPolicy\n", "failurePolicy: Fail", "validationActions: [Deny]", "subresource('scale')", "resource('services')", "operations: [CREATE, UPDATE]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart has no %q", want)
		}
	}
	if strings.Contains(string(render(t, "--set", "authorization.checkCreators=false")), "ValidatingAdmissionPolicy") {
		t.Error("the policy is there although it is switched off")
	}
}
