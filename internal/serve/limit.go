package serve

import (
	"net"
	"sync"
)

// addressLimit is a listener that bounds the connections of one client address.
type addressLimit struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[string]int
}

// Accept implements net.Listener.
func (l *addressLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := c.RemoteAddr().String()
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = host
		}
		l.mu.Lock()
		ok := l.open[address] < l.most
		if ok {
			l.open[address]++
		}
		l.mu.Unlock()
		if ok {
			return &limitedConn{Conn: c, done: sync.OnceFunc(func() { l.leave(address) })}, nil
		}
		_ = c.Close()
	}
}

func (l *addressLimit) leave(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[address]--; l.open[address] == 0 {
		delete(l.open, address)
	}
}

type limitedConn struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
