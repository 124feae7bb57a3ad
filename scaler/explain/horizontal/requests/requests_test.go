package requests_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal/requests"
)

// container requests cpu, or nothing where it is "".
func container(name, cpu string, beside bool) corev1.Container {
	c := corev1.Container{Name: name}
	if cpu != "" {
		c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu)}
	}
	if beside {
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = &always
	}
	return c
}

func TestOf(t *testing.T) {
	t.Parallel()
	plain := corev1.PodSpec{
		InitContainers: []corev1.Container{container("setup", "5", false), container("side", "100m", true)},
		Containers:     []corev1.Container{container("app", "500m", false)},
		Overhead:       corev1.ResourceList{"cpu": resource.MustParse("1")},
	}
	whole := *plain.DeepCopy()
	whole.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("2")}}
	other := *plain.DeepCopy()
	other.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"memory": resource.MustParse("1Gi")}}
	lacking := *plain.DeepCopy()
	lacking.InitContainers[1] = container("side", "", true)
	for _, c := range []struct {
		name      string
		spec      corev1.PodSpec
		container string
		overhead  bool
		want      int64
		lack      string
	}{
		{"the containers that run", plain, "", true, 600, ""},
		{"one container", plain, "side", true, 100, ""},
		{"no such container", plain, "x", true, 0, "pod web has no container x"},
		{"a container that requests none", lacking, "", true, 500, "container side of pod web requests no cpu"},
		{"another container does", lacking, "app", true, 500, ""},
		{"the pod as a whole", whole, "", true, 3000, ""},
		{"without its overhead", whole, "", false, 2000, ""},
		{"the pod names another resource: what its containers need at once", other, "", false, 5000, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{Spec: c.spec}
			pod.Name = "web"
			got, lack := requests.Of(pod, c.container, "cpu", c.overhead)
			if lack != c.lack || lack == "" && got != c.want {
				t.Errorf("Of(%s) = %d, %q, want %d, %q", c.container, got, lack, c.want, c.lack)
			}
		})
	}
}
