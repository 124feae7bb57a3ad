// Package frame reads and writes HTTP/2 frames (RFC 9113) as bytes in place: no connection, no clock, no allocation. What
// the frames mean is their user's; header blocks are golang.org/x/net's hpack's.
package frame

import "encoding/binary"

// Preface begins every connection, from its client.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Sizes that the protocol fixes, in bytes.
const (
	HeaderLen    = 9          // of a frame's header
	MaxFrame     = 16 << 10   // of a payload, unless the peer allows more
	FirstWindow  = 64<<10 - 1 // of a connection and of each stream, at first
	MaxWindow    = 1<<31 - 1
	MaxStream    = 1<<31 - 1 // the highest number of a stream
	FirstTable   = 4 << 10   // of a table of header compression, at first
	pingLen      = 8
	settingLen   = 6
	priorityLen  = 5
	resetLen     = 4
	windowLen    = 4
	goAwayLen    = 8
	highestFrame = 1<<24 - 1
)

// Type is the kind of a frame. Unknown ones are to be ignored.
type Type uint8

// The types.
const (
	Data Type = iota
	Headers
	Priority
	Reset
	Settings
	PushPromise
	Ping
	GoAway
	WindowUpdate
	Continuation
)

// Flags are a frame's; the meaning of a bit depends on the type.
type Flags uint8

// The flags.
const (
	Ack         Flags = 0x1 // of Settings and Ping
	EndStream   Flags = 0x1 // of Data and Headers
	EndHeaders  Flags = 0x4
	Padded      Flags = 0x8
	HasPriority Flags = 0x20
)

// Code is why a stream or a connection ends.
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
)

func (c Code) String() string {
	switch c {
	case NoError:
		return "no error"
	case ProtocolError:
		return "protocol error"
	case InternalError:
		return "internal error"
	case FlowControlError:
		return "flow control error"
	case SettingsTimeout:
		return "settings timeout"
	case StreamClosed:
		return "stream closed"
	case FrameSizeError:
		return "frame size error"
	case RefusedStream:
		return "refused stream"
	case Cancel:
		return "cancel"
	case CompressionError:
		return "compression error"
	case ConnectError:
		return "connect error"
	case EnhanceYourCalm:
		return "enhance your calm"
	default:
		return "unknown code"
	}
}

// Header is a frame's.
type Header struct {
	Length int // of the payload
	Type   Type
	Flags  Flags
	Stream uint32 // 0 is the connection
}

// Has says whether all of the flags are set.
func (h Header) Has(f Flags) bool { return h.Flags&f == f }

// Parse reads a frame's header from p, which holds HeaderLen bytes at least.
func Parse(p []byte) Header {
	_ = p[HeaderLen-1]
	return Header{
		Length: int(p[0])<<16 | int(p[1])<<8 | int(p[2]),
		Type:   Type(p[3]),
		Flags:  Flags(p[4]),
		Stream: binary.BigEndian.Uint32(p[5:]) & MaxStream,
	}
}

// Check says what is wrong with a frame of this header at any time: its length, or a stream where none may be, or none where
// one must be. Faults of length are FrameSizeError, the others ProtocolError; NoError is none.
func (h Header) Check() Code {
	stream, length := true, true
	switch h.Type {
	case Data, Headers, Continuation, PushPromise:
	case Priority:
		length = h.Length == priorityLen
	case Reset:
		length = h.Length == resetLen
	case Settings:
		stream = false
		length = h.Length%settingLen == 0 && (h.Length == 0 || !h.Has(Ack))
	case Ping:
		stream = false
		length = h.Length == pingLen
	case GoAway:
		stream = false
		length = h.Length >= goAwayLen
	case WindowUpdate:
		return when(h.Length == windowLen, FrameSizeError)
	default:
		return NoError
	}
	if stream != (h.Stream != 0) {
		return ProtocolError
	}
	return when(length, FrameSizeError)
}

