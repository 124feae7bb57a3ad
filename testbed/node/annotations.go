package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// startDelayAnnotation on a pod is how long "pulling" the images of its main containers takes, all
// together; with a dot and a container's name after it, how long that container's image takes
// alone. Restarts are not delayed.
const startDelayAnnotation = "testbed.sluice.dev/start-delay"

type startDelays struct {
	pod        time.Duration
	containers map[string]time.Duration
}

// parseStartDelays leaves out what is not a duration.
func parseStartDelays(pod *v1.Pod) startDelays {
	d := startDelays{containers: map[string]time.Duration{}}
	for k, v := range pod.Annotations {
		rest, ok := strings.CutPrefix(k, startDelayAnnotation)
		if !ok {
			continue
		}
		delay, err := time.ParseDuration(v)
		if err != nil || delay < 0 {
			continue
		}
		if name, ok := strings.CutPrefix(rest, "."); ok {
			d.containers[name] = delay
		} else if rest == "" {
			d.pod = delay
		}
	}
	return d
}

// writeHosts writes what a kubelet puts in a pod's /etc/hosts.
func writeHosts(dir string, pod *v1.Pod, ip string) (string, error) {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	fmt.Fprintf(&b, "%s\t%s\n", ip, hostname(pod))
	for _, a := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hosts")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}
