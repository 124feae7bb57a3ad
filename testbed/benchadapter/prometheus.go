package benchadapter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed"
)

// prometheus is a real Prometheus that takes what is written to it.
type prometheus struct {
	url     string
	process *process
	dir     string
}

// startPrometheus runs an empty one.
func startPrometheus(ctx context.Context, o Options) (*prometheus, error) {
	dir, err := os.MkdirTemp("", "bench-adapter-prometheus-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for Prometheus: %w", err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {}\n"), 0o600); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	// Series are written once for a shape, which takes minutes.
	p := &prometheus{url: "http://" + address, dir: dir}
	p.process, err = start(filepath.Join(o.Out, "logs", "prometheus.log"), o.Prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.enable-remote-write-receiver", "--web.listen-address="+address, "--log.level=warn", "--query.lookback-delta=20m")
	if err != nil {
		return nil, err
	}
	err = testbed.WaitFor(ctx, time.Minute, "Prometheus", func(ctx context.Context) (string, bool) {
		resp, err := get(ctx, http.DefaultClient, p.url+"/-/ready", nil)
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprint(resp.status), resp.status == http.StatusOK
	})
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *prometheus) close() {
	p.process.stop()
	_ = os.RemoveAll(p.dir) // a temporary folder
}

// label is a label of a series. The labels of a series are in order of their names.
type label struct{ name, value string }

// batch is how many series are written at once.
const batch = 20_000

// write writes a sample of each series, with the value that is its place modulo 97, at an instant.
func (p *prometheus) write(ctx context.Context, at time.Time, n int, series func(i int) []label) error {
	for from := 0; from < n; from += batch {
		var body []byte
		for i := from; i < min(from+batch, n); i++ {
			body = appendSeries(body, series(i), float64(i%97), at.UnixMilli())
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/api/v1/write", bytes.NewReader(literal(body)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Encoding", "snappy")
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("write series: %w", err)
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // only told
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("write series: %s: %s", resp.Status, text)
		}
	}
	return nil
}

// appendSeries appends a series with one sample to a WriteRequest of Prometheus' remote write
// protocol 0.1.0.
func appendSeries(dst []byte, labels []label, value float64, at int64) []byte {
	var series []byte
	for _, l := range labels {
		var text []byte
		text = appendBytes(text, 1, []byte(l.name))
		text = appendBytes(text, 2, []byte(l.value))
		series = appendBytes(series, 1, text)
	}
	sample := []byte{1<<3 | 1} // value, 64 bits
	sample = binary.LittleEndian.AppendUint64(sample, math.Float64bits(value))
	sample = append(sample, 2<<3) // timestamp, a varint
	sample = binary.AppendUvarint(sample, uint64(at))
	series = appendBytes(series, 2, sample)
	return appendBytes(dst, 1, series)
}

// appendBytes appends a field of bytes in protobuf.
func appendBytes(dst []byte, number byte, value []byte) []byte {
	dst = append(dst, number<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// literal writes a block of snappy that compresses nothing.
func literal(raw []byte) []byte {
	out := binary.AppendUvarint(make([]byte, 0, len(raw)+16), uint64(len(raw)))
	if len(raw) == 0 {
		return out
	}
	out = append(out, 63<<2) // a literal whose length stands in 4 bytes
	out = binary.LittleEndian.AppendUint32(out, uint32(len(raw)-1))
	return append(out, raw...)
}

// way is an adapter's way to Prometheus: it counts requests and makes each wait.
type way struct {
	url     string
	server  *http.Server
	latency atomic.Int64
	count   atomic.Int64
}

// newWay opens a way to a Prometheus.
func newWay(ctx context.Context, to string) (*way, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &way{url: "http://" + l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
		// A caller that has given up is no fault of the way.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	w.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			w.count.Add(1)
			timer := time.NewTimer(time.Duration(w.latency.Load()))
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
		}
		proxy.ServeHTTP(rw, r)
	})}
	go func() { _ = w.server.Serve(l) }() // it ends with close
	return w, nil
}

func (w *way) close() { _ = w.server.Close() }

// freeAddress is an address of this machine that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	return l.Addr().String(), nil
}
