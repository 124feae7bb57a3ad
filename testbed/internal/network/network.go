// Package network builds the testbed's network: a bridge in a network namespace of its own, and a
// veth pair that plugs the host into it. All of it belongs to that namespace and vanishes with the
// last process in it.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// Bridge is the name of the bridge that the node, the pods and the host are plugged into.
	Bridge = "sluice0"
	// HostLink is the name of the host's end of the veth pair.
	HostLink = "sluice-host"
	// peer is the name of the bridge's end of that pair, inside the namespace.
	peer = "host0"
)

// Node returns the address of the node, which is the bridge's.
func Node() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, 1}) }

// Host returns the address by which the testbed sees the host.
func Host() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 255, 254}) }

// Pods returns the range that holds node, pods and host. Pods have 198.18.1.0 to 198.18.250.255 of
// it.
func Pods() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, 0}), 16) }

// Services returns the range of Service addresses.
func Services() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, 0, 0}), 16) }

// All returns the range that holds everything; one testbed at a time can have it.
func All() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, 0}), 15) }

// SetUp makes the bridge, routes and settings in the calling process's network namespace, which
// must be new.
//
// Whoever is plugged in has a /32 address and the node as its only neighbour, so that every packet
// passes the node's packet filter in both directions: what kube-proxy rewrote is written back,
// without masquerading and without filtering frames on the bridge, which not every kernel can.
func SetUp() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Bridge
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", Bridge, err)
	}
	// A bridge without an address of its own takes the lowest of its ports, so that pods would see
	// the node's change.
	if err := netlink.LinkSetHardwareAddr(bridge, net.HardwareAddr{0x02, 0x5a, 198, 18, 0, 1}); err != nil {
		return fmt.Errorf("set hardware address of bridge %s: %w", Bridge, err)
	}
	if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(Node(), 16))}); err != nil {
		return fmt.Errorf("add address %s to bridge %s: %w", Node(), Bridge, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge %s up: %w", Bridge, err)
	}
	// Without a route to them, the node's own connections to Service addresses fail before
	// kube-proxy's rules rewrite them.
	route := &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: ipNet(Services()), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %s: %w", Services(), err)
	}
	for name, value := range map[string]string{
		"net/ipv4/ip_forward":                    "1",
		"net/ipv4/conf/all/rp_filter":            "0",
		"net/ipv4/conf/" + Bridge + "/rp_filter": "0",
		// The gateway sends packets back out of the bridge they came in by; it must not advise pods
		// to skip it.
		"net/ipv4/conf/all/send_redirects":            "0",
		"net/ipv4/conf/" + Bridge + "/send_redirects": "0",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s to %s: %w", name, value, err)
		}
	}
	return nil
}

// KeepOffFrames keeps the packet filter away from frames on bridges. Where the kernel lets it at
// them, a frame for a Service is rewritten in the bridge and sent on from there, except to the port
// it came from: a pod could not reach itself through its Service. A kernel without that ability has
// no such setting.
func KeepOffFrames() error {
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0o644)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set bridge-nf-call-iptables to 0: %w", err)
	}
	return nil
}

// Attach plugs the calling process's network namespace, the host's, into the bridge in the
// namespace of process pid, and routes Service addresses there.
func Attach(pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	defer ns.Close() //nolint:errcheck // only a handle
	attrs := netlink.NewLinkAttrs()
	attrs.Name = HostLink
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(int(ns))}); err != nil {
		return fmt.Errorf("add veth pair %s: %w", HostLink, err)
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("open netlink in namespace of process %d: %w", pid, err)
	}
	defer inside.Close()
	port, err := inside.LinkByName(peer)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", peer, err)
	}
	bridge, err := inside.LinkByName(Bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", Bridge, err)
	}
	if err := inside.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("plug %s into %s: %w", peer, Bridge, err)
	}
	if err := inside.LinkSetUp(port); err != nil {
		return fmt.Errorf("set %s up: %w", peer, err)
	}
	host, err := netlink.LinkByName(HostLink)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", HostLink, err)
	}
	if err := netlink.AddrAdd(host, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(Host(), 32))}); err != nil {
		return fmt.Errorf("add address %s to %s: %w", Host(), HostLink, err)
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("set %s up: %w", HostLink, err)
	}
	index := host.Attrs().Index
	for _, route := range []netlink.Route{
		{Dst: ipNet(netip.PrefixFrom(Node(), 32)), Scope: netlink.SCOPE_LINK},
		{Dst: ipNet(Pods()), Gw: Node().AsSlice()},
		{Dst: ipNet(Services()), Gw: Node().AsSlice()},
	} {
		route.LinkIndex, route.Src = index, Host().AsSlice()
		if err := netlink.RouteAdd(&route); err != nil {
			return fmt.Errorf("add route to %s: %w", route.Dst, err)
		}
	}
	return nil
}

// AwaitFree returns when nothing on the host is left of an earlier testbed, whose namespace the
// kernel takes apart some time after its last process ended. It refuses a host whose own addresses
// overlap the testbed's.
func AwaitFree(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := netlink.LinkByName(HostLink)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			break
		}
		if err != nil {
			return fmt.Errorf("look for %s: %w", HostLink, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s of an earlier testbed to vanish (ip link del %s removes it): %w", HostLink, HostLink, ctx.Err())
		case <-tick.C:
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("list addresses of the host: %w", err)
	}
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		if err == nil && prefix.Overlaps(All()) {
			return fmt.Errorf("the host has address %s, which lies in the testbed's range %s", prefix, All())
		}
	}
	return nil
}

// Detach removes the host's end of the pair at once, rather than when the kernel gets to it.
func Detach() error {
	link, err := netlink.LinkByName(HostLink)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", HostLink, err)
	}
	// It may vanish by itself in between.
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, os.ErrNotExist) && !isNoDevice(err) {
		return fmt.Errorf("remove %s: %w", HostLink, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func isNoDevice(err error) bool { return errors.Is(err, unix.ENODEV) }
