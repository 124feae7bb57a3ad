package space

import "github.com/sluice-autoscaler/sluice/algorithms/catalog"

// beyond are the ranges of well-known policies that are not of a parameter of their own: of objects
// within parameters, and of the guard.
func beyond(policy string) []string {
	switch policy {
	case "hpa":
		return []string{"guard.behavior.scaleDown.stabilizationWindowSeconds=0|15|30|60|120|300|600|1200", "guard.scaleToZero.after=1m..1h:log"}
	case "keda":
		return []string{"advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds=0|15|30|60|120|300|600|1200"}
	case "histogram":
		return []string{"guard.scaleToZero.after=1s|15s|1m|5m|20m|1h"}
	}
	return nil
}

// DefaultRanges are the ranges that are searched for a policy when none are given: those of its
// parameters and those beyond; nil for a policy without any. They cover what each policy's own
// documentation calls sensible, and some more. Targets are shares of what a pod takes at a time.
func DefaultRanges(e catalog.Entry) []string {
	var out []string
	for _, p := range e.Parameters {
		if p.Search != "" {
			out = append(out, p.Name+"="+p.Search)
		}
	}
	return append(out, beyond(e.Name)...)
}
