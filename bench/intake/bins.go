package intake

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/formats"
	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

const (
	// maxBins bounds the bins of a load, and so the memory for them: 8 bytes each.
	maxBins = 10_000_000
	// maxStamps bounds the different times of values.
	maxStamps = 4_000_000
	// ownWidth is the width of bins of requests that come one by one.
	ownWidth = time.Second
)

// Load is what files hold, as requests in bins.
type Load struct {
	Summary
	// Start is the first bin's; Width that of each; Requests what comes in each.
	Start    int64
	Width    time.Duration
	Requests []float64
	// Missing counts bins of which the files say nothing.
	Missing int
	missing []bool
}

// ErrWidth is returned where the width of bins is not known.
var ErrWidth = errors.New("the bins' width is unknown: give it by --bin")

// Bins reads files into bins.
func Bins(files []File, o Options) (*Load, error) {
	c := newCounter(max(o.Width, 0))
	stamps := map[int64]stamp{}
	width := time.Duration(0)
	var full error
	s, err := Read(files, o, func(it *Item) {
		switch {
		case full != nil:
		case !it.Bin:
			full = c.add(it.At)
		default:
			width = max(width, it.Width)
			v := stamps[it.At]
			v.sum += it.Value
			if stamps[it.At] = v; len(stamps) > maxStamps {
				full = fmt.Errorf("it has more than %d times: cut it", maxStamps)
			}
		}
	})
	if err = errors.Join(err, full); err != nil {
		return nil, err
	}
	l := &Load{Summary: s}
	if !s.Binned {
		l.Width = c.width
		if l.Start, l.Requests = c.dense(); l.Requests == nil {
			return nil, fmt.Errorf("%s: from the first request to the last there are more than %d bins of %v: want wider ones, --bin", s.Format.Name, maxBins, c.width)
		}
		l.Summary.Requests = float64(s.Items)
		return l, nil
	}
	if err := l.lay(stamps, width, &o); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Format.Name, err)
	}
	return l, nil
}

type stamp struct{ sum float64 }

// lay puts values of stamps into bins.
func (l *Load) lay(stamps map[int64]stamp, width time.Duration, o *Options) error {
	times := slices.Sorted(maps.Keys(stamps))
	if width == 0 {
		width = Step(times)
	}
	if width == 0 {
		width = o.Width
	}
	if width <= 0 {
		return ErrWidth
	}
	if l.Meta.Unit == formats.UnitConcurrency && o.Service <= 0 {
		return errors.New("it holds concurrency: give the mean service time, which turns it into a rate")
	}
	l.Start = times[0]
	span := times[len(times)-1] - l.Start
	if span/int64(width) >= maxBins {
		return fmt.Errorf("it has %d bins of %v: want at most %d; cut it", span/int64(width), width, maxBins)
	}
	n := (span+int64(width)/2)/int64(width) + 1
	l.Width, l.Requests = width, make([]float64, n)
	many := make([]int, n)
	for _, at := range times {
		i := (at - l.Start + int64(width)/2) / int64(width)
		many[i]++
		l.Requests[i] += stamps[at].sum
	}
	l.missing = make([]bool, n)
	for i := range l.Requests {
		if many[i] == 0 {
			l.Missing++
			l.missing[i] = true
		}
		switch l.Meta.Unit {
		case formats.UnitRate:
			l.Requests[i] *= width.Seconds() / float64(max(1, many[i]))
		case formats.UnitConcurrency:
			l.Requests[i] *= width.Seconds() / o.Service.Seconds() / float64(max(1, many[i]))
		case formats.UnitAuto, formats.UnitRequests, formats.UnitCounter:
		}
	}
	l.Summary.Requests = 0
	for _, v := range l.Requests {
		l.Summary.Requests += v
	}
	return l.coarsen(o.Width)
}

// Step is the distance of times: the smallest if all are about its multiples, else the median.
func Step(times []int64) time.Duration {
	if len(times) < 2 {
		return 0
	}
	gaps := make([]int64, 0, len(times)-1)
	for i := 1; i < len(times); i++ {
		gaps = append(gaps, times[i]-times[i-1])
	}
	slices.Sort(gaps)
	least, median := gaps[0], gaps[len(gaps)/2]
	for _, g := range gaps {
		off := math.Abs(float64(g)/float64(least) - math.Round(float64(g)/float64(least)))
		if off > 0.01 {
			least = median
			break
		}
	}
	d := time.Duration(least)
	if r := d.Round(time.Second); r > 0 && (d-r).Abs() <= d/50 { // scrapes jitter
		return r
	}
	return d
}

