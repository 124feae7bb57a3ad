//go:build !e2e

package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

// stage is a machine, a prober and an event recorder that keep a common journal: what happened to
// which container, and how long after the beginning.
type stage struct {
	begun   time.Time
	behaves map[string]behaviour // by container

	mu      sync.Mutex
	journal []string
	events  []string
	status  v1.PodStatus
	procs   map[string]*fakeProcess
}

// behaviour is how a container acts. The zero value runs until SIGTERM and then exits at once with
// code 0.
type behaviour struct {
	exitAfter time.Duration // by itself; 0: never
	code      int32
	drain     time.Duration // from SIGTERM to its exit
	deaf      bool          // SIGTERM does nothing
	healthy   func(path string, since time.Duration) bool
}

func newStage() *stage {
	return &stage{begun: time.Now(), behaves: map[string]behaviour{}, procs: map[string]*fakeProcess{}}
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = append(s.journal, fmt.Sprintf("%v ", time.Since(s.begun))+fmt.Sprintf(format, args...))
}

func (s *stage) CreateSandbox(string, bool) (*node.Sandbox, error) {
	return node.NewSandbox(netip.MustParseAddr("198.18.1.7")), nil
}

func (s *stage) RemoveSandbox(*node.Sandbox) {}

type fakeProcess struct {
	stage *stage
	name  string
	began time.Time
	done  chan struct{}
	once  sync.Once
	code  int32
	sig   int32
}

func (s *stage) Start(_ context.Context, _ *node.Sandbox, spec node.ShimSpec, _ string) (node.Process, error) {
	name := spec.Name[strings.LastIndex(spec.Name, "_")+1:]
	s.note("start %s", name)
	p := &fakeProcess{stage: s, name: name, began: time.Now(), done: make(chan struct{})}
	b := s.behaves[name]
	if b.exitAfter > 0 {
		go func() {
			select {
			case <-p.done:
			case <-time.After(b.exitAfter):
				p.exit(b.code, 0)
			}
		}()
	}
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
	return p, nil
}

func (p *fakeProcess) exit(code, sig int32) {
	p.once.Do(func() {
		p.stage.note("exit %s", p.name)
		p.code, p.sig = code, sig
		close(p.done)
	})
}

func (p *fakeProcess) ID() string            { return p.name + "-id" }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }
func (p *fakeProcess) Exit() (int32, int32)  { return p.code, p.sig }

func (p *fakeProcess) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.stage.note("%v %s", sig, p.name)
	b := p.stage.behaves[p.name]
	switch {
	case sig == syscall.SIGKILL:
		p.exit(137, 9)
	case b.deaf:
	case b.drain > 0:
		go func() {
			select {
			case <-p.done:
			case <-time.After(b.drain):
				p.exit(0, 0)
			}
		}()
	default:
		p.exit(0, 0)
	}
	return nil
}

func (s *stage) Exec(context.Context, node.Process, []string, []string) ([]byte, int, error) {
	return nil, 0, errors.New("not staged")
}

func (s *stage) Probe(_ context.Context, h *v1.ProbeHandler, t node.Target) (bool, string, error) {
	name := node.TargetOf(t)
	s.mu.Lock()
	p := s.procs[name]
	s.mu.Unlock()
	b := s.behaves[name]
	return b.healthy == nil || b.healthy(h.HTTPGet.Path, time.Since(p.began)), "unwell", nil
}

// Hook takes as long as the hook's path says.
func (s *stage) Hook(ctx context.Context, h *v1.LifecycleHandler, t node.Target) error {
	name := node.TargetOf(t)
	s.note("hook %s", name)
	d, err := time.ParseDuration(h.HTTPGet.Path)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stage) Event(_ runtime.Object, _, reason, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, reason+": "+message)
}

func (s *stage) Eventf(runtime.Object, string, string, string, ...any) {}

func (s *stage) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

func (s *stage) ConfigMap(context.Context, string, string) (*v1.ConfigMap, error) {
	return nil, node.ErrMissing
}

