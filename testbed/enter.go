package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Images is a flag.Value that collects NAME=PROGRAM pairs, as Options.Images takes them.
type Images map[string]string

// String lists the pairs in no order that may be relied on.
func (i Images) String() string {
	return fmt.Sprint(map[string]string(i))
}

// Set adds a pair. The name may hold a tag or digest; the program is what follows the first "=".
func (i Images) Set(pair string) error {
	name, program, ok := strings.Cut(pair, "=")
	if !ok || name == "" || program == "" {
		return fmt.Errorf("%q: want NAME=PROGRAM", pair)
	}
	if _, twice := i[name]; twice {
		return fmt.Errorf("image %s is given twice", name)
	}
	i[name] = program
	return nil
}

// Exec replaces this process by a command in the node's network, or, if pod (NAMESPACE/NAME) is not empty, in that pod's,
// with KUBECONFIG set and kubectl on the PATH. The command keeps the host's file system and processes. Exec returns only
// when it could not do so.
func (c *Cluster) Exec(ctx context.Context, pod string, command []string) error {
	for name, value := range map[string]string{
		"KUBECONFIG": c.Kubeconfig(),
		"PATH":       c.instance.Bin + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
	} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	pid := c.instance.InitPID
	if pod != "" {
		if pid, err = c.podProcess(ctx, pod); err != nil {
			return err
		}
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	// A network namespace belongs to a thread until exec makes that thread the process. This one is never given back.
	runtime.LockOSThread()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := syscall.Exec(program, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// podProcess finds a process, numbered as the host does, in the network namespace that has the pod's address.
func (c *Cluster) podProcess(ctx context.Context, pod string) (int, error) {
	namespace, name, _ := strings.Cut(pod, "/")
	out, err := c.Kubectl(ctx, "get", "pod", "-n", namespace, name, "-o", "jsonpath={.status.podIP}")
	if err != nil {
		return 0, err
	}
	want, err := netip.ParseAddr(out)
	if err != nil {
		return 0, fmt.Errorf("pod %s has no address yet", pod)
	}
	pids, err := namespaceProcesses(c.instance.InitPID)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for _, pid := range pids {
		id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil || seen[id] { // it has just ended, or its namespace was looked at
			continue
		}
		seen[id] = true
		if has, err := hasAddr(pid, want); err == nil && has {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("pod %s (%s) has no running process", pod, want)
}

// namespaceProcesses lists the processes of the PID namespace whose first process is init.
func namespaceProcesses(init int) ([]int, error) {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", init))
	if err != nil {
		return nil, fmt.Errorf("find PID namespace of process %d: %w", init, err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []int
	for _, link := range links {
		if id, err := os.Readlink(link); err != nil || id != want {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil {
			return nil, errors.Join(errors.New("list processes"), err)
		}
		out = append(out, pid)
	}
	return out, nil
}

func hasAddr(pid int, want netip.Addr) (bool, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return false, fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	defer ns.Close() //nolint:errcheck // only a handle
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return false, fmt.Errorf("open netlink in namespace of process %d: %w", pid, err)
	}
	defer handle.Close()
	addrs, err := handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list addresses in namespace of process %d: %w", pid, err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok && addr == want {
			return true, nil
		}
	}
	return false, nil
}
