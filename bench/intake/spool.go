package intake

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// runLength is how many requests are sorted in memory at once.
const runLength = 1 << 20

// recordSize is the bytes of a request in the file: arrival, work, tokens in and out.
const recordSize = 24

// Log is a load of single requests, sorted, in a file that has no name and goes with the process.
// It is a trace.Source, whose arrivals begin with the first request.
type Log struct {
	Summary
	name   string
	file   *os.File
	length time.Duration
	// Work is when the last work ends that the file knows of, since the first arrival.
	work time.Duration
}

// Spool reads files of requests, and sorts them.
func Spool(name string, files []File, o Options) (*Log, error) {
	file, err := temporary()
	if err != nil {
		return nil, err
	}
	s := spooler{out: bufio.NewWriterSize(file, 1<<16), run: make([]record, 0, 1<<16)}
	sum, err := Read(files, o, s.add)
	err = errors.Join(err, s.fault)
	if err == nil && sum.Binned {
		err = fmt.Errorf("%s holds values over time, not requests one by one: take it by --trace", sum.Format.Name)
	}
	if err == nil {
		s.flush()
		err = errors.Join(s.fault, s.out.Flush())
	}
	if err == nil && s.mixed {
		file, err = merge(file, s.ends)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	l := &Log{Summary: sum, name: name, file: file, work: time.Duration(s.lastEnd - sum.First)}
	l.length = time.Duration(sum.Last-sum.First).Truncate(time.Second) + time.Second
	return l, nil
}

// Stdin keeps what a reader gives in a file without a name, so that it can be read more than once.
func Stdin(r io.Reader) (File, error) {
	file, err := temporary()
	if err != nil {
		return File{}, err
	}
	n, err := io.Copy(file, r)
	if err != nil {
		return File{}, errors.Join(fmt.Errorf("read standard input: %w", err), file.Close())
	}
	return File{Name: "stdin", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(file, 0, n)), nil
	}}, nil
}

// temporary makes a file without a name.
func temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "sluice-*")
	if err != nil {
		return nil, fmt.Errorf("make a file to sort in: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type record struct {
	at, service int64
	in, out     int32
}

func (r *record) put(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(r.at))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.service))
	binary.LittleEndian.PutUint32(b[16:], uint32(r.in))
	binary.LittleEndian.PutUint32(b[20:], uint32(r.out))
}

func (r *record) get(b []byte) {
	r.at, r.service = int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
	r.in, r.out = int32(binary.LittleEndian.Uint32(b[16:])), int32(binary.LittleEndian.Uint32(b[20:]))
}

// spooler writes sorted runs.
type spooler struct {
	out *bufio.Writer
	run []record
	// ends are the runs' ends in requests; mixed says that they overlap.
	ends     []int64
	last     int64
	begun    bool
	mixed    bool
	unsorted bool
	lastEnd  int64
	fault    error
}

func (s *spooler) add(it *Item) {
	if s.fault != nil || it.Bin {
		return
	}
	if n := len(s.run); n > 0 && it.At < s.run[n-1].at {
		s.unsorted = true
	}
	s.run = append(s.run, record{at: it.At, service: int64(it.Service), in: int32(it.In), out: int32(it.Out)})
	s.lastEnd = max(s.lastEnd, it.At+int64(it.Service))
	if len(s.run) == 1 && len(s.ends) == 0 {
		s.lastEnd = it.At + int64(it.Service)
	}
	if len(s.run) == runLength {
		s.flush()
	}
}

func (s *spooler) flush() {
	if len(s.run) == 0 || s.fault != nil {
		return
	}
	if s.unsorted {
		slices.SortStableFunc(s.run, func(a, b record) int { return cmp.Compare(a.at, b.at) })
	}
	if s.begun && s.run[0].at < s.last {
		s.mixed = true
	}
	s.begun, s.last = true, max(s.last, s.run[len(s.run)-1].at)
	var b [recordSize]byte
	for i := range s.run {
		s.run[i].put(b[:])
		if _, err := s.out.Write(b[:]); err != nil {
			s.fault = fmt.Errorf("write the sorted requests: %w", err)
			return
		}
	}
	end := int64(len(s.run))
	if n := len(s.ends); n > 0 {
		end += s.ends[n-1]
	}
	s.ends, s.run, s.unsorted = append(s.ends, end), s.run[:0], false
}

