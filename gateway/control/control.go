// Package control is the gateway's side of the wire: it takes assignments and streams reports.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// maxAssignments bounds the body of a push, in bytes: as many ports as there are numbers, each
	// with the longest names and a failure.
	maxAssignments = 16 << 20
	// maxPushes bounds the pushes of one client that are read at once, and bodyPatience the time
	// for one's body. A controller pushes one at a time.
	maxPushes    = 2
	bodyPatience = 5 * time.Second
	// coalesce is the least time between two reports to one reader, first waiters apart.
	coalesce = 50 * time.Millisecond
	// heartbeat is the most.
	heartbeat = time.Second
	// readerPatience is how long a reader may take to take one report before it is dropped.
	readerPatience = 5 * time.Second
)

// Gateway is who holds and forwards.
type Gateway interface {
	// Apply replaces what an owner has assigned, and returns which of its ports are refused.
	Apply(ctx context.Context, owner string, a wire.Assignments) ([]wire.RefusedPort, error)
	// Withdraw forgets an owner.
	Withdraw(ctx context.Context, owner string) error
	// Report reads all counters at one instant.
	Report() wire.Report
}

// Server answers on the control port. Its fields are set before Handler is called.
type Server struct {
	Gateway Gateway
	// Readers are woken by the gateway, at most MaxReaders of them: a new one takes the place of
	// the oldest of the client that has most.
	Readers    *Readers
	MaxReaders int
	// Over is closed when reports are to end.
	Over <-chan struct{}
	Log  *slog.Logger

	mu     sync.Mutex
	pushes map[string]int // being read, by client
}

// beginPush counts a push of a client; false when it has too many.
func (s *Server) beginPush(client string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushes == nil {
		s.pushes = map[string]int{}
	}
	if s.pushes[client] >= maxPushes {
		return false
	}
	s.pushes[client]++
	return true
}

func (s *Server) endPush(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushes[client]--; s.pushes[client] == 0 {
		delete(s.pushes, client)
	}
}

// clientOf names who calls: its address.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Handler returns the handler of the control port. It does not ask who calls: TLS does.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+wire.OwnerPath("{owner}"), s.putAssignments)
	mux.HandleFunc("DELETE "+wire.OwnerPath("{owner}"), s.deleteAssignments)
	mux.HandleFunc("/", unknownPath)
	mux.HandleFunc("GET "+wire.ReportsPath, s.getReports)
	return mux
}

func (s *Server) putAssignments(w http.ResponseWriter, r *http.Request) {
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(bodyPatience)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	client := clientOf(r)
	if !s.beginPush(client) {
		w.Header().Set("Connection", "close") // the body is not waited for
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d pushes of this client are being read already", maxPushes), http.StatusServiceUnavailable)
		return
	}
	defer s.endPush(client)
	a, err := assignment.Decode(http.MaxBytesReader(w, r.Body, maxAssignments))
	if err != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not waited for
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	refused, err := s.Gateway.Apply(r.Context(), r.PathValue("owner"), a)
	switch {
	case errors.Is(err, assignment.ErrOwner), errors.Is(err, assignment.ErrEpoch):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, assignment.ErrStale):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case len(refused) > 0:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(wire.Refusals{Refused: refused[:min(len(refused), wire.MaxRefused)]})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) deleteAssignments(w http.ResponseWriter, r *http.Request) {
	if err := s.Gateway.Withdraw(r.Context(), r.PathValue("owner")); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// unknownPath answers what this version of the wire does not have.
func unknownPath(w http.ResponseWriter, r *http.Request) {
	http.Error(w, fmt.Sprintf("%s %s is unknown: this gateway speaks version %s of the wire: %s/{owner} (PUT, DELETE) and %s (GET)",
		r.Method, r.URL.Path[:min(len(r.URL.Path), 100)], wire.Version, wire.AssignmentsPath, wire.ReportsPath), http.StatusNotFound)
}

func (s *Server) getReports(w http.ResponseWriter, r *http.Request) {
	client := clientOf(r)
	me := s.Readers.join(client, s.MaxReaders)
	defer s.Readers.leave(me)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out, enc := http.NewResponseController(w), json.NewEncoder(w)
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		// Each report is made when the reader can take it: nothing piles up for a slow one.
		sent := time.Now()
		if err := errors.Join(out.SetWriteDeadline(sent.Add(readerPatience)), enc.Encode(s.Gateway.Report()), out.Flush()); err != nil {
			s.Log.Debug("report reader dropped", slog.Any("error", err))
			return
		}
		beat.Reset(heartbeat)
		changed := me.changed
	wait:
		for {
			select {
			case <-me.urgent:
				break wait
			case <-changed:
				rest := coalesce - time.Since(sent)
				if rest <= 0 {
					break wait
				}
				changed = nil // known; the beat comes early now
				beat.Reset(rest)
			case <-beat.C:
				break wait
			case <-s.Over:
				return
			case <-me.displaced:
				s.Log.Info("report reader gave way to a newer one", slog.String("client", client))
				return
			case <-r.Context().Done():
				return
			}
		}
	}
}

// Readers wakes the readers of the report stream. The zero value has none. It is safe for
// concurrent use.
type Readers struct {
	mu      sync.Mutex
	readers []*reader // by age, the oldest first
}

type reader struct {
	client          string
	urgent, changed chan struct{}
	// displaced is closed when a newer reader takes the place.
	displaced chan struct{}
}

// join adds a reader. One that is too many takes the place of the oldest of the client that has
// most: whoever comes anew, such as a controller after a restart, is always served, and readers
// that a dead controller left behind are not in its way.
func (h *Readers) join(client string, limit int) *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &reader{client: client, urgent: make(chan struct{}, 1), changed: make(chan struct{}, 1), displaced: make(chan struct{})}
	h.readers = append(h.readers, r)
	if len(h.readers) > limit {
		number := map[string]int{}
		most := 0
		for _, x := range h.readers {
			number[x.client]++
			most = max(most, number[x.client])
		}
		i := slices.IndexFunc(h.readers, func(x *reader) bool { return number[x.client] == most })
		close(h.readers[i].displaced)
		h.readers = slices.Delete(h.readers, i, i+1)
	}
	return r
}

func (h *Readers) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers = slices.DeleteFunc(h.readers, func(x *reader) bool { return x == r })
}

// Notify makes every reader's next report come: at once when urgent, else soon.
func (h *Readers) Notify(urgent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.readers {
		if urgent {
			poke(r.urgent)
		} else {
			poke(r.changed)
		}
	}
}

// Count is how many readers there are.
func (h *Readers) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers)
}

// poke leaves one token in a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
