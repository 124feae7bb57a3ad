package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// deps is what workers share; all of it is safe for concurrent use.
type deps struct {
	machine machine
	prober  prober
	objs    objects
	tokens  tokens
	events  record.EventRecorder
	// status takes the newest status of a pod; it must not block.
	status func(*worker, *v1.Pod, podRecord)
	images map[string]string
	facts  podFacts // HostIP and Allocatable
	dir    string
	log    *slog.Logger
	// backoff is the first wait of a crash loop; it doubles up to maxBackoff.
	backoff    time.Duration
	maxBackoff time.Duration
	now        func() time.Time
}

// worker runs one pod from its binding to its end.
type worker struct {
	deps

	pod *v1.Pod // as it was bound; of its later versions only newest knows

	mu          sync.Mutex
	newest      *v1.Pod
	rec         podRecord
	running     map[string]*instance
	terminating bool          // no container may start any more
	grace       time.Duration // of the termination under way
	graceChange chan struct{} // closed and replaced when grace shrinks

	// alive ends when the pod is to be terminated or the node stops.
	alive  context.Context //nolint:containedctx // the pod's life, which several of its goroutines share
	die    context.CancelFunc
	fast   chan struct{} // closed when the node stops: at most a second is left
	once   sync.Once
	group  sync.WaitGroup // one count per container that has not ended for good
	sb     *sandbox
	vols   *volumes
	delays startDelays
	kicks  map[string]chan struct{} // guarded by mu: asks a readiness probe to run now
	kicker *time.Timer              // guarded by mu
}

func newWorker(d deps, pod *v1.Pod) *worker {
	w := &worker{
		deps: d, pod: pod, newest: pod, running: map[string]*instance{}, graceChange: make(chan struct{}), fast: make(chan struct{}),
		rec: newPodRecord(pod, d.facts.HostIP, d.now()), kicks: map[string]chan struct{}{},
	}
	w.log = d.log.With(slog.String("pod", pod.Namespace+"/"+pod.Name))
	w.alive, w.die = context.WithCancel(context.Background())
	w.vols = &volumes{dir: filepath.Join(w.podDir(), "volumes"), pod: pod, objs: d.objs, tokens: d.tokens, now: d.now}
	w.delays = parseStartDelays(pod)
	return w
}

func (w *worker) podDir() string { return filepath.Join(w.dir, "pods", string(w.pod.UID)) }

// format is how a kubelet names a pod in messages.
func (w *worker) format() string {
	return fmt.Sprintf("%s_%s(%s)", w.pod.Name, w.pod.Namespace, w.pod.UID)
}

// name is what files of this pod are called for tools outside.
func (w *worker) name() string { return w.pod.Namespace + "_" + w.pod.Name }

func (w *worker) logPath(container string, run int32) string {
	return filepath.Join(logDir(w.dir, w.pod), container, fmt.Sprintf("%d.log", run))
}

func logDir(dir string, pod *v1.Pod) string {
	return filepath.Join(dir, "logs", pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// update takes a newer version of the pod.
func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	w.newest = pod
	w.mu.Unlock()
	if pod.DeletionTimestamp != nil {
		w.terminate(pod)
	} else {
		w.change(func(*podRecord) {}) // readiness gates may have turned
	}
}

// terminate begins the pod's end, or shortens one that is under way. A grace period never gets
// longer.
func (w *worker) terminate(pod *v1.Pod) {
	grace := 30 * time.Second
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	grace = max(grace, time.Second)
	w.mu.Lock()
	if w.grace == 0 {
		w.grace = grace
	} else if grace < w.grace {
		w.grace = grace
		close(w.graceChange)
		w.graceChange = make(chan struct{})
	}
	w.mu.Unlock()
	w.die()
}

// stopFast ends the pod because the node stops: SIGTERM to all at once, SIGKILL within a second.
func (w *worker) stopFast() {
	w.once.Do(func() { close(w.fast) })
	w.die()
}

// change edits the record and publishes what follows from it.
func (w *worker) change(edit func(*podRecord)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	edit(&w.rec)
	w.status(w, w.newest, w.rec.clone())
	if len(w.kicks) > 0 && w.kicker == nil {
		w.kicker = time.AfterFunc(syncDelay, w.kick)
	}
}

// syncDelay is the time from a change in a pod to the extra readiness probes it causes. A kubelet
// hears of changes in its containers within a second and then probes those that are not ready ahead
// of their period.
const syncDelay = 100 * time.Millisecond

func (w *worker) kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicker = nil
	for name, kick := range w.kicks {
		if c := w.rec.Containers[name]; c.Started && !c.Ready {
			select {
			case kick <- struct{}{}:
			default:
			}
		}
	}
}

func (r *podRecord) clone() podRecord {
	c := *r
	c.Containers = make(map[string]*containerRecord, len(r.Containers))
	for k, v := range r.Containers {
		c.Containers[k] = new(*v)
	}
	return c
}

// run lives the pod's life and returns when nothing of it runs any more; the pod's final status has
// been published then.
func (w *worker) run() {
	w.change(func(*podRecord) {})
	var refresher sync.WaitGroup
	refresher.Go(w.refreshVolumes)
	stopDeadline := w.watchDeadline()
	if err := w.prepare(); err == nil {
		w.runContainers()
	}
	stopDeadline()
	w.die()
	w.stopContainers()
	refresher.Wait()
	w.machine.RemoveSandbox(w.sb)
	w.change(func(r *podRecord) {
		r.Final, r.Sandbox = true, false
		for _, c := range r.Containers {
			// A container between two runs has ended, now that there is no next one.
			if c.State.Waiting != nil && c.Last.Terminated != nil {
				c.State = c.Last
			}
		}
	})
	w.mu.Lock()
	if w.kicker != nil {
		w.kicker.Stop()
	}
	w.mu.Unlock()
}

func (w *worker) watchDeadline() (stop func()) {
	seconds := w.pod.Spec.ActiveDeadlineSeconds
	if seconds == nil {
		return func() {}
	}
	t := time.AfterFunc(time.Duration(*seconds)*time.Second, func() {
		w.change(func(r *podRecord) {
			r.Reason, r.Message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
		})
		w.event(v1.EventTypeNormal, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		w.terminate(w.pod)
	})
	return func() { t.Stop() }
}

// prepare makes the network and the volumes, again and again until it works or the pod's life is
// over.
func (w *worker) prepare() error {
	err := w.retry("FailedCreatePodSandBox", "Failed to create pod sandbox: ", func() (err error) {
		w.sb, err = w.machine.CreateSandbox(w.name(), w.pod.Spec.HostNetwork)
		return err
	})
	if err != nil {
		return err
	}
	w.change(func(r *podRecord) {
		r.Sandbox = true
		r.PodIP = w.sb.ip.String()
	})
	return w.retry("FailedMount", "", func() error { return w.vols.write(w.alive, w.podFacts()) })
}

func (w *worker) podFacts() podFacts {
	f := w.facts
	if w.sb != nil {
		f.PodIP = w.sb.ip.String()
	}
	return f
}

func (w *worker) retry(reason, prefix string, deed func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := deed()
		if err == nil || w.alive.Err() != nil {
			return errors.Join(err, w.alive.Err())
		}
		// What the next try mends is not worth telling: a ConfigMap that a controller is about to
		// write.
		if wait > 200*time.Millisecond {
			w.event(v1.EventTypeWarning, reason, prefix+err.Error())
		}
		if !w.sleep(wait) {
			return w.alive.Err()
		}
	}
}

// sleep waits, and tells whether the pod is still to live.
func (w *worker) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return w.alive.Err() == nil
	case <-w.alive.Done():
		return false
	}
}

// refreshPeriod is how often changed ConfigMaps, Secrets and tokens are written anew.
const refreshPeriod = 30 * time.Second

func (w *worker) refreshVolumes() {
	if !w.vols.changing() {
		return
	}
	for w.sleep(refreshPeriod) {
		w.mu.Lock()
		ready := w.rec.Sandbox && len(w.running) > 0
		w.mu.Unlock()
		if !ready {
			continue
		}
		if err := w.vols.write(w.alive, w.podFacts()); err != nil && w.alive.Err() == nil {
			w.log.WarnContext(w.alive, "volumes not refreshed", slog.Any("error", err))
		}
	}
}

// runContainers starts the pod's containers in a kubelet's order and returns when all main ones
// have ended for good, an init container has failed for good, or the pod is to be terminated.
func (w *worker) runContainers() {
	for i := range w.pod.Spec.InitContainers {
		c := &w.pod.Spec.InitContainers[i]
		r := w.spawn(c)
		if isSidecar(c) {
			if !w.await(r.started) {
				return
			}
			continue
		}
		if !w.await(r.over) {
			return
		}
		w.mu.Lock()
		passed := w.rec.Containers[c.Name].Ready
		w.mu.Unlock()
		if !passed {
			return
		}
	}
	if d := w.delays.pod; d > 0 {
		for i := range w.pod.Spec.Containers {
			c := &w.pod.Spec.Containers[i]
			w.containerEvent(c, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
		}
		if !w.sleep(d) {
			return
		}
	}
	var mains []*containerRun
	for i := range w.pod.Spec.Containers {
		r := w.spawn(&w.pod.Spec.Containers[i])
		mains = append(mains, r)
		if !w.await(r.tried) {
			return
		}
	}
	for _, r := range mains {
		if !w.await(r.over) {
			return
		}
	}
}

// await waits for a container's progress, and tells whether the pod is still to live.
func (w *worker) await(progress <-chan struct{}) bool {
	select {
	case <-progress:
	case <-w.alive.Done():
	}
	return w.alive.Err() == nil
}

func (w *worker) event(kind, reason, message string) {
	w.events.Event(w.ref(""), kind, reason, message)
}

func (w *worker) containerEvent(c *v1.Container, kind, reason, message string) {
	field := "spec.containers{" + c.Name + "}"
	if w.isInit(c) {
		field = "spec.initContainers{" + c.Name + "}"
	}
	w.events.Event(w.ref(field), kind, reason, message)
}

func (w *worker) ref(field string) *v1.ObjectReference {
	return &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID,
		ResourceVersion: w.pod.ResourceVersion, FieldPath: field,
	}
}
