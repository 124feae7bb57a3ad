package runner

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// quietTime is how long work goes on before the first line about it.
	quietTime = 2 * time.Second
	// lineEvery is the time between lines.
	lineEvery = 5 * time.Second
)

// pace says when it is time for a line about progress.
type pace struct{ begun, last time.Time }

func newPace() pace {
	now := time.Now()
	return pace{begun: now, last: now.Add(quietTime - lineEvery)}
}

// due reports whether a line is due, and for how long the work has gone on.
func (p *pace) due() (took time.Duration, ok bool) {
	now := time.Now()
	if now.Sub(p.last) < lineEvery {
		return 0, false
	}
	p.last = now
	return now.Sub(p.begun), true
}

// Progress tells how far a long bench is. It is safe for concurrent use.
type Progress struct {
	mu   sync.Mutex
	w    io.Writer
	pace pace
	jobs int
	told bool
	// share is what was told last.
	share float64
}

// NewProgress begins now.
func NewProgress(w io.Writer, jobs int) *Progress {
	return &Progress{w: w, pace: newPace(), jobs: jobs}
}

// Share is called with the share of the work that is done.
func (p *Progress) Share(done float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.share = done
	took, ok := p.pace.due()
	if !ok {
		return
	}
	p.told = true
	left := "?"
	if done > 0.01 {
		left = (time.Duration(float64(took)/done) - took).Round(time.Second).String()
	}
	fmt.Fprintf(p.w, "%3.0f %% of %d runs after %v, %s to go\n", 100*done, p.jobs, took.Round(time.Second), left)
}

// Done is about how many runs were done, by the share that was told last.
func (p *Progress) Done() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.share * float64(p.jobs))
}

// End says how long it took and how many runs were done, if there was a line before.
func (p *Progress) End(done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told {
		of := ""
		if done < p.jobs {
			of = fmt.Sprintf(" of %d", p.jobs)
		}
		fmt.Fprintf(p.w, "%d%s runs in %v\n", done, of, time.Since(p.pace.begun).Round(time.Millisecond))
	}
}

// SearchProgress tells how far a search is. It is not safe for concurrent use.
type SearchProgress struct {
	w    io.Writer
	pace pace
}

// NewSearchProgress begins now.
func NewSearchProgress(w io.Writer) *SearchProgress { return &SearchProgress{w: w, pace: newPace()} }

// Tell writes the line, if one is due.
func (p *SearchProgress) Tell(line func() string) {
	if took, ok := p.pace.due(); ok {
		fmt.Fprintf(p.w, "after %v: %s\n", took.Round(time.Second), line())
	}
}

// ReadProgress makes a function that tells how much of a file was read, now and then.
func ReadProgress(w io.Writer) func(file string, read int64) {
	p := NewSearchProgress(w)
	return func(file string, read int64) {
		p.Tell(func() string { return fmt.Sprintf("read %d MiB of %s", read>>20, file) })
	}
}
