//go:build e2e

package node_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

// TestMain runs the tests in PID, mount and network namespaces of their own, as the testbed runs a
// node.
func TestMain(m *testing.M) {
	node.MaybeShim()
	if len(os.Args) > 1 && os.Args[1] == testProgram {
		os.Exit(runTestProgram(os.Args[2:]))
	}
	const inner = "NODE_TEST_INNER"
	if os.Getenv(inner) == "" {
		os.Exit(reexec(inner))
	}
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
	); err != nil {
		fmt.Fprintln(os.Stderr, "prepare namespaces:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// testProgram as first argument makes this binary what runs in the containers of its tests.
const testProgram = "-be-a-test-program"

func runTestProgram(args []string) int {
	switch args[0] {
	case "serve":
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("listening")
		for {
			conn, err := l.Accept()
			if err != nil {
				return 1
			}
			_, _ = fmt.Fprintf(conn, "seen as %v\n", conn.RemoteAddr())
			_ = conn.Close()
		}
	case "dial":
		conn, err := net.DialTimeout("tcp", args[1], 5*time.Second)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_, err = io.Copy(os.Stdout, conn)
		if err != nil {
			return 1
		}
		return 0
	}
	return 2
}

func reexec(marker string) int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root:", err)
		return 1
	}
	return 0
}
