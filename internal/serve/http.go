package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// HTTP serves one http.Server on one address. Its fields are set before the group runs.
type HTTP struct {
	// Name appears in errors.
	Name string
	// Address is what to listen on, as net.Listen takes it: ":9095". Port 0 picks a free one.
	Address string
	// Server is what serves; its Addr is ignored. With a TLSConfig that has certificates it serves
	// TLS.
	Server *http.Server
	// Drain bounds how long running requests may take after the stop, ≥ 0. Longer keeps the process
	// longer, shorter cuts more requests.
	Drain time.Duration
	// ConnsPerAddress bounds the connections of one client address at once; a further one is
	// closed. 0 is no bound. It needs no certificate to be held to, so that whoever has none cannot
	// use up what others need.
	ConnsPerAddress int

	listener net.Listener
}

// Service returns h as a part of a Group.
func (h *HTTP) Service() Service {
	return Service{Name: h.Name, Start: h.start, Run: h.run, Abandon: func() { _ = h.listener.Close() }}
}

// Addr is the address listened on, nil before the service has started.
func (h *HTTP) Addr() net.Addr {
	if h.listener == nil {
		return nil
	}
	return h.listener.Addr()
}

func (h *HTTP) start(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", h.Address)
	if err != nil {
		return err // net's error names deed and address
	}
	h.listener = l
	if h.ConnsPerAddress > 0 {
		h.listener = &addressLimit{Listener: l, most: h.ConnsPerAddress, open: map[string]int{}}
	}
	return nil
}

func (h *HTTP) run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		if c := h.Server.TLSConfig; c != nil && (len(c.Certificates) > 0 || c.GetCertificate != nil || c.GetConfigForClient != nil) {
			served <- h.Server.ServeTLS(h.listener, "", "")
			return
		}
		served <- h.Server.Serve(h.listener)
	}()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve on %s: %w", h.Address, err), h.Server.Close())
	case <-ctx.Done():
	}
	// The drain needs a context that has not ended with the service's.
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.Drain)
	defer cancel()
	err := h.Server.Shutdown(bound)
	if err != nil {
		err = errors.Join(fmt.Errorf("drain %s: %w", h.Address, err), h.Server.Close())
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve on %s: %w", h.Address, end))
	}
	return err
}
