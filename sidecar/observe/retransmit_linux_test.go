package observe_test

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
	"github.com/sluice-autoscaler/sluice/wire"
)

// deaf has a socket hear no acknowledgement that comes without data, so that its end sends again
// what the other has.
func deaf(_, _ string, c syscall.RawConn) error {
	const bare = 32 // bytes of a TCP header with time stamps; one that opens a connection is longer
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: bare, Jf: 1},
		{Code: unix.BPF_RET, K: 1 << 18},
		{Code: unix.BPF_RET, K: 0},
	}
	var err error
	if failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}); failed != nil {
		return failed
	}
	return err
}

// What TCP sends again is neither a request nor an answer: a machine that stood still for a moment
// has all its connections do so.
func TestSentAgainIsNoMessage(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	a := newApp(t, "tcp4", "127.0.0.1:0", func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	})
	a.client.Transport = &http.Transport{DialContext: (&net.Dialer{Control: deaf}).DialContext}
	scrape := observed(t, a.port)
	socket, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
	}()
	// until waits for the metrics to be as they should.
	until := func(what string, ok func(m map[string]float64) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			m := scrape()
			if ok(m) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %v", what, m)
			}
		}
	}
	const connections = "sluice_observe_connections/"
	const requests = 4 // each as soon as the one before is answered
	answered := make(chan error, 1)
	go func() {
		for range requests {
			if err := a.get(); err != nil {
				answered <- err
				return
			}
		}
		answered <- nil
	}()
	for sent := uint32(0); ; {
		select {
		case <-begun:
		case err := <-answered:
			if err != nil {
				t.Fatal(err)
			}
			until("idle", func(m map[string]float64) bool { return m[connections+"idle"] == 1 && m[wire.InFlight] == 0 })
			if m := scrape(); m["sluice_observe_coverage_ratio"] != 1 || m[wire.Requests+"/2xx"] != requests {
				t.Errorf("coverage %v and %v requests, want 1 and %d", m["sluice_observe_coverage_ratio"], m[wire.Requests+"/2xx"], requests)
			}
			return
		}
		before := sent
		for deadline := time.Now().Add(patience); sent < before+2; time.Sleep(time.Millisecond) {
			if err := socket.List(uint16(a.port), func(c *sockdiag.Conn) { sent = c.SegmentsIn }); err != nil {
				t.Fatal(err)
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d segments came, %d before the request: want it twice at least", sent, before)
			}
		}
		until("one in flight", func(m map[string]float64) bool { return m[connections+"busy"] == 1 && m[wire.InFlight] == 1 })
		release <- struct{}{}
	}
}
