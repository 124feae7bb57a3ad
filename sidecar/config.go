// Package sidecar assembles the process that runs beside an app in its pod: a proxy that counts,
// limits and drains the app's requests, and a port that serves metrics and health.
package sidecar

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
)

// Config is the proxy mode's configuration. Default returns the usual one; Validate reports what is
// wrong.
type Config struct {
	// Listen is the address of the proxied port; MetricsListen that of /metrics, /healthz, /readyz
	// and the drain.
	Listen, MetricsListen string
	// App is the app's address, host:port, or unix:/path of a socket. A name is looked up at each
	// connect.
	App string
	// AppReadyPath is asked by GET to learn whether the app is ready (200–399). Empty, and no
	// AppReadyGRPC: it is ready when it accepts a connection.
	AppReadyPath string
	// AppReadyGRPC asks the app's gRPC health service (grpc.health.v1, over HTTP/2 without TLS)
	// whether AppReadyGRPCService is SERVING; empty is the app as a whole. Not together with
	// AppReadyPath.
	AppReadyGRPC        bool
	AppReadyGRPCService string
	// AppDialTimeout bounds a connect to the app, and its answer to the question whether it is
	// ready, > 0.
	AppDialTimeout time.Duration
	// AppIdleTimeout closes idle connections to the app, > 0. Keep it below the app's own
	// keep-alive timeout; lower costs more connects.
	AppIdleTimeout time.Duration
	// ConcurrencyLimit is how many requests the app gets at once, ≥ 0; 0 means no limit.
	ConcurrencyLimit int
	// QueueLimit is how many more may wait, ≥ 0; the next is answered 503. Of no effect without
	// ConcurrencyLimit.
	QueueLimit int
	// QueueTimeout is how long one may wait, ≥ 0; then it is answered 503. 0 means as long as the
	// client waits.
	QueueTimeout time.Duration
	// LameDuck is how long requests are served on after readiness fails, ≥ 0: too short loses
	// requests of clients that have not yet learned that the pod goes, longer only delays its end.
	LameDuck time.Duration
	// Drain is how long running requests may take after the lame duck, ≥ 0.
	Drain time.Duration
	// DrainUndo is how long after a drain on request the process may be told to end, ≥ 0; then the
	// drain is undone. 0 means never. Shorter than an app takes to end after its preStop hook makes
	// the pod ready once more at its very end; longer leaves a pod out of service for longer that
	// somebody has drained who was not to.
	DrainUndo time.Duration
	// DrainPath is where a GET on the metrics port starts the drain and returns when it is over.
	// Empty: nowhere. It is answered to who sends the token in DrainTokenFile, read each time;
	// without a file to peers on a loopback address.
	DrainPath, DrainTokenFile string
	// HeaderTimeout is how long a client may take to send a request's headers, > 0.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection may be idle, > 0. Keep it above that of load
	// balancers before it.
	IdleTimeout time.Duration
	// ResponseTimeout is how long the app may take to begin an answer, RequestTimeout how long a
	// request may take from its arrival to the end of its answer, ≥ 0; then it is answered 504, or
	// the answer is cut. 0 means no bound. Streams (bodies of unknown length, upgrades) are exempt
	// from the second. Lower frees places sooner and cuts more slow requests.
	ResponseTimeout, RequestTimeout time.Duration
	// TLSCert and TLSKey are files in PEM for TLS on the proxied port, read again when they change;
	// empty for no TLS.
	TLSCert, TLSKey string
	// Threads is how many CPUs the process uses at once, ≥ 0; 0 is as many as there are. One is the
	// cheapest per request and enough for tens of thousands of small ones per second.
	Threads int
	// MaxHeaderBytes bounds the headers of a request, 1024–16777216 bytes; each connection may use
	// this much memory.
	MaxHeaderBytes int
	// IgnorePaths and IgnoreAgents tell requests that are no demand: by URL path (all that begin
	// so, if it ends in "*"), and by the beginning of the User-Agent.
	IgnorePaths, IgnoreAgents []string
	// Logging is the level and the format of the log; JSON by default.
	Logging cli.Logging
}

// Default returns the configuration without any flag.
func Default() Config {
	return Config{
		Listen:         ":8012",
		MetricsListen:  ":9095",
		App:            "127.0.0.1:8080",
		AppDialTimeout: time.Second,
		AppIdleTimeout: 4 * time.Second, // Node.js closes at 5 s, others later
		QueueLimit:     1000,
		QueueTimeout:   30 * time.Second,
		LameDuck:       3 * time.Second,
		Drain:          30 * time.Second,
		DrainUndo:      2 * time.Minute,
		DrainPath:      "/drain",
		HeaderTimeout:  10 * time.Second,
		IdleTimeout:    620 * time.Second, // load balancers keep connections for up to 600 s
		Threads:        1,
		MaxHeaderBytes: 128 << 10,
		IgnoreAgents:   request.ProbeAgents(),
		Logging:        cli.Logging{Level: "info", Format: "json"},
	}
}

