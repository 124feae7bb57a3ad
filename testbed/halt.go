package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/testbed/internal/core"
)

// haltBound bounds the wait for the end of a component that was killed.
const haltBound = 10 * time.Second

// Halt kills a component of the control plane (etcd, kube-apiserver, …) with SIGKILL and keeps it
// down until Resume. It returns when the process is gone.
func (c *Cluster) Halt(ctx context.Context, component string) error {
	if err := os.MkdirAll(filepath.Join(c.instance.Dir, core.HaltDir), 0o755); err != nil {
		return fmt.Errorf("halt %s: %w", component, err)
	}
	if err := os.WriteFile(c.haltFile(component), nil, 0o644); err != nil {
		return fmt.Errorf("halt %s: %w", component, err)
	}
	return WaitFor(ctx, haltBound, component+" to be gone", func(context.Context) (string, bool) {
		running := c.Processes(component)
		return fmt.Sprint(running), len(running) == 0
	})
}

// Resume starts a component again that Halt has killed. It does not wait until that is ready.
func (c *Cluster) Resume(component string) error {
	if err := os.Remove(c.haltFile(component)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("resume %s: %w", component, err)
	}
	return nil
}

func (c *Cluster) haltFile(component string) string {
	return filepath.Join(c.instance.Dir, core.HaltDir, component)
}

// Process is a process of the testbed, as the host sees it.
type Process struct {
	PID int
	// Pod is the variable POD_NAME of its environment, or else HOSTNAME, which a pod's containers
	// have.
	Pod string
}

// Processes returns the testbed's processes of a program, by the base name of its file, in order of
// their numbers.
func (c *Cluster) Processes(program string) []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err == nil && filepath.Base(exe) == program && descends(pid, c.instance.InitPID) {
			all = append(all, Process{PID: pid, Pod: podOf(pid)})
		}
	}
	slices.SortFunc(all, func(a, b Process) int { return a.PID - b.PID })
	return all
}

// descends tells whether a process is below another.
func descends(pid, ancestor int) bool {
	for pid > 1 {
		if pid == ancestor {
			return true
		}
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return false
		}
		// The fields after the name in brackets: state, parent.
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}

func podOf(pid int) string {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return ""
	}
	pod := ""
	for variable := range strings.SplitSeq(string(raw), "\x00") {
		if name, ok := strings.CutPrefix(variable, "POD_NAME="); ok {
			return name
		}
		if name, ok := strings.CutPrefix(variable, "HOSTNAME="); ok {
			pod = name
		}
	}
	return pod
}