func when(good bool, otherwise Code) Code {
	if good {
		return NoError
	}
	return otherwise
}

// Content returns the payload of a Data or Headers frame without padding and priority. dependsOn is the stream that the
// priority names, 0 for none. It is false when these do not fit in the payload.
func (h Header) Content(p []byte) (content []byte, dependsOn uint32, ok bool) {
	pad := 0
	if h.Has(Padded) {
		if len(p) < 1 {
			return nil, 0, false
		}
		pad, p = int(p[0]), p[1:]
	}
	if h.Type == Headers && h.Has(HasPriority) {
		if len(p) < priorityLen {
			return nil, 0, false
		}
		dependsOn, p = binary.BigEndian.Uint32(p)&MaxStream, p[priorityLen:]
	}
	if pad > len(p) {
		return nil, 0, false
	}
	return p[:len(p)-pad], dependsOn, true
}

// Number reads the payload that begins with a number of 31 bits: WindowUpdate, Reset (31 bits are enough for its codes),
// GoAway, Priority.
func Number(p []byte) uint32 { return binary.BigEndian.Uint32(p) & MaxStream }

// Parameter is what a setting sets.
type Parameter uint16

// The parameters.
const (
	TableSize Parameter = iota + 1
	EnablePush
	MaxStreams
	InitialWindow
	MaxFrameSize
	MaxHeaderList
)

// Setting is one setting.
type Setting struct {
	Parameter Parameter
	Value     uint32
}

// NextSetting reads the first setting of a payload, which is not empty.
func NextSetting(p []byte) (s Setting, rest []byte) {
	return Setting{Parameter(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])}, p[settingLen:]
}

// Check says what is wrong with a setting; NoError is nothing.
func (s Setting) Check() Code {
	switch s.Parameter {
	case EnablePush:
		return when(s.Value <= 1, ProtocolError)
	case InitialWindow:
		return when(s.Value <= MaxWindow, FlowControlError)
	case MaxFrameSize:
		return when(s.Value >= MaxFrame && s.Value <= highestFrame, ProtocolError)
	case TableSize, MaxStreams, MaxHeaderList:
	}
	return NoError
}

// AppendHeader appends a frame's header.
func AppendHeader(out []byte, length int, t Type, f Flags, stream uint32) []byte {
	return append(out, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(f), //nolint:gosec // the bytes of a number
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream)) //nolint:gosec // likewise
}

// AppendSettings appends a Settings frame.
func AppendSettings(out []byte, settings ...Setting) []byte {
	out = AppendHeader(out, len(settings)*settingLen, Settings, 0, 0)
	for _, s := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(s.Parameter))
		out = binary.BigEndian.AppendUint32(out, s.Value)
	}
	return out
}

// AppendSettingsAck appends the answer to one.
func AppendSettingsAck(out []byte) []byte { return AppendHeader(out, 0, Settings, Ack, 0) }

// AppendPing appends a Ping frame with the first 8 bytes of data.
func AppendPing(out []byte, f Flags, data []byte) []byte {
	return append(AppendHeader(out, pingLen, Ping, f, 0), data[:pingLen]...)
}

// AppendWindowUpdate appends a WindowUpdate frame.
func AppendWindowUpdate(out []byte, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendHeader(out, windowLen, WindowUpdate, 0, stream), n)
}

// AppendReset appends a Reset frame.
func AppendReset(out []byte, stream uint32, c Code) []byte {
	return binary.BigEndian.AppendUint32(AppendHeader(out, resetLen, Reset, 0, stream), uint32(c))
}

// AppendGoAway appends a GoAway frame.
func AppendGoAway(out []byte, last uint32, c Code) []byte {
	out = AppendHeader(out, goAwayLen, GoAway, 0, 0)
	out = binary.BigEndian.AppendUint32(out, last)
	return binary.BigEndian.AppendUint32(out, uint32(c))
}
