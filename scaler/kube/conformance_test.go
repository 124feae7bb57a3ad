package kube_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/conformance"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

// scales is an API server's scale subresource of Deployments.
type scales struct {
	scale.ScaleInterface
	server    client.Client
	namespace string
	fault     *error // of the next write
}

func (s scales) Scales(namespace string) scale.ScaleInterface {
	s.namespace = namespace
	return s
}

func (s scales) Patch(ctx context.Context, _ schema.GroupVersionResource, name string, kind types.PatchType, patch []byte, _ metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := *s.fault; err != nil {
		*s.fault = nil
		return nil, err
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	if err := s.server.Patch(ctx, d, client.RawPatch(kind, patch)); err != nil {
		return nil, err
	}
	out := &autoscalingv1.Scale{ObjectMeta: d.ObjectMeta}
	out.Spec.Replicas = *d.Spec.Replicas
	return out, nil
}

// laggingCache is one read behind the server, as an informer's cache is for a moment.
type laggingCache struct {
	client.Reader

	mu   sync.Mutex
	last map[client.ObjectKey]json.RawMessage
}

func (c *laggingCache) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Reader.Get(ctx, key, o, opts...); err != nil {
		return err
	}
	now, err := json.Marshal(o)
	if err != nil {
		return err
	}
	before := c.last[key]
	if c.last[key] = now; before == nil {
		return nil
	}
	return json.Unmarshal(before, o)
}

// TestConformance holds Targets to the contract of the ports, over a cache that lags.
func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(*testing.T) conformance.Platform {
		none := int32(0)
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &none}}
		server := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(d).Build()
		mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{appsv1.SchemeGroupVersion})
		mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
		fault := error(nil)
		faults := map[error]error{
			scaler.ErrConflict:  apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, "web", nil),
			scaler.ErrThrottled: apierrors.NewTooManyRequests("slow down", 1),
			scaler.ErrForbidden: apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "web", nil),
			scaler.ErrNotFound:  apierrors.NewNotFound(schema.GroupResource{Resource: "deployments"}, "web"),
		}
		return conformance.Platform{
			Target: kube.NewTargets(&laggingCache{Reader: server, last: map[client.ObjectKey]json.RawMessage{}},
				scales{server: server, fault: &fault}, mapper, nil),
			Workload: loop.Ref{Driver: kube.Driver, Namespace: "shop", Kind: "Deployment.apps", Name: "web"},
			Missing:  loop.Ref{Driver: kube.Driver, Namespace: "shop", Kind: "Deployment.apps", Name: "nobody"},
			Fail: func(_ *testing.T, kind error) bool {
				fault = faults[kind]
				return true
			},
		}
	})
}
