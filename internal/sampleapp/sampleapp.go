// Package sampleapp is a tiny web app to try Sluice on: in the demo, in end-to-end tests, by hand.
// It is a sample and no part of the product: its flags and answers may change at any time.
package sampleapp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
)

// maxDelay bounds ?ms=, so that a typing error does not hold a request for a year.
const maxDelay = time.Hour

// Config is what the app can be told.
type Config struct {
	// Listen is the address to listen on.
	Listen string
	// ReadyAfter delays the listening, to stand for a slow start; ≥ 0.
	ReadyAfter time.Duration
	// Drain bounds how long running requests may take after the stop; ≥ 0.
	Drain time.Duration
}

// Default returns the usual configuration.
func Default() Config { return Config{Listen: ":8080", Drain: time.Minute} }

// Validate returns every fault, joined, or nil.
func (c Config) Validate() error {
	var errs []error
	if c.Listen == "" {
		errs = append(errs, errors.New(`listen = "": want an address`))
	}
	if c.ReadyAfter < 0 {
		errs = append(errs, fmt.Errorf("ready-after = %v: want ≥ 0", c.ReadyAfter))
	}
	if c.Drain < 0 {
		errs = append(errs, fmt.Errorf("drain = %v: want ≥ 0", c.Drain))
	}
	return errors.Join(errs...)
}

// Handler answers:
//
//	GET /?ms=200   200 "ok" after 200 ms (default 0)
//	POST /         200 with the size of the body in bytes, after ?ms=
//	GET /healthz   200 at once
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", serve.Health())
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if delay(w, r) {
			_, _ = io.WriteString(w, "ok\n")
		}
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if delay(w, r) {
			_, _ = fmt.Fprintf(w, "%d\n", n)
		}
	})
	return mux
}

// delay waits as ?ms= says, and reports whether there is still somebody to answer.
func delay(w http.ResponseWriter, r *http.Request) bool {
	text := r.URL.Query().Get("ms")
	if text == "" {
		return true
	}
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil || time.Duration(ms)*time.Millisecond > maxDelay {
		http.Error(w, fmt.Sprintf("ms = %q: want 0–%d", text, maxDelay.Milliseconds()), http.StatusBadRequest)
		return false
	}
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		panic(http.ErrAbortHandler) // a plain return would be a 200
	}
}

// Service returns the app: HTTP/1.1 and unencrypted HTTP/2 on one port. When stopped it accepts no
// more at once, as most apps do, and finishes what runs.
func Service(c Config) serve.Service {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &serve.HTTP{Name: "sample", Address: c.Listen, Drain: c.Drain, Server: &http.Server{
		Handler: Handler(), ReadHeaderTimeout: 10 * time.Second, Protocols: protocols,
	}}
	s := h.Service()
	listen := s.Start
	s.Start = func(ctx context.Context) error {
		t := time.NewTimer(c.ReadyAfter)
		defer t.Stop()
		select {
		case <-t.C:
			return listen(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s
}
