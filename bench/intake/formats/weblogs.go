package formats

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

// accessLog is Apache's and nginx's common and combined formats, with a time behind them if there
// is one.
func accessLog(combined bool) Format {
	f := Format{Name: "common", Title: "an access log in the common format (Apache, nginx)"}
	if combined {
		f = Format{Name: "combined", Title: "an access log in the combined format (Apache, nginx)"}
	}
	f.recognise = func(h *rows.Head) bool {
		rest, ok := behindTime([]byte(h.Line(0)))
		return ok && bytes.HasPrefix(rest, []byte{'"'}) && (len(rows.Words(rest, nil)) >= 5) == combined
	}
	f.parse = func(in *rows.Input, m *Meta, emit func(*Item)) error {
		var ws [][]byte
		return in.Each(func(line []byte) string {
			at, rest, ok := rows.TimeInBrackets(line)
			if !ok {
				return "it has no [time] of access logs"
			}
			it := Item{At: at}
			ws = rows.Words(rest, ws[:0])
			if len(ws) < 2 {
				return "it has no request and status"
			}
			var ended bool
			if it.Service, ended = extraTime(ws[min(len(ws), 3):], m); ended {
				it.At -= int64(it.Service)
			}
			emit(&it)
			return ""
		})
	}
	return f
}

// behindTime is what follows the time in brackets of a line, ok if that is one of access logs.
func behindTime(line []byte) ([]byte, bool) {
	_, rest, ok := rows.TimeInBrackets(line)
	return rest, ok
}

// extraTime finds how long a request took in the words behind an access log's own. ended says that
// the log's time is that of its end, as in nginx.
func extraTime(extra [][]byte, m *Meta) (service time.Duration, ended bool) {
	for _, w := range extra {
		key, value, ok := bytes.Cut(w, []byte{'='})
		if !ok {
			continue
		}
		switch string(key) {
		case "rt", "request_time", "req_time":
			m.Note("%s= is seconds that end at the log's time, as in nginx", key)
			return rows.Seconds(bytes.Trim(value, `"`), time.Second), true
		}
	}
	if len(extra) < 3 {
		return 0, false
	}
	last := extra[len(extra)-1]
	if v, ok := rows.Whole(last); ok {
		m.Note("the last number of a line is microseconds, Apache's %%D")
		return time.Duration(min(v, 1e14)) * time.Microsecond, false
	}
	if bytes.IndexByte(last, '.') > 0 {
		if d := rows.Seconds(last, time.Second); d > 0 {
			m.Note("the last number of a line is seconds that end at the log's time, nginx's $request_time")
			return d, true
		}
	}
	return 0, false
}

// jsonLog is a log of JSON objects, a line each, with a time and perhaps a duration.
type jsonLog struct {
	// times and durations are names of fields, the first that is there counts.
	times     []string
	durations []jsonDuration
}

type jsonDuration struct {
	name string
	unit time.Duration
	// ended says that the time is that of the end.
	ended bool
}

func (l jsonLog) parse(in *rows.Input, m *Meta, emit func(*Item)) error {
	return in.Each(func(line []byte) string {
		var fields map[string]json.RawMessage
		if json.Unmarshal(line, &fields) != nil {
			return "it is no JSON object"
		}
		it := Item{}
		found := false
		for _, name := range l.times {
			raw, ok := fields[name]
			if !ok {
				continue
			}
			at, relative, ok := rows.Instant(bytes.Trim(raw, `"`))
			if ok {
				it.At, found = at, true
				m.Relative = m.Relative || relative
				break
			}
		}
		if !found {
			return "it has no time in " + strings.Join(l.times, ", ")
		}
		for _, d := range l.durations {
			raw, ok := fields[d.name]
			if !ok {
				continue
			}
			it.Service = rows.Seconds(bytes.Trim(raw, `"`), d.unit)
			if d.ended {
				it.At -= int64(it.Service)
			}
			m.Note("%s is in units of %v", d.name, d.unit)
			break
		}
		emit(&it)
		return ""
	})
}

func nginxJSON() Format {
	l := jsonLog{
		times:     []string{"msec", "time_iso8601", "time_local", "@timestamp", "timestamp", "time", "ts"},
		durations: []jsonDuration{{"request_time", time.Second, true}, {"upstream_response_time", time.Second, true}},
	}
	return Format{
		Name: "nginx-json", Title: "nginx's access log as JSON", parse: l.parse,
		recognise: func(h *rows.Head) bool { return h.Object("request_time") || h.Object("time_iso8601") },
	}
}

func envoyJSON() Format {
	l := jsonLog{times: []string{"start_time", "timestamp"}, durations: []jsonDuration{{"duration", time.Millisecond, false}}}
	return Format{
		Name: "envoy-json", Title: "Envoy's or Istio's access log as JSON", parse: l.parse,
		recognise: func(h *rows.Head) bool {
			return h.Object("start_time", "response_code") || h.Object("start_time", "duration")
		},
	}
}

func anyJSON() Format {
	l := jsonLog{
		times: []string{"start_time", "StartUTC", "time_iso8601", "msec", "@timestamp", "timestamp", "time", "ts", "date", "datetime", "t"},
		durations: []jsonDuration{
			{"request_time", time.Second, true},
			{"duration_ms", time.Millisecond, false},
			{"latency_ms", time.Millisecond, false},
			{"duration_seconds", time.Second, false},
			{"service_seconds", time.Second, false},
			{"Duration", time.Nanosecond, false},
		},
	}
	return Format{
		Name: "json", Title: "JSON objects with a time, a line each", parse: l.parse,
		recognise: func(h *rows.Head) bool {
			for _, t := range l.times {
				if h.Object(t) {
					return true
				}
			}
			return false
		},
	}
}

