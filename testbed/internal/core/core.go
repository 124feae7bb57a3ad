// Package core is what runs inside the testbed's namespaces: the network, the components of the
// control plane in their order, and the node agent.
package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
	"github.com/sluice-autoscaler/sluice/testbed/internal/process"
)

// Config says what to bring up. It is handed from the command to the core as JSON.
type Config struct {
	// Dir is the state directory: it exists and is empty.
	Dir string
	// Bin is the folder of the control plane's programs.
	Bin string
	// Images maps image names to local programs, by absolute path.
	Images map[string]string
	// HPASyncPeriod is how often the HorizontalPodAutoscaler controller decides.
	HPASyncPeriod time.Duration
	// CrashBackoff is the first wait before a crashed container is started again; zero means the
	// node agent's default.
	CrashBackoff time.Duration
	// ExtraArgs are further arguments by component.
	ExtraArgs map[string][]string
	// ReadyTimeout bounds the wait for each component.
	ReadyTimeout time.Duration
}

// Kinds of events, in the order in which they come.
const (
	// Progress tells people what goes on.
	Progress = "progress"
	// Bridged tells that the bridge is up, so the host can plug itself in.
	Bridged = "bridged"
	// Ready tells that everything is up.
	Ready = "ready"
	// Failed is the last event of a core that ends by itself.
	Failed = "failed"
)

// Event is what the core tells the command that started it, as a line of JSON.
type Event struct {
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"`
}

// Folders and files of the state directory that others read too.
const (
	LogDir     = "logs"
	Kubeconfig = "kubeconfig"
	NodeDir    = "node"
	// HaltDir holds a file for each component that is to be down, by its name.
	HaltDir = "halt"
)

// Run brings everything up, tells of it on events, runs until ctx ends or a component dies, and
// takes everything down. It expects to be in namespaces of its own. Its error is nil when ctx ended
// it.
func Run(ctx context.Context, cfg Config, events io.Writer, log *slog.Logger) error {
	err := run(ctx, cfg, json.NewEncoder(events), log)
	if err != nil && ctx.Err() == nil {
		tell(json.NewEncoder(events), Failed, err.Error())
		return err
	}
	return nil
}

