// Package ask is a question to rules for a workload as a whole, and the answer: one number with its
// age, and what is missing of it. It is pure.
package ask

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// Sort is what a metric describes that a workload asks for.
type Sort string

// The sorts.
const (
	// OfObject is a metric of the workload's own object, such as its Deployment.
	OfObject Sort = "object"
	// OfPods is a metric of pods: the sum over those of the workload.
	OfPods Sort = "pods"
	// OfNamespace is an external metric: the sum of its values in the workload's namespace.
	OfNamespace Sort = "namespace"
)

// Sorts are all, in the order in which they are looked for.
func Sorts() []Sort { return []Sort{OfObject, OfPods, OfNamespace} }

// Question asks for a metric of rules for a workload.
type Question struct {
	Namespace, Metric string
	// Kind and Name are the workload's object.
	Kind schema.GroupKind
	Name string
	// Pods are the names of its pods that have to have a value, Others those of pods that may have
	// one.
	Pods, Others []string
	// Sort is the only one to look for; "" is the first that there is.
	Sort Sort
}

// Names are all pods, by name.
func (q *Question) Names() []string {
	names := slices.Concat(q.Pods, q.Others)
	slices.Sort(names)
	return names
}

// Answer is the answer to a Question.
type Answer struct {
	// Value is meaningless unless Known. Of pods of which some have no value it is the sum of the
	// others, and not known.
	Value float64
	Known bool
	// Missing says why it is not known.
	Missing string
	// At is the time of the oldest sample behind it, Asked when Prometheus was asked.
	At, Asked time.Time
	// Coverage is the share of the pods that have a value, 0–1.
	Coverage float64
	// Sort is what was found, "" for nothing.
	Sort Sort
	// Bounded says that the rule itself bounds the age of samples, by maxAge or hold.
	Bounded bool
}

// Sum makes an answer of the values of a sort, which were asked for at an instant.
func (q *Question) Sum(values []answer.Value, sort Sort, asked time.Time) Answer {
	out := Answer{Sort: sort, Asked: asked, Coverage: 1}
	if len(values) == 0 {
		return Answer{Sort: sort, Asked: asked, Missing: "Prometheus has no sample of it"}
	}
	have := map[string]bool{}
	for _, v := range values {
		if v.Saturated || v.Float < 0 {
			return Answer{Sort: sort, Asked: asked, Missing: fmt.Sprintf("Prometheus answered %g, which is no amount", v.Float)}
		}
		have[v.Name] = true
		out.Value += v.Float
		at := v.Time
		if at.IsZero() {
			at = asked
		}
		if out.At.IsZero() || at.Before(out.At) {
			out.At = at
		}
	}
	if sort == OfPods && len(q.Pods) > 0 {
		n := 0
		for _, name := range q.Pods {
			if have[name] {
				n++
			}
		}
		if n < len(q.Pods) {
			out.Coverage = float64(n) / float64(len(q.Pods))
			out.Missing = fmt.Sprintf("%d of %d ready pods have no sample", len(q.Pods)-n, len(q.Pods))
		}
	}
	out.Known = out.Missing == ""
	return out
}
