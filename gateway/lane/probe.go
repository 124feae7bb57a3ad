package lane

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-autoscaler/sluice/gateway/hold"
	"github.com/sluice-autoscaler/sluice/proxy/request"
)

const (
	probeAgent = "sluice-probe/1"

	// A pod that does not answer within probeEager is probed no more often than each probeSlow.
	probeEager = 2 * time.Second
	probeSlow  = 50 * time.Millisecond
	// A pod whose network is not there yet swallows the first packet, and a retransmission comes
	// after a second: so several short attempts overlap.
	probeOverlap  = 4
	probeInFlight = 64
	probeConnect  = 100 * time.Millisecond
	probeAnswer   = 5 * time.Second
)

// probeLoop probes while something waits and a pod could be won; do starts it and it ends by
// itself.
func (l *Lane) probeLoop(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	p := &prober{lane: l, attempts: map[string]*attempt{}, results: make(chan result, probeInFlight)}
	timer := time.NewTimer(0)
	defer func() {
		cancel()
		timer.Stop()
		for range p.flying {
			<-p.results
		}
	}()
	for {
		var addresses []string
		l.mu.Lock()
		if ctx.Err() == nil {
			addresses = l.queue.Probe()
		}
		l.probing = len(addresses) > 0
		l.mu.Unlock()
		if len(addresses) == 0 {
			return
		}
		timer.Reset(max(p.launch(ctx, time.Now(), addresses), time.Millisecond))
		select {
		case r := <-p.results:
			p.take(r)
		case <-timer.C:
		case <-l.kick:
		case <-ctx.Done():
		}
	}
}

// prober is the state of a probe loop.
type prober struct {
	lane     *Lane
	attempts map[string]*attempt // by address
	results  chan result
	flying   int // probes under way, at all addresses
}

// attempt is the probing of one address.
type attempt struct {
	since, next time.Time
	flying      int
	over        bool // won or not wanted any more; kept until its last probe has ended
	cancel      context.CancelFunc
	probe       func()
}

type result struct {
	address string
	up      bool
}

// launch starts the probes that are due, ends those of other addresses, and returns when the next
// is due.
func (p *prober) launch(ctx context.Context, now time.Time, addresses []string) time.Duration {
	wanted := make(map[string]bool, len(addresses))
	sleep := probeSlow
	for _, addr := range addresses {
		wanted[addr] = true
		a := p.attempts[addr]
		if a == nil {
			own, end := context.WithCancel(ctx)
			a = &attempt{since: now, next: now, cancel: end, probe: func() { p.results <- result{addr, p.lane.probe(own, addr)} }}
			p.attempts[addr] = a
		}
		if a.over {
			continue
		}
		if !now.Before(a.next) && a.flying < probeOverlap && p.flying < probeInFlight {
			every := p.lane.ProbeInterval
			if now.Sub(a.since) > probeEager {
				every = max(every, probeSlow)
			}
			if a.flying > 0 { // the one before hangs: overlap, but do not pile up
				every = max(every, probeConnect/probeOverlap)
			}
			// Many pods at once share the rate that 16 would have.
			a.next = now.Add(every * time.Duration(1+len(addresses)/16))
			a.flying++
			p.flying++
			go a.probe()
		}
		if a.flying < probeOverlap {
			sleep = min(sleep, a.next.Sub(now))
		}
	}
	for addr, a := range p.attempts {
		if !wanted[addr] {
			p.end(addr, a)
		}
	}
	return sleep
}

// take notes the end of one probe.
func (p *prober) take(r result) {
	p.flying--
	a := p.attempts[r.address]
	a.flying--
	if r.up {
		a.over = true
		p.lane.do(func(q *hold.Queue, now time.Duration) { q.Answered(now, r.address) })
	}
	if a.over {
		p.end(r.address, a)
	}
}

// end cancels the probes of an address, and forgets it after the last.
func (p *prober) end(address string, a *attempt) {
	a.over = true
	a.cancel()
	if a.flying == 0 {
		delete(p.attempts, address)
	}
}

// probeTCP reports whether the address accepts connections.
func probeTCP(ctx context.Context, address string) bool {
	conn, err := probeDial(ctx, address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// probeHTTP reports whether an app answers HTTP at the address. A sidecar (or mesh proxy) in front
// of an app that is not up says 503; any other answer comes from an app.
func probeHTTP(ctx context.Context, address string) bool {
	answer, err := exchange(ctx, address, "GET "+request.ReadyPath+" HTTP/1.1\r\nHost: "+address+"\r\nUser-Agent: "+probeAgent+"\r\nConnection: close\r\n\r\n")
	if err == nil {
		version, status, _ := strings.Cut(answer, " ")
		return !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(status, "503")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return false
	}
	// It accepted and closed without a word: a server of HTTP/2 only, or a proxy without an app.
	// The preface tells.
	answer, err = exchange(ctx, address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	return err == nil && len(answer) >= 4 && answer[3] == 4
}

// exchange sends what opens a conversation and returns the first bytes of the answer.
func exchange(ctx context.Context, address, hello string) (string, error) {
	conn, err := probeDial(ctx, address)
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(probeAnswer)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, hello); err != nil {
		return "", err
	}
	answer := make([]byte, 12) // "HTTP/1.1 503", or a frame's header
	n, err := io.ReadFull(conn, answer)
	if err != nil && n > 0 {
		err = nil // too short for HTTP, but somebody speaks
	}
	return string(answer[:n]), err
}

func probeDial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: probeConnect, KeepAlive: -1}).DialContext(ctx, "tcp", address)
}
