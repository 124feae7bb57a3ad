package node

import (
	"net/http"
	"time"
)

// patienceLook is how often a list or a watch asks an API server that is away.
const patienceLook = 200 * time.Millisecond

// patientTransport has lists and watches wait while the API server cannot be reached, instead of
// failing. An informer that fails asks ever more rarely, up to once a minute; a testbed whose API
// server was stopped on purpose is to be back at once.
type patientTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t patientTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		res, err := t.next.RoundTrip(r)
		if q := r.URL.Query(); err == nil || r.Method != http.MethodGet || !q.Has("watch") && !q.Has("resourceVersion") {
			return res, err
		}
		timer := time.NewTimer(patienceLook)
		select {
		case <-r.Context().Done():
			timer.Stop()
			return res, err
		case <-timer.C:
		}
	}
}
