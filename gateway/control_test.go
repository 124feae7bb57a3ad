package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/wire"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestGenerations(t *testing.T) {
	b := start(t, nil)
	for _, step := range []struct {
		epoch      int64
		generation uint64
		want       int
	}{
		{7, 5, 204}, {7, 5, 204}, {7, 4, 409}, {7, 6, 204}, {8, 1, 204}, {8, 0, 409}, {7, 9, 409},
	} {
		code, text := b.put(wire.Assignments{Epoch: step.epoch, Generation: step.generation})
		if code != step.want {
			t.Errorf("PUT epoch %d generation %d = %d %s, want %d", step.epoch, step.generation, code, text, step.want)
		}
	}
	want := []wire.OwnerReport{{Owner: "main", Epoch: 8, Generation: 1}}
	if diff := cmp.Diff(want, b.gw.Report().Owners); diff != "" {
		t.Errorf("in effect (-want +got):\n%s", diff)
	}
	if code, _ := b.put([]int{1}); code != 400 {
		t.Errorf("PUT of a list = %d, want 400", code)
	}
	if code, _ := b.put(strings.Repeat("x", 5<<20)); code != 400 {
		t.Errorf("PUT of 5 MiB = %d, want 400", code)
	}
}

// TestOwners lets two owners assign: each replaces only its own ports, a bad port and one that
// collides are refused alone, and a port goes from one owner to the other without closing.
func TestOwners(t *testing.T) {
	b := start(t, nil)
	url := b.assign(assignment(nil))
	mine := b.gw.Report().Ports[0].Listen
	other := assignment(func(a *wire.Assignment) { a.Service = "api" })
	thief := assignment(func(a *wire.Assignment) { a.Service, a.Listen = "thief", mine })
	bad := assignment(func(a *wire.Assignment) { a.Service, a.Listen = "bad", 0 })
	push := func(owner string, gen uint64, want int, ports ...wire.Assignment) wire.Refusals {
		t.Helper()
		code, text := b.putAs(owner, wire.Assignments{Epoch: 1, Generation: gen, Ports: ports})
		if code != want {
			t.Fatalf("PUT of %s = %d %s, want %d", owner, code, text, want)
		}
		var r wire.Refusals
		if want == 200 {
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	r := push("second", 1, 200, other, thief, bad)
	if len(r.Refused) != 2 || r.Refused[0].Service != "thief" || !strings.Contains(r.Refused[0].Error, "owner main has assigned the number to shop/web") ||
		r.Refused[1].Service != "bad" || !strings.Contains(r.Refused[1].Error, "listen = 0") {
		t.Errorf("refused: %+v, want thief and bad, each with its cause", r.Refused)
	}
	report := b.gw.Report()
	if len(report.Ports) != 2 || report.Ports[0].Owner != "second" || report.Ports[1].Owner != "main" || len(report.Refused) != 2 {
		t.Fatalf("report = %+v, want api of second, web of main, two refused", report)
	}

	// The same Service port with the same number: the second owner stands by.
	p := newPod(t, nil)
	b.source.set(web, up(p.address()))
	c := client(t)
	push("second", 2, 204, other, assignment(func(a *wire.Assignment) { a.Listen = mine }))
	if r := get(t.Context(), c, url); r.code != 200 {
		t.Fatalf("GET = %+v, want 200", r)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodDelete, b.control.URL+wire.OwnerPath("main"), nil)
	res, err := b.control.Client().Do(req)
	if err != nil || res.StatusCode != 204 {
		t.Fatalf("DELETE = %v, %v, want 204", res, err)
	}
	_ = res.Body.Close()
	report = b.gw.Report()
	if len(report.Ports) != 2 || report.Ports[1].Owner != "second" || !report.Ports[1].Listening || report.Ports[1].Arrived != 1 || len(report.Owners) != 1 {
		t.Errorf("report = %+v, want web handed over to second with its counters", report)
	}
	if r := get(t.Context(), c, url); r.code != 200 {
		t.Errorf("GET after the hand-over = %+v, want 200", r)
	}
	if code, text := b.putAs("No_Label", wire.Assignments{}); code != 400 || !strings.Contains(text, "DNS label") {
		t.Errorf("PUT of a bad owner = %d %s, want 400", code, text)
	}
}

func TestUnknownVersion(t *testing.T) {
	b := start(t, nil)
	for _, path := range []string{"/v2/reports", "/v2/assignments/main", "/v1/assignments", "/"} {
		r := get(t.Context(), client(t), b.control.URL+path)
		if r.code != 404 || !strings.Contains(r.body, "speaks version v1 of the wire") {
			t.Errorf("GET %s = %+v, want 404 that names the version spoken", path, r)
		}
	}
}

func TestPortInUse(t *testing.T) {
	b := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := assignment(func(a *wire.Assignment) { a.Listen = l.Addr().(*net.TCPAddr).Port })
	if code, text := b.put(wire.Assignments{Ports: []wire.Assignment{taken}}); code != 204 {
		t.Fatalf("PUT = %d %s, want 204: the fault is the gateway's", code, text)
	}
	b.until("the fault", func(r wire.Report) bool { return !r.Ports[0].Listening && strings.Contains(r.Ports[0].Error, "in use") })
	_ = l.Close()
	b.until("the port open", func(r wire.Report) bool { return r.Ports[0].Listening && r.Ports[0].Error == "" })
}

func TestReports(t *testing.T) {
	b := start(t, func(c *gateway.Config) { c.MaxReaders = 1 })
	url := b.assign(assignment(nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, b.control.URL+wire.ReportsPath, nil)
	res, err := b.control.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if ct := res.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("Content-Type = %q", ct)
	}
	lines := bufio.NewReader(res.Body)
	next := func() wire.Report {
		t.Helper()
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var r wire.Report
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := next()
	if first.Gateway != "gw-0" || len(first.Ports) != 1 || !first.Ports[0].Listening {
		t.Errorf("first report = %+v", first)
	}
	// The very next report after a first waiter tells of it, long before the heartbeat is due.
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, url) })
	woken := next()
	if woken.Ports[0].Waiting != 1 || woken.Ports[0].ColdStart == nil {
		t.Errorf("report = %+v, want 1 waiting and a cold start", woken)
	}
	if late := woken.Monotonic - (float64(woken.Ports[0].ColdStart.Detected)/1e9 - woken.StartTime); late > 0.5 {
		t.Errorf("the first waiter was reported %v s after it came, want at once", late)
	}
	// While it waits, each report's integral grows by just the time between them.
	beat := next()
	got, want := beat.Ports[0].WaitingSeconds-woken.Ports[0].WaitingSeconds, beat.Monotonic-woken.Monotonic
	if diff := got - want; diff > 1e-6 || diff < -1e-6 || want > 1.5 {
		t.Errorf("integral grew by %v in %v s with 1 waiting", got, want)
	}
	p := newPod(t, nil)
	b.source.set(web, up(p.address()))
	wait()
}

