package request_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/proxy/drain"
	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/limit"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

// recorder is Metrics that says what it was told.
type recorder struct{ told []string }

func (r *recorder) Finished(code int, took, overhead time.Duration) {
	r.told = append(r.told, fmt.Sprintf("finished %d %v %v", code, took, overhead))
}

func (r *recorder) Refused(why request.Reason) { r.told = append(r.told, "refused "+why.String()) }

func (r *recorder) Ignored() { r.told = append(r.told, "ignored") }

// rulesAt returns rules by a clock that the test sets, and a limit of one request.
func rulesAt(now *time.Duration) (*request.Rules, *recorder) {
	m := new(recorder)
	return &request.Rules{
		Now: func() time.Duration { return *now }, InFlight: new(inflight.Counter), Limiter: limit.New(1, 1, 0),
		Drain: drain.New(0, 0, 0), Metrics: m, Check: func(context.Context) error { return nil },
		Ignore:          request.Ignore{Paths: []string{"/healthz", "/probe/*"}, Agents: request.ProbeAgents()},
		ResponseTimeout: time.Second, RequestTimeout: time.Minute, Log: slog.New(slog.DiscardHandler),
	}, m
}

func TestKindOf(t *testing.T) {
	cases := []struct {
		name, method, target, agent string
		want                        request.Kind
	}{
		{"a page", "GET", "/", "curl/8", request.Demand},
		{"no agent", "POST", "/x", "", request.Demand},
		{"readiness", "GET", request.ReadyPath, "sluice-probe/1", request.Readiness},
		{"readiness by HEAD", "HEAD", request.ReadyPath, "", request.Readiness},
		{"readiness by POST is the app's", "POST", request.ReadyPath, "", request.Demand},
		{"readiness with a query is the app's", "GET", request.ReadyPath + "?x", "", request.Demand},
		{"a kubelet's probe", "GET", "/", "kube-probe/1.34", request.Ignored},
		{"an agent that is shorter", "GET", "/", "kube", request.Demand},
		{"a path", "GET", "/healthz", "", request.Ignored},
		{"a path with a query", "GET", "/healthz?full=1", "", request.Ignored},
		{"a path in escapes", "GET", "/%68ealthz", "", request.Ignored},
		{"a path with a broken escape", "GET", "/healthz%zz", "", request.Demand},
		{"below a path", "GET", "/healthz/x", "", request.Demand},
		{"below a prefix", "GET", "/probe/x/y", "", request.Ignored},
		{"CONNECT", "CONNECT", "a:443", "", request.Connect},
	}
	now := time.Duration(0)
	r, _ := rulesAt(&now)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := request.KindOf(r, c.method, c.target, c.agent); got != c.want {
				t.Errorf("KindOf as strings = %d, want %d", got, c.want)
			}
			if got := request.KindOf(r, c.method, []byte(c.target), []byte(c.agent)); got != c.want {
				t.Errorf("KindOf as bytes = %d, want %d", got, c.want)
			}
		})
	}
}

