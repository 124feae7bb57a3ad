package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// target is one way to reach the app.
type target struct {
	name string
	// start gives the command that proxies app at proxyAddress, over HTTP/2 if h2; nil when there
	// is none.
	start func(ctx context.Context, b *bench, app string, h2 bool) (*exec.Cmd, error)
	// aside tells that the command stands beside the path, and the load goes to the app itself.
	aside bool
}

func targets() []target {
	return []target{
		{name: "direct", aside: true},
		{name: "nginx", start: nginxProxy},
		{name: "haproxy", start: haproxy},
		{name: "queue-proxy", start: queueProxy},
		{name: "sluice-proxy", start: sluiceProxy},
		{name: "sluice-observe", start: sluiceObserve, aside: true},
	}
}

// nginx starts nginx with the inside of its http block.
func nginx(ctx context.Context, b *bench, name, inside string) (*exec.Cmd, error) {
	path := filepath.Join(b.work, name+".conf")
	conf := fmt.Sprintf(`daemon off;
worker_processes 1;
pid %[1]s/%[2]s.pid;
error_log /dev/null crit;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_temp_path %[1]s/%[2]s-body;
  proxy_temp_path %[1]s/%[2]s-proxy;
  fastcgi_temp_path %[1]s/%[2]s-fastcgi;
  uwsgi_temp_path %[1]s/%[2]s-uwsgi;
  scgi_temp_path %[1]s/%[2]s-scgi;
%[3]s
}
`, b.work, name, inside)
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return command(ctx, "nginx", "-p", b.work, "-e", "/dev/null", "-c", path), nil
}

// static is the app of small and 64 KiB answers.
func static(ctx context.Context, b *bench) (*exec.Cmd, error) {
	if err := os.WriteFile(filepath.Join(b.work, "64k"), bytes.Repeat([]byte("x"), 64<<10), 0o644); err != nil {
		return nil, err
	}
	return nginx(ctx, b, "static", fmt.Sprintf(`  sendfile on;
  server {
    listen %s backlog=1024;
    location = /small { return 200 "forty bytes of an answer, more or less.\n"; }
    location = /64k { root %s; }
  }`, staticAddress, b.work))
}

func nginxProxy(ctx context.Context, b *bench, app string, h2 bool) (*exec.Cmd, error) {
	listen, pass := proxyAddress, `proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;`
	if h2 {
		listen, pass = proxyAddress+" http2", "grpc_pass grpc://app;"
	}
	return nginx(ctx, b, "proxy", fmt.Sprintf(`  upstream app { server %s; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen %s backlog=1024;
    location / { %s }
  }`, app, listen, pass))
}

func haproxy(ctx context.Context, b *bench, app string, h2 bool) (*exec.Cmd, error) {
	proto := ""
	if h2 {
		proto = " proto h2"
	}
	path := filepath.Join(b.work, "haproxy.cfg")
	conf := fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind %s%s
  default_backend app
backend app
  server app %s%s
`, proxyAddress, proto, app, proto)
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return command(ctx, "haproxy", "-db", "-q", "-f", path), nil
}

func queueProxy(ctx context.Context, b *bench, app string, _ bool) (*exec.Cmd, error) {
	if b.queueProxy == "" {
		return nil, nil
	}
	_, appPort, _ := net.SplitHostPort(app)
	_, port, _ := net.SplitHostPort(proxyAddress)
	c := command(ctx, b.queueProxy)
	c.Env = append(os.Environ(),
		"QUEUE_SERVING_PORT="+port, "QUEUE_SERVING_TLS_PORT=7101", "USER_PORT="+appPort,
		"CONTAINER_CONCURRENCY=0", "REVISION_TIMEOUT_SECONDS=300",
		"SERVING_NAMESPACE=bench", "SERVING_REVISION=bench", "SERVING_CONFIGURATION=bench", "SERVING_SERVICE=bench",
		"SERVING_POD=bench", "SERVING_POD_IP=127.0.0.1", "SYSTEM_NAMESPACE=bench", "SERVING_LOGGING_CONFIG=", "SERVING_LOGGING_LEVEL=error",
		`SERVING_READINESS_PROBE={"tcpSocket":{"host":"127.0.0.1","port":`+appPort+`},"successThreshold":1}`,
	)
	return c, nil
}

func sluiceProxy(ctx context.Context, b *bench, app string, _ bool) (*exec.Cmd, error) {
	// All features on: a limit that is never met and its queue, counting, histograms.
	return command(ctx, b.sluice, "proxy", "--listen", proxyAddress, "--app", app, "--metrics-listen", "127.0.0.1:7102", "--concurrency-limit", "10000", "--log-level", "error"), nil
}

func sluiceObserve(ctx context.Context, b *bench, app string, _ bool) (*exec.Cmd, error) {
	if err := command(ctx, b.sluice, "observe", "--help").Run(); err != nil {
		return nil, nil //nolint:nilerr // a build without it, which is left out
	}
	_, port, _ := net.SplitHostPort(app)
	return command(ctx, b.sluice, "observe", "--app-port", port, "--metrics-listen", "127.0.0.1:7102", "--log-level", "error"), nil
}

// process is a running target.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has ended, with err
	err    error
}

// launch starts a command and waits until address accepts connections.
func launch(ctx context.Context, cmd *exec.Cmd, address string) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stderr, &p.stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return p, c.Close()
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return nil, fmt.Errorf("%s ended: %w: %s", cmd.Path, p.err, p.stderr.String())
		case <-late.C:
			p.stop()
			return nil, fmt.Errorf("%s does not listen on %s: %s", cmd.Path, address, p.stderr.String())
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		}
	}
}

// stop kills it and its children.
func (p *process) stop() {
	for _, pid := range tree(p.cmd.Process.Pid) {
		if q, err := os.FindProcess(pid); err == nil {
			_ = q.Kill()
		}
	}
	<-p.ended
}

// tree is a process and its children's children.
func tree(pid int) []int {
	all := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return all
	}
	for child := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(child); err == nil {
			all = append(all, tree(n)...)
		}
	}
	return all
}

// usage is what a process and its children have used and hold.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// used reads it from /proc.
func (p *process) used() (u usage) {
	for _, pid := range tree(p.cmd.Process.Pid) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// After the name in brackets: state is field 3, utime 14, stime 15, rss 24.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 22 {
			continue
		}
		number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i-3], 10, 64); return n }
		const hertz = 100 // USER_HZ, part of the ABI
		coarse := time.Duration(number(14)+number(15)) * time.Second / hertz
		u.cpu += max(threads(pid), coarse)
		u.rss += number(24) * int64(os.Getpagesize())
	}
	return u
}

// threads is the CPU time of a process's living threads, in nanoseconds by the scheduler, which the
// sums in stat round to 10 ms; 0 where the kernel does not tell.
func threads(pid int) (cpu time.Duration) {
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(first, 10, 64)
		cpu += time.Duration(n)
	}
	return cpu
}
