package observe_test

import (
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/wire"
)

// TestMultiplexedHTTP2IsNoticed has ten requests at once on one connection, which the kernel cannot
// tell apart. What is promised is that the observer says so.
func TestMultiplexedHTTP2IsNoticed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(30 * time.Millisecond) })}
	go func() { _ = server.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(func() { client.CloseIdleConnections(); _ = server.Close() })
	scrape := observed(t, l.Addr().(*net.TCPAddr).Port)

	get := func() bool {
		resp, err := client.Get("http://" + l.Addr().String())
		if err != nil {
			t.Error(err)
			return false
		}
		return resp.Body.Close() == nil
	}
	get() // one connection for all
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 10 {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
			for get() {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		at := scrape()
		if at["sluice_observe_connections/opaque"] == 1 && at["sluice_observe_coverage_ratio"] == 0 && at[wire.InFlight] <= 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("opaque connections %v, coverage %v, want 1 and 0", at["sluice_observe_connections/opaque"], at["sluice_observe_coverage_ratio"])
		}
	}
}
