package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// server is the part of the kubelet API that `kubectl logs` needs.
type server struct {
	listener net.Listener
	http     *http.Server
}

func listen(ctx context.Context, cfg Config, m *manager) (*server, error) {
	addr := netip.AddrPortFrom(cfg.NodeIP, kubeletPort)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("serve the kubelet API: %w", err)
	}
	tlsConfig := &tls.Config{
		Certificates: []tls.Certificate{cfg.ServingCert}, ClientCAs: cfg.ClientCA, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS12,
	}
	return &server{
		listener: tls.NewListener(l, tlsConfig),
		http: &http.Server{
			Handler: handler(m), ReadHeaderTimeout: 10 * time.Second,
			// Followed logs end when the node does.
			BaseContext: func(net.Listener) context.Context { return ctx },
		},
	}, nil
}

func (s *server) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the kubelet API: %w", err)
	}
	return nil
}

// podSource is what the kubelet API tells of.
type podSource interface {
	// list gives all pods with their newest status.
	list() []v1.Pod
	// runs gives a container's log files, oldest first.
	logs(namespace, name, container string) ([]string, error)
	// waiting is why a container has not started yet, "" if it has.
	waiting(namespace, name, container string) string
	// growing tells whether more may come in one of these logs.
	growing(namespace, name, container, file string) bool
}

func handler(pods podSource) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /pods", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v1.PodList{Items: pods.list()})
	})
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		serveLogs(w, r, pods)
	})
	unsupported := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not supported by the testbed's node: use `testbed exec --pod`", http.StatusNotImplemented)
	}
	for _, path := range []string{"/exec/", "/attach/", "/portForward/", "/run/"} {
		mux.HandleFunc(path, unsupported)
	}
	return mux
}

// logOptions is what a request for logs asks for.
type logOptions struct {
	follow, previous, timestamps bool
	tail, limit                  int64 // lines and bytes; -1: all
	since                        time.Time
}

func parseLogOptions(q map[string][]string, now time.Time) (logOptions, error) {
	o := logOptions{tail: -1, limit: -1}
	var errs []error
	get := func(key string) string {
		if len(q[key]) == 0 {
			return ""
		}
		return q[key][0]
	}
	flag := func(key string, to *bool) {
		if s := get(key); s != "" {
			b, err := strconv.ParseBool(s)
			*to = b
			errs = append(errs, err)
		}
	}
	number := func(key string, to *int64) {
		if s := get(key); s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			*to = n
			errs = append(errs, err)
		}
	}
	flag("follow", &o.follow)
	flag("previous", &o.previous)
	flag("timestamps", &o.timestamps)
	number("tailLines", &o.tail)
	number("limitBytes", &o.limit)
	seconds := int64(-1)
	if number("sinceSeconds", &seconds); seconds >= 0 {
		o.since = now.Add(-time.Duration(seconds) * time.Second)
	}
	if s := get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		o.since = t
		errs = append(errs, err)
	}
	return o, errors.Join(errs...)
}

func serveLogs(w http.ResponseWriter, r *http.Request, pods podSource) {
	namespace, pod, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	o, err := parseLogOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	files, err := pods.logs(namespace, pod, container)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	last := len(files) - 1
	if o.previous {
		last--
	}
	if last < 0 {
		what, why := "container", "not found"
		if o.previous {
			what = "previous terminated container"
		} else if reason := pods.waiting(namespace, pod, container); reason != "" {
			why = "is waiting to start: " + reason
		}
		http.Error(w, fmt.Sprintf("%s %q in pod %q %s", what, container, pod, why), http.StatusBadRequest)
		return
	}
	f, err := os.Open(files[last])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Transfer-Encoding", "chunked")
	w.WriteHeader(http.StatusOK)
	flush := func() { _ = http.NewResponseController(w).Flush() }
	grows := func() bool { return o.follow && !o.previous && pods.growing(namespace, pod, container, files[last]) }
	_ = copyLog(r.Context(), w, flush, f, o, grows)
}