// coarsen joins bins to a wider width.
func (l *Load) coarsen(width time.Duration) error {
	if width == 0 || width == l.Width {
		return nil
	}
	if width < l.Width || width%l.Width != 0 {
		return fmt.Errorf("its bins are %v wide: want --bin to be a multiple of that, not %v", l.Width, width)
	}
	k := int(width / l.Width)
	out := make([]float64, (len(l.Requests)+k-1)/k)
	missing := make([]bool, len(out))
	for i := range missing {
		missing[i] = true
	}
	for i, v := range l.Requests {
		out[i/k] += v
		missing[i/k] = missing[i/k] && l.missing[i]
	}
	l.Requests, l.Width, l.missing, l.Missing = out, width, missing, 0
	for _, m := range missing {
		if m {
			l.Missing++
		}
	}
	return nil
}

// Fill sets the bins of which nothing is known: between two known ones on a straight line, or as
// the one before.
func (l *Load) Fill(hold bool) {
	last := -1
	for i := 0; i <= len(l.Requests); i++ {
		if i < len(l.Requests) && l.missing != nil && l.missing[i] {
			continue
		}
		for j := last + 1; j < i && last >= 0 && i < len(l.Requests); j++ {
			l.Requests[j] = l.Requests[last]
			if !hold {
				l.Requests[j] += (l.Requests[i] - l.Requests[last]) * float64(j-last) / float64(i-last)
			}
		}
		last = i
	}
}

// Trace makes a trace of it.
func (l *Load) Trace(name string) (*trace.Trace, error) { return trace.New(name, l.Width, l.Requests) }

// Describe says what was taken for what: bins, width, unit and total.
func (l *Load) Describe() []string {
	lines := l.Summary.Describe()
	unit := "requests, counted"
	if l.Binned {
		unit = string(l.Meta.Unit)
	}
	text := fmt.Sprintf("%d bins of %v, unit %s, %.12g requests in all", len(l.Requests), l.Width, unit, l.Summary.Requests)
	if l.Missing > 0 {
		text += fmt.Sprintf("; of %d bins nothing is known (--zeros)", l.Missing)
	}
	return append([]string{text}, lines...)
}

// counter counts requests in bins, in blocks.
type counter struct {
	width  time.Duration
	blocks map[int64]*[blockLength]float64
}

const blockLength = 1024

func newCounter(width time.Duration) *counter {
	if width == 0 {
		width = ownWidth
	}
	return &counter{width: width, blocks: map[int64]*[blockLength]float64{}}
}

func floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (c *counter) add(at int64) error {
	bin := floor(at, int64(c.width))
	block := floor(bin, blockLength)
	b := c.blocks[block]
	if b == nil {
		if len(c.blocks) >= maxBins/blockLength {
			return fmt.Errorf("it has more than %d bins of %v: want wider ones, --bin", maxBins, c.width)
		}
		b = new([blockLength]float64)
		c.blocks[block] = b
	}
	b[bin-block*blockLength]++
	return nil
}

// dense is the bins from the first to the last with a request.
func (c *counter) dense() (start int64, bins []float64) {
	blocks := slices.Sorted(maps.Keys(c.blocks))
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for _, k := range blocks {
		for i, v := range c.blocks[k] {
			if v > 0 {
				first, last = min(first, k*blockLength+int64(i)), max(last, k*blockLength+int64(i))
			}
		}
	}
	if last < first || last-first >= maxBins {
		return 0, nil
	}
	bins = make([]float64, last-first+1)
	for _, k := range blocks {
		for i, v := range c.blocks[k] {
			if v > 0 {
				bins[k*blockLength+int64(i)-first] = v
			}
		}
	}
	return first * int64(c.width), bins
}

// Series lists the names of a file's series, or the columns of values of a file of columns; at most
// that many.
func Series(f File, o Options, most int) ([]string, error) {
	seen := map[string]bool{}
	s, err := Read([]File{f}, o, func(it *Item) {
		if it.Series != "" && len(seen) <= most {
			seen[it.Series] = true
		}
	})
	if err != nil {
		return nil, err
	}
	if len(seen) > most {
		return nil, fmt.Errorf("it has more than %d series: choose one by its name, or all together", most)
	}
	if s.Format.Name == "csv" {
		in, err := rows.OpenInput(f, nil)
		if err != nil {
			return nil, err
		}
		columns, err := formats.ValueColumns(in)
		if err = errors.Join(err, in.Close()); err != nil {
			return nil, err
		}
		return columns, nil
	}
	if len(seen) == 0 {
		return nil, errors.New("it has no series")
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// Name is what a load of the file is called: its name without folder and endings.
func Name(file string) string {
	base := path.Base(strings.ReplaceAll(file, `\`, "/"))
	for _, end := range []string{".gz", ".zst", ".zstd"} {
		base = strings.TrimSuffix(base, end)
	}
	return strings.TrimSuffix(base, path.Ext(base))
}
