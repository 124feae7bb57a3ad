// Package fakeplatform is a platform as small as one can be: a program that runs instances as
// processes of its own and has the interface of docs/specs.md. Tests prove by it that the scaler's
// ports need no Kubernetes.
//
// Requests to /app/NAMESPACE/KIND/NAME/ go to the instance with the fewest, and wait for one while
// the path leads through the platform.
package fakeplatform

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler/process"
)

// Serve is the argument by which a program becomes a platform; it starts itself again for
// instances.
const Serve, instanceArg = "serve", "instance"

// Run is the program: "serve --workload NAMESPACE/KIND/NAME … [--start-up 100ms] [--listen
// ADDRESS]", and "instance", as which it starts itself. It ends with ctx. It writes its address
// to stdout.
func Run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == instanceArg {
		return runInstance(ctx, args[1:], os.Stdin, stdout)
	}
	if len(args) == 0 || args[0] != Serve {
		return errors.New("usage: serve [FLAG]…")
	}
	p := &platform{workloads: map[string]*workload{}}
	fs := flag.NewFlagSet(Serve, flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:0", "address to listen on")
	startUp := fs.Duration("start-up", 100*time.Millisecond, "how long an instance takes to get ready")
	fs.Func("workload", "NAMESPACE/KIND/NAME of a workload; repeatable", func(v string) error {
		if strings.Count(v, "/") != 2 {
			return errors.New("want NAMESPACE/KIND/NAME")
		}
		p.workloads[v] = &workload{name: path.Base(v), changed: make(chan struct{}), held: newMeter(time.Now())}
		return nil
	})
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	self := os.Args[:slices.Index(os.Args, Serve)]
	p.command = append(slices.Clone(self), instanceArg, startUp.String())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = server.Close()
	}()
	if _, err := fmt.Fprintln(stdout, l.Addr()); err != nil {
		return err
	}
	err = server.Serve(l)
	<-stopped
	p.close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (p *platform) handler() http.Handler {
	const of = "/v1/workloads/{namespace}/{kind}/{name}"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+of, p.with(func(w *workload, rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(w.document(time.Now()))
	}))
	mux.HandleFunc("PUT "+of+"/scale", p.with(p.putScale))
	mux.HandleFunc("PUT "+of+"/path", p.with(p.putPath))
	mux.HandleFunc("GET /test/lost/{namespace}/{kind}/{name}", p.with(func(w *workload, rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(rw, w.lost)
	}))
	mux.HandleFunc("POST /test/fail/{status}", func(rw http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.failWith, _ = strconv.Atoi(r.PathValue("status"))
		rw.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("/app/{namespace}/{kind}/{name}/", p.serveApp)
	return mux
}

// of finds the workload that a request is for.
func (p *platform) of(r *http.Request) *workload {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workloads[r.PathValue("namespace")+"/"+r.PathValue("kind")+"/"+r.PathValue("name")]
}

// with answers with a workload, under the platform's lock.
func (p *platform) with(answer func(*workload, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := p.of(r)
		if w == nil {
			http.Error(rw, "there is no such workload", http.StatusNotFound)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.Method == http.MethodPut && p.failWith != 0 {
			status := p.failWith
			p.failWith = 0
			http.Error(rw, "the test wants it so", status)
			return
		}
		answer(w, rw, r)
	}
}

func (p *platform) putScale(w *workload, rw http.ResponseWriter, r *http.Request) {
	var s process.Scale
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil || s.Replicas < 0 {
		http.Error(rw, fmt.Sprintf("want a scale with replicas ≥ 0: %v", err), http.StatusBadRequest)
		return
	}
	w.replicas = s.Replicas
	p.reconcile(w, s.First)
	rw.WriteHeader(http.StatusNoContent)
}

func (p *platform) putPath(w *workload, rw http.ResponseWriter, r *http.Request) {
	var s loop.PathState
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.in = s.In
	w.broadcast()
	rw.WriteHeader(http.StatusNoContent)
}

func (p *platform) serveApp(rw http.ResponseWriter, r *http.Request) {
	w := p.of(r)
	if w == nil {
		http.NotFound(rw, r)
		return
	}
	i := p.acquire(r.Context(), w)
	if i == nil {
		http.Error(rw, "no instance is ready", http.StatusServiceUnavailable)
		return
	}
	defer p.release(i)
	i.proxy.ServeHTTP(rw, r)
}