func (s *stage) Secret(context.Context, string, string) (*v1.Secret, error) {
	return nil, node.ErrMissing
}

func (s *stage) Services(string) []*v1.Service { return nil }

func (s *stage) play(t *testing.T, pod *v1.Pod) (*node.Worker, <-chan struct{}) {
	t.Helper()
	return node.StartWorker(node.WorkerOptions{
		Machine: s, Prober: s, Objects: s, Events: s, Images: map[string]string{"app": "/app"}, Dir: t.TempDir(),
		Status: func(st v1.PodStatus) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if was, is := ready(&s.status), ready(&st); was != is {
				s.journal = append(s.journal, fmt.Sprintf("%v ready %v", time.Since(s.begun), is))
			}
			s.status = st
		},
	}, pod)
}

func ready(st *v1.PodStatus) bool {
	for _, c := range st.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func podOf(grace int64, init []v1.Container, mains ...v1.Container) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec: v1.PodSpec{
			InitContainers: init, Containers: mains, RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
		},
	}
}

func deleted(pod *v1.Pod, grace int64) *v1.Pod {
	pod = pod.DeepCopy()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = new(metav1.Now()), &grace
	return pod
}

func container(name string, edit ...func(*v1.Container)) v1.Container {
	c := v1.Container{Name: name, Image: "app"}
	for _, e := range edit {
		e(&c)
	}
	return c
}

func sidecar(c *v1.Container) { c.RestartPolicy = new(v1.ContainerRestartPolicyAlways) }

func probe(path string) *v1.Probe {
	return &v1.Probe{
		ProbeHandler:  v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromInt32(80)}},
		PeriodSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
	}
}

func preStop(path string) func(*v1.Container) {
	return func(c *v1.Container) {
		c.Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: path}}}
	}
}

func image(name string) func(*v1.Container) { return func(c *v1.Container) { c.Image = name } }