// runReader reads a run.
type runReader struct {
	r     *bufio.Reader
	first record
	order int
}

func (r *runReader) next() error {
	var b [recordSize]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return err
	}
	r.first.get(b[:])
	return nil
}

type runHeap []*runReader

// Len implements heap.Interface.
func (h runHeap) Len() int { return len(h) }

// Less implements heap.Interface; equal times keep the order of the file.
func (h runHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].first.at, h[j].first.at), cmp.Compare(h[i].order, h[j].order)) < 0
}

// Swap implements heap.Interface.
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *runHeap) Push(x any) {
	if r, ok := x.(*runReader); ok {
		*h = append(*h, r)
	}
}

// Pop implements heap.Interface.
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// merge writes the runs of a file into another one, and closes the first.
func merge(runs *os.File, ends []int64) (*os.File, error) {
	out, err := temporary()
	if err != nil {
		return runs, err
	}
	w := bufio.NewWriterSize(out, 1<<16)
	var h runHeap
	begin := int64(0)
	for i, end := range ends {
		r := &runReader{order: i, r: bufio.NewReaderSize(io.NewSectionReader(runs, begin*recordSize, (end-begin)*recordSize), 1<<15)}
		if err := r.next(); err != nil {
			return runs, errors.Join(err, out.Close())
		}
		h = append(h, r)
		begin = end
	}
	heap.Init(&h)
	var b [recordSize]byte
	for len(h) > 0 {
		h[0].first.put(b[:])
		if _, err := w.Write(b[:]); err != nil {
			return runs, errors.Join(fmt.Errorf("write the sorted requests: %w", err), out.Close())
		}
		switch err := h[0].next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		case err != nil:
			return runs, errors.Join(err, out.Close())
		default:
			heap.Fix(&h, 0)
		}
	}
	if err := w.Flush(); err != nil {
		return runs, errors.Join(fmt.Errorf("write the sorted requests: %w", err), out.Close())
	}
	return out, runs.Close()
}

// Name implements trace.Source.
func (l *Log) Name() string { return l.name }

// Length implements trace.Source.
func (l *Log) Length() time.Duration { return l.length }

// Until is the log with a length until its work ends: the work that the file knows of, and as much
// as service after the last arrival where it does not.
func (l *Log) Until(service time.Duration) *Log {
	c := *l
	end := l.work
	if l.Served < l.Items {
		end = max(end, time.Duration(l.Last-l.First)+service)
	}
	c.length = max(c.length, (end + time.Second - 1).Truncate(time.Second))
	return &c
}

// Open implements trace.Source. The random generator is not used.
func (l *Log) Open(*rand.Rand) trace.Arrivals { return l.Requests() }

// Requests reads it from the beginning.
func (l *Log) Requests() *Requests {
	return &Requests{first: l.First, left: l.Items, r: bufio.NewReaderSize(io.NewSectionReader(l.file, 0, l.Items*recordSize), 1<<16)}
}

// Close lets the file go.
func (l *Log) Close() error { return l.file.Close() }

// Requests reads a log. It implements trace.Arrivals and trace.Failing.
type Requests struct {
	r           *bufio.Reader
	first, left int64
	err         error
}

// Next is the next request with its tokens; ok is false at the end and at a fault.
func (r *Requests) Next() (q trace.Request, in, out int, ok bool) {
	if r.left == 0 || r.err != nil {
		return q, 0, 0, false
	}
	var b [recordSize]byte
	if _, r.err = io.ReadFull(r.r, b[:]); r.err != nil {
		return q, 0, 0, false
	}
	var rec record
	rec.get(b[:])
	r.left--
	return trace.Request{At: time.Duration(rec.at - r.first), Service: time.Duration(rec.service)}, int(rec.in), int(rec.out), true
}

// Read implements trace.Arrivals.
func (r *Requests) Read(dst []trace.Request) int {
	for n := range dst {
		q, _, _, ok := r.Next()
		if !ok {
			return n
		}
		dst[n] = q
	}
	return len(dst)
}

// Err implements trace.Failing.
func (r *Requests) Err() error { return r.err }