func TestKindOfAllocatesNothing(t *testing.T) {
	now := time.Duration(0)
	r, _ := rulesAt(&now)
	r.Ignore.Paths = nil
	target, agent := []byte("/some/path"), []byte("curl/8.5")
	if got := testing.AllocsPerRun(100, func() { request.KindOf(r, http.MethodGet, target, agent) }); got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func TestAccount(t *testing.T) {
	const ms = time.Millisecond
	cases := []struct {
		name string
		kind request.Kind
		do   func(a *request.Account, r *request.Rules)
		want []string
	}{
		{name: "answered by the app", do: func(a *request.Account, _ *request.Rules) {
			a.Asked, a.Responded, a.Began, a.Code = 13*ms, 30*ms, 31*ms, 200
		}, want: []string{"finished 200 90ms 4ms"}},
		{name: "after a wait for a place", do: func(a *request.Account, _ *request.Rules) {
			a.GotPlace(30 * ms)
			a.Asked, a.Responded, a.Began, a.Code = 30*ms, 40*ms, 40*ms, 503
		}, want: []string{"finished 503 90ms 0s"}},
		{name: "answered by the proxy", do: func(a *request.Account, r *request.Rules) {
			answer := a.Fail(r, request.FullQueue)
			a.Own, a.Code, a.Responded, a.Began = true, answer.Code, 50*ms, 50*ms
		}, want: []string{"refused queue-full", "finished 503 90ms -1ns"}},
		{name: "the client left", do: func(a *request.Account, r *request.Rules) { a.Leave(r) }, want: []string{"refused client-left", "finished 499 90ms -1ns"}},
		{name: "cut without an answer", do: func(*request.Account, *request.Rules) {}, want: []string{"finished 502 90ms -1ns"}},
		{name: "CONNECT is refused for no reason", kind: request.Connect, do: func(a *request.Account, r *request.Rules) {
			a.Own, a.Code = true, a.Fail(r, request.ConnectMethod).Code
		}, want: []string{"finished 405 90ms -1ns"}},
		{name: "a health check that the app fails", kind: request.Ignored, do: func(a *request.Account, r *request.Rules) { a.Fail(r, request.NoConnection) }, want: []string{"ignored"}},
		{name: "a health check that leaves", kind: request.Ignored, do: func(a *request.Account, r *request.Rules) { a.Leave(r) }, want: []string{"ignored"}},
		{name: "readiness", kind: request.Readiness, do: func(a *request.Account, r *request.Rules) { a.Fail(r, request.UnfinishedAnswer) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			now := 10 * ms
			r, m := rulesAt(&now)
			a := request.Account{Arrived: now}
			a.Count(r, c.kind)
			inFlight := 1
			if c.kind == request.Ignored || c.kind == request.Readiness {
				inFlight = 0
			}
			if got := r.InFlight.Read(now).InFlight; got != inFlight {
				t.Errorf("%d in flight, want %d", got, inFlight)
			}
			if !a.TakePlace(r) {
				t.Fatal("no place")
			}
			c.do(&a, r)
			now = 100 * ms
			a.Finish(r)
			a.Finish(r) // which does nothing
			if d := cmp.Diff(c.want, m.told); d != "" {
				t.Errorf("metrics (-want +got):\n%s", d)
			}
			if got := r.InFlight.Read(now).InFlight; got != 0 {
				t.Errorf("%d in flight after the end", got)
			}
			if !r.Limiter.TryAcquire() {
				t.Error("the place was not given back")
			}
		})
	}
}

func TestNoPlaceIsNotGivenBack(t *testing.T) {
	now := time.Duration(0)
	r, _ := rulesAt(&now)
	var first, second request.Account
	first.Count(r, request.Demand)
	second.Count(r, request.Demand)
	if !first.TakePlace(r) || second.TakePlace(r) {
		t.Fatal("want one place")
	}
	second.Finish(r)
	if r.Limiter.TryAcquire() {
		t.Error("a request without a place gave one back")
	}
}

func TestFailures(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	if got := request.UpstreamFailure(fmt.Errorf("ask: %w", dial)); got != request.NoConnection {
		t.Errorf("a failed dial = %d, want NoConnection", got)
	}
	if got := request.UpstreamFailure(&net.OpError{Op: "read", Err: errors.New("reset")}); got != request.BrokenAnswer {
		t.Errorf("a failed read = %d, want BrokenAnswer", got)
	}
	for err, want := range map[error]request.Failure{limit.ErrFull: request.FullQueue, limit.ErrTimeout: request.LongQueue} {
		if got, ok := request.LimitFailure(fmt.Errorf("wait: %w", err)); !ok || got != want {
			t.Errorf("LimitFailure(%v) = %d, %v; want %d", err, got, ok, want)
		}
	}
	if _, ok := request.LimitFailure(context.Canceled); ok {
		t.Error("LimitFailure(canceled) is true")
	}
}

// TestAnswers holds every answer of the proxy's own: what users see.
func TestAnswers(t *testing.T) {
	cases := []struct {
		failure request.Failure
		want    request.Answer
		grpc    int
	}{
		{request.FullQueue, request.Answer{Code: 503, Reason: "queue-full", Text: "too many requests are waiting for the app"}, 14},
		{request.LongQueue, request.Answer{Code: 503, Reason: "queue-timeout", Text: "the app was busy for too long"}, 14},
		{request.NoConnection, request.Answer{Code: 502, Reason: "app-unreachable", Text: "the app accepts no connection"}, 14},
		{request.BrokenAnswer, request.Answer{Code: 502, Reason: "app-error", Text: "the app closed the connection or broke the protocol"}, 14},
		{request.LateAnswer, request.Answer{Code: 504, Reason: "app-timeout", Text: "the app did not begin to answer in time"}, 4},
		{request.UnfinishedAnswer, request.Answer{Code: 504, Reason: "app-timeout", Text: "the answer was not complete in time"}, 4},
		{request.MalformedBody, request.Answer{Code: 400, Reason: "bad-request", Text: "the body of the request is malformed"}, 13},
		{request.MalformedRequest, request.Answer{Code: 400, Reason: "bad-request", Text: "malformed request"}, 13},
		{request.LargeHead, request.Answer{Code: 431, Reason: "bad-request", Text: "headers are too large"}, 13},
		{request.LateHead, request.Answer{Code: 408, Text: "the headers of the request did not come in time"}, 13},
		{request.ConnectMethod, request.Answer{Code: 405, Text: "CONNECT is not supported"}, 13},
	}
	for _, c := range cases {
		got := c.failure.Answer()
		if got != c.want {
			t.Errorf("answer of %d = %+v, want %+v", c.failure, got, c.want)
		}
		fields := map[string]string{}
		for _, f := range got.AppendFields(nil) {
			fields[f.Name] = f.Value
			if http.CanonicalHeaderKey(f.Lower) != f.Name {
				t.Errorf("field %q is %q in HTTP/2", f.Name, f.Lower)
			}
		}
		if fields["Content-Length"] != fmt.Sprint(len(c.want.Text)+1) || fields[request.ReasonHeader] != c.want.Reason ||
			(fields["Retry-After"] == "1") != (c.want.Code == 503) || (fields["Allow"] != "") != (c.want.Code == 405) || len(fields) > request.Fields {
			t.Errorf("fields of %d = %v", c.failure, fields)
		}
		for _, f := range got.AppendGRPCFields(nil) {
			if f.Name == "Grpc-Status" && f.Value != fmt.Sprint(c.grpc) {
				t.Errorf("grpc-status of %d = %s, want %d", c.failure, f.Value, c.grpc)
			}
		}
	}
}

func TestReady(t *testing.T) {
	now := time.Duration(0)
	r, _ := rulesAt(&now)
	if got, want := r.Ready(t.Context()), (request.Answer{Code: 200, Text: "ready"}); got != want {
		t.Errorf("Ready = %+v, want %+v", got, want)
	}
	r.Check = func(context.Context) error { return errors.New("refused") }
	if got, want := r.Ready(t.Context()), (request.Answer{Code: 503, Reason: "app-unreachable", Text: "the app does not answer"}); got != want {
		t.Errorf("Ready without the app = %+v, want %+v", got, want)
	}
	r.Drain.Begin()
	if got, want := r.Ready(t.Context()), (request.Answer{Code: 503, Reason: "draining", Text: "draining"}); got != want {
		t.Errorf("Ready while draining = %+v, want %+v", got, want)
	}
}

func TestTimeouts(t *testing.T) {
	now := time.Duration(0)
	r, _ := rulesAt(&now)
	if r.AnswerLate(time.Second, 2*time.Second-1) || !r.AnswerLate(time.Second, 2*time.Second) {
		t.Error("AnswerLate is not at the timeout")
	}
	if r.RequestLate(time.Second, time.Minute) || !r.RequestLate(time.Second, time.Second+time.Minute) {
		t.Error("RequestLate is not at the timeout")
	}
	r.ResponseTimeout, r.RequestTimeout = 0, 0
	if r.AnswerLate(0, time.Hour) || r.RequestLate(0, time.Hour) {
		t.Error("0 is a bound")
	}
}

func TestGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc; charset=x": true,
		"application/grpc-web": false, "application/json": false, "": false,
	} {
		if got := request.IsGRPC(contentType); got != want {
			t.Errorf("IsGRPC(%q) = %v, want %v", contentType, got, want)
		}
	}
	for text, want := range map[string]string{"plain text": "plain text", "100 % äñ": "100 %25 %C3%A4%C3%B1", "": "", "a\nb": "a%0Ab"} {
		if got := request.GRPCMessage(text); got != want {
			t.Errorf("GRPCMessage(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestForwarded(t *testing.T) {
	for peer, want := range map[string]string{"192.0.2.1": "for=192.0.2.1", "2001:db8::1": `for="[2001:db8::1]"`, "": ""} {
		if got := string(request.AppendForwarded(nil, peer)); got != want {
			t.Errorf("AppendForwarded(%q) = %q, want %q", peer, got, want)
		}
	}
}
