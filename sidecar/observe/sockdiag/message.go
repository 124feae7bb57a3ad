// Package sockdiag asks the kernel for its view of TCP connections, through netlink's sock_diag
// with TCP_INFO. Queries need no capability, and show the caller's network namespace only.
package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// States of TCP, as the kernel numbers them, that a connection with a request in flight can be in.
const (
	Established = 1
	CloseWait   = 8 // the client has closed its half, and may still await the answer
)

// ID tells one connection from all others, a later one between the same addresses included. It is
// comparable, and is sent back to the kernel as it came.
type ID [sockidLen]byte

// Remote is the client's end of a connection of family. That of an IPv4 connection on an IPv6
// socket is IPv4-mapped.
func (id ID) Remote(family uint8) netip.AddrPort {
	const port, addr = 2, 20
	ip := netip.AddrFrom16([16]byte(id[addr : addr+16]))
	if family == syscall.AF_INET {
		ip = netip.AddrFrom4([4]byte(id[addr : addr+4]))
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(id[port:]))
}

// Conn is the kernel's view of one connection at one instant.
type Conn struct {
	ID ID
	// Family is syscall.AF_INET or AF_INET6; State as above.
	Family, State uint8
	// Unread is what the app has not read yet, in bytes.
	Unread uint32
	// SinceSent and SinceReceived are how long ago data was last sent and received, or the
	// connection made. Their resolution is the kernel's tick: 1, 4 or 10 ms.
	SinceSent, SinceReceived time.Duration
	// Received, Sent and Acked count bytes of data since the connection was made, those that were
	// sent again once.
	Received, Sent, Acked uint64
	// SegmentsIn and SegmentsOut count segments that carried data. They wrap. What was sent again
	// counts in SegmentsIn only: the receiver of data does not tell what it had already.
	SegmentsIn, SegmentsOut uint32
	// Unacked is segments sent and not acknowledged; Unsent is bytes that the app has written and
	// the kernel has not sent.
	Unacked, Unsent uint32
}

// Sizes and offsets of the kernel's structures: linux/netlink.h, inet_diag.h, tcp.h. They are part
// of its ABI; tcp_info grows at its end only.
const (
	headerLen = 16
	sockidLen = 48
	msgLen    = 72 // inet_diag_msg
	reqLen    = 56 // inet_diag_req_v2

	reqOldLen = 60 // inet_diag_req

	typeByFamily = 20 // SOCK_DIAG_BY_FAMILY
	typeOld      = 18 // TCPDIAG_GETSOCK, which asks for IPv4 and IPv6 at once
	typeError    = 2
	typeDone     = 3
	flagRequest  = 1
	flagDump     = 0x300
	attrInfo     = 2 // INET_DIAG_INFO

	offUnacked       = 24
	offLastSent      = 44
	offLastReceived  = 52
	offSegmentsAgain = 100
	offAcked         = 120
	offReceived      = 128
	offUnsent        = 144
	offSegmentsIn    = 152
	offSegmentsOut   = 156
	offSent          = 200
	offSentAgain     = 208
	infoLen          = 216 // up to here Linux 4.19 and later have it
)

// ErrKernel is returned for a kernel that tells less of a connection than is needed (older than
// Linux 4.19).
var ErrKernel = errors.New("the kernel tells too little of its connections: want Linux 4.19 or later")

var errCounters = errors.New("no PassiveOpens among the TCP counters")

var errMessage = errors.New("malformed netlink message")

func appendHeader(b []byte, length uint32, kind, flags uint16, seq uint32) []byte {
	e := binary.NativeEndian
	b = e.AppendUint32(b, headerLen+length)
	b = e.AppendUint16(b, kind)
	b = e.AppendUint16(b, flags|flagRequest)
	b = e.AppendUint32(b, seq)
	return e.AppendUint32(b, 0) // to the kernel
}

// appendList appends a request for the connections of a family to a port in states, a bit each.
// Family 0 is both.
func appendList(b []byte, seq uint32, family uint8, states uint32, port uint16) []byte {
	e := binary.NativeEndian
	var id ID
	binary.BigEndian.PutUint16(id[:], port)
	if family == 0 {
		b = appendHeader(b, reqOldLen, typeOld, flagDump, seq)
		b = append(b, syscall.AF_INET, 0, 0, 1<<(attrInfo-1))
		b = append(b, id[:]...)
		b = e.AppendUint32(b, states)
		return e.AppendUint32(b, 0)
	}
	b = appendHeader(b, reqLen, typeByFamily, flagDump, seq)
	b = append(b, family, syscall.IPPROTO_TCP, 1<<(attrInfo-1), 0)
	b = e.AppendUint32(b, states)
	return append(b, id[:]...)
}

