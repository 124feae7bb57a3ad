package main

import (
	"os"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

// TestEpochsGrowWithTheHolders passes a lease on, and makes it anew: the epoch of each holder is
// greater than that of the one before, and whoever does not hold the lease has none. The instant at
// which a process was born has no part in it.
func TestEpochsGrowWithTheHolders(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	made := time.Unix(1_790_000_000, 0)
	last := int64(-1)
	for _, step := range []struct {
		what        string
		made        time.Time
		holder      string
		transitions int32
		held        bool
	}{
		{"first", made, host + "_1", 0, true},
		{"another process", made, "elsewhere_2", 1, false},
		{"a host of a longer name", made, host + "x_2", 1, false},
		{"nobody", made, "", 1, false},
		{"born before, holds after", made, host + "_0", 2, true},
		{"made again", made.Add(time.Second), host + "_3", 0, true},
	} {
		client := fake.NewClientset(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: kube.LeaseName, CreationTimestamp: metav1.NewTime(step.made)},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &step.holder, LeaseTransitions: &step.transitions},
		})
		epoch, err := leaseEpoch(client, "sluice")(t.Context())
		if (err == nil) != step.held {
			t.Errorf("%s: epoch %d, %v, want one: %v", step.what, epoch, err, step.held)
		}
		if err == nil && epoch <= last {
			t.Errorf("%s: epoch %d after %d, want a greater one", step.what, epoch, last)
		}
		if err == nil {
			last = epoch
		}
	}
	if _, err := leaseEpoch(fake.NewClientset(), "sluice")(t.Context()); err == nil {
		t.Error("an epoch without a lease")
	}
}
