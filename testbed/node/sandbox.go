package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// sandbox is a pod's network namespace and address. A host-network pod has ns -1 and the node's
// address.
type sandbox struct {
	ip   netip.Addr
	ns   netns.NsHandle
	veth string
	path string
}

func (s *sandbox) hostNetwork() bool { return s == nil || s.ns < 0 }

// network makes sandboxes: a namespace, a veth pair into the bridge, an address. It is safe for
// concurrent use.
//
// A pod's address is a /32 and everything goes through the gateway, also what is for a neighbour on
// the same bridge: only so do replies to a connection that kube-proxy rewrote pass the node again
// to be rewritten back.
type network struct {
	bridge  string
	gateway netip.Addr
	dir     string // where namespaces are bound, one file per pod

	mu    sync.Mutex
	used  map[netip.Addr]bool
	next  netip.Addr
	first netip.Addr
	last  netip.Addr
	seq   uint32
}

// newNetwork takes addresses from prefix: of a /16 or wider the part from x.x.1.0 to x.x.250.255
// (the rest is for nodes and hosts), of a narrower one all but its first and last.
func newNetwork(bridge string, gateway netip.Addr, prefix netip.Prefix, dir string) (*network, error) {
	if !prefix.IsValid() || !prefix.Addr().Is4() || prefix.Bits() > 30 {
		return nil, fmt.Errorf("pod CIDR %v: want an IPv4 prefix of at most 30 bits", prefix)
	}
	base := be32(prefix.Masked().Addr())
	size := uint32(1) << (32 - prefix.Bits())
	first, last := base+1, base+size-2
	if prefix.Bits() <= 16 {
		first, last = base+0x100, base+0xfaff
	}
	n := &network{bridge: bridge, gateway: gateway, dir: dir, used: map[netip.Addr]bool{}, first: fromBE32(first), last: fromBE32(last)}
	n.next = n.first
	return n, nil
}

func be32(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func fromBE32(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

var errNoAddress = errors.New("no free pod address")

// allocate takes the next free address, round-robin, so that one is not used again soon: a client
// that still talks to a pod that went away must not reach another one.
func (n *network) allocate() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, tried := n.next, false; ; {
		if a == n.next && tried {
			return netip.Addr{}, errNoAddress
		}
		tried = true
		following := a.Next()
		if a == n.last {
			following = n.first
		}
		if !n.used[a] && a != n.gateway {
			n.used[a] = true
			n.next = following
			return a, nil
		}
		a = following
	}
}

func (n *network) release(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, a)
}

// create makes a pod's namespace; name is what its bind mount is called.
func (n *network) create(name string) (_ *sandbox, err error) {
	ip, err := n.allocate()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.seq++
	s := &sandbox{ip: ip, ns: -1, veth: fmt.Sprintf("vp%x", n.seq), path: filepath.Join(n.dir, name)}
	n.mu.Unlock()
	defer func() {
		if err != nil {
			n.remove(s)
		}
	}()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("create network namespace: %w", err)
		}
		ns, err := netns.Get()
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		s.ns = ns
		// Best effort: without them things work, only less quietly.
		setSysctl("net/ipv6/conf/default/disable_ipv6", "1")
		setSysctl("net/ipv4/conf/all/accept_redirects", "0")
		setSysctl("net/ipv4/conf/default/accept_redirects", "0")
		setSysctl("net/ipv4/ip_unprivileged_port_start", "0")
		if err := os.WriteFile(s.path, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", s.path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return nil, err
	}
	if err := n.plug(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (n *network) plug(s *sandbox) error {
	bridge, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", n.bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU, attrs.Flags = s.veth, bridge.Attrs().Index, bridge.Attrs().MTU, net.FlagUp
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(s.ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth %s: %w", s.veth, err)
	}
	h, err := netlink.NewHandleAt(s.ns)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	host := func(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)} }
	index := eth.Attrs().Index
	return errors.Join(
		h.LinkSetUp(lo),
		h.LinkSetUp(eth),
		h.AddrAdd(eth, &netlink.Addr{IPNet: host(s.ip)}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: host(n.gateway), Scope: netlink.SCOPE_LINK}),
		h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: n.gateway.AsSlice()}),
	)
}

// remove takes a sandbox down. It never fails loudly: what is left dies with the node's own
// namespaces.
func (n *network) remove(s *sandbox) {
	if s == nil || s.path == "" {
		return
	}
	if link, err := netlink.LinkByName(s.veth); err == nil {
		_ = netlink.LinkDel(link)
	}
	_ = unix.Unmount(s.path, unix.MNT_DETACH)
	_ = os.Remove(s.path)
	if s.ns >= 0 {
		_ = s.ns.Close()
	}
	n.release(s.ip)
}

// prepareNode sets what the node's own namespace needs to route for its pods, as far as it may.
func (n *network) prepareNode() {
	setSysctl("net/ipv4/ip_forward", "1")
	setSysctl("net/ipv4/conf/all/send_redirects", "0")
	setSysctl("net/ipv4/conf/"+n.bridge+"/send_redirects", "0")
	// Frames that cross the bridge (host to pod) must be seen by connection tracking too: the way
	// back is routed.
	setSysctl("net/bridge/bridge-nf-call-iptables", "1")
}

func setSysctl(name, value string) {
	_ = os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o600)
}
