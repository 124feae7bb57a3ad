// Package v1alpha1 is the Autoscaler API: one object that scales one workload, to and from zero.
//
// +kubebuilder:object:generate=true
// +groupName=sluice.dev
package v1alpha1
