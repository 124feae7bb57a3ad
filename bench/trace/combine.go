package trace

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Thin keeps each request with a probability, 0 < share ≤ 1, independently. It still makes all of them.
func Thin(s Source, share float64) (Source, error) {
	if !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("thin to %v: want a share above 0, at most 1", share)
	}
	return &thin{Source: s, share: share}, nil
}

type thin struct {
	Source
	share float64
}

// Name implements Source.
func (t *thin) Name() string { return fmt.Sprintf("%s thin=%g", t.Source.Name(), t.share) }

// Open implements Source.
func (t *thin) Open(rng *rand.Rand) Arrivals {
	return &thinArrivals{parts: parts{[]Arrivals{t.Source.Open(fork(rng))}}, share: t.share, rng: fork(rng)}
}

type thinArrivals struct {
	parts
	share float64
	rng   *rand.Rand
}

// Read implements Arrivals.
func (t *thinArrivals) Read(dst []Request) int {
	for {
		read := t.of[0].Read(dst)
		n := 0
		for _, r := range dst[:read] {
			if t.rng.Float64() < t.share {
				dst[n] = r
				n++
			}
		}
		if n > 0 || read == 0 {
			return n
		}
	}
}

// parts passes on what arrivals that consist of others owe as Failing and io.Closer.
type parts struct{ of []Arrivals }

// Err implements Failing.
func (p *parts) Err() error {
	var errs []error
	for _, a := range p.of {
		errs = append(errs, Err(a))
	}
	return errors.Join(errs...)
}

// Close closes those that are files.
func (p *parts) Close() error {
	var errs []error
	for _, a := range p.of {
		if c, ok := a.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Merge overlays sources from a common start; it lasts as long as the longest. At least one is needed.
func Merge(sources ...Source) (Source, error) {
	if len(sources) == 0 {
		return nil, errors.New("merge: want at least one source")
	}
	m := &merge{sources: sources}
	var names []string
	for _, s := range sources {
		m.length = max(m.length, s.Length())
		names = append(names, s.Name())
	}
	m.name = strings.Join(names, " + ")
	return m, nil
}

type merge struct {
	name    string
	length  time.Duration
	sources []Source
}

// Name implements Source.
func (m *merge) Name() string { return m.name }

// Length implements Source.
func (m *merge) Length() time.Duration { return m.length }

// Open implements Source.
func (m *merge) Open(rng *rand.Rand) Arrivals {
	a := &mergeArrivals{inputs: make([]input, len(m.sources))}
	for i, s := range m.sources {
		// Each has its own generator: a source may draw from the one it is given as it goes.
		in := s.Open(fork(rng))
		a.of = append(a.of, in)
		a.inputs[i].refill(in)
	}
	return a
}

type mergeArrivals struct {
	parts
	inputs []input
}

// input is what was read ahead of one source.
type input struct {
	buf  [batch]Request
	i, n int
}

func (in *input) refill(a Arrivals) { in.i, in.n = 0, a.Read(in.buf[:]) }

// Read implements Arrivals.
func (m *mergeArrivals) Read(dst []Request) int {
	for n := range dst {
		best := -1
		for i := range m.inputs {
			in := &m.inputs[i]
			if in.i < in.n && (best < 0 || in.buf[in.i].At < m.inputs[best].buf[m.inputs[best].i].At) {
				best = i
			}
		}
		if best < 0 {
			return n
		}
		in := &m.inputs[best]
		dst[n] = in.buf[in.i]
		if in.i++; in.i == in.n {
			in.refill(m.of[best])
		}
	}
	return len(dst)
}

// Concat plays sources one after another. At least one is needed.
func Concat(sources ...Source) (Source, error) {
	if len(sources) == 0 {
		return nil, errors.New("concat: want at least one source")
	}
	c := &concat{sources: sources}
	var names []string
	for _, s := range sources {
		if s.Length() > math.MaxInt64-c.length {
			return nil, errors.New("concat: the sources are longer than 292 years in all")
		}
		c.length += s.Length()
		names = append(names, s.Name())
	}
	c.name = strings.Join(names, " then ")
	return c, nil
}

// Repeat plays a source n times, 1–1,000,000, with fresh randomness each time.
func Repeat(s Source, n int) (Source, error) {
	if n < 1 || n > 1_000_000 {
		return nil, fmt.Errorf("repeat %d times: want 1–1,000,000", n)
	}
	sources := make([]Source, n)
	for i := range sources {
		sources[i] = s
	}
	c, err := Concat(sources...)
	if err != nil {
		return nil, err
	}
	c.(*concat).name = fmt.Sprintf("%s × %d", s.Name(), n)
	return c, nil
}

type concat struct {
	name    string
	length  time.Duration
	sources []Source
}

// Name implements Source.
func (c *concat) Name() string { return c.name }

// Length implements Source.
func (c *concat) Length() time.Duration { return c.length }

// Open implements Source.
func (c *concat) Open(rng *rand.Rand) Arrivals {
	return &concatArrivals{sources: c.sources, rng: fork(rng)}
}

type concatArrivals struct {
	sources []Source
	rng     *rand.Rand
	i       int
	offset  time.Duration
	now     Arrivals // nil before a source is opened
	err     error
}

// Read implements Arrivals.
func (c *concatArrivals) Read(dst []Request) int {
	for c.i < len(c.sources) && c.err == nil && len(dst) > 0 {
		if c.now == nil {
			c.now = c.sources[c.i].Open(fork(c.rng))
		}
		if n := c.now.Read(dst); n > 0 {
			for i := range dst[:n] {
				dst[i].At += c.offset
			}
			return n
		}
		c.err = Err(c.now)
		c.offset += c.sources[c.i].Length()
		c.now = nil
		c.i++
	}
	return 0
}

// Err implements Failing.
func (c *concatArrivals) Err() error { return c.err }

// Close ends the source that is open.
func (c *concatArrivals) Close() error {
	if closer, ok := c.now.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}
