package rows

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// Delimiter guesses what is between the fields of a header: the most frequent of comma, semicolon
// and tab outside of quotes.
func Delimiter(line []byte) byte {
	var n [3]int
	quoted := false
	for _, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',':
			n[0]++
		case c == ';':
			n[1]++
		case c == '\t':
			n[2]++
		}
	}
	switch {
	case n[2] > 0 && n[2] >= n[0] && n[2] >= n[1]:
		return '\t'
	case n[1] > n[0]:
		return ';'
	}
	return ','
}

// Split cuts a line at a delimiter outside of quotes, and takes the quotes off. A doubled quote
// within quotes stays doubled: nothing here needs it. The fields are parts of the line.
func Split(line []byte, delimiter byte, dst [][]byte) [][]byte {
	for {
		line = bytes.TrimLeft(line, " ")
		if len(line) > 0 && line[0] == '"' {
			end := 1
			for end < len(line) && (line[end] != '"' || end+1 < len(line) && line[end+1] == '"') {
				if line[end] == '"' {
					end++
				}
				end++
			}
			dst = append(dst, line[1:min(end, len(line))])
			line = line[min(end+1, len(line)):]
			next := bytes.IndexByte(line, delimiter)
			if next < 0 {
				return dst
			}
			line = line[next+1:]
			continue
		}
		next := bytes.IndexByte(line, delimiter)
		if next < 0 {
			return append(dst, bytes.TrimSpace(line))
		}
		dst = append(dst, bytes.TrimSpace(line[:next]))
		line = line[next+1:]
	}
}

// Words cuts a line at spaces outside of quotes and brackets, and takes those off.
func Words(line []byte, dst [][]byte) [][]byte {
	for {
		line = bytes.TrimLeft(line, " ")
		if len(line) == 0 {
			return dst
		}
		var end byte = ' '
		switch line[0] {
		case '"':
			end, line = '"', line[1:]
		case '[':
			end, line = ']', line[1:]
		}
		i := 0
		for i < len(line) && line[i] != end {
			if line[i] == '\\' && end == '"' {
				i++
			}
			i++
		}
		i = min(i, len(line))
		dst = append(dst, line[:i])
		line = line[min(i+1, len(line)):]
	}
}

// Number reads a number, with thousands separators and a decimal comma if it must be. It refuses
// what is not finite.
func Number(b []byte) (float64, bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || len(b) > 64 {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		v, err = strconv.ParseFloat(plainNumber(b), 64)
	}
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}

