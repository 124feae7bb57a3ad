// Package promtest fills a real Prometheus with known series and runs it, for tests.
package promtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Scrape is the time between samples.
const Scrape = 15 * time.Second

// Series is what Prometheus is filled with.
type Series struct {
	// Kind is counter or gauge, Labels such as `pod="web-1"`. Series of one name follow one
	// another.
	Kind, Name, Labels string
	// Value is the value at an instant; ok is false where there was no scrape.
	Value func(at time.Time) (v float64, ok bool)
}

// Loopback is a host for Start.
const Loopback = "127.0.0.1"

// Start fills a Prometheus with samples from begin to end, both included, and runs it on a port of
// an address of this machine until the test ends. The programs prometheus and promtool must be in
// the PATH.
func Start(t *testing.T, host string, begin, end time.Time, series ...Series) (url string) {
	t.Helper()
	programs(t)
	dir := t.TempDir()
	metrics, data := filepath.Join(dir, "metrics.om"), filepath.Join(dir, "data")
	if err := os.WriteFile(metrics, openMetrics(begin, end, series), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := exec.CommandContext(t.Context(), "promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=24h", metrics, data)
	if out, err := fill.CombinedOutput(); err != nil {
		t.Fatalf("fill Prometheus: %v\n%s", err, out)
	}
	return run(t, host, data, "global: {}\n")
}

// Scraping runs a Prometheus that reads /metrics of a target (host:port) each interval, until the
// test ends.
func Scraping(t *testing.T, host, target string, interval time.Duration) (url string) {
	t.Helper()
	programs(t)
	return run(t, host, t.TempDir(), fmt.Sprintf(
		"scrape_configs:\n- job_name: test\n  honor_labels: true\n  scrape_interval: %[1]v\n  scrape_timeout: %[1]v\n  static_configs: [{targets: [%[2]q]}]\n", interval, target))
}

// programs fails the test if one is missing.
func programs(t *testing.T) {
	t.Helper()
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: run make prometheus, which fetches the Debian package, and put %s into the PATH", err, name)
		}
	}
}

// run runs a Prometheus over a folder of data.
func run(t *testing.T, host, data, settings string) (url string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := exec.CommandContext(context.WithoutCancel(t.Context()), "prometheus", "--config.file="+config, "--storage.tsdb.path="+data, "--storage.tsdb.retention.time=100y",
		"--web.listen-address="+address, "--log.level=warn")
	p.Stdout, p.Stderr = &log, &log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("Prometheus ended with %v:\n%s", err, &log)
		}
	})
	url = "http://" + address
	for deadline := time.Now().Add(time.Minute); !ready(t, url); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("Prometheus is not ready after a minute")
		}
	}
	return url
}

func ready(t *testing.T, url string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/-/ready", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode == http.StatusOK
}

// openMetrics is the text that promtool reads.
func openMetrics(begin, end time.Time, series []Series) []byte {
	var text bytes.Buffer
	name := ""
	for _, s := range series {
		if s.Name != name {
			name = s.Name
			fmt.Fprintf(&text, "# TYPE %s %s\n", strings.TrimSuffix(name, "_total"), s.Kind)
		}
		for at := begin; !at.After(end); at = at.Add(Scrape) {
			if v, ok := s.Value(at); ok {
				fmt.Fprintf(&text, "%s{%s} %g %d\n", s.Name, s.Labels, v, at.Unix())
			}
		}
	}
	text.WriteString("# EOF\n")
	return text.Bytes()
}
