//go:build !linux

package main

import "syscall"

// limitUnacknowledged is a net.Dialer's Control. Only Linux has the option.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
