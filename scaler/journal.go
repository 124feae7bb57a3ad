package scaler

import (
	"slices"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

const (
	// mostEntries and fewestEntries bound what the journal keeps of one workload; journalEntries
	// what it keeps of all together, as long as each has its fewest.
	mostEntries, fewestEntries = 64, 4
	journalEntries             = 50_000
)

// Entry is one line of a journal: a round, or several in a row that saw and decided alike.
type Entry struct {
	// Record is the latest of the rounds. Its At is that round's.
	Record loop.Record `json:"record"`
	// Since is the instant of the first round; Rounds how many there were.
	Since  time.Time `json:"since"`
	Rounds int       `json:"rounds"`
}

// WorkloadJournal is what is kept of one workload, as it is served.
type WorkloadJournal struct {
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"`
	Entries   []Entry `json:"entries"`
}

// Journal keeps the latest records of each workload in memory: those that changed something or
// differed from the one before. It is bounded per workload and in all. It is a Sink, and safe for
// concurrent use.
type Journal struct {
	mu   sync.Mutex
	logs map[loop.Ref]*entries
}

// entries are those of one workload, oldest first, with a lock of their own: a round takes the
// journal's lock only to find them.
type entries struct {
	mu   sync.Mutex
	list []Entry
}

// NewJournal returns an empty Journal.
func NewJournal() *Journal { return &Journal{logs: map[loop.Ref]*entries{}} }

// Put takes the record of a round.
func (j *Journal) Put(ref loop.Ref, r loop.Record) {
	j.mu.Lock()
	log := j.logs[ref]
	if log == nil {
		log = &entries{}
		j.logs[ref] = log
	}
	most := min(max(journalEntries/len(j.logs), fewestEntries), mostEntries)
	j.mu.Unlock()

	log.mu.Lock()
	defer log.mu.Unlock()
	if n := len(log.list); n > 0 && alike(&log.list[n-1].Record, &r) {
		last := &log.list[n-1]
		last.Rounds++
		last.Record = keep(&r, last.Record)
		return
	}
	var spare loop.Record
	if drop := len(log.list) + 1 - most; drop > 0 {
		spare = log.list[0].Record
		log.list = slices.Delete(log.list, 0, drop)
	}
	log.list = append(log.list, Entry{Record: keep(&r, spare), Since: r.At, Rounds: 1})
}

// alike tells whether two rounds in a row are one line: nothing changed, and for the same reason.
func alike(a, b *loop.Record) bool {
	return a.From == b.From && a.To == b.To && a.From == a.To && a.Phase == b.Phase && a.Reason == b.Reason &&
		a.Valid == b.Valid && a.Desired == b.Desired && a.Fault == b.Fault && a.Waiting == b.Waiting && a.Mode == b.Mode
}

// keep copies a record that holds until the next round only, into the slices of one that is not
// needed any more.
func keep(r *loop.Record, into loop.Record) loop.Record {
	out := *r
	out.Signals = append(into.Signals[:0], r.Signals...)
	out.Terms = append(into.Terms[:0], r.Terms...)
	out.Clamps = append(into.Clamps[:0], r.Clamps...)
	out.Replicas.StartingAges = append(into.Replicas.StartingAges[:0], r.Replicas.StartingAges...)
	return out
}

// Read returns a copy of what is kept of a workload, oldest first; ok is false where nothing is.
func (j *Journal) Read(ref loop.Ref) (list []Entry, ok bool) {
	j.mu.Lock()
	log := j.logs[ref]
	j.mu.Unlock()
	if log == nil {
		return nil, false
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	for i := range log.list {
		e := log.list[i]
		e.Record = keep(&e.Record, loop.Record{})
		list = append(list, e)
	}
	return list, true
}

// Forget drops what is kept of a workload.
func (j *Journal) Forget(ref loop.Ref) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.logs, ref)
}
