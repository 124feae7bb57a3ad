// Command adversary is what a hostile tenant runs in pods of a testbed: an exposition that costs its
// reader, a port that accepts and never answers, and a client that tries other people's ports.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const usage = `usage: adversary [flags]

What a hostile tenant runs in a pod of the testbed.

  --listen ADDRESS            answer 200 to anything, as an app would (default :8012)
  --metrics-listen ADDRESS    serve the hostile exposition, and be ready (default :9095)
  --exposition-bytes N        its size, most of it in one label (default 1048576)
  --black-hole ADDRESS        accept connections and never answer (default :9099)
  --drain ADDRESS,...         ask each of these sidecars for its drain, again and again
  --control ADDRESS,...       open connections to each of these control ports: some send nothing, some a request
                              without a certificate, some a PUT whose body never comes
  --ask URL,...               send requests to each, and wait for the answers
  --connections N             so many to each control port (default 200)
`

type config struct {
	listen, metrics, hole string
	bytes, connections    int
	drain, control, ask   string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c config
	flags := flag.NewFlagSet("adversary", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flags.StringVar(&c.listen, "listen", ":8012", "")
	flags.StringVar(&c.metrics, "metrics-listen", ":9095", "")
	flags.StringVar(&c.hole, "black-hole", ":9099", "")
	flags.IntVar(&c.bytes, "exposition-bytes", 1<<20, "")
	flags.IntVar(&c.connections, "connections", 200, "")
	flags.StringVar(&c.drain, "drain", "", "")
	flags.StringVar(&c.control, "control", "", "")
	flags.StringVar(&c.ask, "ask", "", "")
	_ = flags.Parse(os.Args[1:]) // it exits by itself
	if err := run(ctx, c); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, c config) error {
	var all sync.WaitGroup
	defer all.Wait()
	hole, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.hole)
	if err != nil {
		return err
	}
	all.Go(func() { swallow(hole) })
	for _, address := range split(c.drain) {
		all.Go(func() { drain(ctx, address) })
	}
	for _, url := range split(c.ask) {
		all.Go(func() { ask(ctx, url) })
	}
	for _, address := range split(c.control) {
		for i := range c.connections {
			all.Go(func() { control(ctx, address, i) })
		}
	}
	app := &http.Server{Addr: c.listen, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	metrics := &http.Server{Addr: c.metrics, ReadHeaderTimeout: time.Minute, Handler: hostile(exposition(c.bytes))}
	failed := make(chan error, 2)
	for _, s := range []*http.Server{app, metrics} {
		go func() { failed <- s.ListenAndServe() }()
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, app.Close(), metrics.Close(), hole.Close())
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// exposition is a series with the sidecar's names whose label has many backslashes, each of which a
// parser may copy all over again, and a clock.
func exposition(size int) []byte {
	var b bytes.Buffer
	b.WriteString("# TYPE sluice_request_concurrency_seconds_total counter\nsluice_request_concurrency_seconds_total{a=\"")
	for b.Len() < size {
		b.WriteString(`\\`)
	}
	b.WriteString("\"} 1\n")
	return b.Bytes()
}

func hostile(text []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = w.Write(text) // the reader notices
		}
	})
}

// swallow takes connections and keeps them.
func swallow(l net.Listener) {
	var kept []net.Conn
	defer func() {
		for _, c := range kept {
			_ = c.Close()
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		kept = append(kept, c)
	}
}

// drain asks a sidecar to leave service, with the methods and headers that one may guess.
func drain(ctx context.Context, address string) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := 0; ctx.Err() == nil; i++ {
		method := []string{http.MethodGet, http.MethodPost, http.MethodPut}[i%3]
		req, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/drain", http.NoBody)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer guessed")
		req.Header.Set("X-Forwarded-For", "127.0.0.1")
		if res, err := client.Do(req); err == nil {
			fmt.Println("drain", address, method, res.Status)
			_ = res.Body.Close()
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// ask sends requests, one after the other.
func ask(ctx context.Context, url string) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			fmt.Println("ask", url, res.Status)
			_ = res.Body.Close()
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// control speaks to a control port without a certificate, in one of three ways.
func control(ctx context.Context, address string, i int) {
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			pause(ctx, time.Second)
			continue
		}
		end := context.AfterFunc(ctx, func() { _ = conn.Close() })
		stream := io.ReadWriter(conn)
		if i%3 > 0 {
			stream = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // an attacker does not care
		}
		switch i % 3 {
		case 1:
			_, _ = io.WriteString(stream, "GET /v1/reports HTTP/1.1\r\nHost: gateway\r\n\r\n")
		case 2:
			_, _ = io.WriteString(stream, "PUT /v1/assignments/controller HTTP/1.1\r\nHost: gateway\r\nContent-Length: 4000000\r\n\r\n{")
		}
		_, _ = io.Copy(io.Discard, stream) // until it is thrown out
		end()
		_ = conn.Close()
		pause(ctx, 200*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
