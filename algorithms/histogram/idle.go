package histogram

import (
	"fmt"
	"math"
	"time"
)

// Rule says when a pod is kept during an idle time.
type Rule struct {
	// PreWarm is how long after the last demand the pod returns, 0 when it stays until the end of
	// KeepAlive. KeepAlive is how long it stays from then on.
	PreWarm, KeepAlive time.Duration
	// Kind says where the rule comes from.
	Kind Kind
}

// Kind is where a rule comes from.
type Kind string

// The kinds.
const (
	// Few: fewer idle times than the minimum.
	Few Kind = "Few"
	// Flat: the histogram represents nothing; the range is the keep-alive time.
	Flat Kind = "Flat"
	// Distribution: head and tail of the histogram.
	Distribution Kind = "Distribution"
	// OutOfBounds: most idle times are longer than the range.
	OutOfBounds Kind = "OutOfBounds"
)

// Idle is a histogram of idle times. It is not safe for concurrent use.
type Idle struct {
	cfg Config
	s   IdleState
}

// IdleState is the memory of an Idle. Its zero value is empty.
type IdleState struct {
	// Counts are the bins, up to the last that is not empty. Out counts idle times beyond the
	// range, and MeanOut is their mean, in seconds, by an exponential average of a third.
	Counts  []int   `json:"counts,omitempty"`
	Out     int     `json:"out,omitempty"`
	MeanOut float64 `json:"long,omitempty"`
}

// maxTotal is the number of idle times at which all counts are halved, so that old ones are
// forgotten.
const maxTotal = 4096

// NewIdle returns an empty histogram; the config is validated.
func NewIdle(c Config) (*Idle, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Idle{cfg: c}, nil
}

// Add adds an idle time ≥ 0.
func (h *Idle) Add(it time.Duration) {
	if h.total() >= maxTotal {
		for i := range h.s.Counts {
			h.s.Counts[i] /= 2
		}
		h.s.Out /= 2
	}
	if it >= time.Duration(h.cfg.Range) {
		if h.s.Out == 0 || h.s.MeanOut == 0 {
			h.s.MeanOut = it.Seconds()
		}
		h.s.Out++
		h.s.MeanOut += (it.Seconds() - h.s.MeanOut) / 3
		return
	}
	i := int(max(it, 0) / time.Duration(h.cfg.Bin))
	for len(h.s.Counts) <= i {
		h.s.Counts = append(h.s.Counts, 0)
	}
	h.s.Counts[i]++
}

func (h *Idle) bins() int { return int(time.Duration(h.cfg.Range) / time.Duration(h.cfg.Bin)) }

func (h *Idle) within() int {
	n := 0
	for _, c := range h.s.Counts {
		n += c
	}
	return n
}

func (h *Idle) total() int { return h.within() + h.s.Out }

// CV is the coefficient of variation of the counts over all bins of the range: high when idle times
// concentrate in few of them. 0 when empty.
func (h *Idle) CV() float64 {
	n, sq := 0.0, 0.0
	for _, c := range h.s.Counts {
		n += float64(c)
		sq += float64(c) * float64(c)
	}
	if n == 0 {
		return 0
	}
	return math.Sqrt(max(float64(h.bins())*sq/(n*n)-1, 0))
}

// representative tells whether CV ≥ minCV, in whole numbers so that no rounding decides: N·Σc² −
// (Σc)² ≥ cv²·(Σc)².
func (h *Idle) representative() bool {
	n, sq := 0.0, 0.0
	for _, c := range h.s.Counts {
		n += float64(c)
		sq += float64(c) * float64(c)
	}
	return n > 0 && float64(h.bins())*sq >= (1+h.cfg.MinCV*h.cfg.MinCV)*n*n
}

// percentile is the bin in which the share p of the idle times within the range is reached.
func (h *Idle) percentile(p float64) int {
	need, sum := max(int(math.Ceil(p*float64(h.within()))), 1), 0
	for i, c := range h.s.Counts {
		if sum += c; sum >= need {
			return i
		}
	}
	return max(len(h.s.Counts)-1, 0)
}

// Rule is the rule by the present histogram:
//
//	fewer than minCount                      keep for the range
//	more than outOfBounds beyond the range   return at 0.85 of their mean, for 0.30 of it (the paper's
//	                                         margin of 15 % around a forecast)
//	CV below minCV                           keep for the range
//	else                                     return at 0.9·head (rounded down to a bin; head in the first
//	                                         bin: never stopped), until 1.1·tail (rounded up)
//
// In all cases keeping ends when it has cost as much as a cold start: KeepAlive ≤ most.
func (h *Idle) Rule(most time.Duration) Rule {
	c := &h.cfg
	r := Rule{KeepAlive: time.Duration(c.Range), Kind: Flat}
	total := h.total()
	switch {
	case total < c.MinCount:
		r.Kind = Few
	case float64(h.s.Out) > c.OutOfBounds*float64(total):
		r = Rule{PreWarm: seconds(0.85 * h.s.MeanOut), KeepAlive: seconds(0.30 * h.s.MeanOut), Kind: OutOfBounds}
	case h.representative():
		r.Kind = Distribution
		head := time.Duration(h.percentile(c.Head)) * time.Duration(c.Bin)
		tail := time.Duration(h.percentile(c.Tail)+1) * time.Duration(c.Bin)
		r.PreWarm = time.Duration((1 - c.Margin) * float64(head))
		r.KeepAlive = time.Duration((1+c.Margin)*float64(tail)) - r.PreWarm
	}
	r.KeepAlive = min(r.KeepAlive, most)
	return r
}

func seconds(s float64) time.Duration { return time.Duration(min(s, 1e9) * float64(time.Second)) }

// State returns the memory; it shares nothing that changes later.
func (h *Idle) State() IdleState {
	s := h.s
	s.Counts = append([]int(nil), s.Counts...)
	return s
}

// Load puts back a State; an error leaves the histogram as it was.
func (h *Idle) Load(s IdleState) error {
	if len(s.Counts) > h.bins() || s.Out < 0 || s.Out > 2*maxTotal || !(s.MeanOut >= 0 && s.MeanOut <= 1e10) {
		return fmt.Errorf("histogram of %d bins, %d beyond: want at most %d bins", len(s.Counts), s.Out, h.bins())
	}
	for i, c := range s.Counts {
		if c < 0 || c > 2*maxTotal {
			return fmt.Errorf("histogram: count %d = %d: want 0–%d", i, c, 2*maxTotal)
		}
	}
	h.s = s
	return nil
}