// plainNumber takes thousands separators out: of comma and point the last one is the decimal's,
// unless it comes several times or has three digits behind it and is the only one.
func plainNumber(b []byte) string {
	comma, point := bytes.Count(b, []byte{','}), bytes.Count(b, []byte{'.'})
	decimal := byte('.')
	if lastComma := bytes.LastIndexByte(b, ','); comma == 1 && lastComma > bytes.LastIndexByte(b, '.') && (point > 0 || len(b)-lastComma != 4) {
		decimal = ','
	}
	if point > 1 {
		decimal = ','
		if comma > 1 || comma == 1 && bytes.LastIndexByte(b, ',') < bytes.LastIndexByte(b, '.') {
			decimal = 0
		}
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == decimal:
			out = append(out, '.')
		case c == ',' || c == '.' || c == '\'' || c == '_' || c == ' ':
		case c == 0xc2 && i+1 < len(b) && b[i+1] == 0xa0: // a space that does not break
			i++
		case c == 0xe2 && i+2 < len(b) && b[i+1] == 0x80 && (b[i+2] == 0xaf || b[i+2] == 0x89):
			i += 2
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// Whole reads digits.
func Whole(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// Seconds turns a number of seconds into a duration; negative and absurd ones are unknown.
func Seconds(b []byte, unit time.Duration) time.Duration {
	v, ok := Number(b)
	if !ok || v <= 0 || v*float64(unit) > 1e17 {
		return 0
	}
	return time.Duration(math.Round(v * float64(unit)))
}

// Instant reads a time in any of the forms that people write: seconds, milliseconds, microseconds
// or nanoseconds since 1970, told apart by their size; ISO 8601 with or without a zone (UTC then);
// the time of access logs. relative says that it is a number too small for a date: seconds since
// some beginning.
func Instant(b []byte) (at int64, relative, ok bool) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || len(b) > 64 {
		return 0, false, false
	}
	if at, ok = ISO(b); ok {
		return at, false, true
	}
	if at, ok = CLF(b); ok {
		return at, false, true
	}
	if b[0] != '-' && b[0] != '+' && (b[0] < '0' || b[0] > '9') {
		return 0, false, false
	}
	at, relative, ok = epoch(b)
	return at, relative, ok
}

// epoch reads a number of seconds or of parts of seconds.
func epoch(b []byte) (at int64, relative, ok bool) {
	digits, fraction, point := b, []byte(nil), bytes.IndexByte(b, '.')
	if point >= 0 {
		digits, fraction = b[:point], b[point+1:]
	}
	v, okWhole := Whole(digits)
	if !okWhole || len(digits) > 13 && point >= 0 { // a sign, an exponent, or more digits than fit
		f, good := Number(b)
		if w, plain := Nanos(b); plain {
			return w, false, true
		}
		if !good || math.Abs(f) >= 1e11 {
			return epochFloat(f, good)
		}
		return int64(math.Round(f * 1e9)), f < 1e8, true
	}
	if len(fraction) > 0 {
		f, good := Whole(fraction[:min(len(fraction), 9)])
		if !good {
			return 0, false, false
		}
		for i := len(fraction); i < 9; i++ {
			f *= 10
		}
		switch {
		case v < 1e11:
			return v*1e9 + f, v < 1e8, true
		case v < 1e14:
			return v*1e6 + f/1e3, false, true
		}
		return v * 1e3, false, true
	}
	switch {
	case v < 1e8:
		return v * 1e9, true, true
	case v < 1e11:
		return v * 1e9, false, true
	case v < 1e14:
		return v * 1e6, false, true
	case v < 1e17:
		return v * 1e3, false, true
	}
	return v, false, true
}

// Nanos reads 19 digits, as nanoseconds since 1970 have.
func Nanos(b []byte) (int64, bool) {
	if len(b) != 19 {
		return 0, false
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	return v, err == nil && v > 0
}

func epochFloat(f float64, ok bool) (int64, bool, bool) {
	switch {
	case !ok || math.Abs(f) > 4e18:
		return 0, false, false
	case math.Abs(f) < 1e14:
		return int64(f * 1e6), false, true
	case math.Abs(f) < 1e17:
		return int64(f * 1e3), false, true
	}
	return int64(f), false, true
}

// digits reads n digits at i.
func digits(b []byte, i, n int) (int, bool) {
	if i+n > len(b) {
		return 0, false
	}
	v := 0
	for _, c := range b[i : i+n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

// ISO reads 2006-01-02[ T]15:04:05[.999][Z|±07:00|±0700], also with slashes and without seconds or
// time. Without a zone it is UTC.
func ISO(b []byte) (int64, bool) {
	year, ok := digits(b, 0, 4)
	if !ok || len(b) < 10 || b[4] != '-' && b[4] != '/' || b[7] != b[4] {
		return 0, false
	}
	month, ok1 := digits(b, 5, 2)
	day, ok2 := digits(b, 8, 2)
	if !ok1 || !ok2 || month < 1 || month > 12 || day < 1 || day > 31 {
		return 0, false
	}
	rest := b[10:]
	var clock time.Duration
	if len(rest) > 0 {
		if rest[0] != 'T' && rest[0] != 't' && rest[0] != ' ' {
			return 0, false
		}
		if clock, rest, ok = clockOf(rest[1:]); !ok {
			return 0, false
		}
	}
	offset, ok := zone(rest)
	if !ok {
		return 0, false
	}
	return unixDay(year, month, day)*int64(24*time.Hour) + int64(clock-offset), year >= 1700 && year <= 2250
}

// clockOf reads 15:04[:05[.999]] and gives what follows.
func clockOf(b []byte) (time.Duration, []byte, bool) {
	hour, ok1 := digits(b, 0, 2)
	minute, ok2 := digits(b, 3, 2)
	if !ok1 || !ok2 || b[2] != ':' || hour > 24 || minute > 59 {
		return 0, nil, false
	}
	d := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute
	b = b[5:]
	if len(b) < 3 || b[0] != ':' {
		return d, b, true
	}
	second, ok := digits(b, 1, 2)
	if !ok || second > 60 {
		return 0, nil, false
	}
	d += time.Duration(second) * time.Second
	b = b[3:]
	if len(b) < 2 || b[0] != '.' && b[0] != ',' {
		return d, b, true
	}
	part := time.Second
	b = b[1:]
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		part /= 10
		d += time.Duration(b[0]-'0') * part
		b = b[1:]
	}
	return d, b, true
}

// zone reads what may follow a clock.
func zone(b []byte) (time.Duration, bool) {
	b = bytes.TrimSpace(b)
	switch {
	case len(b) == 0, string(b) == "Z", string(b) == "z", string(b) == "UTC", string(b) == "GMT":
		return 0, true
	case b[0] != '+' && b[0] != '-':
		return 0, false
	}
	hour, ok := digits(b, 1, 2)
	minute := 0
	switch {
	case !ok:
	case len(b) == 3:
	case len(b) == 5:
		minute, ok = digits(b, 3, 2)
	case len(b) == 6 && b[3] == ':':
		minute, ok = digits(b, 4, 2)
	default:
		ok = false
	}
	d := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute
	if b[0] == '-' {
		d = -d
	}
	return d, ok && hour < 24
}

// CLF reads 02/Jan/2006:15:04:05[.999][ -0700], the time of access logs.
func CLF(b []byte) (int64, bool) {
	day, ok1 := digits(b, 0, 2)
	year, ok2 := digits(b, 7, 4)
	if !ok1 || !ok2 || len(b) < 20 || b[2] != '/' || b[6] != '/' || b[11] != ':' || day < 1 || day > 31 {
		return 0, false
	}
	month := monthOf(b[3:6])
	clock, rest, ok := clockOf(b[12:])
	if !ok || month == 0 {
		return 0, false
	}
	offset, ok := zone(rest)
	if !ok {
		return 0, false
	}
	return unixDay(year, month, day)*int64(24*time.Hour) + int64(clock-offset), year >= 1700 && year <= 2250
}

// monthOf is a month's number by its English short name, 0 for none.
func monthOf(b []byte) int {
	const names = "janfebmaraprmayjunjulaugsepoctnovdec"
	if len(b) != 3 {
		return 0
	}
	var low [3]byte
	for i, c := range b {
		low[i] = c | 0x20
	}
	if i := bytes.Index([]byte(names), low[:]); i >= 0 && i%3 == 0 {
		return i/3 + 1
	}
	return 0
}

// unixDay counts the days from 1970-01-01 to a date of the Gregorian calendar (days_from_civil by
// Hinnant).
func unixDay(year, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	yearOfEra := year - era*400
	shifted := (month + 9) % 12
	dayOfYear := (153*shifted+2)/5 + day - 1
	return int64(era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468)
}

// Clip shortens what is quoted in an error.
func Clip(s string) string {
	const long = 100
	if len(s) <= long {
		return s
	}
	return strings.ToValidUTF8(s[:long], "") + "…"
}

// TimeInBrackets finds the first time of access logs in brackets, and what follows it.
func TimeInBrackets(line []byte) (at int64, rest []byte, ok bool) {
	for from := 0; ; {
		open := bytes.IndexByte(line[from:], '[')
		if open < 0 {
			return 0, nil, false
		}
		from += open + 1
		end := bytes.IndexByte(line[from:], ']')
		if end < 0 {
			return 0, nil, false
		}
		if at, ok = CLF(line[from : from+end]); ok {
			return at, bytes.TrimSpace(line[from+end+1:]), true
		}
	}
}
