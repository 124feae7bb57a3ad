package prom

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Template is a PromQL query with placeholders for a workload. Text in braces that is not a
// placeholder stays as it is.
//
//	{namespace}  the workload's namespace
//	{name}       its name
//	{pods}       a regular expression of the names of its pods, see PodNames
//	{services}   a regular expression of the names of its Services
//	{metric}     the name of a metric that the workload chose
//	{step}       the time between two points, such as 60s
//
// Names stand in a string and are escaped for it. After =~ and !~ a string is a regular expression,
// in which a name matches itself alone.
type Template string

// Rate is the template of a counter's rate per second, summed over the pods of a workload.
func Rate(counter string) Template {
	return Template(`sum(rate(` + counter + `{namespace="{namespace}",pod=~"{pods}"}[{step}]))`)
}

// Workload is what a template is filled in for.
type Workload struct {
	Namespace, Kind, Name string
	// Metric and Services are for the placeholders of those names; both may be empty.
	Metric   string
	Services []string
}

// String writes it as errors name it.
func (w Workload) String() string { return fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name) }

// placeholder is one of those of a template.
type placeholder string

const (
	namespacePlaceholder placeholder = "{namespace}"
	namePlaceholder      placeholder = "{name}"
	podsPlaceholder      placeholder = "{pods}"
	stepPlaceholder      placeholder = "{step}"
	servicesPlaceholder  placeholder = "{services}"
	metricPlaceholder    placeholder = "{metric}"
)

// leading is the placeholder that a text begins with, or "".
func leading(text string) placeholder {
	for _, p := range []placeholder{namespacePlaceholder, namePlaceholder, podsPlaceholder, stepPlaceholder, servicesPlaceholder, metricPlaceholder} {
		if strings.HasPrefix(text, string(p)) {
			return p
		}
	}
	return ""
}

// quoting is the place in a query: the quote of the string around it, 0 outside of strings, and
// whether that string is a regular expression.
type quoting struct {
	quote   byte
	pattern bool
}

// Expand fills in the placeholders. The error says what is wrong with the template, or that a name
// cannot stand in it.
func (t Template) Expand(w Workload, step time.Duration) (string, error) {
	text := string(t)
	if strings.TrimSpace(text) == "" {
		return "", errors.New("the query is empty")
	}
	var out strings.Builder
	var at quoting
	for i := 0; i < len(text); {
		rest := text[i:]
		if p := leading(rest); p != "" {
			value, err := at.value(p, w, step)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += len(p)
			continue
		}
		n := 1
		switch c := rest[0]; {
		case at.quote == 0 && c == '#': // a comment up to the end of the line
			if n = strings.IndexByte(rest, '\n'); n < 0 {
				n = len(rest)
			}
		case at.quote == 0 && (c == '"' || c == '\'' || c == '`'):
			before := strings.TrimRight(text[:i], " \t\r\n")
			at = quoting{quote: c, pattern: strings.HasSuffix(before, "=~") || strings.HasSuffix(before, "!~")}
		case at.quote == c:
			at.quote = 0
		case at.quote != 0 && at.quote != '`' && c == '\\':
			n = min(2, len(rest))
		}
		out.WriteString(rest[:n])
		i += n
	}
	if at.quote != 0 {
		return "", fmt.Errorf("a string is not closed: want another %c", at.quote)
	}
	return out.String(), nil
}

// value is what takes the place of a placeholder, escaped for the string around it.
func (q quoting) value(p placeholder, w Workload, step time.Duration) (string, error) {
	if p == stepPlaceholder {
		return fmt.Sprintf("%ds", int(step.Seconds())), nil
	}
	if q.quote == 0 {
		return "", fmt.Errorf("%s stands outside of a string: want it in quotes, such as namespace=\"{namespace}\"", p)
	}
	var value string
	switch p {
	case podsPlaceholder, servicesPlaceholder:
		if !q.pattern {
			return "", fmt.Errorf(`%s is a regular expression: want it after =~, such as pod=~"{pods}"`, p)
		}
		if value = PodNames(w.Kind, w.Name); p == servicesPlaceholder {
			names := make([]string, len(w.Services))
			for i, name := range w.Services {
				names[i] = regexp.QuoteMeta(name)
			}
			value = strings.Join(names, "|")
		}
	case metricPlaceholder:
		value = w.Metric
	case namePlaceholder:
		value = w.Name
	default:
		value = w.Namespace
	}
	if p != podsPlaceholder && p != servicesPlaceholder && q.pattern {
		value = regexp.QuoteMeta(value)
	}
	if q.quote == '`' {
		if strings.Contains(value, "`") {
			return "", fmt.Errorf("%q cannot stand in backquotes: want %s in double quotes", value, p)
		}
		return value, nil
	}
	return strings.NewReplacer(`\`, `\\`, string(q.quote), `\`+string(q.quote), "\n", `\n`).Replace(value), nil
}

// generated matches a character of the suffixes that Kubernetes generates for names.
const generated = "[bcdfghjklmnpqrstvwxz2456789]"

// PodNames is a regular expression of the names that the pods of a workload have, to be anchored at
// both ends, as Prometheus does. A kind that Kubernetes does not have itself is taken to name its
// pods as a Deployment does. Pods of a workload whose name has more than 47 characters are not
// found, since Kubernetes cuts it in their names.
func PodNames(kind, name string) string {
	name = regexp.QuoteMeta(name)
	switch kind {
	case "StatefulSet":
		return name + "-[0-9]+"
	case "ReplicaSet":
		return name + "-" + generated + "{5}"
	}
	return name + "-" + generated + "{6,10}-" + generated + "{5}"
}
