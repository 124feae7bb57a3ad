package activation_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/scaler/activation"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAssignerPushesWholeSets starts over two known Autoscalers: nothing is pushed before both have been set, then everything
// at once, again on a change, and again to a gateway that has started anew.
func TestAssignerPushesWholeSets(t *testing.T) {
	t.Parallel()
	got := make(chan wire.Assignments, 10)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a wire.Assignments
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil || r.Method != http.MethodPut || r.URL.Path != wire.OwnerPath("controller") {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		got <- a
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	client := srv.Client()
	defer client.CloseIdleConnections()
	a := activation.NewAssigner(client, 42, nil, slog.New(slog.DiscardHandler))
	gateway := func(start float64, gen uint64) []activation.Gateway {
		return []activation.Gateway{{
			Name: "gw", Control: strings.TrimPrefix(srv.URL, "https://"), Connected: true,
			Report: &wire.Report{StartTime: start, Owners: []wire.OwnerReport{{Owner: "controller", Epoch: 42, Generation: gen}}},
		}}
	}
	a.Observe(gateway(1, 0))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	next := func(what string) wire.Assignments {
		t.Helper()
		select {
		case x := <-got:
			return x
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing was pushed: want %s", what)
			return wire.Assignments{}
		}
	}
	a.Set("shop/web", []wire.Assignment{{Namespace: "shop", Service: "web", Listen: 20000}})
	a.Expect([]string{"shop/web", "shop/api"})
	a.Set("shop/api", []wire.Assignment{{Namespace: "shop", Service: "api", Listen: 20001}})
	first := next("both Services")
	if first.Epoch != 42 || len(first.Ports) != 2 {
		t.Fatalf("first push %+v, want both Services: a part would take the other's listener away", first)
	}
	a.Observe(gateway(1, first.Generation))
	a.Set("shop/api", nil)
	second := next("one Service")
	if len(second.Ports) != 1 || second.Ports[0].Service != "web" || second.Generation <= first.Generation {
		t.Fatalf("second push %+v, want web alone in a newer generation than %d", second, first.Generation)
	}
	a.Observe(gateway(2, 0)) // another life: it knows nothing
	if third := next("the set again"); len(third.Ports) != 1 {
		t.Fatalf("push to a restarted gateway %+v, want web", third)
	}
}
