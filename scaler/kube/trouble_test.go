package kube_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
)

// TestPodsThatCannotBeCreated reads objects whose pods a quota forbids, as the cache keeps them:
// the target says so, and clients are told the class.
func TestPodsThatCannotBeCreated(t *testing.T) {
	t.Parallel()
	s := runtime.NewScheme()
	if err := scheme.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	const why = `pods "web-1" is forbidden: exceeded quota`
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	for kind, o := range map[string]client.Object{
		"Deployment.apps": &appsv1.Deployment{ObjectMeta: meta, Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: "MinimumReplicasUnavailable"},
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: why},
		}}},
		"ReplicaSet.apps": &appsv1.ReplicaSet{ObjectMeta: meta, Status: appsv1.ReplicaSetStatus{Conditions: []appsv1.ReplicaSetCondition{
			{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: why},
		}}},
	} {
		lean, err := kube.StripTarget(o)
		if err != nil {
			t.Fatal(err)
		}
		c := fake.NewClientBuilder().WithScheme(s).WithObjects(lean.(client.Object)).Build()
		ref := loop.Ref{Driver: kube.Driver, Namespace: "shop", Kind: kind, Name: "web"}
		st, err := kube.NewTargets(c, nil, nil, nil).Get(t.Context(), ref)
		if err != nil || !strings.Contains(st.Trouble, why) {
			t.Errorf("%s: state %+v, %v, want why pods cannot be created", kind, st, err)
		}
		if got := path.FailureClass(st.Trouble); got != "pods cannot be created" {
			t.Errorf("%s: clients are told %q", kind, got)
		}
	}
}
