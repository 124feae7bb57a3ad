package answer

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Usage is what metrics.k8s.io says of a pod or a node.
type Usage struct {
	Name string
	// Containers are a pod's, by name; a node has one without a name.
	Containers []Container
	// Time is that of the oldest sample.
	Time time.Time
}

// Container has the figures of one container.
type Container struct {
	Name        string
	CPU, Memory resource.Quantity
}

// figure is one resource's value, before it is a quantity.
type figure struct {
	known bool
	value float64
}

// Pods answers for pods from the answers for CPU and memory. labels are those that name the pod and
// the container in each. As in v0.12.0 a container without one of the two has 0 there, a negative
// value and NaN are 0, and a pod without samples of both is left out. Unlike there a pod of which a
// value is infinite or too large, or all values of a resource are NaN, is left out, since 0 would
// be wrong.
func Pods(cpu, memory Result, pods []string, podLabels, containerLabels [2]string) []Usage {
	var all []Usage
	by := [2]map[string][]Sample{group(cpu, podLabels[0]), group(memory, podLabels[1])}
	for _, pod := range pods {
		u := Usage{Name: pod}
		containers := map[string]*[2]figure{}
		ok := true
		for i := range by {
			samples := by[i][pod]
			ok = ok && usable(samples)
			for _, s := range samples {
				name := s.Labels[containerLabels[i]]
				if containers[name] == nil {
					containers[name] = &[2]figure{}
				}
				containers[name][i] = figure{true, atLeastZero(s.Value)}
				u.Time = older(u.Time, s.Time)
			}
		}
		if !ok {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(containers)) {
			u.Containers = append(u.Containers, container(name, *containers[name]))
		}
		all = append(all, u)
	}
	return all
}

// Nodes answers for nodes. Of several samples of a node v0.12.0 takes the first; here they are an
// error.
func Nodes(cpu, memory Result, nodes []string, labels [2]string) ([]Usage, error) {
	var all []Usage
	by := [2]map[string][]Sample{group(cpu, labels[0]), group(memory, labels[1])}
	for _, node := range nodes {
		u := Usage{Name: node}
		var figures [2]figure
		ok := true
		for i := range by {
			samples := by[i][node]
			if len(samples) > 1 {
				return nil, Broken(fmt.Sprintf("node %s: the query gives %d samples for it, %s and %s among them; want one",
					node, len(samples), Text(samples[0].Labels), Text(samples[1].Labels)))
			}
			if ok = ok && usable(samples); ok {
				figures[i] = figure{true, atLeastZero(samples[0].Value)}
				u.Time = older(u.Time, samples[0].Time)
			}
		}
		if ok {
			u.Containers = []Container{container("", figures)}
			all = append(all, u)
		}
	}
	return all, nil
}

// group puts samples to what a label names.
func group(r Result, label string) map[string][]Sample {
	by := map[string][]Sample{}
	for _, s := range r.Samples {
		by[s.Labels[label]] = append(by[s.Labels[label]], s)
	}
	return by
}

// usable reports whether samples of one pod or node say anything.
func usable(samples []Sample) bool {
	numbers := 0
	for _, s := range samples {
		if _, large := Quantity(s.Value, resource.DecimalSI); large && s.Value > 0 || math.IsInf(s.Value, 0) {
			return false
		}
		if !math.IsNaN(s.Value) {
			numbers++
		}
	}
	return numbers > 0
}

// atLeastZero is 0 for NaN and for what is negative.
func atLeastZero(v float64) float64 {
	if v > 0 {
		return v
	}
	return 0
}

// older is the earlier of two instants, of which a may not be set.
func older(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// container makes quantities in the formats that v0.12.0 gives them.
func container(name string, f [2]figure) Container {
	c := Container{Name: name}
	formats := [2]resource.Format{resource.DecimalSI, resource.BinarySI}
	if !f[0].known {
		formats[0] = resource.BinarySI
	}
	c.CPU, _ = Quantity(f[0].value, formats[0])
	c.Memory, _ = Quantity(f[1].value, formats[1])
	return c
}
