package fakeplatform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// runInstance is a process that serves requests, once its start-up time is over. It writes its
// address to stdout, and ends when its standard input does: with the platform.
func runInstance(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: instance START-UP")
	}
	startUp, err := time.ParseDuration(args[0])
	if err != nil {
		return fmt.Errorf("start-up time: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startUp):
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(serveApp), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if _, err := fmt.Fprintln(stdout, l.Addr()); err != nil {
		return err
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveApp answers once the request's body has ended and ms milliseconds have passed.
func serveApp(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if ms, err := strconv.Atoi(r.FormValue("ms")); err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Duration(ms) * time.Millisecond):
		}
	}
	_, _ = fmt.Fprintln(w, os.Getpid())
}
