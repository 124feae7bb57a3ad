package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sluice decide asks a sample server, which is killed with SIGKILL between two lines: the decisions
// after it are held, and say why.
func TestDecideWhileTheServerIsKilled(t *testing.T) {
	t.Parallel()
	const examples = "../../docs/examples"
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		bin := filepath.Join(t.TempDir(), "policy-go")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, examples+"/policy-go").CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		killed(t, bin)
	})
	t.Run("node", func(t *testing.T) {
		t.Parallel()
		node, err := exec.LookPath("node")
		if err != nil {
			t.Skip("node is not installed")
		}
		if _, err := os.Stat(examples + "/policy-node/node_modules/@grpc/grpc-js"); err != nil {
			t.Skip("the sample's modules are not installed: npm ci --prefix docs/examples/policy-node")
		}
		killed(t, node, examples+"/policy-node/server.js")
	})
}

func killed(t *testing.T, argv ...string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice") //nolint:usetesting // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	address := "unix://" + filepath.Join(dir, "s")
	server := exec.CommandContext(t.Context(), argv[0], append(argv[1:], "--listen", address)...)
	says, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	if text, err := bufio.NewReader(says).ReadString('\n'); err != nil {
		t.Fatalf("the server says %q: %v", text, err)
	}

	in, feed := io.Pipe()
	read, out := io.Pipe()
	var faults strings.Builder
	ended := make(chan error, 1)
	go func() {
		ended <- execute(t.Context(), []string{"decide", "--policy", "grpc", "--param", "address=" + address, "--param", "timeout=5s", "--param", `parameters={"target": 10, "spare": 2}`, "-v"}, in, out, &faults)
		_ = out.Close()
	}()
	answers := bufio.NewScanner(read)
	ask := func(line, want string) {
		t.Helper()
		if _, err := io.WriteString(feed, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() || !strings.Contains(answers.Text(), want) {
			t.Errorf("%s is answered %s, want %s (%v)", line, answers.Text(), want, answers.Err())
		}
	}
	ask(`{"t": 0, "current": 3, "signals": {"concurrency": {"60s": 50}}}`, `"replicas":5,"valid":true,"reason":"Plugin"`)
	ask(`{"t": 2, "current": 5, "signals": {"concurrency": {"60s": 60}}}`, `"replicas":8,"valid":true,"reason":"Plugin"`)
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	ask(`{"t": 4, "current": 8, "signals": {"concurrency": {"60s": 60}}}`, `"replicas":8,"valid":false,"reason":"PluginFailed"`)
	if err := feed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("sluice: %v: %s", err, faults.String())
	}
}
