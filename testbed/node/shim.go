package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// shimName is the argv[0] that tells the program to act as a container's shim.
const shimName = "sluice-node-container-shim"

// Descriptors a shim is started with: its orders come in on one, and on the other goes the error
// that kept it from becoming the container's program. The latter closes by itself when it succeeds.
const (
	shimOrders = 3
	shimErrors = 4
)

// shimSpec is what a shim needs to turn itself into a container.
type shimSpec struct {
	Name string `json:"-"` // what the container is called for tools outside
	// an existing empty directory: the tmpfs with the container's own writes goes there
	Scratch  string
	Hostname string
	Program  string // path of the program to run, in the container
	Args     []string
	Env      []string
	Dir      string // working directory, in the container; "" is /
	Mounts   []mountSpec
	ReadOnly bool // root file system
	Bare     bool // without any capability, as root too
	UID, GID int  // -1: root
	Groups   []int
}

// mountSpec binds a host path, file or directory, into the container.
type mountSpec struct {
	Source   string
	Target   string
	ReadOnly bool
}

// MaybeShim makes this process a container's shim if it was started as one, and then does not
// return. It must be the first thing main does; in any other process it returns at once.
func MaybeShim() {
	if len(os.Args) == 0 || os.Args[0] != shimName {
		return
	}
	unix.CloseOnExec(shimOrders)
	unix.CloseOnExec(shimErrors)
	err := runShim(os.NewFile(shimOrders, "orders"))
	_, _ = fmt.Fprintf(os.NewFile(shimErrors, "errors"), "%v", err)
	os.Exit(128)
}

// runShim builds the container's file system around this process and then executes its program; it
// returns only on error. The process is alone in its PID and mount namespaces already.
func runShim(orders io.Reader) error {
	var spec shimSpec
	if err := json.NewDecoder(orders).Decode(&spec); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	if err := enterRoot(spec); err != nil {
		return err
	}
	if spec.Hostname != "" {
		if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	dir := spec.Dir
	if dir == "" {
		dir = "/"
	} else if err := os.MkdirAll(dir, 0o755); err != nil && !spec.ReadOnly {
		return fmt.Errorf("make working directory: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("enter working directory: %w", err)
	}
	if spec.Bare {
		if err := dropBounds(); err != nil {
			return err
		}
	}
	if err := dropTo(spec.UID, spec.GID, spec.Groups); err != nil {
		return err
	}
	program, err := lookPath(spec.Program, spec.Env)
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", program, syscall.Exec(program, spec.Args, spec.Env))
}

// dropBounds empties this thread's capability bounding set, and keeps the thread: what it executes
// has no capability then.
func dropBounds() error {
	runtime.LockOSThread()
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			return nil // a kernel that knows fewer
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

func dropTo(uid, gid int, groups []int) error {
	if gid >= 0 {
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("set groups: %w", err)
		}
		if err := syscall.Setgid(gid); err != nil {
			return fmt.Errorf("set group %d: %w", gid, err)
		}
	}
	if uid >= 0 {
		if err := syscall.Setuid(uid); err != nil {
			return fmt.Errorf("set user %d: %w", uid, err)
		}
	}
	return nil
}

// enterRoot makes a copy-on-write view of the host's root (an overlay whose upper layer is a tmpfs)
// this process's root, so that mount points can be made anywhere and a container's writes never
// reach the host.
func enterRoot(spec shimSpec) error {
	const old = "/.oldroot"
	root := filepath.Join(spec.Scratch, "root")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", spec.Scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, dir := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(spec.Scratch, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", spec.Scratch, spec.Scratch)
	if err := unix.Mount("overlay", root, "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	if err := os.MkdirAll(root+old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, root+old); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// What other programs have lying there is not for containers to see.
	for dir, options := range map[string]string{"/tmp": "mode=1777", "/run": "mode=0755"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	mounts := []mountSpec{{Source: "/sys", Target: "/sys"}, {Source: "/dev", Target: "/dev"}}
	mounts = append(mounts, slices.SortedStableFunc(slices.Values(spec.Mounts), func(a, b mountSpec) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})...)
	for _, m := range mounts {
		if err := bind(old+m.Source, m.Target, m.ReadOnly); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := unix.Unmount(old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's root: %w", err)
	}
	_ = os.Remove(old)
	if spec.ReadOnly {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return nil
}

func bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = touch(target)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

var errNotFound = errors.New("executable file not found in $PATH")

// lookPath finds a program as execvp does, with the PATH of env and in this thread's view of the
// file system.
func lookPath(program string, env []string) (string, error) {
	if strings.Contains(program, "/") {
		if info, err := os.Stat(program); err != nil || info.IsDir() {
			return "", fmt.Errorf("exec: %q: no such file or directory", program)
		}
		return program, nil
	}
	path := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, program)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("exec: %q: %w", program, errNotFound)
}

// defaultPath is the PATH of a container that sets none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
