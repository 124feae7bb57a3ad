package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target is the container that a probe or hook is aimed at.
type target struct {
	container *v1.Container
	proc      process
	env       []string
	podIP     string
}

// prober asks containers how they are. A failure has a message; an error means that nothing is
// known.
type prober interface {
	Probe(ctx context.Context, h *v1.ProbeHandler, t target) (ok bool, message string, err error)
	// Hook runs a lifecycle handler other than sleep.
	Hook(ctx context.Context, h *v1.LifecycleHandler, t target) error
}

// The names by which this version's kubelet goes: the product tells its probes from real demand.
const (
	probeAgent = "kube-probe/1.37"
	hookAgent  = "kube-lifecycle/1.37"
)

// netProber probes from the node's network namespace, so from the bridge's address.
type netProber struct {
	machine machine
	dialer  *net.Dialer
	client  *http.Client
}

func newNetProber(m machine) *netProber {
	d := &net.Dialer{KeepAlive: -1}
	transport := &http.Transport{
		DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true,
		// A kubelet does not verify either: the certificate names a Service, the probe an address.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	return &netProber{machine: m, dialer: d, client: &http.Client{Transport: transport, CheckRedirect: sameHostRedirects}}
}

func sameHostRedirects(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// Probe implements prober.
func (p *netProber) Probe(ctx context.Context, h *v1.ProbeHandler, t target) (ok bool, message string, err error) {
	switch {
	case h.HTTPGet != nil:
		return p.httpGet(ctx, h.HTTPGet, t, probeAgent)
	case h.TCPSocket != nil:
		host := h.TCPSocket.Host
		if host == "" {
			host = t.podIP
		}
		port, err := portOf(h.TCPSocket.Port, t.container)
		if err != nil {
			return false, "", err
		}
		conn, err := p.dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return failed(err)
		}
		_ = conn.Close()
		return true, "", nil
	case h.Exec != nil:
		out, code, err := p.machine.Exec(ctx, t.proc, h.Exec.Command, t.env)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return false, "command timed out", nil
		case err != nil:
			return failed(err)
		}
		return code == 0, string(out), nil
	case h.GRPC != nil:
		return p.grpc(ctx, h.GRPC, t)
	}
	return false, "", errors.New("missing probe handler")
}

// failed is the outcome of a probe that the container did not answer.
func failed(err error) (bool, string, error) { return false, err.Error(), nil }

func (p *netProber) httpGet(ctx context.Context, get *v1.HTTPGetAction, t target, agent string) (bool, string, error) {
	req, err := httpRequest(ctx, get, t, agent)
	if err != nil {
		return false, "", err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxExecOutput)
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		return true, "", nil
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
}

func httpRequest(ctx context.Context, get *v1.HTTPGetAction, t target, agent string) (*http.Request, error) {
	host := get.Host
	if host == "" {
		host = t.podIP
	}
	port, err := portOf(get.Port, t.container)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path}
	}
	u.Scheme, u.Host = "http", net.JoinHostPort(host, port)
	if get.Scheme == v1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", agent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	}
	return req, nil
}

func (p *netProber) grpc(ctx context.Context, action *v1.GRPCAction, t target) (bool, string, error) {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(t.podIP, strconv.Itoa(int(action.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(probeAgent),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return p.dialer.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return false, "", err
	}
	defer func() { _ = conn.Close() }()
	req := &healthpb.HealthCheckRequest{}
	if action.Service != nil {
		req.Service = *action.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return failed(err)
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return false, "service unhealthy (responded with \"" + resp.GetStatus().String() + "\")", nil
	}
	return true, "", nil
}

// Hook implements prober.
func (p *netProber) Hook(ctx context.Context, h *v1.LifecycleHandler, t target) error {
	switch {
	case h.Exec != nil:
		out, code, err := p.machine.Exec(ctx, t.proc, h.Exec.Command, t.env)
		if err == nil && code != 0 {
			err = fmt.Errorf("command exited with code %d: %s", code, out)
		}
		return err
	case h.HTTPGet != nil:
		ok, message, err := p.httpGet(ctx, h.HTTPGet, t, hookAgent)
		if err == nil && !ok {
			err = errors.New(message)
		}
		return err
	case h.TCPSocket != nil:
		return errors.New("tcpSocket hooks do nothing in Kubernetes either")
	}
	return errors.New("missing hook handler")
}

// portOf resolves a number or the name of one of the container's ports.
func portOf(p intstr.IntOrString, c *v1.Container) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return strconv.Itoa(int(cp.ContainerPort)), nil
		}
	}
	if _, err := strconv.Atoi(p.StrVal); err == nil {
		return p.StrVal, nil
	}
	return "", fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
}

// probeRun is one probe of one run of a container. It reports when the result, after thresholds,
// turns.
type probeRun struct {
	probe   *v1.Probe
	handler func(ctx context.Context) (ok bool, message string, err error)
	// result is called whenever the thresholds say so, with every further result that confirms it
	// too.
	result func(ok bool)
	// failed is called with each single failure.
	failed func(message string)
	// once ends the run at its first result (startup), onceFailed at its first failure (liveness):
	// what follows is another container.
	once, onceFailed bool
	// kick asks for a probe ahead of its time, as a kubelet does for a container that is not ready
	// when its pod changes.
	kick <-chan struct{}
}

// run probes until ctx ends or the run is over. The first probe comes when initialDelaySeconds have
// passed, or a little later than at once: a program needs a moment to listen, and a kubelet to hear
// that it runs.
func (p *probeRun) run(ctx context.Context) {
	period := max(time.Duration(p.probe.PeriodSeconds)*time.Second, time.Second)
	if !sleep(ctx, max(time.Duration(p.probe.InitialDelaySeconds)*time.Second, syncDelay)) {
		return
	}
	select {
	case <-p.kick: // the first probe does what it asks for
	default:
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	var last bool
	streak := 0
	for {
		ok, message, err := p.once1(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if streak > 0 && ok == last {
				streak++
			} else {
				last, streak = ok, 1
			}
			if !ok {
				p.failed(message)
			}
			if ok && streak >= int(max(p.probe.SuccessThreshold, 1)) || !ok && streak >= int(max(p.probe.FailureThreshold, 1)) {
				p.result(ok)
				if p.once || p.onceFailed && !ok {
					return
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.kick:
			ticker.Reset(period)
		}
	}
}

func (p *probeRun) once1(ctx context.Context) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Duration(p.probe.TimeoutSeconds)*time.Second, time.Second))
	defer cancel()
	return p.handler(ctx)
}
