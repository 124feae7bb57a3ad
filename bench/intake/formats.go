package intake

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Formats lists what can be read, in the order in which they are tried: what is told apart by more
// comes first.
func Formats() []Format {
	all := []Format{
		pageviews(), prometheusJSON(), pageviewsJSON(), cloudFront(), awsALB(), envoyText(), haproxy(), accessLog(true), accessLog(false),
		k6JSON(), vegetaJSON(), mooncake(), envoyJSON(), nginxJSON(), anyJSON(),
		openMetrics(), tsdbDump(), hdrLatencies(),
		k6CSV(), heyCSV(), locust(), vegetaCSV(), azure2019(), huawei2023(),
	}
	return append(append(all, requestTables()...), anyCSV())
}

// Names lists the formats' names.
func Names() []string {
	var names []string
	for _, f := range Formats() {
		names = append(names, f.Name)
	}
	return names
}

// choose finds the format: the one of that name, or the first that recognises the input.
func choose(in *input, name string) (Format, error) {
	if name != "" {
		for _, f := range Formats() {
			if f.Name == name {
				return f, nil
			}
		}
		return Format{}, fmt.Errorf("format %q: want one of %s", name, strings.Join(Names(), ", "))
	}
	h := newHead(in)
	if len(h.lines) == 0 {
		if _, err := in.r.Peek(1); err != nil && err != io.EOF { //nolint:errorlint // bufio gives it as it is
			return Format{}, err
		}
		return Format{}, ErrNothing
	}
	for _, f := range Formats() {
		if f.recognise(h) {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("its format was not recognised by its first line %q: say it by --format, one of %s", clip(h.line(0)), strings.Join(Names(), ", "))
}

// Recognise tells a file's format, and whether it is the bench's own (t_seconds, with commas).
func Recognise(f File) (format Format, own bool, err error) {
	in, err := open(f, nil)
	if err != nil {
		return Format{}, false, err
	}
	h := newHead(in)
	own = strings.HasPrefix(h.line(0), "t_seconds,") || h.line(0) == "t_seconds"
	format, err = choose(in, "")
	if closeErr := in.close(); err == nil {
		err = closeErr
	}
	return format, own, err
}

func clip(s string) string {
	const long = 100
	if len(s) <= long {
		return s
	}
	return strings.ToValidUTF8(s[:long], "") + "…"
}

// The names of columns that any CSV is read by.
func timeNames() []string {
	return []string{
		"t_seconds", "timestamp", "time", "@timestamp", "datetime", "date", "date_time", "ts", "t", "start_time", "start", "unix", "epoch", "seconds", "minute", "hour", "day",
		"time_iso8601", "created", "created_at", "arrival", "arrival_time", "arrived_at", "bin", "bucket",
	}
}

func tookNames() []string {
	return []string{"service_seconds", "duration_seconds", "request_time", "response_time", "latency_seconds", "duration", "latency", "elapsed", "service_time"}
}

func valueNames() []string {
	return []string{
		"requests", "count", "value", "rate", "rps", "qps", "tps", "requests_per_second", "req/s", "requests/s", "concurrency", "in_flight", "inflight", "hits", "views", "pageviews", "invocations", "calls",
		"request_count", "num_requests", "total", "throughput", "y",
	}
}

// anyCSV is columns with a header and a time. A column of values makes it values over time; without
// one each row is a request.
func anyCSV() Format {
	return Format{
		Name: "csv", Title: "columns with a header and a time",
		recognise: func(h *head) bool {
			c := h.columns()
			for _, n := range timeNames() {
				if index(c, n) >= 0 {
					return true
				}
			}
			if len(c) < 1 || len(h.lines) < 2 {
				return false
			}
			first := split([]byte(h.line(1)), delimiter([]byte(h.line(0))), nil)
			_, _, named := instant([]byte(c[0]))
			_, _, ok := instant(first[0])
			return ok && !named
		},
		parse: parseAnyCSV,
	}
}

func parseAnyCSV(in *input, m *Meta, emit func(*Item)) error {
	var t table
	if err := t.start(in); err != nil {
		return err
	}
	at := max(0, t.find(timeNames()...))
	took := t.find(tookNames()...)
	values, title, err := t.values(at, took, m)
	if err != nil {
		return err
	}
	if len(values) > 0 && m.Unit == UnitAuto {
		if m.Unit = UnitOf(title); m.Unit == UnitAuto || m.Unit == UnitCounter && title != "counter" {
			m.Unit = UnitRequests
		}
		m.Note("column %q is taken for %s; say otherwise by --unit", title, m.Unit)
	}
	known := false
	return in.each(func(line []byte) string {
		if line[0] == '#' {
			return ""
		}
		t.row(line)
		when, relative, ok := instant(t.at(at))
		if !ok {
			return fmt.Sprintf("%q is no time", clip(string(t.at(at))))
		}
		if known && m.Relative != relative {
			return "its time is by another clock than the first"
		}
		m.Relative, known = relative, true
		it := Item{At: when}
		if len(values) == 0 {
			it.Service = seconds(t.at(took), time.Second)
			it.In, it.Out = tokens(t.at(t.find("prompt_tokens", "input_tokens", "in_tokens"))), tokens(t.at(t.find("output_tokens", "completion_tokens", "out_tokens")))
			emit(&it)
			return ""
		}
		it.Bin = true
		for _, v := range values {
			n, ok := number(t.at(v))
			if !ok || n < 0 {
				return fmt.Sprintf("%q in column %q is no number ≥ 0", clip(string(t.at(v))), t.columns[v])
			}
			it.Value += n
		}
		if math.IsInf(it.Value, 0) {
			return "its sum is no number"
		}
		emit(&it)
		return ""
	})
}

// values are the columns that are read: the chosen one, all for "sum", or the one of a known name; none
// where rows are requests.
func (t *table) values(at, took int, m *Meta) (places []int, title string, err error) {
	var others []int
	for i := range t.columns {
		if i != at && i != took {
			others = append(others, i)
		}
	}
	if c := strings.ToLower(m.Column); c != "" {
		m.Column = ""
		i := index(t.columns, c)
		if n, ok := whole([]byte(c)); i < 0 && ok && n >= 1 && int(n) <= len(others) {
			i = others[n-1]
		}
		if i < 0 {
			return nil, "", fmt.Errorf("it has no column %q: want one of %s", c, clip(strings.Join(t.columns, ", ")))
		}
		return []int{i}, t.columns[i], nil
	}
	if i := t.find(valueNames()...); i >= 0 && i != at {
		return []int{i}, t.columns[i], nil
	}
	if len(others) == 1 && took < 0 {
		return others, t.columns[others[0]], nil
	}
	if len(others) == 0 || took >= 0 || t.find("prompt_tokens", "input_tokens") >= 0 {
		return nil, "", nil
	}
	return others, "the sum of all columns", nil
}
