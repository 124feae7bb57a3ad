// Package journal reads the journal of an Autoscaler through the API server.
package journal

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// callTimeout bounds one call of the API server.
const callTimeout = 30 * time.Second

const (
	// tries is how often a journal is asked for while replicas answer that do not lead;
	// pause is the time in between.
	tries, pause = 4, 500 * time.Millisecond
)

// Read reads an Autoscaler's journal through the API server, as JSON; see
// docs/metrics.md.
func Read(ctx context.Context, cfg *rest.Config, key types.NamespacedName) ([]byte, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	cl, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	path := []string{"apis", "explain.sluice.dev", "v1alpha1", "namespaces", key.Namespace, "autoscalers", key.Name, "journal"}
	for try := 1; ; try++ {
		answer := cl.Get().AbsPath(path...).MaxRetries(0).Timeout(callTimeout).Do(ctx)
		err := answer.Error() // reads the status that the server answered with, which Raw does not
		if err == nil {
			return answer.Raw()
		}
		if try == tries || !apierrors.IsServiceUnavailable(err) {
			return nil, fmt.Errorf("read the journal of %s: %w", key, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
