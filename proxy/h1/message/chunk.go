package message

import "bytes"

const (
	maxChunkLine = 1 << 10 // a chunk's size and its extensions, in bytes
	// MaxTrailer bounds a trailer section, in bytes.
	MaxTrailer = 8 << 10
)

// Chunks follows a chunked body. The zero value stands at its beginning.
type Chunks struct {
	// Plain takes the framing away and leaves the data, for who cannot read chunks; trailers are dropped.
	Plain bool

	left  uint64 // bytes of the present chunk's data
	state chunkState
}

type chunkState uint8

const (
	atSize chunkState = iota
	inData
	atDataEnd
	atTrailer
)

// Step reads on in p. It has used the first used bytes and has turned them into the keep bytes at the beginning of p,
// which are to be passed on: chunks without their extensions, or their data alone. Without done, the rest of p is the
// beginning of a line (or trailer section) that Step wants to see whole, with what follows; the caller keeps room for
// MaxTrailer bytes and some.
func (c *Chunks) Step(p []byte) (keep, used int, done bool, err error) {
	for {
		rest := p[used:]
		switch c.state {
		case atSize:
			lf := bytes.IndexByte(rest, '\n')
			if lf < 0 {
				if len(rest) > maxChunkLine {
					return keep, used, false, ErrBadChunk
				}
				return keep, used, false, nil
			}
			if lf < 2 || lf > maxChunkLine || rest[lf-1] != '\r' {
				return keep, used, false, ErrBadChunk
			}
			size, n, ok := chunkSize(rest[:lf-1])
			if !ok {
				return keep, used, false, ErrBadChunk
			}
			if size == 0 {
				// The message ends with the trailers' empty line, which does not go on before they are known to be good.
				c.state = atTrailer
				if !c.Plain {
					keep += copy(p[keep:], "0\r\n")
				}
				used += lf + 1
				continue
			}
			if !c.Plain {
				keep += copy(p[keep:], rest[:n])
				keep += copy(p[keep:], "\r\n")
			}
			used += lf + 1
			c.left, c.state = size, inData
		case inData:
			if len(rest) == 0 {
				return keep, used, false, nil
			}
			n := len(rest)
			if uint64(n) > c.left {
				n = int(c.left) //nolint:gosec // below n
			}
			if keep != used {
				copy(p[keep:], rest[:n])
			}
			keep, used = keep+n, used+n
			if c.left -= uint64(n); c.left == 0 {
				c.state = atDataEnd
			}
		case atDataEnd:
			switch {
			case len(rest) > 0 && rest[0] != '\r', len(rest) > 1 && rest[1] != '\n':
				return keep, used, false, ErrBadChunk
			case len(rest) < 2:
				return keep, used, false, nil
			}
			if !c.Plain {
				keep += copy(p[keep:], "\r\n")
			}
			used += 2
			c.state = atSize
		case atTrailer:
			n, err := trailers(rest)
			if err != nil || n == 0 {
				return keep, used, false, err
			}
			if !c.Plain {
				keep += copy(p[keep:], rest[:n])
			}
			return keep, used + n, true, nil
		}
	}
}

// chunkSize reads a chunk line without its end: the size, and how many digits it has.
func chunkSize(line []byte) (size uint64, n int, ok bool) {
	for n < len(line) {
		c := line[n]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			c = 0xff
		}
		if c == 0xff {
			break
		}
		if n == 15 { // more than any message has, and no overflow
			return 0, 0, false
		}
		size = size<<4 | uint64(c)
		n++
	}
	if n == 0 {
		return 0, 0, false
	}
	ext := trim(line[n:])
	// An extension begins with a semicolon. Only its characters are looked at: it is dropped.
	return size, n, (len(ext) == 0 && n == len(line) || len(ext) > 0 && ext[0] == ';') && isValue(ext)
}

// trailers returns the length of a whole trailer section, the empty line included; 0 says that more is to come.
func trailers(p []byte) (int, error) {
	n := 0
	for {
		lf := bytes.IndexByte(p[n:], '\n')
		if lf < 0 {
			if len(p) > MaxTrailer {
				return 0, ErrTooLarge
			}
			return 0, nil
		}
		if lf < 1 || p[n+lf-1] != '\r' {
			return 0, ErrBadTrailer
		}
		line := p[n : n+lf-1]
		n += lf + 1
		if n > MaxTrailer {
			return 0, ErrTooLarge
		}
		if len(line) == 0 {
			return n, nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) || !isValue(trim(line[colon+1:])) {
			return 0, ErrBadTrailer
		}
		switch kindOf(line[:colon]) {
		case Other, Date, UserAgent:
		default: // framing, routing, connection: never to be taken from a trailer (RFC 9110, 6.5.1)
			return 0, ErrBadTrailer
		}
	}
}
