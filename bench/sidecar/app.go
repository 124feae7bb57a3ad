package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Addresses of what is proxied and of the proxies, in the bench's own network namespace.
const (
	staticAddress = "127.0.0.1:7001" // nginx: small and 64 KiB answers
	uploadAddress = "127.0.0.1:7002" // this program: reads bodies
	grpcAddress   = "127.0.0.1:7003" // this program: gRPC
	proxyAddress  = "127.0.0.1:7100"
)

// serveApp serves uploads and gRPC until ctx ends.
func serveApp(ctx context.Context) error {
	upload := &http.Server{Addr: uploadAddress, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", grpcAddress)
	if err != nil {
		return err
	}
	unary := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(unary, health.NewServer())
	failed := make(chan error, 2)
	go func() { failed <- upload.ListenAndServe() }()
	go func() { failed <- unary.Serve(l) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	unary.Stop()
	return errors.Join(err, upload.Close())
}
