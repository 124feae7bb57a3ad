package check

import (
	"errors"
	"regexp/syntax"
	"strings"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// reason is what went wrong, without what a caller of the API is told.
func reason(err error) string {
	if e, ok := errors.AsType[*answer.Error](err); ok && e.Cause != "" {
		return e.Cause
	}
	return err.Error()
}

// sample is a short text that a regular expression matches, "" if there is none to be made.
func sample(pattern string) string {
	if pattern == "" {
		return ""
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	write(&b, re, 0)
	return b.String()
}

// maxSample bounds a sample, in bytes.
const maxSample = 200

func write(b *strings.Builder, re *syntax.Regexp, depth int) {
	if b.Len() > maxSample || depth > 100 {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		r := rune('x')
		if len(re.Rune) > 0 {
			r = re.Rune[0]
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if re.Rune[i] <= 'x' && 'x' <= re.Rune[i+1] {
					r = 'x'
				}
			}
		}
		b.WriteRune(r)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus, syntax.OpStar:
		write(b, re.Sub[0], depth+1)
	case syntax.OpRepeat:
		for range min(re.Min, maxSample) {
			write(b, re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			write(b, sub, depth+1)
		}
	case syntax.OpAlternate:
		write(b, re.Sub[0], depth+1)
	default: // what matches the empty text
	}
}
