package memory_test

import (
	"testing"
	"testing/fstest"

	"github.com/sluice-autoscaler/sluice/gateway/memory"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":      {nil, 0},
		"v2":        {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 << 20},
		"v2 no end": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"v2 within groups": {map[string]string{
			"proc/self/cgroup": "0::/kubepods/pod1/c\n", "sys/fs/cgroup/kubepods/pod1/c/memory.max": "max\n",
			"sys/fs/cgroup/kubepods/pod1/memory.max": "268435456\n", "sys/fs/cgroup/kubepods/memory.max": "1073741824\n",
		}, 256 << 20},
		"v1": {map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/a\n9:memory:/docker/a\n", "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 512 << 20},
		"v1 no end": {map[string]string{"proc/self/cgroup": "9:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"nonsense":  {map[string]string{"proc/self/cgroup": "::\n\x00/../..\n", "sys/fs/cgroup/memory.max": "-5\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for file, text := range tc.files {
				root[file] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memory.Limit(root); got != tc.want {
				t.Errorf("Limit = %d, want %d", got, tc.want)
			}
		})
	}
	for limit, want := range map[int64]int64{0: 1 << 30, 512 << 20: 256 << 20, 1000: memory.Least} {
		if got := memory.ForClients(limit); got != want {
			t.Errorf("ForClients(%d) = %d, want %d", limit, got, want)
		}
	}
}
