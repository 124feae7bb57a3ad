package query

import (
	"strconv"
	"strings"
)

// scanner goes through PromQL and knows where strings and comments are.
type scanner struct {
	text string
	at   int
	// quote is the quote of the string around at, '#' in a comment, 0 in neither.
	quote byte
}

// next gives the byte at the place and goes on. inside is true within strings and comments, their
// ends included.
func (s *scanner) next() (c byte, inside, ok bool) {
	if s.at >= len(s.text) {
		return 0, false, false
	}
	c = s.text[s.at]
	s.at++
	switch {
	case s.quote == 0:
		if c == '"' || c == '\'' || c == '`' || c == '#' {
			s.quote = c
			return c, true, true
		}
		return c, false, true
	case s.quote == '#':
		if c == '\n' {
			s.quote = 0
		}
	case c == '\\' && s.quote != '`':
		s.at = min(s.at+1, len(s.text))
	case c == s.quote:
		s.quote = 0
	}
	return c, true, true
}

// dropCommas removes commas that have nothing before them in their braces or parentheses, or
// another comma: PromQL never has such, and an empty list in a template leaves them behind.
func dropCommas(text string) string {
	if !strings.Contains(text, ",") {
		return text
	}
	var out strings.Builder
	s := scanner{text: text}
	last := byte(0) // the last byte that is no space, outside of strings
	for start := 0; ; start = s.at {
		c, inside, ok := s.next()
		if !ok {
			return out.String()
		}
		if c == ',' && !inside && (last == '{' || last == '(' || last == ',') {
			for s.at < len(text) && (text[s.at] == ' ' || text[s.at] == '\t') {
				s.at++
			}
			continue
		}
		out.WriteString(text[start:s.at])
		if inside {
			last = '"'
		} else if !strings.ContainsRune(" \t\r\n", rune(c)) {
			last = c
		}
	}
}

// quoteSeries moves a series' name that needs quotes into its braces: http.requests{pod="a"}
// becomes {"http.requests",pod="a"}. A name in a string stays there.
func quoteSeries(text, series string) string {
	var out strings.Builder
	s := scanner{text: text}
	quoted := strconv.Quote(series)
	for {
		start := s.at
		if s.quote == 0 && strings.HasPrefix(text[start:], series) && !inWord(text, start-1) && !inWord(text, start+len(series)) {
			rest := text[start+len(series):]
			trimmed := strings.TrimLeft(rest, " \t\r\n")
			if !strings.HasPrefix(trimmed, "{") {
				out.WriteString("{" + quoted + "}")
				s.at = start + len(series)
				continue
			}
			inner := strings.TrimLeft(trimmed[1:], " \t\r\n,")
			out.WriteString("{" + quoted)
			if !strings.HasPrefix(inner, "}") {
				out.WriteString(",")
			}
			s.at = len(text) - len(inner)
			continue
		}
		if _, _, ok := s.next(); !ok {
			return out.String()
		}
		out.WriteString(text[start:s.at])
	}
}

// inWord reports whether a byte belongs to a name.
func inWord(text string, at int) bool {
	if at < 0 || at >= len(text) {
		return false
	}
	c := text[at]
	return c == '_' || c == ':' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
