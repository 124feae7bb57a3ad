//go:build !linux

package sockdiag

import "errors"

// Socket is of use on Linux only.
type Socket struct{}

// Open fails: sock_diag is Linux's.
func Open() (*Socket, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Socket) Close() error { return nil }

// List fails.
func (*Socket) List(uint16, func(*Conn)) error { return errors.ErrUnsupported }

// Each fails.
func (*Socket) Each([]ID, []uint8, func(*Conn)) error { return errors.ErrUnsupported }

// Accepted fails.
func (*Socket) Accepted() (uint64, error) { return 0, errors.ErrUnsupported }