// appendOne appends a request for one connection.
func appendOne(b []byte, seq uint32, family uint8, id *ID) []byte {
	b = appendHeader(b, reqLen, typeByFamily, 0, seq)
	b = append(b, family, syscall.IPPROTO_TCP, 1<<(attrInfo-1), 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0))
	return append(b, id[:]...)
}

// A Parser reads the kernel's answers. It is not safe for concurrent use; what it hands out it uses
// again.
type Parser struct{ conn Conn }

// Parse reads the netlink messages in b, calls each for every connection in them that belongs to
// request seq, and tells how many requests they complete: a message that ends a list, and with
// single one that describes a connection or says that there is none. What each is given is valid
// for the call only. Any bytes are safe.
func (p *Parser) Parse(b []byte, seq uint32, single bool, each func(*Conn)) (completed int, err error) {
	e := binary.NativeEndian
	for len(b) >= headerLen {
		n := uint64(e.Uint32(b))
		if n < headerLen || n > uint64(len(b)) {
			return completed, fmt.Errorf("%w: length %d of %d", errMessage, n, len(b))
		}
		kind, body := e.Uint16(b[4:]), b[headerLen:n]
		late := e.Uint32(b[8:]) != seq // the end of an earlier question
		b = b[min((n+3)&^3, uint64(len(b))):]
		if late {
			continue
		}
		switch kind {
		case typeDone, typeError:
			completed++
			if len(body) < 4 {
				return completed, fmt.Errorf("%w: %d bytes of error", errMessage, len(body))
			}
			errno := syscall.Errno(-int32(e.Uint32(body)))
			switch {
			case errno == 0: // the end of a list
			// it is gone, or another has its addresses
			case single && (errno == syscall.ENOENT || errno == syscall.ESTALE):
			default:
				return completed, errno
			}
		case typeByFamily, typeOld:
			if single {
				completed++
			}
			if err := p.conn.parse(body); err != nil {
				return completed, err
			}
			each(&p.conn)
		}
	}
	return completed, nil
}

// parse reads an inet_diag_msg and its attributes.
func (c *Conn) parse(b []byte) error {
	if len(b) < msgLen {
		return fmt.Errorf("%w: %d bytes of inet_diag_msg", errMessage, len(b))
	}
	e := binary.NativeEndian
	*c = Conn{Family: b[0], State: b[1], ID: ID(b[4 : 4+sockidLen]), Unread: e.Uint32(b[56:])}
	for b = b[msgLen:]; len(b) >= 4; {
		n := int(e.Uint16(b))
		if n < 4 || n > len(b) {
			return fmt.Errorf("%w: attribute of %d bytes in %d", errMessage, n, len(b))
		}
		if e.Uint16(b[2:]) == attrInfo {
			return c.parseInfo(b[4:n])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	if c.State != Established && c.State != CloseWait {
		return nil // on its way out, the kernel has dropped the details
	}
	return ErrKernel
}

func (c *Conn) parseInfo(b []byte) error {
	if len(b) < infoLen {
		return ErrKernel
	}
	e := binary.NativeEndian
	c.Unacked = e.Uint32(b[offUnacked:])
	c.SinceSent = time.Duration(e.Uint32(b[offLastSent:])) * time.Millisecond
	c.SinceReceived = time.Duration(e.Uint32(b[offLastReceived:])) * time.Millisecond
	c.Acked = e.Uint64(b[offAcked:])
	c.Received = e.Uint64(b[offReceived:])
	c.Unsent = e.Uint32(b[offUnsent:])
	c.SegmentsIn = e.Uint32(b[offSegmentsIn:])
	c.SegmentsOut = e.Uint32(b[offSegmentsOut:])
	c.Sent = e.Uint64(b[offSent:])
	// else what was sent again was the answer to the client's SYN
	if again := e.Uint64(b[offSentAgain:]); again > 0 {
		c.Sent -= again
		c.SegmentsOut -= e.Uint32(b[offSegmentsAgain:])
	}
	return nil
}

// ParseAccepted finds in the kernel's counters, in the format of /proc/net/snmp, how many TCP
// connections were accepted. Any bytes are safe.
func ParseAccepted(b []byte) (uint64, error) {
	_, b, _ = bytes.Cut(b, []byte("\nTcp: "))
	names, b, _ := bytes.Cut(b, []byte("\nTcp: "))
	before, _, found := bytes.Cut(names, []byte("PassiveOpens"))
	if !found {
		return 0, errCounters
	}
	skip := bytes.Count(before, []byte(" "))
	values, _, _ := bytes.Cut(b, []byte("\n"))
	for value := range bytes.SplitSeq(values, []byte(" ")) {
		if skip--; skip < 0 {
			n, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%w: %w", errCounters, err)
			}
			return n, nil
		}
	}
	return 0, errCounters
}
