package sidecar

import (
	"crypto/tls"
	"log/slog"
	"net/http"
)

// MetricsHandler lets a test ask the metrics port as a peer from anywhere.
func (s *Sidecar) MetricsHandler() http.Handler { return s.metrics.Server.Handler }

// Secured lets a test wait for a certificate's reload on a clock of its own.
func Secured(cert, key string, log *slog.Logger) (*tls.Config, error) { return secured(cert, key, log) }