func envoyText() Format {
	return Format{
		Name: "envoy", Title: "Envoy's or Istio's access log",
		recognise: func(h *rows.Head) bool {
			line := []byte(h.Line(0))
			end := bytes.IndexByte(line, ']')
			if len(line) == 0 || line[0] != '[' || end < 0 {
				return false
			}
			_, ok := rows.ISO(line[1:end])
			return ok && bytes.HasPrefix(bytes.TrimSpace(line[end+1:]), []byte{'"'})
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note("the duration is in milliseconds, and the time is that of the arrival")
			var ws [][]byte
			return in.Each(func(line []byte) string {
				ws = rows.Words(line, ws[:0])
				if len(ws) < 8 {
					return "it has fewer than 8 fields"
				}
				at, ok := rows.ISO(ws[0])
				if !ok {
					return "it does not begin with a time in brackets"
				}
				// Envoy: code flags received sent duration; Istio: code flags details termination
				// failure received sent duration.
				place := 6
				if _, ok := rows.Whole(ws[4]); !ok && len(ws) > 9 {
					place = 9
				}
				it := Item{At: at, Service: rows.Seconds(ws[min(place, len(ws)-1)], time.Millisecond)}
				emit(&it)
				return ""
			})
		},
	}
}

// elbKinds are the first words of lines of AWS' application load balancers.
func elbKind(word []byte) bool {
	return slices.Contains([]string{"http", "https", "h2", "grpcs", "ws", "wss"}, string(word))
}

func awsALB() Format {
	return Format{
		Name: "aws-alb", Title: "an access log of an AWS application load balancer",
		recognise: func(h *rows.Head) bool {
			ws := rows.Words([]byte(h.Line(0)), nil)
			if len(ws) < 12 || !elbKind(ws[0]) {
				return false
			}
			_, ok := rows.ISO(ws[1])
			return ok
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note("arrivals are request_creation_time where it is there, and work is target_processing_time")
			var ws [][]byte
			return in.Each(func(line []byte) string {
				ws = rows.Words(line, ws[:0])
				if len(ws) < 12 || !elbKind(ws[0]) {
					return "it is not a line of a load balancer"
				}
				end, ok := rows.ISO(ws[1])
				if !ok {
					return "its time is none"
				}
				it := Item{At: end, Service: rows.Seconds(ws[6], time.Second)}
				created := false
				if len(ws) > 21 {
					if at, ok := rows.ISO(ws[21]); ok {
						it.At, created = at, true
					}
				}
				if !created {
					for _, w := range ws[5:8] {
						it.At -= int64(rows.Seconds(w, time.Second))
					}
				}
				emit(&it)
				return ""
			})
		},
	}
}

func cloudFront() Format {
	return Format{
		Name: "cloudfront", Title: "an access log of AWS CloudFront",
		recognise: func(h *rows.Head) bool {
			for _, l := range h.Lines[:min(len(h.Lines), 3)] {
				if strings.HasPrefix(l, "#Fields:") && strings.Contains(l, "x-edge-location") {
					return true
				}
			}
			return false
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note("time-taken is seconds that end at the log's time")
			var columns []string
			date, clock, took := -1, -1, -1
			var fs [][]byte
			return in.Each(func(line []byte) string {
				if rest, ok := bytes.CutPrefix(line, []byte("#Fields:")); ok {
					columns = strings.Fields(string(rest))
					date, clock, took = rows.Index(columns, "date"), rows.Index(columns, "time"), rows.Index(columns, "time-taken")
				}
				if line[0] == '#' {
					return ""
				}
				fs = rows.Split(line, '\t', fs[:0])
				if date < 0 || clock < 0 || max(date, clock) >= len(fs) {
					return "it has no date and time"
				}
				at, ok := rows.ISO(append(append(append(make([]byte, 0, 32), fs[date]...), 'T'), fs[clock]...))
				if !ok {
					return "its time is none"
				}
				it := Item{At: at}
				if took >= 0 && took < len(fs) {
					it.Service = rows.Seconds(fs[took], time.Second)
					it.At -= int64(it.Service)
				}
				emit(&it)
				return ""
			})
		},
	}
}

func haproxy() Format {
	return Format{
		Name: "haproxy", Title: "HAProxy's HTTP log",
		recognise: func(h *rows.Head) bool {
			rest, ok := behindTime([]byte(h.Line(0)))
			if !ok {
				return false
			}
			ws := rows.Words(rest, nil)
			return len(ws) > 3 && bytes.Count(ws[2], []byte{'/'}) == 4
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note("times have no zone and count as UTC; work is the time of the server's answer, Tr")
			var ws [][]byte
			return in.Each(func(line []byte) string {
				at, rest, ok := rows.TimeInBrackets(line)
				if !ok {
					return "it has no [time]"
				}
				ws = rows.Words(rest, ws[:0])
				if len(ws) < 4 {
					return "it has no timers and status"
				}
				timers := bytes.Split(ws[2], []byte{'/'})
				if len(timers) != 5 {
					return "it has no five timers: want option httplog"
				}
				it := Item{At: at, Service: rows.Seconds(timers[3], time.Millisecond)}
				emit(&it)
				return ""
			})
		},
	}
}
