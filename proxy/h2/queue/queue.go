// Package queue holds bytes that wait to be sent on a stream, in chunks that streams share.
package queue

import "sync"

// Pool lends chunks to queues. The zero value is ready to use, by many goroutines.
type Pool struct{ free sync.Pool }

// Queue is bytes that wait. The zero value is empty. It is not safe for concurrent use.
type Queue struct {
	chunks []*chunk
	r, w   int // in the first and in the last chunk
	n      int
}

type chunk [4 << 10]byte

// Len is how many bytes wait.
func (q *Queue) Len() int { return q.n }

// Push puts p behind what waits. Chunks are borrowed from the pool.
func (q *Queue) Push(pool *Pool, p []byte) {
	q.n += len(p)
	for len(p) > 0 {
		if len(q.chunks) == 0 || q.w == len(chunk{}) {
			c, ok := pool.free.Get().(*chunk)
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

// Front is the first bytes, all of them if they are in one piece.
func (q *Queue) Front() []byte {
	end := len(chunk{})
	if len(q.chunks) == 1 {
		end = q.w
	}
	return q.chunks[0][q.r:end]
}

// Drop takes the first k bytes off, at most those of Front.
func (q *Queue) Drop(pool *Pool, k int) {
	q.n -= k
	q.r += k
	if q.n == 0 {
		q.Clear(pool)
	} else if q.r == len(chunk{}) {
		pool.free.Put(q.chunks[0])
		n := copy(q.chunks, q.chunks[1:])
		q.chunks[n] = nil
		q.chunks = q.chunks[:n]
		q.r = 0
	}
}

// Clear drops all.
func (q *Queue) Clear(pool *Pool) {
	for i, c := range q.chunks {
		pool.free.Put(c)
		q.chunks[i] = nil
	}
	*q = Queue{chunks: q.chunks[:0]}
}
