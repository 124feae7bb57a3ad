package node

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"
)

// What the tests of this package look into.
type (
	Machine   = machine
	Process   = process
	Sandbox   = sandbox
	ShimSpec  = shimSpec
	MountSpec = mountSpec
)

// Addr is the sandbox's address.
func (s *sandbox) Addr() netip.Addr { return s.ip }

// Linux is the real machine.
func Linux(bridge string, gateway netip.Addr, cidr netip.Prefix, dir string) (Machine, error) {
	return newLinux(Config{NodeIP: gateway, Bridge: bridge, Gateway: gateway, PodCIDR: cidr, Dir: dir})
}

// StartProgram runs a host program as a container.
func StartProgram(ctx context.Context, m Machine, sb *Sandbox, dir, name string, mounts []MountSpec, argv ...string) (Process, string, error) {
	log := filepath.Join(dir, name, "0.log")
	p, err := m.Start(ctx, sb, shimSpec{
		Name: name, Hostname: name, Program: argv[0], Args: argv, Env: []string{"PATH=" + defaultPath}, UID: -1, GID: -1, Mounts: mounts,
	}, log)
	return p, log, err
}

var _ = time.Second
