//go:build !linux

package observe

import "time"

// threadTime is unknown.
func threadTime() time.Duration { return 0 }
