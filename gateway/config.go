// Package gateway stands in for a workload that has no pod: it accepts on one port per Service
// port, holds requests within bounds, tells the controller at once, probes appearing pods, and
// forwards as soon as one answers, paced to what a pod may take. What it serves is assigned by the
// controller (package wire). It imports no Kubernetes package; the cluster's view of the pods comes
// through Source.
package gateway

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/gateway/memory"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// Target names one port of one Service.
type Target = assignment.Target

// Source tells which endpoints the cluster knows. It is safe for concurrent use.
type Source interface {
	// Subscribe calls update with all of a target's endpoints, soon and whenever they differ, one
	// call at a time, until cancel has returned. update must not block.
	Subscribe(t Target, update func([]hold.Endpoint)) (cancel func())
	// Synced reports whether the first view of the cluster is complete.
	Synced() bool
}

// Config is what a gateway needs to know. Start from Default.
type Config struct {
	// Name identifies the gateway in its reports: its pod's name.
	Name string
	// ListenHost is the address on which assigned ports are opened; "" is every one.
	ListenHost string
	// MaxHeld bounds the requests held at once for one Service port, ≥ 1. Raising it costs memory
	// (about 20 KiB a connection); lowering it answers 503 earlier in a burst.
	MaxHeld int
	// MaxHeldTotal bounds them over all Service ports, ≥ 1.
	MaxHeldTotal int
	// MaxHeldBytes bounds what held requests of one Service port keep buffered, in bytes, ≥ 16 KiB.
	MaxHeldBytes int64
	// MaxMemory bounds the memory that clients take, in bytes, ≥ 1 MiB: connections, heads, and
	// what is read ahead of bodies. It is divided fairly among namespaces and their Services
	// (hold.Budget). Raising it over half of the process's limit risks its end; lowering it answers
	// 503 earlier.
	MaxMemory int64
	// HoldTimeout is how long a request is held before it is answered 504, > 0. Shorter than a cold
	// start, it fails requests that would have been served; longer, clients give up first.
	HoldTimeout time.Duration
	// ProbeInterval is the time between two probes of a pod that does not answer yet, 1 ms to 1 s.
	// Lower costs CPU on both sides, higher delays the first answer. After two seconds of probing
	// it is stretched to 50 ms.
	ProbeInterval time.Duration
	// PodConcurrency is how many requests are in flight to one pod where the assignment does not
	// say, ≥ 1.
	PodConcurrency int
	// DialTimeout bounds the connection to a pod, > 0. Then another pod is tried.
	DialTimeout time.Duration
	// TerminatingGrace is how long after a pod was seen terminating it may get new requests while
	// there is no other, ≥ 0. It must be shorter than the pods' own lame duck, else requests meet a
	// closed door.
	TerminatingGrace time.Duration
	// PathLinger is how long a port goes on to take connections after the gateway left the path, ≥
	// 0. Before and after that it takes none. Shorter than the slowest proxy's, clients are refused
	// that were still sent here; longer, a pod can be reached through the gateway for longer.
	PathLinger time.Duration
	// LameDuck is how long the gateway serves on, not ready, before it drains, and how long idle
	// connections of a removed port stay usable, ≥ 0.
	LameDuck time.Duration
	// Drain bounds how long held and running requests may take at the end, > 0.
	Drain time.Duration
	// MaxReaders bounds the readers of the report stream, ≥ 1.
	MaxReaders int
	// ProbeAgents are prefixes of User-Agents that are health checks and scrapers: never held,
	// never counted.
	ProbeAgents []string
	// ProbePaths are request paths that count as such from any agent; one that ends in "*" stands
	// for all that begin so.
	ProbePaths []string
}

// Default returns the defaults; Name is empty and must be set.
func Default() Config {
	return Config{
		MaxHeld: 10000, MaxHeldTotal: 50000, MaxHeldBytes: 64 << 20, MaxMemory: memory.ForClients(0), HoldTimeout: time.Minute,
		ProbeInterval: 5 * time.Millisecond, PodConcurrency: 100, DialTimeout: time.Second, TerminatingGrace: time.Second,
		PathLinger: 35 * time.Second, LameDuck: 5 * time.Second, Drain: time.Minute, MaxReaders: 16,
		ProbeAgents: request.ProbeAgents(),
	}
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Name != "", "name is empty: want this gateway's pod name")
	check(c.ListenHost == "" || net.ParseIP(c.ListenHost) != nil, "listen-host = %q: want an IP address or nothing", c.ListenHost)
	check(c.MaxHeld >= 1, "max-held = %d: want ≥ 1 (requests)", c.MaxHeld)
	check(c.MaxHeldTotal >= 1, "max-held-total = %d: want ≥ 1 (requests)", c.MaxHeldTotal)
	check(c.MaxHeldBytes >= 16<<10, "max-held-bytes = %d: want ≥ 16Ki (bytes)", c.MaxHeldBytes)
	check(c.MaxMemory >= memory.Least, "max-memory = %d: want ≥ 1Mi (bytes)", c.MaxMemory)
	check(c.HoldTimeout > 0, "hold-timeout = %v: want > 0", c.HoldTimeout)
	check(c.ProbeInterval >= time.Millisecond && c.ProbeInterval <= time.Second, "probe-interval = %v: want 1ms to 1s", c.ProbeInterval)
	check(c.PodConcurrency >= 1, "pod-concurrency = %d: want ≥ 1 (requests)", c.PodConcurrency)
	check(c.DialTimeout > 0, "dial-timeout = %v: want > 0", c.DialTimeout)
	check(c.TerminatingGrace >= 0, "terminating-grace = %v: want ≥ 0", c.TerminatingGrace)
	check(c.PathLinger >= 0, "path-linger = %v: want ≥ 0", c.PathLinger)
	check(c.LameDuck >= 0, "lame-duck = %v: want ≥ 0", c.LameDuck)
	check(c.Drain > 0, "drain = %v: want > 0", c.Drain)
	check(c.MaxReaders >= 1, "max-readers = %d: want ≥ 1", c.MaxReaders)
	check(!slices.Contains(c.ProbeAgents, ""), "probe-agent is empty: every request would be a health check")
	for _, p := range c.ProbePaths {
		check(strings.HasPrefix(p, "/"), "probe-path = %q: want a path that begins with /", p)
	}
	return errors.Join(errs...)
}
