package sidecar

import (
	"crypto/tls"
	"log/slog"
)

// Secured lets a test wait for a certificate's reload on a clock of its own.
func Secured(cert, key string, log *slog.Logger) (*tls.Config, error) { return secured(cert, key, log) }
