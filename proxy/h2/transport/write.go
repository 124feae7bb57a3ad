package transport

import "time"

// Batch is the connections that a goroutine has put frames on and owes a Flush. The zero value is
// empty. It belongs to one goroutine.
type Batch struct{ conns []*Conn }

// Flush writes what the connections hold. The caller holds no lock.
func (b *Batch) Flush() {
	for i := 0; i < len(b.conns); i++ { // it may grow
		b.conns[i].flush(b)
	}
	clear(b.conns)
	b.conns = b.conns[:0]
}

func (b *Batch) hasUpstream() bool {
	for _, c := range b.conns {
		if c.Upstream {
			return true
		}
	}
	return false
}

// addTo notes that there is something to write. The caller holds mu.
func (c *Conn) addTo(b *Batch) {
	if !c.inBatch {
		c.inBatch = true
		b.conns = append(b.conns, c)
	}
}

// flush writes out, as far as it goes without waiting; another goroutine does the rest.
func (c *Conn) flush(b *Batch) {
	c.mu.Lock()
	c.inBatch = false
	if c.isWriting {
		c.mu.Unlock()
		return // whoever writes will write this, too
	}
	c.isWriting = true
	for len(c.out) > 0 {
		p := c.takeOut()
		c.mu.Unlock()
		n, err, ok := c.TryWrite(p)
		if !ok || err == nil && n < len(p) {
			c.group.Go(func() { c.write(p, n) })
			return
		}
		c.mu.Lock()
		c.wrote(p, err)
	}
	c.endWriting(b)
}

// takeOut takes out what is to be written. The caller holds mu.
func (c *Conn) takeOut() []byte {
	p := c.out
	c.out, c.spare, c.writing = c.spare[:0], nil, len(p)
	return p
}

// wrote notes what takeOut gave as written, or lost. The caller holds mu.
func (c *Conn) wrote(p []byte, err error) {
	c.writing = 0
	if cap(p) <= 2*outRoom {
		c.spare = p[:0]
	}
	if err != nil {
		c.closed, c.out = true, c.out[:0]
		_ = c.Net.Close() // the reader ends what depends on it
	}
}

// endWriting notes that nothing is left to write. It unlocks mu, and resumes what waited for room.
func (c *Conn) endWriting(b *Batch) {
	c.isWriting = false
	last := c.phase == finishing
	if last {
		c.phase = finished
	}
	var waiting []*Stream
	if c.sendWindow > 0 {
		waiting, c.blocked = c.blocked, nil
	}
	c.mu.Unlock()
	if last && c.CloseWrite() == nil {
		_ = c.Net.SetReadDeadline(time.Now().Add(lingerTime))
	}
	c.resume(b, waiting)
}

// write writes p[n:] and what comes after it, waiting as long as the network needs.
func (c *Conn) write(p []byte, n int) {
	var b Batch
	for {
		_, err := c.IO.Write(p[n:])
		c.mu.Lock()
		c.wrote(p, err)
		if len(c.out) > 0 {
			p, n = c.takeOut(), 0
			c.mu.Unlock()
			continue
		}
		c.endWriting(&b)
		b.Flush()
		return
	}
}

// resume lets streams go on that waited.
func (c *Conn) resume(b *Batch, waiting []*Stream) {
	for _, s := range waiting {
		s.mu.Lock()
		if s.conn == c && s.blocked {
			s.blocked = false
			s.Resume(b)
		}
		s.mu.Unlock()
	}
}

// overfull says whether the peer makes this side answer and does not read the answers.
func (c *Conn) overfull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out)+c.writing > outMost
}
