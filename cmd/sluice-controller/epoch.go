package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-autoscaler/sluice/scaler/kube"
)

// leaseEpoch returns a function for path.Options.Lease: the epoch of the lease by which this
// process scales, and an error while another process holds it.
//
// An epoch grows with each holder, whatever their clocks say: it is the lease's creation as the API
// server tells it, in Unix nanoseconds, plus the number of its holders before. A lease that is
// deleted and made again has a later creation.
func leaseEpoch(client kubernetes.Interface, namespace string) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		lease, err := client.CoordinationV1().Leases(namespace).Get(ctx, kube.LeaseName, metav1.GetOptions{})
		if err != nil {
			return 0, fmt.Errorf("read lease %s: %w", kube.LeaseName, err)
		}
		host, err := os.Hostname()
		if err != nil {
			return 0, fmt.Errorf("read this host's name: %w", err)
		}
		// controller-runtime's identity is the host's name and a random part.
		holder := ""
		if lease.Spec.HolderIdentity != nil {
			holder = *lease.Spec.HolderIdentity
		}
		if !strings.HasPrefix(holder, host+"_") {
			return 0, fmt.Errorf("lease %s is held by %q, not by this process", kube.LeaseName, holder)
		}
		epoch := lease.CreationTimestamp.UnixNano()
		if n := lease.Spec.LeaseTransitions; n != nil {
			epoch += int64(*n)
		}
		return epoch, nil
	}
}
