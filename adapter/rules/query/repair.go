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

// placeholder stands for a series' name that needs quotes while a template is rendered.
const placeholder = "sluice_placeholder_of_a_series_name"

// quoteSeries puts a series' name that needs quotes in the place of the placeholder, into the
// braces: http.requests{pod="a"} becomes {"http.requests",pod="a"}. In a string it is escaped for
// that string.
func quoteSeries(text, series string) string {
	var out strings.Builder
	s := scanner{text: text}
	quoted := strconv.Quote(series)
	for {
		start := s.at
		if !strings.HasPrefix(text[start:], placeholder) {
			if _, _, ok := s.next(); !ok {
				return out.String()
			}
			out.WriteString(text[start:s.at])
			continue
		}
		s.at = start + len(placeholder)
		switch s.quote {
		case '"':
			out.WriteString(quoted[1 : len(quoted)-1])
			continue
		case '\'':
			out.WriteString(strings.ReplaceAll(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`), `'`, `\'`))
			continue
		case '`', '#':
			out.WriteString(strings.ReplaceAll(strings.ReplaceAll(series, "\n", " "), "`", "'"))
			continue
		}
		out.WriteString("{" + quoted)
		rest := strings.TrimLeft(text[s.at:], " \t\r\n")
		if !strings.HasPrefix(rest, "{") {
			out.WriteString("}")
			continue
		}
		inner := strings.TrimLeft(rest[1:], " \t\r\n,")
		if !strings.HasPrefix(inner, "}") {
			out.WriteString(",")
		}
		s.at = len(text) - len(inner)
	}
}