func TestOrder(t *testing.T) {
	readiness := func(c *v1.Container) { c.ReadinessProbe = probe("/ready") }
	tests := map[string]struct {
		behaves map[string]behaviour
		pod     *v1.Pod
		act     func(w *node.Worker, pod *v1.Pod) // in the pod's life, told by sleeping
		want    []string
		loose   []string // instants in which containers act at once, in no order
		phase   v1.PodPhase
	}{
		"start: init, then sidecar until its startup probe passes, then mains in order of the spec": {
			behaves: map[string]behaviour{
				"init": {exitAfter: time.Second},
				"side": {healthy: func(_ string, since time.Duration) bool { return since > 1500*time.Millisecond }},
			},
			pod: podOf(30, []v1.Container{container("init"), container("side", sidecar, func(c *v1.Container) { c.StartupProbe = probe("/up") })},
				container("b"), container("a")),
			act:   func(w *node.Worker, _ *v1.Pod) { time.Sleep(5 * time.Second); w.StopFast() },
			loose: []string{"5s"},
			phase: v1.PodSucceeded,
			want: []string{
				"0s start init", "1s exit init", "1s start side", "3.1s start b", "3.1s start a", "3.1s ready true",
				"5s terminated a", "5s exit a", "5s terminated b", "5s exit b", "5s ready false", "5s terminated side", "5s exit side",
			},
		},
		"end: hooks of all at once, mains, then sidecars in reverse order": {
			behaves: map[string]behaviour{"main": {drain: 2 * time.Second}, "s1": {drain: time.Second}, "s2": {drain: time.Second}},
			pod: podOf(30, []v1.Container{container("s1", sidecar, preStop("1s")), container("s2", sidecar)},
				container("main", preStop("3s"))),
			act:   func(w *node.Worker, pod *v1.Pod) { time.Sleep(time.Second); w.Update(deleted(pod, 30)) },
			loose: []string{"1s"},
			want: []string{
				"0s start s1", "0s start s2", "0s start main", "0s ready true", "1s hook main", "1s hook s1",
				"4s terminated main", "6s exit main", "6s ready false", "6s terminated s2", "7s exit s2", "7s terminated s1", "8s exit s1",
			},
			phase: v1.PodSucceeded,
		},
		"grace period: counts from the hook's start, 2 s at least after SIGTERM": {
			behaves: map[string]behaviour{"main": {deaf: true}},
			pod:     podOf(5, nil, container("main", preStop("1h"))),
			act:     func(w *node.Worker, pod *v1.Pod) { time.Sleep(time.Second); w.Update(deleted(pod, 5)) },
			want: []string{
				"0s start main", "0s ready true", "1s hook main", "6s terminated main", "8s killed main", "8s exit main", "8s ready false",
			},
			phase: v1.PodFailed,
		},
		"grace period used up by a main container: the sidecar still gets SIGTERM": {
			behaves: map[string]behaviour{"main": {deaf: true}, "side": {deaf: true}},
			pod:     podOf(5, []v1.Container{container("side", sidecar)}, container("main")),
			act:     func(w *node.Worker, pod *v1.Pod) { time.Sleep(time.Second); w.Update(deleted(pod, 5)) },
			loose:   []string{"6s"},
			want: []string{
				"0s start side", "0s start main", "0s ready true", "1s terminated main", "6s killed main", "6s exit main", "6s ready false",
				"6s terminated side", "8s killed side", "8s exit side",
			},
			phase: v1.PodFailed,
		},
		"grace period shortened meanwhile": {
			behaves: map[string]behaviour{"main": {deaf: true}},
			pod:     podOf(60, nil, container("main")),
			act: func(w *node.Worker, pod *v1.Pod) {
				w.Update(deleted(pod, 60))
				time.Sleep(10 * time.Second)
				w.Update(deleted(pod, 3))
			},
			want:  []string{"0s start main", "0s ready true", "0s terminated main", "13s killed main", "13s exit main", "13s ready false"},
			phase: v1.PodFailed,
		},
		"readiness is probed while the pod terminates": {
			behaves: map[string]behaviour{"main": {
				drain: 10 * time.Second, healthy: func(_ string, since time.Duration) bool { return since < 4500*time.Millisecond },
			}},
			pod: podOf(30, nil, container("main", readiness)),
			act: func(w *node.Worker, pod *v1.Pod) { time.Sleep(2500 * time.Millisecond); w.Update(deleted(pod, 30)) },
			want: []string{
				"0s start main", "100ms ready true", "2.5s terminated main", "7.1s ready false", "12.5s exit main",
			},
			phase: v1.PodSucceeded,
		},
		"the node stops: no hooks, no order, a second": {
			behaves: map[string]behaviour{"main": {deaf: true}},
			pod:     podOf(60, []v1.Container{container("side", sidecar)}, container("main", preStop("1h"))),
			act:     func(w *node.Worker, _ *v1.Pod) { time.Sleep(time.Second); w.StopFast() },
			loose:   []string{"1s"},
			want: []string{
				"0s start side", "0s start main", "0s ready true", "1s terminated main", "1s terminated side", "1s exit side",
				"1s ready false", "2s killed main", "2s exit main",
			},
			phase: v1.PodFailed,
		},
		"a failing liveness probe restarts the container, with its grace and its hook": {
			behaves: map[string]behaviour{"main": {healthy: func(_ string, since time.Duration) bool { return since < 1500*time.Millisecond }}},
			pod:     podOf(30, nil, container("main", preStop("1s"), func(c *v1.Container) { c.LivenessProbe = probe("/live") })),
			act:     func(w *node.Worker, pod *v1.Pod) { time.Sleep(7 * time.Second); w.Update(deleted(pod, 30)) },
			want: []string{
				"0s start main", "0s ready true", "4.1s hook main", "5.1s terminated main", "5.1s exit main", "5.1s ready false",
				"5.1s start main", "5.1s ready true", "7s hook main", "8s terminated main", "8s exit main", "8s ready false",
			},
			phase: v1.PodSucceeded,
		},
		"crash loop: at once, then after 10 s, 20 s": {
			behaves: map[string]behaviour{"main": {exitAfter: time.Second, code: 1}},
			pod:     podOf(30, nil, container("main")),
			act:     func(w *node.Worker, pod *v1.Pod) { time.Sleep(40 * time.Second); w.Update(deleted(pod, 30)) },
			want: []string{
				"0s start main", "0s ready true", "1s exit main", "1s ready false", "1s start main", "1s ready true", "2s exit main",
				"2s ready false", "12s start main", "12s ready true", "13s exit main", "13s ready false",
				"33s start main", "33s ready true", "34s exit main", "34s ready false",
			},
			phase: v1.PodFailed,
		},
		"a job: its sidecar ends after it": {
			behaves: map[string]behaviour{"main": {exitAfter: 2 * time.Second}},
			pod: func() *v1.Pod {
				p := podOf(30, []v1.Container{container("side", sidecar)}, container("main"))
				p.Spec.RestartPolicy = v1.RestartPolicyNever
				return p
			}(),
			act: func(*node.Worker, *v1.Pod) {},
			want: []string{
				"0s start side", "0s start main", "0s ready true", "2s exit main", "2s ready false", "2s terminated side", "2s exit side",
			},
			phase: v1.PodSucceeded,
		},
		"an init container that fails for good": {
			behaves: map[string]behaviour{"init": {exitAfter: time.Second, code: 3}},
			pod: func() *v1.Pod {
				p := podOf(30, []v1.Container{container("init")}, container("main"))
				p.Spec.RestartPolicy = v1.RestartPolicyNever
				return p
			}(),
			act:   func(*node.Worker, *v1.Pod) {},
			want:  []string{"0s start init", "1s exit init"},
			phase: v1.PodFailed,
		},
		"an image that is not known delays nobody else, and deletion does not wait for it": {
			pod:   podOf(30, nil, container("bad", image("nginx")), container("good")),
			act:   func(w *node.Worker, pod *v1.Pod) { time.Sleep(3 * time.Second); w.Update(deleted(pod, 30)) },
			want:  []string{"0s start good", "3s terminated good", "3s exit good"},
			phase: v1.PodFailed,
		},
		"start delay: once for the pod, and one container's own": {
			pod: func() *v1.Pod {
				p := podOf(30, []v1.Container{container("side", sidecar)}, container("a"), container("b"))
				p.Annotations = map[string]string{"testbed.sluice.dev/start-delay": "3s", "testbed.sluice.dev/start-delay.b": "1s"}
				return p
			}(),
			act:   func(w *node.Worker, _ *v1.Pod) { time.Sleep(5 * time.Second); w.StopFast() },
			loose: []string{"5s"},
			want: []string{
				"0s start side", "3s start a", "4s start b", "4s ready true",
				"5s terminated a", "5s exit a", "5s terminated b", "5s exit b", "5s ready false", "5s terminated side", "5s exit side",
			},
			phase: v1.PodSucceeded,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage()
				s.behaves = tt.behaves
				w, done := s.play(t, tt.pod)
				synctest.Wait()
				tt.act(w, tt.pod)
				<-done
				if diff := cmp.Diff(settle(tt.want, tt.loose), settle(s.journal, tt.loose)); diff != "" {
					t.Errorf("journal (-want +got):\n%s\nevents:\n%s", diff, strings.Join(s.events, "\n"))
				}
				if s.status.Phase != tt.phase {
					t.Errorf("phase = %s, want %s", s.status.Phase, tt.phase)
				}
			})
		})
	}
}

// settle sorts by container, within the instants named, what containers do independently of one
// another.
func settle(journal, loose []string) []string {
	out := slices.Clone(journal)
	for begin := 0; begin < len(out); {
		at, _, _ := strings.Cut(out[begin], " ")
		end := begin + 1
		for end < len(out) && strings.HasPrefix(out[end], at+" ") {
			end++
		}
		if slices.Contains(loose, at) {
			slices.SortStableFunc(out[begin:end], func(a, b string) int {
				return strings.Compare(strings.Fields(a)[2], strings.Fields(b)[2])
			})
		}
		begin = end
	}
	return out
}
