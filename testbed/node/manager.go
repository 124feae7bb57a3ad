package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// manager has one worker for each pod bound to the node.
type manager struct {
	client kubernetes.Interface
	deps   deps

	mu       sync.Mutex
	pods     map[types.UID]*managed
	stopping bool
	group    sync.WaitGroup
}

// managed is a pod with its worker and what the API server is to be told of it.
type managed struct {
	worker *worker
	wake   chan struct{} // capacity 1: there is a newer status
	gone   chan struct{} // closed when the object is no more
	ended  chan struct{} // closed when nothing of the pod runs any more

	passive bool

	mu  sync.Mutex
	pod *v1.Pod // newest version seen
	rec podRecord
}

func newManager(client kubernetes.Interface, d deps) *manager {
	m := &manager{client: client, pods: map[types.UID]*managed{}}
	d.status = m.status
	m.deps = d
	return m
}

func (m *manager) handler(ctx context.Context) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { m.seen(ctx, obj) },
		UpdateFunc: func(was, obj any) {
			before, ok := was.(*v1.Pod)
			if after, ok2 := obj.(*v1.Pod); ok && ok2 && before.UID != after.UID {
				// a deletion and a creation that the watch missed look like an update
				m.gone(before)
			}
			m.seen(ctx, obj)
		},
		DeleteFunc: func(obj any) {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			if pod, ok := obj.(*v1.Pod); ok {
				m.gone(pod)
			}
		},
	}
}

func (m *manager) seen(ctx context.Context, obj any) {
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	m.mu.Lock()
	p := m.pods[pod.UID]
	fresh := p == nil && !m.stopping
	if fresh {
		p = m.adopt(ctx, pod)
	}
	m.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	p.pod = pod
	p.mu.Unlock()
	if !fresh && !p.passive {
		p.worker.update(pod)
	}
	p.nudge()
}

// adopt begins a pod's life. One that is over already, or was to be deleted before this node saw
// it, runs nothing.
func (m *manager) adopt(ctx context.Context, pod *v1.Pod) *managed {
	p := &managed{
		pod: pod, worker: newWorker(m.deps, pod), wake: make(chan struct{}, 1), gone: make(chan struct{}), ended: make(chan struct{}),
		passive: pod.DeletionTimestamp != nil || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed,
	}
	m.pods[pod.UID] = p
	m.group.Go(func() { //nolint:contextcheck // a pod ends in its own order when the node stops
		if !p.passive {
			p.worker.run()
		}
		close(p.ended)
		p.nudge()
	})
	m.group.Go(func() { m.report(ctx, p) })
	return p
}

func (p *managed) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (m *manager) gone(pod *v1.Pod) {
	m.mu.Lock()
	p := m.pods[pod.UID]
	delete(m.pods, pod.UID)
	m.mu.Unlock()
	if p == nil {
		return
	}
	p.worker.terminate(pod)
	close(p.gone)
}

// status takes a worker's word; the reporter of its pod passes it on.
func (m *manager) status(w *worker, _ *v1.Pod, rec podRecord) {
	m.mu.Lock()
	p := m.pods[w.pod.UID]
	m.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	p.rec = rec
	p.mu.Unlock()
	p.nudge()
}

// stop ends all pods' processes fast and returns when they have ended; the handlers' context must
// have ended. Nothing is written of it: the node vanishes.
func (m *manager) stop() {
	m.mu.Lock()
	m.stopping = true
	for _, p := range m.pods {
		p.worker.stopFast()
	}
	m.mu.Unlock()
	m.group.Wait()
}

// report keeps the API server up to date on a pod until its object is gone or the node stops.
func (m *manager) report(ctx context.Context, p *managed) {
	const firstRetry = 20 * time.Millisecond
	var written *v1.PodStatus // what the API server is known to have
	for retry := firstRetry; ; {
		select {
		case <-p.wake:
		case <-p.gone:
			m.forget(p)
			return
		case <-ctx.Done():
			return
		}
		if err := m.sync(ctx, p, &written); err != nil && ctx.Err() == nil {
			m.deps.log.WarnContext(ctx, "pod not synced, will be tried again", slog.String("pod", p.worker.name()), slog.Any("error", err))
			time.AfterFunc(retry, p.nudge)
			retry = min(2*retry, 2*time.Second)
			continue
		}
		retry = firstRetry
	}
}

// sync writes the pod's status if it has changed, the newest only, and deletes the object when the
// pod was to be deleted and nothing of it runs any more.
func (m *manager) sync(ctx context.Context, p *managed, written **v1.PodStatus) (err error) {
	over := closed(p.ended) // asked first: what is written below is final then
	p.mu.Lock()
	pod, rec := p.pod, p.rec
	p.mu.Unlock()
	if rec.Containers != nil {
		if *written, err = m.write(ctx, pod, *written, rec); err != nil {
			return err
		}
	}
	if over && pod.DeletionTimestamp != nil {
		return m.remove(ctx, pod)
	}
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// forget waits for what still runs of a pod whose object is gone, and removes its files.
func (m *manager) forget(p *managed) {
	<-p.ended
	_ = os.RemoveAll(p.worker.podDir())
	_ = os.RemoveAll(logDir(m.deps.dir, p.worker.pod))
}

// write patches the status if it differs from what the server has, and returns what it has then.
func (m *manager) write(ctx context.Context, pod *v1.Pod, written *v1.PodStatus, rec podRecord) (*v1.PodStatus, error) {
	// Conditions of others come from the newest version seen, ours from what we wrote: that may be
	// newer.
	old := pod.Status.DeepCopy()
	if written != nil {
		old = written.DeepCopy()
		old.Conditions = mergeConditions(written.Conditions, pod.Status.Conditions)
	}
	now := buildStatus(pod, old, &rec, m.deps.images, m.deps.now())
	patch, err := statusPatch(pod, old, &now)
	if err != nil || patch == nil {
		return &now, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = m.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return written, nil // the object is gone, or another one has its name
	}
	if err != nil {
		return written, fmt.Errorf("patch status: %w", err)
	}
	return &now, nil
}

// mergeConditions takes from seen the conditions that are not a kubelet's.
func mergeConditions(own, seen []v1.PodCondition) []v1.PodCondition {
	var all []v1.PodCondition
	for _, c := range own {
		if isOurs(c.Type) {
			all = append(all, c)
		}
	}
	for _, c := range seen {
		if !isOurs(c.Type) {
			all = append(all, c)
		}
	}
	return all
}

func isOurs(t v1.PodConditionType) bool {
	return t == v1.PodReady || t == v1.ContainersReady || t == v1.PodInitialized || t == v1.PodReadyToStartContainers
}

// statusPatch is the strategic merge patch from one status to another, bound to the pod's UID; nil
// if they are the same.
func statusPatch(pod *v1.Pod, from, to *v1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(v1.Pod{Status: *from})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(v1.Pod{Status: *to})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("make status patch: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	var whole map[string]any
	if err := json.Unmarshal(patch, &whole); err != nil {
		return nil, err
	}
	whole["metadata"] = map[string]any{"uid": pod.UID}
	return json.Marshal(whole)
}

// remove deletes the object for good.
func (m *manager) remove(ctx context.Context, pod *v1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	options := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	err := m.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete pod: %w", err)
}
