package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"

	"github.com/sluice-autoscaler/sluice/testbed/internal/core"
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

// Exec replaces this process by a command in the node's network, or, if pod (NAMESPACE/NAME) is not
// empty, in that pod's, with KUBECONFIG set and kubectl on the PATH. The command keeps the host's
// file system and processes. Exec returns only when it could not do so.
func (c *Cluster) Exec(pod string, command []string) error {
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
	ns, err := c.namespace(pod)
	if err != nil {
		return err
	}
	// A network namespace belongs to a thread until exec makes that thread the process. This one is
	// never given back.
	runtime.LockOSThread()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := syscall.Exec(program, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// namespace opens the network namespace of the node, or of the pod NAMESPACE/NAME, which the node
// agent keeps as a file in a mount namespace that only init's root leads to.
func (c *Cluster) namespace(pod string) (netns.NsHandle, error) {
	init := fmt.Sprintf("/proc/%d", c.instance.InitPID)
	if pod == "" {
		ns, err := netns.GetFromPath(filepath.Join(init, "ns", "net"))
		if err != nil {
			return -1, fmt.Errorf("open the node's network namespace: %w", err)
		}
		return ns, nil
	}
	namespace, name, ok := strings.Cut(pod, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return -1, fmt.Errorf("pod %q: want NAMESPACE/NAME", pod)
	}
	ns, err := netns.GetFromPath(filepath.Join(init, "root", c.instance.Dir, core.NodeDir, "netns", namespace+"_"+name))
	if errors.Is(err, os.ErrNotExist) {
		return -1, fmt.Errorf("pod %s has no network on the testbed's node", pod)
	}
	if err != nil {
		return -1, fmt.Errorf("open network namespace of pod %s: %w", pod, err)
	}
	return ns, nil
}
