package trace

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Window plays the part from ≤ t < to of a source, which then starts at from. Its requests are the
// very ones that the whole source has there: what comes before is made, and dropped. to is cut to
// the source's length.
func Window(s Source, from, to time.Duration) (Source, error) {
	to = min(to, s.Length())
	if from < 0 || to <= from {
		return nil, fmt.Errorf("source %s: part %v–%v: want 0 ≤ from < to within its %v", s.Name(), from, to, s.Length())
	}
	if from == 0 && to == s.Length() {
		return s, nil
	}
	return &part{Source: s, from: from, to: to}, nil
}

type part struct {
	Source
	from, to time.Duration
}

// Length implements Source.
func (p *part) Length() time.Duration { return p.to - p.from }

// Open implements Source.
func (p *part) Open(rng *rand.Rand) Arrivals {
	return &partArrivals{of: p.Source.Open(rng), from: p.from, to: p.to}
}

type partArrivals struct {
	of       Arrivals
	from, to time.Duration
	over     bool
	err      error // of closing
}

// Err implements Failing.
func (p *partArrivals) Err() error {
	if p.err != nil {
		return p.err
	}
	return Err(p.of)
}

// Close closes what is a file.
func (p *partArrivals) Close() error {
	if c, ok := p.of.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Read implements Arrivals.
func (p *partArrivals) Read(dst []Request) int {
	for !p.over {
		n := 0
		read := p.of.Read(dst)
		for _, r := range dst[:read] {
			if r.At >= p.to {
				p.over, p.err = true, p.Close()
				break
			}
			if r.At >= p.from {
				dst[n] = Request{At: r.At - p.from, Service: r.Service}
				n++
			}
		}
		p.over = p.over || read == 0
		if n > 0 {
			return n
		}
	}
	return 0
}
