package node

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
)

// minimumStop is what a container gets between SIGTERM and SIGKILL even if its hook has used up the
// grace period.
const minimumStop = 2 * time.Second

// fastStop is what it gets when the node itself stops.
const fastStop = time.Second

// stopContainers ends all containers that run: hooks of all at once, then SIGTERM, sidecars only
// after the main containers and in reverse order, then SIGKILL when the grace period is over. It
// returns when all have ended and that is recorded.
func (w *worker) stopContainers() {
	w.mu.Lock()
	w.terminating = true
	if w.grace == 0 {
		w.grace = max(specGrace(w.pod), time.Second)
	}
	grace := w.grace
	var instances []*instance
	for _, in := range w.running {
		instances = append(instances, in)
	}
	turns := turnsOf(w.pod, w.running)
	w.mu.Unlock()

	soft, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.group.Go(func() { w.watchGrace(soft, cancel, grace) })
	for _, in := range instances {
		w.group.Go(func() { w.stopInstance(soft, in, "Stopping container "+in.c.Name, turns[in.c.Name]) })
	}
	for _, in := range instances {
		<-in.gone
	}
	cancel()
	w.group.Wait()
}

// watchGrace ends soft when the grace period is over, however often that is shortened meanwhile.
func (w *worker) watchGrace(soft context.Context, cancel context.CancelFunc, grace time.Duration) {
	defer cancel()
	t := time.NewTimer(grace)
	defer t.Stop()
	for {
		w.mu.Lock()
		shorter, now := w.graceChange, w.grace
		w.mu.Unlock()
		if now < grace {
			grace = now
			t.Reset(grace)
		}
		select {
		case <-soft.Done():
			return
		case <-w.fast:
			return
		case <-t.C:
			return
		case <-shorter:
		}
	}
}

// turnsOf gives for each sidecar the ends it waits for: those of all main containers and of the
// next later sidecar.
func turnsOf(pod *v1.Pod, running map[string]*instance) map[string][]<-chan struct{} {
	var mains []<-chan struct{}
	for i := range pod.Spec.Containers {
		if in := running[pod.Spec.Containers[i].Name]; in != nil {
			mains = append(mains, in.gone)
		}
	}
	turns := map[string][]<-chan struct{}{}
	later := mains
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		c := &pod.Spec.InitContainers[i]
		in := running[c.Name]
		if !isSidecar(c) || in == nil {
			continue
		}
		turns[c.Name] = later
		later = append(slices.Clip(later), in.gone)
	}
	return turns
}

// stopInstance ends one run of a container; soft ends when its grace period does. It returns when
// the run has ended.
func (w *worker) stopInstance(soft context.Context, in *instance, message string, turn []<-chan struct{}) {
	w.containerEvent(in.c, v1.EventTypeNormal, "Killing", message)
	in.prestp.Do(func() { w.preStop(soft, in) })
	for _, end := range turn {
		select {
		case <-end:
		case <-soft.Done():
		}
	}
	_ = in.proc.Signal(stopSignal(in.c))
	least := time.NewTimer(minimumStop)
	defer least.Stop()
	fast, leastOver, softOver := w.fast, least.C, soft.Done()
	for {
		select {
		case <-in.proc.Done():
			<-in.gone
			return
		case <-fast:
			least.Reset(fastStop)
			leastOver, softOver, fast = least.C, nil, nil
		case <-softOver:
			softOver = nil
		case <-leastOver:
			leastOver = nil
		}
		if softOver == nil && leastOver == nil {
			_ = in.proc.Signal(syscall.SIGKILL)
			<-in.gone
			return
		}
	}
}

func (w *worker) preStop(soft context.Context, in *instance) {
	if in.c.Lifecycle == nil || in.c.Lifecycle.PreStop == nil || closed(w.fast) {
		return
	}
	if err := w.runHook(soft, in, in.c.Lifecycle.PreStop); err != nil && soft.Err() == nil {
		w.containerEvent(in.c, v1.EventTypeWarning, "FailedPreStopHook", fmt.Sprintf("PreStopHook failed: %v", err))
	}
}

func stopSignal(c *v1.Container) syscall.Signal {
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if s, ok := signals[*c.Lifecycle.StopSignal]; ok {
			return s
		}
	}
	return syscall.SIGTERM
}

var signals = map[v1.Signal]syscall.Signal{ //nolint:gochecknoglobals // a constant table
	v1.SIGTERM: syscall.SIGTERM, v1.SIGINT: syscall.SIGINT, v1.SIGQUIT: syscall.SIGQUIT, v1.SIGHUP: syscall.SIGHUP,
	v1.SIGKILL: syscall.SIGKILL, v1.SIGUSR1: syscall.SIGUSR1, v1.SIGUSR2: syscall.SIGUSR2,
}
