package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/patience"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Config is all a node needs. The fields up to Dir are required.
type Config struct {
	// Rest reaches the API server as an identity that may do what a kubelet does.
	Rest *rest.Config
	// NodeName is the name of the Node object.
	NodeName string
	// NodeIP is the node's address: probes come from it, and the kubelet API is served there.
	NodeIP netip.Addr
	// PodCIDR holds the pods' addresses (IPv4, at most 30 bits). Of a /16 or wider the part x.x.1.0
	// to x.x.250.255 is used.
	PodCIDR netip.Prefix
	// Bridge is the bridge, in the current network namespace, that pods are plugged into.
	Bridge string
	// Gateway is the bridge's address, every pod's only neighbour.
	Gateway netip.Addr
	// Images maps an image name, with or without its tag, to the path of a local program.
	Images map[string]string
	// Dir is for state: logs, volumes, one netns/NAMESPACE_NAME file per pod, one
	// pids/NAMESPACE_NAME_CONTAINER per container.
	Dir string

	// Logger gets what happens on the node; nil discards it.
	Logger *slog.Logger
	// ServingCert and ClientCA secure the kubelet API on NodeIP:10250. Without a certificate it is
	// not served.
	ServingCert tls.Certificate
	ClientCA    *x509.CertPool

	// CrashBackoff is the first wait of a crash loop (default 10 s) and MaxCrashBackoff the longest
	// (default 5 min).
	CrashBackoff, MaxCrashBackoff time.Duration
	// Capacity is what the node says it has. Nothing enforces it, so it is generous by default: 64
	// CPUs, 256 GiB, 1000 pods.
	Capacity v1.ResourceList
	// Heartbeat is the period of the node's lease renewals (default 10 s).
	Heartbeat time.Duration
}

// kubeletPort is where the API server reaches a node.
const kubeletPort = 10250

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.CrashBackoff == 0 {
		c.CrashBackoff = 10 * time.Second
	}
	if c.MaxCrashBackoff == 0 {
		c.MaxCrashBackoff = max(5*time.Minute, c.CrashBackoff)
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Capacity == nil {
		c.Capacity = v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("64"), v1.ResourceMemory: resource.MustParse("256Gi"),
			v1.ResourcePods: resource.MustParse("1000"), v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		}
	}
}

func (c *Config) validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is required", what))
		}
	}
	need(c.Rest != nil, "Rest")
	need(c.NodeName != "", "NodeName")
	need(c.NodeIP.IsValid(), "NodeIP")
	need(c.Gateway.IsValid(), "Gateway")
	need(c.Bridge != "", "Bridge")
	need(filepath.IsAbs(c.Dir), "Dir, an absolute path,")
	for name, path := range c.Images {
		if info, err := os.Stat(path); err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", name, err))
		} else if info.IsDir() || info.Mode()&0o111 == 0 {
			errs = append(errs, fmt.Errorf("image %s: %s is not a program", name, path))
		}
	}
	return errors.Join(errs...)
}

// Run registers the node and runs the pods bound to it until ctx ends. Then it stops them all,
// within about a second, and returns nil; their objects stay as they are. It returns an error if
// the node could not come up.
func Run(ctx context.Context, cfg Config) error {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("node configuration: %w", err)
	}
	restCfg := rest.CopyConfig(cfg.Rest)
	restCfg.QPS = -1                            // a status must not wait for other pods' statuses
	restCfg.Wrap(patience.New(cfg.Logger).Wrap) // a testbed whose API server was stopped is to be back at once
	client, err := kubernetes.NewForConfig(restCfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	m, err := newLinux(cfg)
	if err != nil {
		return err
	}
	images, err := resolveImages(cfg.Images)
	if err != nil {
		return err
	}

	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)),
		record.WithCorrelatorOptions(record.CorrelatorOptions{BurstSize: 200, QPS: 1}))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	services := informers.NewSharedInformerFactory(client, 0)
	objs := &apiObjects{client: client, services: services.Core().V1().Services().Lister()}
	serviceInformer := services.Core().V1().Services().Informer()
	mgr := newManager(client, deps{
		machine: m, prober: newNetProber(m), objs: objs, tokens: objs,
		events: broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: cfg.NodeName}),
		images: images, facts: podFacts{HostIP: cfg.NodeIP.String(), Allocatable: cfg.Capacity},
		dir: cfg.Dir, log: cfg.Logger, backoff: cfg.CrashBackoff, maxBackoff: cfg.MaxCrashBackoff, now: time.Now,
	})
	if err := register(ctx, client, cfg); err != nil {
		return err
	}
	services.Start(ctx.Done())
	defer func() {
		cancel()
		services.Shutdown()
	}()
	if !cache.WaitForCacheSync(ctx.Done(), serviceInformer.HasSynced) {
		return nil
	}

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(onNode(cfg.NodeName)))
	pods := factory.Core().V1().Pods().Informer()
	if _, err := pods.AddEventHandler(mgr.handler(ctx)); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	if len(cfg.ServingCert.Certificate) > 0 {
		s, err := listen(ctx, cfg, mgr)
		if err != nil {
			return err
		}
		group.Go(func() error { return s.run(ctx) })
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown() // Wait has ended ctx by then
	group.Go(func() error { return heartbeat(ctx, client, cfg) })
	group.Go(func() error {
		<-ctx.Done()
		mgr.stop()
		return nil
	})
	cfg.Logger.InfoContext(ctx, "node is up", slog.String("node", cfg.NodeName))
	return group.Wait()
}

func newLinux(cfg Config) (*linux, error) {
	m := &linux{
		nodeIP: cfg.NodeIP, scratch: filepath.Join(cfg.Dir, "scratch"), pids: filepath.Join(cfg.Dir, "pids"), now: time.Now,
	}
	netnsDir := filepath.Join(cfg.Dir, "netns")
	// An earlier node's: what they named has ended with it.
	_ = os.RemoveAll(m.pids)
	_ = os.RemoveAll(netnsDir)
	for _, dir := range []string{m.scratch, m.pids, netnsDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
	}
	var err error
	if m.net, err = newNetwork(cfg.Bridge, cfg.Gateway, cfg.PodCIDR, netnsDir); err != nil {
		return nil, err
	}
	m.net.prepareNode()
	return m, nil
}

// resolveImages follows links now: a container's shim sees the host's root elsewhere.
func resolveImages(images map[string]string) (map[string]string, error) {
	resolved := map[string]string{}
	for name, path := range images {
		abs, err := filepath.Abs(path)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		resolved[name] = abs
	}
	return resolved, nil
}

func onNode(name string) func(*listOptions) {
	return func(o *listOptions) { o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", name).String() }
}