// followPeriod is how often a followed log is looked at.
const followPeriod = 100 * time.Millisecond

// copyLog writes a log without the runtime's framing; while grows says so it waits for more.
func copyLog(ctx context.Context, w io.Writer, flush func(), f *os.File, o logOptions, grows func() bool) error {
	if o.tail >= 0 {
		skip, err := tailOffset(f, o.tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(skip, io.SeekStart); err != nil {
			return err
		}
	}
	r := bufio.NewReader(f)
	left := o.limit
	var partial []byte
	for {
		// asked before reading: what was written before the container's end is still read
		more := grows()
		for {
			piece, err := r.ReadBytes('\n')
			partial = append(partial, piece...)
			if err != nil {
				break
			}
			text := logText(partial, o)
			partial = partial[:0]
			if left >= 0 {
				text = text[:min(int64(len(text)), left)]
				left -= int64(len(text))
			}
			if _, err := w.Write(text); err != nil {
				return err
			}
			if left == 0 {
				return nil
			}
		}
		flush()
		if !more || !sleep(ctx, followPeriod) {
			return ctx.Err()
		}
	}
}

// logText is a line of a log file as the user wants it; nothing if it is too old.
func logText(line []byte, o logOptions) []byte {
	parts := strings.SplitN(string(line), " ", 4)
	if len(parts) < 4 {
		return nil
	}
	if at, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil || at.Before(o.since) {
		return nil
	}
	text := parts[3]
	if parts[2] == "P" {
		text = strings.TrimSuffix(text, "\n")
	}
	if o.timestamps {
		text = parts[0] + " " + text
	}
	return []byte(text)
}

// tailOffset is where the last n lines of a file begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	var starts []int64
	var at int64
	r := bufio.NewReader(io.NewSectionReader(f, 0, 1<<62))
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		starts = append(starts, at)
		at += int64(len(line))
	}
	if n == 0 || len(starts) == 0 {
		return at, nil
	}
	return starts[max(0, int64(len(starts))-n)], nil
}

func (m *manager) list() []v1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []v1.Pod
	for _, p := range m.pods {
		p.mu.Lock()
		pod := p.pod.DeepCopy()
		if p.rec.Containers != nil {
			pod.Status = buildStatus(pod, &p.pod.Status, &p.rec, m.deps.images, m.deps.now())
		}
		p.mu.Unlock()
		list = append(list, *pod)
	}
	slices.SortFunc(list, func(a, b v1.Pod) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	return list
}

func (m *manager) find(namespace, name string) *managed {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pods {
		if p.worker.pod.Namespace == namespace && p.worker.pod.Name == name {
			return p
		}
	}
	return nil
}

func (m *manager) logs(namespace, name, container string) ([]string, error) {
	p := m.find(namespace, name)
	if p == nil {
		return nil, fmt.Errorf("pod %q not found", name)
	}
	files, err := filepath.Glob(filepath.Join(logDir(m.deps.dir, p.worker.pod), container, "*.log"))
	if err != nil {
		return nil, err
	}
	number := func(path string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".log"))
		return n
	}
	slices.SortFunc(files, func(a, b string) int { return number(a) - number(b) })
	return files, nil
}

func (m *manager) waiting(namespace, name, container string) string {
	p := m.find(namespace, name)
	if p == nil {
		return ""
	}
	p.worker.mu.Lock()
	defer p.worker.mu.Unlock()
	c := p.worker.rec.Containers[container]
	if c == nil || c.State.Waiting == nil {
		return ""
	}
	return c.State.Waiting.Reason
}

func (m *manager) growing(namespace, name, container, file string) bool {
	files, err := m.logs(namespace, name, container)
	p := m.find(namespace, name)
	if err != nil || p == nil || len(files) == 0 || files[len(files)-1] != file {
		return false // a restart has begun another one
	}
	p.worker.mu.Lock()
	defer p.worker.mu.Unlock()
	_, running := p.worker.running[container]
	c := p.worker.rec.Containers[container]
	return running || c != nil && c.ID == "" && c.State.Waiting != nil
}
