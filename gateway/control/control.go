// Package control is the gateway's side of the wire: it takes assignments and streams reports.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// maxAssignments bounds the body of a push, in bytes: some 20 000 ports.
	maxAssignments = 4 << 20
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
	// Readers are woken by the gateway, at most MaxReaders of them.
	Readers    *Readers
	MaxReaders int
	// Over is closed when reports are to end.
	Over <-chan struct{}
	Log  *slog.Logger
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
	a, err := assignment.Decode(http.MaxBytesReader(w, r.Body, maxAssignments))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	refused, err := s.Gateway.Apply(r.Context(), r.PathValue("owner"), a)
	switch {
	case errors.Is(err, assignment.ErrOwner):
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
	me := s.Readers.join(s.MaxReaders)
	if me == nil {
		http.Error(w, fmt.Sprintf("%d readers are here already", s.MaxReaders), http.StatusServiceUnavailable)
		return
	}
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
	readers map[*reader]struct{}
}

type reader struct{ urgent, changed chan struct{} }

func (h *Readers) join(limit int) *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) >= limit {
		return nil
	}
	if h.readers == nil {
		h.readers = map[*reader]struct{}{}
	}
	r := &reader{urgent: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	h.readers[r] = struct{}{}
	return r
}

func (h *Readers) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// Notify makes every reader's next report come: at once when urgent, else soon.
func (h *Readers) Notify(urgent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
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
