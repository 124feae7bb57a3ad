// Package testbed runs a real Kubernetes control plane on one machine, for demonstrations and
// end-to-end tests: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kube-proxy,
// and one node that runs each container as a local process in a network namespace per pod. It needs
// root, Go (for the first build) and nft.
//
// All of it lives in PID, network and mount namespaces of its own below the process that called
// Start, and ends with that process, however it ends. The host reaches pods and Services by their
// addresses, 198.18.0.0/16 and 198.19.0.0/16.
package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-autoscaler/sluice/testbed/internal/binaries"
	"github.com/sluice-autoscaler/sluice/testbed/internal/core"
	"github.com/sluice-autoscaler/sluice/testbed/internal/network"
	"github.com/sluice-autoscaler/sluice/testbed/internal/process"
)

// marker is the file that tells a state directory from a folder that must not be emptied.
const marker = ".sluice-testbed"

// Options says what to start. The zero value will do.
type Options struct {
	// Dir is the state directory, kept after the end for its logs. It must be new, empty, or an
	// earlier testbed's, which is removed. Empty means a temporary one that Stop removes.
	Dir string
	// Cache is the folder for built programs; empty means DefaultCache.
	Cache string
	// ControlPlane is the folder of the module that pins the control plane's programs; empty means
	// the one beside this package's source, or testbed/controlplane in the working directory or
	// above.
	ControlPlane string
	// Images maps image names, as pods give them, to local programs. Relative paths are resolved by
	// Start.
	Images map[string]string
	// HPASyncPeriod is how often the HorizontalPodAutoscaler controller decides; zero means 5 s.
	// (Kubernetes' own default is 15 s.)
	HPASyncPeriod time.Duration
	// CrashBackoff is the first wait before a crashed container is started again, doubled each
	// time; zero means a kubelet's 10 s.
	CrashBackoff time.Duration
	// ExtraArgs are further arguments by component ("kube-apiserver": {"--v=4"}).
	ExtraArgs map[string][]string
	// ReadyTimeout bounds the wait for each component; zero means 60 s.
	ReadyTimeout time.Duration
	// Progress takes lines that tell people what goes on; nil means none.
	Progress io.Writer
}

// Cluster is a running testbed. Its methods may be called concurrently.
type Cluster struct {
	instance Instance  // written by Start alone, under mu
	cmd      *exec.Cmd // nil if attached
	listener net.Listener
	temp     bool
	told     chan struct{} // closed when the core's last event was read
	done     chan struct{}
	stopping sync.Once
	mu       sync.Mutex
	stopped  bool  // the end was asked for
	failure  error // what the core said before it ended
	err      error // why it ended; valid once done is closed
}

// DefaultCache returns the folder for built programs: $SLUICE_CACHE, or sluice in the user's cache
// directory.
func DefaultCache() (string, error) {
	if dir := os.Getenv("SLUICE_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(dir, "sluice"), nil
}

// Build builds the control plane's programs if they are not in the cache and returns their folder.
// It uses the fields Cache, ControlPlane and Progress.
func Build(ctx context.Context, o Options) (dir string, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return "", err
	}
	return binaries.Cache{Dir: filepath.Join(o.Cache, "controlplane"), Source: o.ControlPlane, Progress: o.Progress}.Ensure(ctx)
}

// Start builds what is missing, starts everything and returns when it is ready for pods. ctx bounds
// the start only; the cluster runs until Stop or the end of the process. The program must call
// MaybeChild first thing.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	if err := preflight(); err != nil {
		return nil, err
	}
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	// Claimed before the build, so that nobody waits minutes to learn that another testbed is
	// there.
	listener, err := claim(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{listener: listener, told: make(chan struct{}), done: make(chan struct{}), instance: Instance{PID: os.Getpid()}}
	go serve(listener, c.Instance)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard())
		}
	}()
	bin, err := Build(ctx, o)
	if err != nil {
		return nil, err
	}
	c.update(func(i *Instance) { i.Bin = bin })
	free, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := network.AwaitFree(free); err != nil {
		return nil, err
	}
	if err := c.prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if err := c.launch(ctx, o); err != nil {
		return nil, err
	}
	c.update(func(i *Instance) { i.Ready = true })
	return c, nil
}

// Attach returns the testbed that another process started. Stop and Kill do nothing to it.
func Attach(ctx context.Context) (*Cluster, error) {
	i, err := Running(ctx)
	if err != nil {
		return nil, err
	}
	if !i.Ready {
		return nil, fmt.Errorf("attach to the testbed of process %d: it is not ready yet", i.PID)
	}
	return &Cluster{instance: i, done: make(chan struct{})}, nil
}

