//go:build e2e

package node_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

const bridgeName = "br-test"

// newMachine makes the node's end of the network and a machine on it.
func newMachine(t *testing.T) (node.Machine, string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatalf("create bridge: %v", err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) })
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(16, 32)}}
	if err := netlink.AddrAdd(bridge, addr); err != nil {
		t.Fatalf("give the bridge an address: %v", err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatalf("bring the bridge up: %v", err)
	}
	dir := t.TempDir()
	m, err := node.Linux(bridgeName, netip.MustParseAddr("198.18.0.1"), netip.MustParsePrefix("198.18.0.0/16"), dir)
	if err != nil {
		t.Fatalf("make machine: %v", err)
	}
	return m, dir
}

func newSandbox(t *testing.T, m node.Machine, name string) *node.Sandbox {
	t.Helper()
	sb, err := m.CreateSandbox(name, false)
	if err != nil {
		t.Fatalf("create sandbox %s: %v", name, err)
	}
	t.Cleanup(func() { m.RemoveSandbox(sb) })
	return sb
}

func readLog(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read log: %v", err)
	}
	return string(b)
}

func waitDone(t *testing.T, p node.Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("process %s does not end", p.ID())
	}
}

func TestContainerSeesItsOwnWorld(t *testing.T) {
	m, dir := newMachine(t)
	sb := newSandbox(t, m, "default_a")
	const secrets = "/var/run/secrets/kubernetes.io/serviceaccount"
	volume := filepath.Join(dir, "vol")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, "token"), []byte("secret-word"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `echo pid $$; hostname; ip -o -4 addr show eth0; cat ` + secrets + `/token; echo
		echo x > /litter && echo wrote; echo x > ` + secrets + `/y || echo refused; echo tmp: $(ls -A /tmp); ls /proc | grep -c '^[0-9]'; exit 7`
	p, log, err := node.StartProgram(t.Context(), m, sb, dir, "web", []node.MountSpec{{Source: volume, Target: secrets, ReadOnly: true}},
		"sh", "-c", script)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	waitDone(t, p)
	if code, _ := p.Exit(); code != 7 {
		t.Errorf("exit code = %d, want 7", code)
	}
	got := readLog(t, log)
	for _, want := range []string{"pid 1\n", " web\n", sb.Addr().String() + "/32", "secret-word", "wrote", "refused", "F tmp:\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("log lacks %q:\n%s", want, got)
		}
	}
	for _, path := range []string{"/litter", secrets} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was left on the host", path)
		}
	}
}

func TestStartFailureIsTold(t *testing.T) {
	m, dir := newMachine(t)
	sb := newSandbox(t, m, "default_a")
	_, _, err := node.StartProgram(t.Context(), m, sb, dir, "web", nil, "no-such-program")
	if err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("start = %v, want an error that says the program was not found", err)
	}
}

func TestSignalsReachTheContainer(t *testing.T) {
	m, dir := newMachine(t)
	sb := newSandbox(t, m, "default_a")
	p, log, err := node.StartProgram(t.Context(), m, sb, dir, "web", nil,
		"sh", "-c", `trap 'echo got term; exit 3' TERM; echo up; while :; do sleep 0.05; done`)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	for !strings.Contains(readLog(t, log), "up") {
		time.Sleep(5 * time.Millisecond)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("signal: %v", err)
	}
	waitDone(t, p)
	if code, _ := p.Exit(); code != 3 || !strings.Contains(readLog(t, log), "got term") {
		t.Errorf("exit code = %d, want 3; log: %s", code, readLog(t, log))
	}
}

func TestExecEntersTheContainer(t *testing.T) {
	m, dir := newMachine(t)
	sb := newSandbox(t, m, "default_a")
	p, _, err := node.StartProgram(t.Context(), m, sb, dir, "web", nil, "sleep", "1000")
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	out, code, err := m.Exec(t.Context(), p, []string{"sh", "-c", "hostname; ip -o -4 addr; cat /proc/1/comm; exit 4"}, []string{"A=b"})
	if err != nil || code != 4 {
		t.Errorf("exec = code %d, %v; want 4, no error", code, err)
	}
	for _, want := range []string{"web\n", sb.Addr().String(), "sleep\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := m.Exec(ctx, p, []string{"sleep", "100"}, nil); err == nil {
		t.Error("a command that outlasts its time gave no error")
	}
	_ = p.Signal(syscall.SIGKILL)
	waitDone(t, p)
	if code, sig := p.Exit(); code != 137 || sig != 9 {
		t.Errorf("exit = %d, signal %d; want 137, 9", code, sig)
	}
}

func TestPodsReachOneAnotherThroughTheGateway(t *testing.T) {
	m, dir := newMachine(t)
	a, b := newSandbox(t, m, "default_a"), newSandbox(t, m, "default_b")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mounts := []node.MountSpec{{Source: self, Target: "/usr/local/bin/self"}}
	server, serverLog, err := node.StartProgram(t.Context(), m, b, dir, "server", mounts, "self", testProgram, "serve")
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	for !strings.Contains(readLog(t, serverLog), "listening") {
		time.Sleep(5 * time.Millisecond)
	}
	client, log, err := node.StartProgram(t.Context(), m, a, dir, "client", mounts, "self", testProgram, "dial", b.Addr().String()+":8080")
	if err != nil {
		t.Fatalf("start client: %v", err)
	}
	waitDone(t, client)
	// The server tells whom it sees: nothing on the way may have translated the address.
	if code, _ := client.Exit(); code != 0 || !strings.Contains(readLog(t, log), "seen as "+a.Addr().String()) {
		t.Errorf("exit code %d, log:\n%s", code, readLog(t, log))
	}
	_ = server.Signal(syscall.SIGKILL)
	waitDone(t, server)
}