func run(ctx context.Context, cfg Config, events *json.Encoder, log *slog.Logger) error {
	if err := network.SetUp(); err != nil {
		return err
	}
	tell(events, Bridged, "")
	files, err := writeFiles(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stack := stack{ctx: ctx, cancel: cancel, cfg: cfg, log: log, events: events}
	defer stack.stop()

	if err := stack.start("etcd", etcdArgs(cfg), etcdReady); err != nil {
		return err
	}
	if err := stack.start("kube-apiserver", apiserverArgs(files), apiserverReady(files)); err != nil {
		return err
	}
	admin, err := clientcmd.BuildConfigFromFlags("", filepath.Join(cfg.Dir, Kubeconfig))
	if err != nil {
		return fmt.Errorf("read admin kubeconfig: %w", err)
	}
	// These three need nothing but the API server, so they come up side by side.
	for _, c := range []component{
		{"kube-controller-manager", controllerManagerArgs(cfg, files), healthz("https://127.0.0.1:10257/healthz")},
		{"kube-scheduler", schedulerArgs(files), healthz("https://127.0.0.1:10259/healthz")},
		{"kube-proxy", proxyArgs(files), healthz("http://127.0.0.1:10256/livez")},
	} {
		if err := stack.launch(c); err != nil {
			return err
		}
	}
	stopNode, err := stack.startNode(ctx, files, rest.CopyConfig(admin))
	if err != nil {
		return err
	}
	defer stopNode()
	if err := stack.await(); err != nil {
		return err
	}
	if err := clusterReady(ctx, admin, cfg.ReadyTimeout); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	// Last, because the node agent switches it on: of no use to it here, where whatever is on the
	// bridge is routed.
	if err := network.KeepOffFrames(); err != nil {
		return err
	}
	tell(events, Ready, "")
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func tell(events *json.Encoder, kind, text string) {
	// Nobody listening means that the command is gone, and then the core is about to be killed.
	_ = events.Encode(Event{Kind: kind, Text: text})
}

// component is a program and how to know that it is ready.
type component struct {
	name  string
	args  []string
	ready func(context.Context) error
}

// stack is the running components, in order of their start. It is used by one goroutine, but for
// running.
type stack struct {
	ctx     context.Context //nolint:containedctx // the life of the stack itself, which run owns
	cancel  context.CancelCauseFunc
	cfg     Config
	log     *slog.Logger
	events  *json.Encoder
	waiting []pending
	keepers sync.WaitGroup

	mu      sync.Mutex
	running []*process.Process
}

type pending struct {
	component
	process *process.Process
	since   time.Time
}

// start launches a component and waits until it and all launched before are ready.
func (s *stack) start(name string, args []string, ready func(context.Context) error) error {
	if err := s.launch(component{name, args, ready}); err != nil {
		return err
	}
	return s.await()
}

// launch starts a component. Its unexpected end ends the stack.
func (s *stack) launch(c component) error {
	p, err := s.exec(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.running = append(s.running, p)
	place := len(s.running) - 1
	s.mu.Unlock()
	s.waiting = append(s.waiting, pending{c, p, time.Now()})
	s.keepers.Go(func() {
		if err := s.keep(c, place, p); err != nil {
			s.cancel(err)
		}
	})
	return nil
}

func (s *stack) exec(c component) (*process.Process, error) {
	return process.Start(process.Spec{
		Name:   c.name,
		Path:   filepath.Join(s.cfg.Bin, c.name),
		Args:   append(c.args, s.cfg.ExtraArgs[c.name]...),
		LogDir: filepath.Join(s.cfg.Dir, LogDir),
	})
}

// haltLook is how often the core looks whether a component is to be down.
const haltLook = 20 * time.Millisecond

// keep watches a component until the stack ends. One that is to be down is killed, and started again
// once it is not. The end of any other is an error.
func (s *stack) keep(c component, place int, p *process.Process) error {
	tick := time.NewTicker(haltLook)
	defer tick.Stop()
	killed := false // by then it may no longer be to be down
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-tick.C:
			if s.halted(c.name) {
				killed = true
				p.Kill()
			}
		case <-p.Done():
			if !killed {
				return p.Failure("run the control plane")
			}
			s.log.Info("halted", slog.String("component", c.name))
			for s.halted(c.name) {
				select {
				case <-s.ctx.Done():
					return nil
				case <-tick.C:
				}
			}
			var err error
			if p, err = s.exec(c); err != nil {
				return err
			}
			killed = false
			s.mu.Lock()
			s.running[place] = p
			s.mu.Unlock()
			s.log.Info("resumed", slog.String("component", c.name))
		}
	}
}

func (s *stack) halted(name string) bool {
	_, err := os.Stat(filepath.Join(s.cfg.Dir, HaltDir, name))
	return err == nil
}

// await waits until all launched components are ready.
func (s *stack) await() error {
	for _, w := range s.waiting {
		deadline := w.since.Add(s.cfg.ReadyTimeout)
		if err := awaitReady(s.ctx, deadline, w.ready); err != nil {
			if cause := context.Cause(s.ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("%w (last answer: %w)", w.process.Failure(fmt.Sprintf("wait %s", s.cfg.ReadyTimeout)), err)
		}
		tell(s.events, Progress, fmt.Sprintf("%s is ready after %.1f s", w.name, time.Since(w.since).Seconds()))
	}
	s.waiting = nil
	return nil
}

// stop ends the components in reverse order: all that talk to the API server at once, then it, then
// etcd. What it keeps is thrown away, so none of them gets long.
func (s *stack) stop() {
	s.cancel(nil)
	s.keepers.Wait()
	const grace = 1500 * time.Millisecond
	clients := s.running[min(2, len(s.running)):]
	done := make(chan struct{})
	for _, p := range clients {
		go func() {
			p.Stop(grace)
			done <- struct{}{}
		}()
	}
	for range clients {
		<-done
	}
	for i := min(2, len(s.running)) - 1; i >= 0; i-- {
		s.running[i].Stop(grace)
	}
	s.log.Info("stopped", slog.Int("components", len(s.running)))
}

// awaitReady polls ready until it returns nil, and returns its last error at the deadline.
func awaitReady(ctx context.Context, deadline time.Time, ready func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		probe, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ready(probe)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// writeFile writes a file of the state directory that only its owner may read.
func writeFile(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