func (o Options) withDefaults() (Options, error) {
	var err error
	if o.Cache == "" {
		if o.Cache, err = DefaultCache(); err != nil {
			return o, err
		}
	}
	if o.ControlPlane == "" {
		if o.ControlPlane, err = findControlPlane(); err != nil {
			return o, err
		}
	}
	if o.HPASyncPeriod == 0 {
		o.HPASyncPeriod = 5 * time.Second
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = time.Minute
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	o.Images = maps.Clone(o.Images)
	for name, path := range o.Images {
		abs, err := filepath.Abs(path)
		if err != nil {
			return o, fmt.Errorf("find program of image %s: %w", name, err)
		}
		info, err := os.Stat(abs)
		if err != nil {
			return o, fmt.Errorf("find program of image %s: %w", name, err)
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return o, fmt.Errorf("program of image %s: %s is not an executable file", name, path)
		}
		o.Images[name] = abs
	}
	return o, nil
}

// findControlPlane looks beside this source file, and then in the working directory and above.
func findControlPlane() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok {
		dir := filepath.Join(filepath.Dir(file), "controlplane")
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the control plane's module: %w", err)
	}
	for {
		for _, candidate := range []string{filepath.Join(dir, "testbed", "controlplane"), filepath.Join(dir, "controlplane")} {
			if _, err := os.Stat(filepath.Join(candidate, "go.mod")); err == nil {
				return candidate, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the control plane's module: no testbed/controlplane in the working directory or above")
		}
		dir = parent
	}
}

// preflight says what is missing, in a sentence.
func preflight() error {
	// Without this a program that forgot would start itself again and again, each inside the one
	// before.
	if os.Args[0] == initName || os.Args[0] == coreName {
		return errors.New("start a testbed: the program must call testbed.MaybeChild first thing in main or TestMain")
	}
	if os.Geteuid() != 0 {
		return errors.New("the testbed needs root, for its network, mount and PID namespaces: run it with sudo")
	}
	// kube-proxy calls it; Debian keeps it where PATH may not point.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return fmt.Errorf("extend PATH: %w", err)
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return errors.New("the testbed needs nft, for kube-proxy: install the Debian package nftables")
	}
	return nil
}

// prepareDir makes an empty state directory.
func (c *Cluster) prepareDir(dir string) error {
	temporary := dir == ""
	if temporary {
		temp, err := os.MkdirTemp("", "sluice-testbed-")
		if err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
		dir = temp
		c.temp = true
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find state directory: %w", err)
	}
	c.update(func(i *Instance) { i.Dir, i.Kubeconfig = dir, filepath.Join(dir, core.Kubeconfig) })
	if !temporary {
		if err := empty(dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, marker), nil, 0o644); err != nil {
		return fmt.Errorf("mark state directory: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, core.LogDir), 0o755); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	return nil
}

// empty makes dir, or removes what an earlier testbed left in it.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read state directory: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
		return fmt.Errorf("state directory %s holds other things than a testbed's: choose another", dir)
	}
	for _, e := range entries {
		if e.Name() == marker { // last, so that an interrupted removal can be resumed
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove an earlier testbed's state: %w", err)
		}
	}
	return nil
}

// launch starts init in its namespaces and waits until the core calls itself ready.
func (c *Cluster) launch(ctx context.Context, o Options) error {
	config, err := json.Marshal(core.Config{
		Dir: c.instance.Dir, Bin: c.instance.Bin, Images: o.Images, HPASyncPeriod: o.HPASyncPeriod, CrashBackoff: o.CrashBackoff, ExtraArgs: o.ExtraArgs, ReadyTimeout: o.ReadyTimeout,
	})
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	path := filepath.Join(c.instance.Dir, "config.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	log, err := os.Create(c.LogFile("testbed"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own copy of the descriptor
	events, childEvents, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe of events: %w", err)
	}
	cmd := &exec.Cmd{
		Path: self, Args: []string{initName, path}, Stdout: log, Stderr: log, ExtraFiles: []*os.File{childEvents},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
			// Ctrl-C in a terminal is for this process alone, which then stops the others in order
			Setsid: true,
		},
	}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends, so that thread waits for
		// it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = childEvents.Close() // the child has its own
		started <- err
		if err == nil {
			err := cmd.Wait()
			<-c.told
			c.ended(err)
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(fmt.Errorf("start the testbed in namespaces of its own: %w", err), events.Close())
	}
	c.cmd = cmd
	c.update(func(i *Instance) { i.InitPID = cmd.Process.Pid })
	ready := make(chan error, 1)
	go func() {
		ready <- c.follow(events, o.Progress)
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("start the testbed: %w", ctx.Err())
	case err := <-ready:
		return err
	}
}

