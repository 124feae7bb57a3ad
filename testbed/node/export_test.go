package node

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// What the tests of this package look into.
type (
	Machine         = machine
	Process         = process
	Sandbox         = sandbox
	ShimSpec        = shimSpec
	MountSpec       = mountSpec
	Prober          = prober
	Target          = target
	Objects         = objects
	PodFacts        = podFacts
	PodRecord       = podRecord
	ContainerRecord = containerRecord
	Invocation      = invocation
	LogOptions      = logOptions
	File            = file
	Worker          = worker
	Network         = network
)

var (
	Expand          = expand
	FindImage       = findImage
	InvocationOf    = invocationOf
	Environment     = environment
	FieldValue      = fieldValue
	BuildStatus     = buildStatus
	NewPodRecord    = newPodRecord
	ReplaceFiles    = replaceFiles
	ParseLogOptions = parseLogOptions
	CopyLog         = copyLog
	OpenLog         = openLog
	NewNetwork      = newNetwork
	StatusPatch     = statusPatch
	NewNetProber    = newNetProber
	ErrMissing      = errMissing
)

// Allocate takes an address.
func (n *network) Allocate() (netip.Addr, error) { return n.allocate() }

// Release gives it back.
func (n *network) Release(a netip.Addr) { n.release(a) }

// NewSandbox is one that is in no namespace.
func NewSandbox(ip netip.Addr) *Sandbox { return &sandbox{ip: ip, ns: -1} }

// Addr is the sandbox's address.
func (s *sandbox) Addr() netip.Addr { return s.ip }

// Lines gives a writer that cuts what it is given into lines of a log.
func Lines(l *logFile, stream string) *lineWriter { return &lineWriter{log: l, stream: stream} }

// Flush ends the last line.
func (w *lineWriter) Flush() { w.flush() }

// Linux is the real machine.
func Linux(bridge string, gateway netip.Addr, cidr netip.Prefix, dir string) (Machine, error) {
	return newLinux(Config{NodeIP: gateway, Bridge: bridge, Gateway: gateway, PodCIDR: cidr, Dir: dir})
}

// StartProgram runs a host program as a container.
func StartProgram(ctx context.Context, m Machine, sb *Sandbox, dir, name string, mounts []MountSpec, argv ...string) (Process, string, error) {
	log := filepath.Join(dir, name, "0.log")
	p, err := m.Start(ctx, sb, shimSpec{
		Name: name, Hostname: name, Program: argv[0], Args: argv, Env: []string{"PATH=" + defaultPath}, UID: -1, GID: -1, Mounts: mounts,
	}, log)
	return p, log, err
}

// WorkerOptions is what a worker is tested with.
type WorkerOptions struct {
	Machine Machine
	Prober  Prober
	Objects Objects
	Events  record.EventRecorder
	Images  map[string]string
	Dir     string
	Status  func(v1.PodStatus)
}

// StartWorker lives a pod's life; done is closed at its end.
func StartWorker(o WorkerOptions, pod *v1.Pod) (w *Worker, done <-chan struct{}) {
	var last v1.PodStatus
	d := deps{
		machine: o.Machine, prober: o.Prober, objs: o.Objects, events: o.Events, images: o.Images, dir: o.Dir,
		facts: podFacts{HostIP: "198.18.0.1"}, log: slog.New(slog.DiscardHandler), backoff: 10 * time.Second, maxBackoff: 5 * time.Minute,
		now: time.Now,
		status: func(_ *worker, pod *v1.Pod, rec podRecord) {
			last = buildStatus(pod, &last, &rec, o.Images, time.Now())
			o.Status(last)
		},
	}
	w = newWorker(d, pod)
	c := make(chan struct{})
	go func() {
		defer close(c)
		w.run()
	}()
	return w, c
}

// Update gives a worker a newer version of its pod.
func (w *worker) Update(pod *v1.Pod) { w.update(pod) }

// StopFast ends it as the node's end does.
func (w *worker) StopFast() { w.stopFast() }

// TargetOf tells which container a probe or hook is aimed at.
func TargetOf(t target) string { return t.container.Name }

// NewManager keeps the API server told of pods that run on a staged machine.
func NewManager(client kubernetes.Interface, o WorkerOptions) *manager {
	return newManager(client, deps{
		machine: o.Machine, prober: o.Prober, objs: o.Objects, events: o.Events, images: o.Images, dir: o.Dir,
		facts: podFacts{HostIP: "198.18.0.1"}, log: slog.New(slog.DiscardHandler), backoff: 10 * time.Second, maxBackoff: 5 * time.Minute,
		now: time.Now,
	})
}

// Handler takes what an informer tells.
func (m *manager) Handler(ctx context.Context) cache.ResourceEventHandler { return m.handler(ctx) }

// Stop ends all pods.
func (m *manager) Stop() { m.stop() }

// API serves the kubelet API without TLS.
func (m *manager) API() http.Handler { return handler(m) }

// NewTarget is a container with an address.
func NewTarget(c *v1.Container, ip string) Target { return target{container: c, podIP: ip} }