// Bind makes flags set c; c's present values are their defaults.
func (c *Config) Bind(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", c.Listen, "`address` of the proxied port")
	f.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "`address` of /metrics, /healthz, /readyz and the drain path")
	f.StringVar(&c.App, "app", c.App, "the app's `address`, host:port or unix:/path")
	f.StringVar(&c.AppReadyPath, "app-ready-path", c.AppReadyPath, "`path` that the app answers with 2xx or 3xx when it is ready (default: it is ready when it accepts connections)")
	f.BoolVar(&c.AppReadyGRPC, "app-ready-grpc", c.AppReadyGRPC, "the app is ready when its gRPC health service says SERVING (grpc.health.v1, over HTTP/2 without TLS)")
	f.StringVar(&c.AppReadyGRPCService, "app-ready-grpc-service", c.AppReadyGRPCService, "`name` of the service to ask for (default: the app as a whole)")
	f.DurationVar(&c.AppDialTimeout, "app-dial-timeout", c.AppDialTimeout, "how long a connect to the app may take, and its answer when asked whether it is ready")
	f.DurationVar(&c.AppIdleTimeout, "app-idle-timeout", c.AppIdleTimeout, "close connections to the app when idle for so long; keep it below the app's keep-alive timeout")
	f.IntVar(&c.ConcurrencyLimit, "concurrency-limit", c.ConcurrencyLimit, "how many requests the app gets at once; 0 means no limit")
	f.IntVar(&c.QueueLimit, "queue-limit", c.QueueLimit, "how many requests may wait for the app when there is a limit; more are answered 503")
	f.DurationVar(&c.QueueTimeout, "queue-timeout", c.QueueTimeout, "how long a request may wait; 0 means as long as its client does")
	f.DurationVar(&c.LameDuck, "lame-duck", c.LameDuck, "how long to serve on after readiness has failed")
	f.DurationVar(&c.Drain, "drain", c.Drain, "how long running requests may take after the lame duck")
	f.DurationVar(&c.DrainUndo, "drain-undo", c.DrainUndo, "serve as before when no SIGTERM has followed a drain on request for so long; 0 means never")
	f.StringVar(&c.DrainPath, "drain-path", c.DrainPath, "`path` on the metrics port whose GET starts the drain and returns when it is over; without --drain-token-file for the pod itself alone; empty for none")
	f.StringVar(&c.DrainTokenFile, "drain-token-file", c.DrainTokenFile, "`file` with a token, which whoever drains must send as \"Authorization: Bearer TOKEN\", from any address; a kubelet's preStop hook needs one")
	f.DurationVar(&c.HeaderTimeout, "header-timeout", c.HeaderTimeout, "how long a client may take to send a request's headers")
	f.DurationVar(&c.IdleTimeout, "idle-timeout", c.IdleTimeout, "close clients' connections when idle for so long; keep it above that of load balancers")
	f.DurationVar(&c.ResponseTimeout, "response-timeout", c.ResponseTimeout, "how long the app may take to begin an answer; 0 means no bound")
	f.DurationVar(&c.RequestTimeout, "request-timeout", c.RequestTimeout, "how long a request may take in all, streams excepted; 0 means no bound")
	f.StringVar(&c.TLSCert, "tls-cert", c.TLSCert, "`file` of the certificate for TLS on the proxied port, read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", c.TLSKey, "`file` of its key")
	f.IntVar(&c.Threads, "threads", c.Threads, "how many CPUs to use at once; 0 means all")
	f.IntVar(&c.MaxHeaderBytes, "max-header-bytes", c.MaxHeaderBytes, "answer 431 to requests with larger headers")
	f.StringArrayVar(&c.IgnorePaths, "ignore-path", c.IgnorePaths, "`path` whose requests are not demand; one that ends in * stands for all that begin so (repeatable)")
	f.Var(&more{&c.IgnoreAgents}, "ignore-agent", "`beginning` of User-Agent values whose requests are not demand, in addition to known health checkers and scrapers (repeatable)")
	c.Logging.Bind(f)
}

// more is a flag that appends to a list.
type more struct{ list *[]string }

// Set adds v.
func (m *more) Set(v string) error { *m.list = append(*m.list, v); return nil }

// String is empty: help shows no default.
func (m *more) String() string { return "" }

// Type is what help would call the value.
func (m *more) Type() string { return "string" }

// Validate returns every fault, joined, or nil.
func (c *Config) Validate() error {
	errs := slices.Concat(c.addressFaults(), c.durationFaults(), c.boundFaults(), c.appReadyFaults(), c.drainFaults(), c.ignoreFaults())
	return errors.Join(append(errs, c.Logging.Validate())...)
}