// TestNewestReaderIsServed fills the readers' places, as a controller leaves them that was killed:
// the one that comes after its restart is served, and the oldest goes.
func TestNewestReaderIsServed(t *testing.T) {
	const most = 3
	b := start(t, func(c *gateway.Config) { c.MaxReaders = most })
	type stream struct{ lines *bufio.Scanner }
	open := func() stream {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.control.URL+wire.ReportsPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := b.control.Client().Do(req)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("reader = %v, %v, want it served", res, err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		s := stream{bufio.NewScanner(res.Body)}
		if !s.lines.Scan() {
			t.Fatalf("no first report: %v", s.lines.Err())
		}
		return s
	}
	var all []stream
	for range most + 2 {
		all = append(all, open())
	}
	for i, s := range all[:2] {
		for s.lines.Scan() { // until it ends
		}
		if err := s.lines.Err(); err != nil {
			t.Errorf("reader %d ends with %v, want an orderly end", i, err)
		}
	}
	for i, s := range all[2:] {
		if !s.lines.Scan() {
			t.Errorf("reader %d of the newest %d ended: %v", i, most, s.lines.Err())
		}
	}
}

// TestEpochsThatCannotBe pushes them: each is refused, and the next true one is in effect.
func TestEpochsThatCannotBe(t *testing.T) {
	b := start(t, nil)
	a := assignment(nil)
	for _, epoch := range []int64{math.MaxInt64, time.Now().Add(48 * time.Hour).UnixNano(), -1, math.MinInt64} {
		if code, text := b.put(wire.Assignments{Epoch: epoch, Generation: 1, Ports: []wire.Assignment{a}}); code != http.StatusBadRequest || !strings.Contains(text, "epoch") {
			t.Errorf("PUT of epoch %d = %d %s, want 400 that names it", epoch, code, text)
		}
	}
	if code, text := b.put(wire.Assignments{Epoch: time.Now().UnixNano(), Generation: 1, Ports: []wire.Assignment{a}}); code != http.StatusNoContent {
		t.Errorf("PUT after them = %d %s, want it in effect", code, text)
	}
}

// TestPushesWithoutBodies opens pushes whose bodies never come: a push beside them is read, and
// they end in time.
func TestPushesWithoutBodies(t *testing.T) {
	b := start(t, nil)
	address := strings.TrimPrefix(b.control.URL, "http://")
	head := "PUT " + wire.OwnerPath("main") + " HTTP/1.1\r\nHost: gw\r\nContent-Length: 100\r\n\r\n"
	began := time.Now()
	var conns []net.Conn
	refused := 0
	for range 50 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("a push without a body has no answer: %v", err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			refused++
		}
	}
	if refused < 40 {
		t.Errorf("%d of 50 were refused at once, want all but the few that are read", refused)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the last one ended after %v, want some seconds", took)
	}
	b.assign(assignment(nil))
}

