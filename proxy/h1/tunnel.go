package h1

import (
	"io"
	"net/http"
	"time"
)

// tunnel passes bytes both ways after a 101 answer, until both sides have ended.
func (c *conn) tunnel() bool {
	b := c.upstream
	out := c.appendInterim()
	out = append(out, "Connection: Upgrade\r\n\r\n"...)
	c.out = append(out, b.buffered()...)
	b.r = b.w
	c.x.Code = http.StatusSwitchingProtocols
	c.enter(tunneling, c.e.Rules.Now())
	_, err := c.IO.Write(c.out)
	c.x.Began = c.e.Rules.Now()
	up := make(chan struct{})
	go func() {
		defer close(up)
		if _, err := b.IO.Write(c.in[c.r:c.w]); err == nil {
			if _, err = io.Copy(b.Net, c.Net); err == nil && b.CloseWrite() == nil {
				return
			}
		}
		_ = b.Net.Close()
	}()
	if err == nil {
		_, err = io.Copy(c.Net, b.Net)
	}
	if err == nil && c.CloseWrite() == nil {
		_ = c.Net.SetReadDeadline(time.Now().Add(tunnelEnd))
	} else {
		_ = c.Net.Close()
	}
	<-up
	c.releaseUpstream(b, false)
	return c.finish(false)
}
