// Package memory finds how much memory the process may take, and how much of that clients may.
package memory

import (
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// unlimited is from where on a memory limit is none: cgroup v1 says "no limit" as a huge
	// number.
	unlimited = math.MaxInt64 / 2
	// memoryWithout is what clients may take where the process has no memory limit.
	memoryWithout = 1 << 30
	// heldShare is the share of the limit that clients may take. The rest is for the collector's
	// slack, for copying answers, and for the cluster's endpoints.
	heldShare = 2
	// Least is the least that clients may take, in bytes.
	Least = 1 << 20
)

// Limit returns the memory limit of this process in bytes, 0 when it has none: the least of
// GOMEMLIMIT and of what the cgroups of root, the file system's root, allow. It knows cgroups v2
// and v1.
func Limit(root fs.FS) int64 {
	limit := debug.SetMemoryLimit(-1) // reads it
	own, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(own) + "0::/\n0:memory:/\n") {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		dir, file := "sys/fs/cgroup", "memory.max"
		switch {
		case controllers == "":
		case strings.Contains(","+controllers+",", ",memory,"):
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			if n, ok := readLimit(root, path.Join(dir, group, file)); ok {
				limit = min(limit, n)
			}
			if group == "/" {
				break
			}
		}
	}
	if limit >= unlimited {
		return 0
	}
	return limit
}

func readLimit(root fs.FS, name string) (int64, bool) {
	raw, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64) // "max" is no number
	return n, err == nil && n > 0
}

// ForClients returns how many bytes of a memory limit clients may take; 0 is no limit.
func ForClients(limit int64) int64 {
	if limit <= 0 {
		return memoryWithout
	}
	return max(limit/heldShare, Least)
}
