package main

import (
	"context"
	"net"
	"time"
)

// dialTimeout bounds a connection to the API server: packets that a partition swallowed are sent
// again ever more rarely, a new connection at once.
const dialTimeout = 2 * time.Second

// dialAPI connects to the API server.
func dialAPI(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: dialTimeout, Control: limitUnacknowledged,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	return d.DialContext(ctx, network, address)
}
