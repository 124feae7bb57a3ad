// Package actuate reads and writes the scale subresource of any workload that has one.
package actuate

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
)

// Target names a scale target.
type Target struct {
	Namespace string
	Ref       autoscalingv2.CrossVersionObjectReference
}

// String is kind and name, for messages.
func (t Target) String() string { return t.Ref.Kind + " " + t.Namespace + "/" + t.Ref.Name }

// State is a target's scale.
type State struct {
	// Replicas is spec.replicas.
	Replicas int
	// Selector selects the target's pods.
	Selector labels.Selector
}

// Scaler reads and writes scales. It is safe for concurrent use.
type Scaler struct {
	scales scale.ScalesGetter
	mapper meta.RESTMapper
}

// New returns a Scaler.
func New(scales scale.ScalesGetter, mapper meta.RESTMapper) *Scaler {
	return &Scaler{scales: scales, mapper: mapper}
}

func (s *Scaler) resource(t Target) (schema.GroupVersionResource, error) {
	gv, err := schema.ParseGroupVersion(t.Ref.APIVersion)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("read apiVersion of %s: %w", t, err)
	}
	m, err := s.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: t.Ref.Kind}, gv.Version)
	if err != nil {
		return schema.GroupVersionResource{}, fmt.Errorf("find the resource of %s %s: %w", t.Ref.APIVersion, t, err)
	}
	return m.Resource, nil
}

// Get reads the target's scale.
func (s *Scaler) Get(ctx context.Context, t Target) (State, error) {
	r, err := s.resource(t)
	if err != nil {
		return State{}, err
	}
	sc, err := s.scales.Scales(t.Namespace).Get(ctx, r.GroupResource(), t.Ref.Name, metav1.GetOptions{})
	if err != nil {
		return State{}, fmt.Errorf("read the scale of %s: %w", t, err)
	}
	sel, err := labels.Parse(sc.Status.Selector)
	if err != nil {
		return State{}, fmt.Errorf("read the selector of %s: %w", t, err)
	}
	if sc.Status.Selector == "" {
		sel = labels.Nothing()
	}
	return State{Replicas: int(sc.Spec.Replicas), Selector: sel}, nil
}

// Set writes the target's replicas.
func (s *Scaler) Set(ctx context.Context, t Target, n int) error {
	r, err := s.resource(t)
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
	if _, err := s.scales.Scales(t.Namespace).Patch(ctx, r, t.Ref.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("set %s to %d replicas: %w", t, n, err)
	}
	return nil
}