// follow reads the core's events until it is ready, and leaves a goroutine that reads on until it
// ends.
func (c *Cluster) follow(events io.ReadCloser, progress io.Writer) (err error) {
	defer func() {
		if err != nil {
			close(c.told)
			err = errors.Join(err, events.Close())
		}
	}()
	decoder := json.NewDecoder(events)
	for {
		var e core.Event
		if err := decoder.Decode(&e); err != nil {
			tail, _ := process.Tail(c.LogFile("testbed"), 15)
			return fmt.Errorf("start the testbed: its core ended; its log ends with:\n%s", tail)
		}
		switch e.Kind {
		case core.Progress:
			fmt.Fprintln(progress, e.Text)
		case core.Bridged:
			if err := network.Attach(c.instance.InitPID); err != nil {
				return err
			}
		case core.Failed:
			return errors.New(e.Text)
		case core.Ready:
			go func() {
				defer close(c.told)
				defer events.Close() //nolint:errcheck // only read
				var last core.Event
				if err := decoder.Decode(&last); err == nil && last.Kind == core.Failed {
					c.mu.Lock()
					c.failure = errors.New(last.Text)
					c.mu.Unlock()
				}
			}()
			return nil
		}
	}
}

// ended records why the testbed ended.
func (c *Cluster) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
	case c.failure != nil:
		c.err = c.failure
	case err != nil:
		c.err = fmt.Errorf("run the testbed: %w", err)
	default:
		c.err = errors.New("the testbed ended by itself")
	}
	close(c.done)
}

// Done is closed when the testbed has ended. It never is for one that was attached to.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Err tells, once Done is closed, why the testbed ended; nil if Stop or Kill ended it.
func (c *Cluster) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Stop ends the testbed in order: pods, then components. It returns when nothing is left of it.
// When ctx ends first, it is killed.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.cmd == nil {
		return nil
	}
	c.markStopped()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-c.done:
		return c.discard()
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop the testbed in time: %w", ctx.Err()), c.discard())
	}
}

// Kill ends the testbed at once.
func (c *Cluster) Kill() error {
	if c.cmd == nil {
		return nil
	}
	c.markStopped()
	return c.discard()
}

func (c *Cluster) markStopped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// discard kills what runs and gives everything back.
func (c *Cluster) discard() (err error) {
	c.stopping.Do(func() {
		if c.cmd != nil {
			c.markStopped()
			_ = c.cmd.Process.Kill() // an error means that it has ended
			<-c.done
			err = errors.Join(err, network.Detach())
		}
		if c.temp {
			err = errors.Join(err, os.RemoveAll(c.instance.Dir))
		}
		err = errors.Join(err, c.listener.Close())
	})
	return err
}

// Instance tells where the testbed is.
func (c *Cluster) Instance() Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instance
}

func (c *Cluster) update(change func(*Instance)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.instance)
}

// Kubeconfig returns the path of the administrator's kubeconfig. Its server is reached from the
// host.
func (c *Cluster) Kubeconfig() string { return c.instance.Kubeconfig }

// LogFile returns the path of a component's log: etcd, kube-apiserver, …, or testbed for the core
// and the node agent.
func (c *Cluster) LogFile(component string) string {
	return filepath.Join(c.instance.Dir, core.LogDir, component+".log")
}

// Logs returns the last lines of a component's log.
func (c *Cluster) Logs(component string, lines int) (string, error) {
	return process.Tail(c.LogFile(component), lines)
}

// REST returns a client configuration of the administrator, without client-side rate limits.
func (c *Cluster) REST() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.instance.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read admin kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Kubectl runs kubectl as the administrator and returns its standard output. An error holds its
// standard error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectl(ctx, nil, args...)
}

// Apply applies manifests, YAML or JSON, several separated by "---".
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
	_, err := c.kubectl(ctx, strings.NewReader(string(manifests)), "apply", "-f", "-")
	return err
}

// ApplyFiles applies the manifests in files or folders.
func (c *Cluster) ApplyFiles(ctx context.Context, paths ...string) error {
	args := []string{"apply"}
	for _, p := range paths {
		args = append(args, "-f", p)
	}
	_, err := c.kubectl(ctx, nil, args...)
	return err
}

func (c *Cluster) kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.instance.Bin, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.instance.Kubeconfig)
	cmd.Stdin = stdin
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// WaitFor calls poll every 50 ms until it is done. After timeout, or when ctx ends, the error tells
// what was waited for and the state that poll returned last; a poll that cannot tell returns its
// error as the state.
func WaitFor(ctx context.Context, timeout time.Duration, what string, poll func(context.Context) (state string, done bool)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last string
	for {
		state, done := poll(ctx)
		if done {
			return nil
		}
		if ctx.Err() == nil || last == "" { // what a cancelled poll says is not the state
			last = state
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last state: %s", what, ctx.Err(), last)
		case <-tick.C:
		}
	}
}
