package observe

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/internal/cli"
)

// Config is the observe mode's configuration. Default gives the usual one; Validate tells what is wrong.
type Config struct {
	// AppPort is the port that the app listens on, 1–65535, on whatever address.
	AppPort int
	// MetricsListen is the address of /metrics, /healthz and /readyz.
	MetricsListen string
	// MinInterval and MaxInterval bound the time between two samples, 1 ms–1 s: the first under load, the second at rest. Shorter
	// sees more of short requests and costs more CPU, in so far as MaxCPU allows.
	MinInterval, MaxInterval time.Duration
	// MaxCPU bounds what the process takes, as a share of one core, 0.0005–1. It goes before MaxInterval: with thousands of
	// connections samples get rarer, down to one a second.
	MaxCPU float64
	// Drain is how long to observe on after SIGTERM while requests are in flight, ≥ 0.
	Drain time.Duration
	// Logging says what is logged, and in which format; JSON unless told otherwise.
	Logging cli.Logging
}

// Default returns the configuration without any flag.
func Default() Config {
	return Config{
		AppPort:       8080,
		MetricsListen: ":9095",
		MinInterval:   5 * time.Millisecond,
		MaxInterval:   50 * time.Millisecond,
		MaxCPU:        0.008, // a hundredth, with room for what was saved up
		Drain:         30 * time.Second,
		Logging:       cli.Logging{Level: "info", Format: "json"},
	}
}

// Bind makes flags set c; c's present values are their defaults.
func (c *Config) Bind(f *pflag.FlagSet) {
	f.IntVar(&c.AppPort, "app-port", c.AppPort, "`port` that the app listens on")
	f.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "`address` of /metrics, /healthz and /readyz")
	f.DurationVar(&c.MinInterval, "min-interval", c.MinInterval, "shortest time between two samples, under load")
	f.DurationVar(&c.MaxInterval, "max-interval", c.MaxInterval, "longest time between two samples, at rest")
	f.Float64Var(&c.MaxCPU, "max-cpu", c.MaxCPU, "`share` of one core that the observer may take; samples get rarer to keep it")
	f.DurationVar(&c.Drain, "drain", c.Drain, "how long to observe on after SIGTERM while requests are in flight")
	c.Logging.Bind(f)
}

// Validate returns every fault, joined, or nil.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.AppPort < 1 || c.AppPort > 65535 {
		bad("app-port = %d: want 1–65535", c.AppPort)
	}
	_, port, err := net.SplitHostPort(c.MetricsListen)
	if _, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil {
		bad("metrics-listen = %q: want host:port with a port of 0–65535", c.MetricsListen)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"min-interval", c.MinInterval}, {"max-interval", c.MaxInterval}} {
		if d.value < time.Millisecond || d.value > time.Second {
			bad("%s = %v: want 1ms–1s", d.flag, d.value)
		}
	}
	if c.MinInterval > c.MaxInterval {
		bad("min-interval = %v: want at most max-interval, %v", c.MinInterval, c.MaxInterval)
	}
	if !(c.MaxCPU >= 0.0005 && c.MaxCPU <= 1) {
		bad("max-cpu = %v: want 0.0005–1 (share of one core)", c.MaxCPU)
	}
	if c.Drain < 0 {
		bad("drain = %v: want ≥ 0", c.Drain)
	}
	errs = append(errs, c.Logging.Validate())
	return errors.Join(errs...)
}
