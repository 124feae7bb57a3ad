package plugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Hosts say which servers the policies of a Broker may ask. The zero value is none.
type Hosts struct {
	// services allows the Services of a policy's own namespace; any allows every address.
	services, any bool
	list          []hostPort
}

// hostPort is a host with a port, 0 meaning each.
type hostPort struct {
	host string
	port uint16
}

// AnyHost allows every address, for policies that the process's own user has written.
func AnyHost() Hosts { return Hosts{any: true} }

// ParseHosts reads "off", or a list of hosts, each with or without a port, separated by commas. The
// word "services" in it stands for the Services of a policy's own namespace.
func ParseHosts(s string) (Hosts, error) {
	var h Hosts
	if s == "off" {
		return h, nil
	}
	var errs []error
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "services" {
			h.services = true
			continue
		}
		entry := hostPort{host: item}
		if host, port, err := net.SplitHostPort(item); err == nil {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				errs = append(errs, fmt.Errorf("%q: want a port of 1–65535", item))
			}
			entry = hostPort{host, uint16(n)}
		}
		if entry.host = strings.ToLower(strings.TrimSuffix(entry.host, ".")); !isHost(entry.host) {
			errs = append(errs, fmt.Errorf("%q: want services, a host or host:port", item))
		}
		h.list = append(h.list, entry)
	}
	return h, errors.Join(errs...)
}

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

// server is an address that Hosts allow.
type server struct {
	// namespace and service name a Service; service is "" of another host.
	namespace, service string
	hostPort
}

// find checks the address of a policy of a namespace.
func (h Hosts) find(address, namespace string) (server, error) {
	fault := func(want string) (server, error) {
		return server{}, fmt.Errorf("address = %q: want %s (--grpc-policies)", address, want)
	}
	if !h.services && len(h.list) == 0 {
		return fault("another policy than grpc, which is off in this controller")
	}
	host, port, err := net.SplitHostPort(address)
	n, numeric := strconv.ParseUint(port, 10, 16)
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if err != nil || numeric != nil || n == 0 || !isHost(host) {
		return fault("host:port")
	}
	at := hostPort{host, uint16(n)}
	if slices.ContainsFunc(h.list, func(o hostPort) bool { return o.host == at.host && (o.port == 0 || o.port == at.port) }) {
		return server{hostPort: at}, nil
	}
	if name, ok := serviceOf(host, namespace); ok && h.services {
		return server{namespace: namespace, service: name, hostPort: at}, nil
	}
	if h.services {
		return fault("a Service of the Autoscaler's own namespace, as name, name." + namespace + " or name." + namespace + ".svc, with its port")
	}
	return fault("a host that the controller allows")
}

// serviceOf is the name of the Service of the namespace that a host name stands for.
func serviceOf(host, namespace string) (string, bool) {
	if _, err := netip.ParseAddr(host); err == nil {
		return "", false
	}
	name, rest, qualified := strings.Cut(host, ".")
	if !qualified {
		return name, namespace != ""
	}
	return name, slices.Contains([]string{namespace, namespace + ".svc", namespace + ".svc.cluster.local"}, rest) && namespace != ""
}

// refused says of an address that nothing is dialed there: a name can lead anywhere.
func refused(a netip.Addr) bool {
	a = a.Unmap()
	return !a.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// dialer opens connections to a server. It looks at the very address that is dialed, which no
// change of a name can take the place of.
func dialer(literal bool) *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || refused(at.Addr()) && !literal {
			return fmt.Errorf("%s is an address of the controller itself or of its link: not dialed", address)
		}
		return nil
	}}
}