func TestMetrics(t *testing.T) {
	b := start(t, nil)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.gw.Collector())
	url := b.assign(assignment(nil), assignment(func(a *wire.Assignment) { a.PortName = "admin" }))
	c := client(t)
	wait := async(func() reply { return get(t.Context(), c, url) })
	b.until("1 waiting", func(r wire.Report) bool { return r.Ports[0].Waiting+r.Ports[1].Waiting == 1 })
	p := newPod(t, nil)
	b.source.set(web, starting(p.address()))
	wait()
	b.until("the place free", func(r wire.Report) bool { return r.Ports[0].Forwarding+r.Ports[1].Forwarding == 0 })

	if faults, err := testutil.GatherAndLint(registry); err != nil || len(faults) > 0 {
		t.Errorf("promlint: %v %v", faults, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	// Times differ from run to run, and so do the buckets they fall into; the reader is the test's
	// own, about to leave.
	got := regexp.MustCompile(`(?m)^([^#].*(?:_seconds_(?:total|sum|bucket).*|report_readers)) \S+$`).ReplaceAll(text.Bytes(), []byte("$1 X"))
	golden(t, "testdata/metrics.txt", got)

	b.assign()
	b.until("the ports gone", func(r wire.Report) bool { return len(r.Ports) == 0 })
	if n, err := testutil.GatherAndCount(registry); n != 1 || err != nil {
		t.Errorf("%d series after the workload is gone, %v, want only that of the readers", n, err)
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	err := gateway.Config{ProbeAgents: []string{""}, ProbePaths: []string{"x"}, LameDuck: -1, TerminatingGrace: -1, PathLinger: -1, ListenHost: "nowhere"}.Validate()
	for _, key := range []string{"name", "listen-host", "max-held", "max-held-total", "max-held-bytes", "max-memory", "hold-timeout", "probe-interval", "pod-concurrency", "dial-timeout", "terminating-grace", "path-linger", "lame-duck", "drain", "max-readers", "probe-agent", "probe-path"} {
		if err == nil || !strings.Contains(err.Error(), key+" ") {
			t.Errorf("Validate() = %v, want %s named", err, key)
		}
	}
	if err := gateway.Default().Validate(); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("Validate() of the defaults = %v, want only the name missing", err)
	}
}
