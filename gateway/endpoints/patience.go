package endpoints

import (
	"net/http"
	"time"
)

// patienceLook is how often a list or a watch asks an API server that cannot be reached.
const patienceLook = 500 * time.Millisecond

// patientTransport has lists and watches wait for an API server that is away, instead of failing.
type patientTransport struct{ next http.RoundTripper }

// Patient wraps the transport of a client whose informers are to be back at once after an outage of
// the API server. Informers that fail ask ever more rarely, up to once a minute, and for so long
// nobody sees the pods for which requests wait. Other requests fail at once.
func Patient(next http.RoundTripper) http.RoundTripper { return patientTransport{next} }

// RoundTrip implements http.RoundTripper.
func (t patientTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		res, err := t.next.RoundTrip(r)
		away := err != nil || res.StatusCode >= http.StatusInternalServerError
		if q := r.URL.Query(); !away || r.Method != http.MethodGet || !q.Has("watch") && !q.Has("resourceVersion") {
			return res, err
		}
		timer := time.NewTimer(patienceLook)
		select {
		case <-r.Context().Done():
			timer.Stop()
			return res, err
		case <-timer.C:
		}
		if res != nil {
			_ = res.Body.Close() // what it says is not read
		}
	}
}
