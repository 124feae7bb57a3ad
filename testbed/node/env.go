package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// objects is how names in a pod's spec become configuration: the API server in life, a map in
// tests.
type objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// Services lists what a pod in the namespace is told of by its environment.
	Services(namespace string) []*v1.Service
}

// errMissing marks an object that does not exist, which optional references forgive.
var errMissing = errors.New("not found")

// environment builds a container's environment in a kubelet's order of precedence: services, then
// envFrom, then env. The result is sorted, but for nothing depending on its order: references are
// expanded in the order of the spec.
func environment(ctx context.Context, pod *v1.Pod, c *v1.Container, facts podFacts, objs objects) (map[string]string, error) {
	env := serviceEnv(pod, objs.Services(pod.Namespace))
	result := map[string]string{}
	for _, from := range c.EnvFrom {
		values, err := envFrom(ctx, pod.Namespace, from, objs)
		if err != nil {
			return nil, err
		}
		for k, v := range values {
			result[from.Prefix+k] = v
		}
	}
	lookup := func(name string) (string, bool) {
		if v, ok := result[name]; ok {
			return v, true
		}
		v, ok := env[name]
		return v, ok
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			result[e.Name] = expand(e.Value, lookup)
			continue
		}
		v, ok, err := envValueFrom(ctx, pod, c, e.ValueFrom, facts, objs)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", e.Name, err)
		}
		if ok {
			result[e.Name] = v
		}
	}
	maps.Copy(env, result)
	if _, ok := env["PATH"]; !ok {
		env["PATH"] = defaultPath
	}
	if _, ok := env["HOSTNAME"]; !ok {
		env["HOSTNAME"] = hostname(pod)
	}
	return env, nil
}

func environ(env map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

func hostname(pod *v1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

func envFrom(ctx context.Context, namespace string, from v1.EnvFromSource, objs objects) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := objs.ConfigMap(ctx, namespace, from.ConfigMapRef.Name)
		if err != nil {
			return nil, forgive(err, from.ConfigMapRef.Optional)
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		s, err := objs.Secret(ctx, namespace, from.SecretRef.Name)
		if err != nil {
			return nil, forgive(err, from.SecretRef.Optional)
		}
		values := map[string]string{}
		for k, v := range s.Data {
			values[k] = string(v)
		}
		return values, nil
	}
	return nil, nil
}

func forgive(err error, optional *bool) error {
	if optional != nil && *optional && errors.Is(err, errMissing) {
		return nil
	}
	return err
}

func envValueFrom(ctx context.Context, pod *v1.Pod, c *v1.Container, from *v1.EnvVarSource, facts podFacts, objs objects) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		v, err := fieldValue(pod, from.FieldRef.FieldPath, facts)
		return v, true, err
	case from.ResourceFieldRef != nil:
		return resourceValue(pod, c, from.ResourceFieldRef, facts), true, nil
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := objs.ConfigMap(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, forgive(err, ref.Optional)
		}
		v, ok := cm.Data[ref.Key]
		return v, ok, keyError(ok, ref.Optional, "ConfigMap", pod.Namespace, ref.Name, ref.Key)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := objs.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, forgive(err, ref.Optional)
		}
		v, ok := s.Data[ref.Key]
		return string(v), ok, keyError(ok, ref.Optional, "Secret", pod.Namespace, ref.Name, ref.Key)
	}
	return "", false, errors.New("source is not supported by this node")
}

func keyError(found bool, optional *bool, kind, namespace, name, key string) error {
	if found || (optional != nil && *optional) {
		return nil
	}
	return fmt.Errorf("couldn't find key %v in %s %v/%v", key, kind, namespace, name)
}

// podFacts is what the downward API tells that is not in the pod's spec.
type podFacts struct {
	PodIP, HostIP string
	Allocatable   v1.ResourceList
}

// fieldValue resolves a downward API path.
func fieldValue(pod *v1.Pod, fieldPath string, facts podFacts) (string, error) {
	if name, key, ok := strings.Cut(fieldPath, "['"); ok {
		key = strings.TrimSuffix(key, "']")
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return facts.PodIP, nil
	case "status.hostIP", "status.hostIPs":
		return facts.HostIP, nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", fieldPath)
}

func formatMap(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// resourceValue resolves limits.X and requests.X, rounded up to the divisor; an unset limit is what
// the node has.
func resourceValue(pod *v1.Pod, c *v1.Container, ref *v1.ResourceFieldSelector, facts podFacts) string {
	if ref.ContainerName != "" {
		for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if list[i].Name == ref.ContainerName {
					c = &list[i]
				}
			}
		}
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	q, ok := list[v1.ResourceName(name)]
	if !ok && kind == "limits" {
		q = facts.Allocatable[v1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, by := q.Value(), divisor.Value()
	if name == string(v1.ResourceCPU) {
		value, by = q.MilliValue(), divisor.MilliValue()
	}
	return strconv.FormatInt((value+by-1)/by, 10)
}

// serviceEnv is the variables by which a pod finds Services without DNS.
func serviceEnv(pod *v1.Pod, services []*v1.Service) map[string]string {
	env := map[string]string{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		master := s.Namespace == "default" && s.Name == "kubernetes"
		links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
		if !master && (!links || s.Namespace != pod.Namespace) {
			continue
		}
		prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		env[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
		env[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for _, p := range s.Spec.Ports {
			port, proto := strconv.Itoa(int(p.Port)), strings.ToLower(string(p.Protocol))
			if proto == "" {
				proto = "tcp"
			}
			if p.Name != "" {
				env[prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = port
			}
			base := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
			url := proto + "://" + s.Spec.ClusterIP + ":" + port
			env[base], env[base+"_PROTO"], env[base+"_PORT"], env[base+"_ADDR"] = url, proto, port, s.Spec.ClusterIP
			if _, ok := env[prefix+"_PORT"]; !ok {
				env[prefix+"_PORT"] = url
			}
		}
	}
	return env
}
