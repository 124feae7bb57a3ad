package queue

import (
	"context"
	"net/http"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// round is a key's round, in a context.
type round struct {
	queue *Queue
	key   reconcile.Request
}

type roundKey struct{}

// Round returns a context for the round of a key, in which requests by way of Transport give the
// round's place to others.
func (q *Queue) Round(ctx context.Context, key reconcile.Request) context.Context {
	return context.WithValue(ctx, roundKey{}, &round{q, key})
}

// Transport has rounds that wait for the API server keep no others from running; it is for
// rest.Config.Wrap. Requests outside a round pass as they are.
func Transport(next http.RoundTripper) http.RoundTripper { return transport{next} }

type transport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if of, ok := r.Context().Value(roundKey{}).(*round); ok {
		of.queue.wait(of.key, 1)
		defer of.queue.wait(of.key, -1)
	}
	return t.next.RoundTrip(r)
}

// WrappedRoundTripper lets the Kubernetes client find the transport by which requests are
// cancelled.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }
