package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerRun tells how far a container has come, by channels that are closed at each step.
type containerRun struct {
	tried   chan struct{} // its first start has succeeded or failed
	started chan struct{} // it runs, and its startup probe, if any, has passed
	over    chan struct{} // it has ended and will not run again
	onceTry func()
	onceUp  func()
}

// instance is one run of a container.
type instance struct {
	c      *v1.Container
	proc   process
	env    []string
	podIP  string
	gone   chan struct{} // closed when its end has been recorded
	prestp sync.Once
}

func (in *instance) target() target {
	return target{container: in.c, proc: in.proc, env: in.env, podIP: in.podIP}
}

func waiting(reason, message string) v1.ContainerState {
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// spawn runs a container, again and again as its restart policy says, until it has ended for good
// or the pod's life is over.
func (w *worker) spawn(c *v1.Container) *containerRun {
	r := &containerRun{tried: make(chan struct{}), started: make(chan struct{}), over: make(chan struct{})}
	r.onceTry = sync.OnceFunc(func() { close(r.tried) })
	r.onceUp = sync.OnceFunc(func() { close(r.started) })
	w.group.Go(func() {
		defer close(r.over)
		defer r.onceTry()
		w.runContainer(c, r)
	})
	return r
}

func (w *worker) runContainer(c *v1.Container, r *containerRun) {
	delay := crashDelay{first: w.backoff, limit: w.maxBackoff}
	if !w.pull(c, r) {
		return
	}
	for run := int32(0); ; run++ {
		spec, err := w.configure(c, r)
		if err != nil {
			return
		}
		end := w.runOnce(c, r, spec, run)
		r.onceTry()
		if w.alive.Err() != nil || !w.again(c, end) {
			return
		}
		if wait := delay.next(end.FinishedAt.Time, w.now()); wait > 0 {
			message := fmt.Sprintf("back-off %v restarting failed container=%s pod=%s", delay.current, c.Name, w.format())
			w.change(func(rec *podRecord) {
				rec.Containers[c.Name].Last = v1.ContainerState{Terminated: end}
				rec.Containers[c.Name].State = waiting("CrashLoopBackOff", message)
			})
			w.containerEvent(c, v1.EventTypeWarning, "BackOff",
				fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, w.format()))
			if !w.sleep(wait) {
				return
			}
		}
		delay.restarted(w.now())
	}
}

// again tells whether a container is started once more. A regular init container is through when it
// has succeeded.
func (w *worker) again(c *v1.Container, end *v1.ContainerStateTerminated) bool {
	if w.regularInit(c) && end.ExitCode == 0 {
		return false
	}
	return restartable(w.pod, c, end.ExitCode)
}

func (w *worker) isInit(c *v1.Container) bool {
	for i := range w.pod.Spec.InitContainers {
		if w.pod.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

func (w *worker) regularInit(c *v1.Container) bool { return w.isInit(c) && !isSidecar(c) }

// crashDelay is a kubelet's back-off between a container's runs: none before the first restart,
// then first, doubling up to limit; a container that ran for twice the limit since its last restart
// starts afresh.
type crashDelay struct {
	first, limit time.Duration
	current      time.Duration
	updated      time.Time
}

// next is how long to wait from now before a restart, for a container that ended at finished.
func (d *crashDelay) next(finished, now time.Time) time.Duration {
	if d.current == 0 || finished.Sub(d.updated) > 2*d.limit {
		d.current = 0
		return 0
	}
	return d.current - now.Sub(finished)
}

func (d *crashDelay) restarted(now time.Time) {
	d.current = min(max(2*d.current, d.first), d.limit)
	d.updated = now
}

// pull stands for getting the container's image: it takes the time that the pod's annotations say,
// and fails for an image that the node does not know.
func (w *worker) pull(c *v1.Container, r *containerRun) bool {
	if _, ok := findImage(w.images, c.Image); ok {
		d, ok := w.delays.containers[c.Name]
		switch {
		case !ok && w.delays.pod > 0 && !w.isInit(c):
			w.pulled(c, w.delays.pod) // runContainers has waited
			return w.alive.Err() == nil
		case !ok:
			w.containerEvent(c, v1.EventTypeNormal, "Pulled",
				fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image))
			return w.alive.Err() == nil
		}
		w.containerEvent(c, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
		if !w.sleep(d) {
			return false
		}
		w.pulled(c, d)
		return true
	}
	cause := fmt.Sprintf("Failed to pull image %q: not in the node's list of images", c.Image)
	for wait := w.backoff; ; wait = min(2*wait, w.maxBackoff) {
		w.containerEvent(c, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
		w.containerEvent(c, v1.EventTypeWarning, "Failed", cause)
		w.containerEvent(c, v1.EventTypeWarning, "Failed", "Error: ErrImagePull")
		w.change(func(rec *podRecord) { rec.Containers[c.Name].State = waiting("ErrImagePull", cause) })
		r.onceTry()
		shown := min(wait, time.Second)
		if !w.sleep(shown) {
			return false
		}
		message := fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", c.Image, cause)
		w.containerEvent(c, v1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image))
		w.containerEvent(c, v1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
		w.change(func(rec *podRecord) { rec.Containers[c.Name].State = waiting("ImagePullBackOff", message) })
		if !w.sleep(wait - shown) {
			return false
		}
	}
}

func (w *worker) pulled(c *v1.Container, d time.Duration) {
	w.containerEvent(c, v1.EventTypeNormal, "Pulled",
		fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: 0 bytes.", c.Image, d, d))
}

// configure resolves what the container is started with, again and again until everything it refers
// to exists.
func (w *worker) configure(c *v1.Container, r *containerRun) (shimSpec, error) {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		spec, err := w.shimSpec(c)
		if err == nil {
			return spec, nil
		}
		w.change(func(rec *podRecord) {
			rec.Containers[c.Name].State = waiting("CreateContainerConfigError", err.Error())
		})
		w.containerEvent(c, v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		r.onceTry()
		if !w.sleep(wait) {
			return shimSpec{}, w.alive.Err()
		}
	}
}

func (w *worker) shimSpec(c *v1.Container) (shimSpec, error) {
	env, err := environment(w.alive, w.pod, c, w.podFacts(), w.objs)
	if err != nil {
		return shimSpec{}, err
	}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	inv, err := invocationOf(w.images, c, lookup)
	if err != nil {
		return shimSpec{}, err
	}
	mounts, err := w.vols.mounts(c, lookup)
	if err != nil {
		return shimSpec{}, err
	}
	hosts, err := writeHosts(w.podDir(), w.pod, w.podFacts().PodIP)
	if err != nil {
		return shimSpec{}, err
	}
	mounts = append(mounts, mountSpec{Source: hosts, Target: "/etc/hosts"})
	if inv.Source != "" {
		mounts = append(mounts, mountSpec{Source: inv.Source, Target: inv.Program, ReadOnly: true})
	}
	s := shimSpec{
		Name: w.name() + "_" + c.Name, Hostname: hostname(w.pod), Program: inv.Program, Args: inv.Args, Env: environ(env),
		Dir: c.WorkingDir, Mounts: mounts, UID: -1, GID: -1,
	}
	if p := w.pod.Spec.SecurityContext; p != nil {
		s.setUser(p.RunAsUser, p.RunAsGroup)
		for _, g := range p.SupplementalGroups {
			s.Groups = append(s.Groups, int(g))
		}
		if p.FSGroup != nil {
			s.Groups = append(s.Groups, int(*p.FSGroup))
		}
	}
	if p := c.SecurityContext; p != nil {
		s.setUser(p.RunAsUser, p.RunAsGroup)
		s.ReadOnly = p.ReadOnlyRootFilesystem != nil && *p.ReadOnlyRootFilesystem
		s.Bare = p.Capabilities != nil && slices.Contains(p.Capabilities.Drop, "ALL")
	}
	if _, ok := env["HOME"]; !ok {
		s.Env = append(s.Env, "HOME="+map[bool]string{true: "/", false: "/root"}[s.UID > 0])
	}
	return s, nil
}

func (s *shimSpec) setUser(user, group *int64) {
	if user != nil {
		s.UID = int(*user)
		s.GID = max(s.GID, 0)
	}
	if group != nil {
		s.GID = int(*group)
	}
}

// runOnce runs a container once, from its start to its recorded end.
func (w *worker) runOnce(c *v1.Container, r *containerRun, spec shimSpec, run int32) *v1.ContainerStateTerminated {
	began := metav1.NewTime(w.now())
	_ = os.RemoveAll(w.logPath(c.Name, run-2))
	w.containerEvent(c, v1.EventTypeNormal, "Created", "Container created")
	proc, err := w.machine.Start(w.alive, w.sb, spec, w.logPath(c.Name, run))
	if err != nil {
		if w.alive.Err() == nil {
			w.containerEvent(c, v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		}
		end := &v1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: began, FinishedAt: metav1.NewTime(w.now()),
			ContainerID: "sluice://" + newID(),
		}
		w.recordEnd(c, end, run)
		return end
	}
	in := &instance{c: c, proc: proc, env: spec.Env, podIP: w.podFacts().PodIP, gone: make(chan struct{})}
	probes, stopProbes := context.WithCancel(context.Background())
	defer stopProbes()
	w.mu.Lock()
	late := w.terminating
	w.running[c.Name] = in
	w.mu.Unlock()
	if late {
		_ = proc.Signal(syscall.SIGKILL)
	} else if err := w.postStart(in); err == nil {
		w.recordStart(c, in, run, began)
		w.containerEvent(c, v1.EventTypeNormal, "Started", "Container started")
		r.onceTry()
	}
	var group sync.WaitGroup
	if !late {
		w.startProbes(probes, &group, in, r)
	}
	<-proc.Done()
	stopProbes()
	code, sig := proc.Exit()
	end := &v1.ContainerStateTerminated{
		ExitCode: code, Signal: sig, Reason: "Completed", StartedAt: began, FinishedAt: metav1.NewTime(w.now()),
		ContainerID: "sluice://" + proc.ID(),
	}
	if code != 0 {
		end.Reason = "Error"
	}
	w.mu.Lock()
	delete(w.running, c.Name)
	delete(w.kicks, c.Name)
	w.mu.Unlock()
	w.recordEnd(c, end, run)
	close(in.gone)
	group.Wait()
	return end
}

func (w *worker) recordStart(c *v1.Container, in *instance, run int32, began metav1.Time) {
	w.change(func(rec *podRecord) {
		s := rec.Containers[c.Name]
		if s.State.Terminated != nil {
			s.Last = s.State
		}
		s.ID, s.Restarts = in.proc.ID(), run
		s.State = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: began}}
		s.Started = c.StartupProbe == nil
		s.Ready = s.Started && c.ReadinessProbe == nil && !w.regularInit(c)
	})
}

func (w *worker) recordEnd(c *v1.Container, end *v1.ContainerStateTerminated, run int32) {
	w.change(func(rec *podRecord) {
		s := rec.Containers[c.Name]
		if s.State.Terminated != nil {
			s.Last = s.State
		}
		s.ID, s.Restarts = end.ContainerID[len("sluice://"):], run
		s.State = v1.ContainerState{Terminated: end}
		s.Started, s.Ready = false, w.regularInit(c) && end.ExitCode == 0
	})
}

// postStart runs the hook of that name; if it fails the container is killed, and so restarted as
// its policy says.
func (w *worker) postStart(in *instance) error {
	if in.c.Lifecycle == nil || in.c.Lifecycle.PostStart == nil {
		return nil
	}
	hook := in.c.Lifecycle.PostStart
	ctx, cancel := context.WithCancel(w.alive)
	defer cancel()
	err := w.runHook(ctx, in, hook)
	if err != nil && w.alive.Err() == nil {
		w.containerEvent(in.c, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
		w.containerEvent(in.c, v1.EventTypeNormal, "Killing", "FailedPostStartHook")
		_ = in.proc.Signal(syscall.SIGKILL)
	}
	return err
}

// runHook runs a lifecycle handler until it is done, ctx ends, or the container does.
func (w *worker) runHook(ctx context.Context, in *instance, hook *v1.LifecycleHandler) error {
	if hook.Sleep == nil {
		return w.prober.Hook(ctx, hook, in.target())
	}
	t := time.NewTimer(time.Duration(hook.Sleep.Seconds) * time.Second)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-in.proc.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startProbes watches over a run of a container until ctx ends. Liveness and startup probes end
// with the pod's life already; readiness goes on while it terminates.
func (w *worker) startProbes(ctx context.Context, group *sync.WaitGroup, in *instance, r *containerRun) {
	c := in.c
	living, cancel := context.WithCancel(ctx)
	context.AfterFunc(w.alive, cancel) //nolint:contextcheck // two lives bound this one
	kick := make(chan struct{}, 1)
	begin := func() {
		r.onceUp()
		if c.LivenessProbe != nil {
			group.Go(w.probe(living, in, "Liveness", c.LivenessProbe, nil, func(ok bool) {
				if !ok {
					w.killUnhealthy(living, group, in, "liveness", c.LivenessProbe)
				}
			}))
		}
		if c.ReadinessProbe == nil {
			return
		}
		w.mu.Lock()
		w.kicks[c.Name] = kick
		w.mu.Unlock()
		group.Go(w.probe(ctx, in, "Readiness", c.ReadinessProbe, kick, func(ok bool) {
			w.mu.Lock()
			same := w.rec.Containers[c.Name].Ready == ok
			w.mu.Unlock()
			if same {
				return
			}
			w.change(func(rec *podRecord) {
				if ctx.Err() == nil {
					rec.Containers[c.Name].Ready = ok
				}
			})
		}))
	}
	if c.StartupProbe == nil {
		begin()
		return
	}
	group.Go(w.probe(living, in, "Startup", c.StartupProbe, nil, func(ok bool) {
		if !ok {
			w.killUnhealthy(living, group, in, "startup", c.StartupProbe)
			return
		}
		w.change(func(rec *podRecord) {
			if s := rec.Containers[c.Name]; ctx.Err() == nil {
				s.Started = true
				s.Ready = c.ReadinessProbe == nil
			}
		})
		begin()
	}))
}

func (w *worker) probe(ctx context.Context, in *instance, kind string, p *v1.Probe, kick <-chan struct{}, result func(bool)) func() {
	run := &probeRun{
		probe: p, kick: kick, result: result, once: kind == "Startup", onceFailed: kind == "Liveness",
		handler: func(ctx context.Context) (bool, string, error) {
			return w.prober.Probe(ctx, &p.ProbeHandler, in.target())
		},
		failed: func(message string) {
			w.containerEvent(in.c, v1.EventTypeWarning, "Unhealthy", kind+" probe failed: "+message)
		},
	}
	return func() { run.run(ctx) }
}

func (w *worker) killUnhealthy(ctx context.Context, group *sync.WaitGroup, in *instance, kind string, p *v1.Probe) {
	if ctx.Err() != nil {
		return
	}
	grace := specGrace(w.pod)
	if p.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	group.Go(func() { //nolint:contextcheck // the stop outlives the probe that caused it
		soft, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		w.stopInstance(soft, in, fmt.Sprintf("Container %s failed %s probe, will be restarted", in.c.Name, kind), nil)
	})
}

func specGrace(pod *v1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}