func (c *Config) boundFaults() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ConcurrencyLimit < 0 {
		bad("concurrency-limit = %d: want ≥ 0 (requests)", c.ConcurrencyLimit)
	}
	if c.QueueLimit < 0 {
		bad("queue-limit = %d: want ≥ 0 (requests)", c.QueueLimit)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("tls-cert = %q, tls-key = %q: want both or none", c.TLSCert, c.TLSKey)
	}
	if c.Threads < 0 {
		bad("threads = %d: want ≥ 0", c.Threads)
	}
	if c.MaxHeaderBytes < 1<<10 || c.MaxHeaderBytes > 16<<20 {
		bad("max-header-bytes = %d: want 1024–16777216 (bytes)", c.MaxHeaderBytes)
	}
	return errs
}

func (c *Config) ignoreFaults() (errs []error) {
	for _, p := range c.IgnorePaths {
		if !strings.HasPrefix(p, "/") {
			errs = append(errs, fmt.Errorf("ignore-path = %q: want a path that begins with /", p))
		}
	}
	for _, a := range c.IgnoreAgents {
		if a == "" {
			errs = append(errs, fmt.Errorf("ignore-agent = %q: want a beginning of a User-Agent; this would be every one", a))
		}
	}
	return errs
}

func (c *Config) addressFaults() (errs []error) {
	for _, a := range []struct{ flag, value string }{
		{"listen", c.Listen},
		{"metrics-listen", c.MetricsListen},
		{"app", c.App},
	} {
		if network, path := socket.Address(a.value); a.flag == "app" && network == "unix" {
			if !strings.HasPrefix(path, "/") {
				errs = append(errs, fmt.Errorf("app = %q: want unix: and an absolute path", a.value))
			}
			continue
		}
		host, port, err := net.SplitHostPort(a.value)
		n, convErr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || convErr != nil:
			errs = append(errs, fmt.Errorf("%s = %q: want host:port with a port of 0–65535", a.flag, a.value))
		case a.flag == "app" && (host == "" || n == 0):
			errs = append(errs, fmt.Errorf("app = %q: want a host and a port of 1–65535", a.value))
		}
	}
	return errs
}

func (c *Config) durationFaults() (errs []error) {
	for _, d := range []struct {
		flag  string
		value time.Duration
		zero  bool
	}{
		{"app-dial-timeout", c.AppDialTimeout, false},
		{"app-idle-timeout", c.AppIdleTimeout, false},
		{"queue-timeout", c.QueueTimeout, true},
		{"lame-duck", c.LameDuck, true},
		{"drain", c.Drain, true},
		{"drain-undo", c.DrainUndo, true},
		{"header-timeout", c.HeaderTimeout, false},
		{"idle-timeout", c.IdleTimeout, false},
		{"response-timeout", c.ResponseTimeout, true},
		{"request-timeout", c.RequestTimeout, true},
	} {
		switch {
		case d.value < 0 && d.zero:
			errs = append(errs, fmt.Errorf("%s = %v: want ≥ 0", d.flag, d.value))
		case d.value <= 0 && !d.zero:
			errs = append(errs, fmt.Errorf("%s = %v: want > 0", d.flag, d.value))
		}
	}
	return errs
}

func (c *Config) appReadyFaults() (errs []error) {
	if p := c.AppReadyPath; p != "" {
		if _, err := http.NewRequest(http.MethodGet, "http://app"+p, nil); err != nil || p[0] != '/' { //nolint:noctx // only parsed, never sent
			errs = append(errs, fmt.Errorf("app-ready-path = %q: want a path that begins with /", p))
		}
	}
	if c.AppReadyGRPC && c.AppReadyPath != "" {
		errs = append(errs, fmt.Errorf("app-ready-path = %q, app-ready-grpc = true: want one of both", c.AppReadyPath))
	}
	if s := c.AppReadyGRPCService; s != "" && !c.AppReadyGRPC {
		errs = append(errs, fmt.Errorf("app-ready-grpc-service = %q: want it with app-ready-grpc only", s))
	} else if !utf8.ValidString(s) {
		errs = append(errs, fmt.Errorf("app-ready-grpc-service = %q: want UTF-8", s))
	}
	return errs
}

func (c *Config) drainFaults() (errs []error) {
	switch p := c.DrainPath; {
	case p == "" && c.DrainTokenFile != "":
		errs = append(errs, fmt.Errorf("drain-token-file = %q: want it with a drain-path only", c.DrainTokenFile))
	case p == "":
	case p[0] != '/' || strings.ContainsAny(p, " ?#{}"):
		errs = append(errs, fmt.Errorf("drain-path = %q: want a path that begins with /, without ?, #, braces and spaces", p))
	case p == "/metrics" || p == "/healthz" || p == "/readyz":
		errs = append(errs, fmt.Errorf("drain-path = %q: taken", p))
	}
	return errs
}
