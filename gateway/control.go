package gateway

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
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

// Control returns the handler of the control port. token, when not nil, returns the bearer token that callers must
// show.
func (g *Gateway) Control(token func() (string, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+wire.OwnerPath("{owner}"), g.putAssignments)
	mux.HandleFunc("DELETE "+wire.OwnerPath("{owner}"), g.deleteAssignments)
	mux.HandleFunc("/", unknownPath)
	mux.HandleFunc("GET "+wire.ReportsPath, g.getReports)
	if token == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token()
		if err != nil {
			g.log.Error("control token", slog.Any("error", err))
			http.Error(w, "the gateway's token cannot be read", http.StatusServiceUnavailable)
			return
		}
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+want)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "want the gateway's bearer token", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// TokenFile returns a function that gives a file's content without surrounding space, read again when it changes. It is
// safe for concurrent use.
func TokenFile(path string) func() (string, error) {
	var (
		mu    sync.Mutex
		seen  time.Time
		size  int64
		token string
	)
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		if token != "" && info.ModTime().Equal(seen) && info.Size() == size {
			return token, nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		if b = bytes.TrimSpace(b); len(b) == 0 {
			return "", fmt.Errorf("read token: %s is empty", path)
		}
		token, seen, size = string(b), info.ModTime(), info.Size()
		return token, nil
	}
}

func (g *Gateway) putAssignments(w http.ResponseWriter, r *http.Request) {
	a, err := assignment.Decode(http.MaxBytesReader(w, r.Body, maxAssignments))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	refused, err := g.Apply(r.Context(), r.PathValue("owner"), a)
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

func (g *Gateway) deleteAssignments(w http.ResponseWriter, r *http.Request) {
	if err := g.Withdraw(r.Context(), r.PathValue("owner")); err != nil {
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

func (g *Gateway) getReports(w http.ResponseWriter, r *http.Request) {
	me := g.readers.join(g.cfg.MaxReaders)
	if me == nil {
		http.Error(w, fmt.Sprintf("%d readers are here already", g.cfg.MaxReaders), http.StatusServiceUnavailable)
		return
	}
	defer g.readers.leave(me)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out, enc := http.NewResponseController(w), json.NewEncoder(w)
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		// Each report is made when the reader can take it: nothing piles up for a slow one.
		sent := time.Now()
		if err := errors.Join(out.SetWriteDeadline(sent.Add(readerPatience)), enc.Encode(g.Report()), out.Flush()); err != nil {
			g.log.Debug("report reader dropped", slog.Any("error", err))
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
			case <-g.over:
				return
			case <-r.Context().Done():
				return
			}
		}
	}
}

// hub wakes the readers of the report stream. The zero value has none. It is safe for concurrent use.
type hub struct {
	mu      sync.Mutex
	readers map[*reader]struct{}
}

type reader struct{ urgent, changed chan struct{} }

func (h *hub) join(limit int) *reader {
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

func (h *hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

func (h *hub) notify(urgent bool) {
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

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers)
}
