package transport

import "sync"

// queue is bytes that wait. The zero value is empty.
type queue struct {
	chunks []*chunk
	r, w   int // in the first and in the last chunk
	n      int
}

type chunk [4 << 10]byte

// push puts p behind what waits. Chunks are borrowed from the pool.
func (q *queue) push(pool *sync.Pool, p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if len(q.chunks) == 0 || q.w == len(chunk{}) {
			c, ok := pool.Get().(*chunk)
			if !ok {
				c = new(chunk)
			}
			q.chunks = append(q.chunks, c)
			q.w = 0
		}
		k := copy(q.chunks[len(q.chunks)-1][q.w:], p)
		q.w += k
		p = p[k:]
	}
}

// front is the first bytes, all of them if they are in one piece.
func (q *queue) front() []byte {
	end := len(chunk{})
	if len(q.chunks) == 1 {
		end = q.w
	}
	return q.chunks[0][q.r:end]
}

// drop takes the first k bytes off, at most those of front.
func (q *queue) drop(pool *sync.Pool, k int) {
	q.n -= k
	q.r += k
	if q.n == 0 {
		q.clear(pool)
	} else if q.r == len(chunk{}) {
		pool.Put(q.chunks[0])
		n := copy(q.chunks, q.chunks[1:])
		q.chunks[n] = nil
		q.chunks = q.chunks[:n]
		q.r = 0
	}
}

func (q *queue) clear(pool *sync.Pool) {
	for i, c := range q.chunks {
		pool.Put(c)
		q.chunks[i] = nil
	}
	*q = queue{chunks: q.chunks[:0]}
}
