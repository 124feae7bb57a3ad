package collect

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/wire"
)

const (
	// silence is how long a stream may be without a report before it is opened anew; reports come each second.
	silence = 3 * time.Second
	// maxLine bounds a report.
	maxLine = 8 << 20
	// firstReconnect is the wait before the first try anew; it doubles up to lastReconnect.
	firstReconnect, lastReconnect = 50 * time.Millisecond, time.Second
)

// seeGateway takes a gateway pod's new state.
func (c *Collector) seeGateway(ctx context.Context, now time.Time, pod *corev1.Pod) {
	number, container := port(pod, wire.ControlPortName)
	up := running(pod, container) && pod.DeletionTimestamp == nil
	if number == 0 || pod.Status.PodIP == "" {
		return
	}
	addr := address(pod.Status.PodIP, number)
	c.Store.SetGateway(now, pod.UID, pod.Name, pod.Status.PodIP, addr, up)
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.gateways[pod.UID]; t != nil && t.address == addr {
		if up && !t.running {
			select {
			case t.poke <- struct{}{}:
			default:
			}
		}
		t.running = up
		return
	}
	c.end(c.gateways, pod.UID)
	t := &target{address: addr, poke: make(chan struct{}, 1), running: up}
	c.gateways[pod.UID] = t
	uid, name := pod.UID, pod.Name
	c.start(ctx, t, func(ctx context.Context) { c.follow(ctx, t, uid, name) })
}

// follow keeps a gateway's stream open until ctx ends.
func (c *Collector) follow(ctx context.Context, t *target, uid types.UID, name string) {
	wait := firstReconnect
	for {
		got, err := c.stream(ctx, t.address, uid)
		g, known := c.Store.SetConnected(uid, false)
		if got > 0 {
			wait = firstReconnect
		}
		if got > 0 && known {
			c.OnReport(g, services(g.Report))
		}
		if ctx.Err() != nil {
			return
		}
		result, _ := classify(err)
		c.metrics.reports.WithLabelValues(result).Inc()
		if got > 0 {
			c.Log.WarnContext(ctx, "gateway stream ended, will reconnect", slog.String("gateway", name), slog.Any("error", err))
		} else {
			c.Log.DebugContext(ctx, "gateway stream not opened, will retry", slog.String("gateway", name), slog.Any("error", err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-t.poke:
			timer.Stop()
			wait = firstReconnect
		case <-timer.C:
			wait = min(2*wait, lastReconnect)
		}
	}
}

var errEnded = errors.New("the gateway ended the stream")

// stream reads reports until the stream breaks. It returns how many there were.
func (c *Collector) stream(ctx context.Context, addr string, uid types.UID) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+wire.ReportsPath, nil)
	if err != nil {
		return 0, fmt.Errorf("address %s: %w", addr, err)
	}
	if c.TokenFile != "" {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return 0, fmt.Errorf("read the gateways' token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := c.streams.Do(req)
	if err != nil {
		return 0, fmt.Errorf("open the stream of %s: %w", addr, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("open the stream of %s: %w", addr, statusError(res.StatusCode))
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 16<<10), maxLine)
	n := 0
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		now := time.Now()
		var r wire.Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return n, fmt.Errorf("report of %s: %w: %w", addr, errContent, err)
		}
		watchdog.Reset(silence)
		before, after, ok := c.Store.AddReport(now, uid, &r)
		if !ok {
			return n, fmt.Errorf("report of %s: the gateway is gone", addr)
		}
		n++
		c.metrics.reports.WithLabelValues("ok").Inc()
		c.OnReport(after, urgent(before, after))
	}
	if err := lines.Err(); err != nil {
		return n, fmt.Errorf("read the stream of %s: %w", addr, err)
	}
	return n, fmt.Errorf("read the stream of %s: %w", addr, errEnded)
}

// services names the Services of a report.
func services(r *wire.Report) []types.NamespacedName {
	if r == nil {
		return nil
	}
	set := map[types.NamespacedName]struct{}{}
	for i := range r.Ports {
		set[types.NamespacedName{Namespace: r.Ports[i].Namespace, Name: r.Ports[i].Service}] = struct{}{}
	}
	return sorted(set)
}

func sorted(set map[types.NamespacedName]struct{}) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(set), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
}

// urgent names the Services of which a report says something that somebody waits for: requests are held, or a port opened, closed or
// failed, or pods began to take requests, or a wake-up went on.
func urgent(before, after store.Gateway) []types.NamespacedName {
	set := map[types.NamespacedName]struct{}{}
	type key struct{ namespace, service, port string }
	old := map[key]*wire.PortReport{}
	if before.Connected && before.Report != nil && before.Report.StartTime == after.Report.StartTime {
		for i := range before.Report.Ports {
			p := &before.Report.Ports[i]
			old[key{p.Namespace, p.Service, p.PortName}] = p
		}
	}
	for i := range after.Report.Ports {
		p := &after.Report.Ports[i]
		k := key{p.Namespace, p.Service, p.PortName}
		was := old[k]
		delete(old, k)
		if was == nil || p.Waiting > 0 || p.Listening != was.Listening || p.Error != was.Error || p.ReadyPods != was.ReadyPods || !same(p.ColdStart, was.ColdStart) {
			set[types.NamespacedName{Namespace: p.Namespace, Name: p.Service}] = struct{}{}
		}
	}
	for k := range old {
		set[types.NamespacedName{Namespace: k.namespace, Name: k.service}] = struct{}{}
	}
	return sorted(set)
}

func same(a, b *wire.ColdStart) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
