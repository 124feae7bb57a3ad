package formats

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

// All lists what can be read, in the order in which they are tried: what is told apart by more
// comes first.
func All() []Format {
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
	for _, f := range All() {
		names = append(names, f.Name)
	}
	return names
}

// List writes the formats' names and titles, a line each.
func List() string {
	var lines []string
	for _, f := range All() {
		lines = append(lines, fmt.Sprintf("  %-22s %s", f.Name, f.Title))
	}
	return strings.Join(lines, "\n")
}

// Choose finds the format: the one of that name, or the first that recognises the input.
func Choose(in *rows.Input, name string) (Format, error) {
	if name != "" {
		for _, f := range All() {
			if f.Name == name {
				return f, nil
			}
		}
		return Format{}, fmt.Errorf("format %q: want one of %s", name, strings.Join(Names(), ", "))
	}
	h := rows.NewHead(in)
	if len(h.Lines) == 0 {
		if _, err := in.Reader.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			return Format{}, err
		}
		return Format{}, ErrNothing
	}
	for _, f := range All() {
		if f.recognise(h) {
			return f, nil
		}
	}
	return Format{}, fmt.Errorf("its format was not recognised by its first line %q: say it by --format, one of %s", rows.Clip(h.Line(0)), strings.Join(Names(), ", "))
}

// Recognise tells a file's format, and whether it is the bench's own (t_seconds, with commas).
func Recognise(f rows.File) (format Format, own bool, err error) {
	in, err := rows.OpenInput(f, nil)
	if err != nil {
		return Format{}, false, err
	}
	h := rows.NewHead(in)
	own = strings.HasPrefix(h.Line(0), "t_seconds,") || h.Line(0) == "t_seconds"
	format, err = Choose(in, "")
	if closeErr := in.Close(); err == nil {
		err = closeErr
	}
	return format, own, err
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
		recognise: func(h *rows.Head) bool {
			c := h.Columns()
			for _, n := range timeNames() {
				if rows.Index(c, n) >= 0 {
					return true
				}
			}
			if len(c) < 1 || len(h.Lines) < 2 {
				return false
			}
			first := rows.Split([]byte(h.Line(1)), rows.Delimiter([]byte(h.Line(0))), nil)
			_, _, named := rows.Instant([]byte(c[0]))
			_, _, ok := rows.Instant(first[0])
			return ok && !named
		},
		parse: parseAnyCSV,
	}
}

func parseAnyCSV(in *rows.Input, m *Meta, emit func(*Item)) error {
	var t rows.Table
	if err := t.Start(in); err != nil {
		return err
	}
	at := max(0, t.Find(timeNames()...))
	took := t.Find(tookNames()...)
	values, title, err := valueColumns(&t, at, took, m)
	if err != nil {
		return err
	}
	if len(values) > 0 && m.Unit == UnitAuto {
		if m.Unit = item.UnitOf(title); m.Unit == UnitAuto || m.Unit == UnitCounter && title != "counter" {
			m.Unit = UnitRequests
		}
		m.Note("column %q is taken for %s; say otherwise by --unit", title, m.Unit)
	}
	known := false
	return in.Each(func(line []byte) string {
		if line[0] == '#' {
			return ""
		}
		t.Row(line)
		when, relative, ok := rows.Instant(t.At(at))
		if !ok {
			return fmt.Sprintf("%q is no time", rows.Clip(string(t.At(at))))
		}
		if known && m.Relative != relative {
			return "its time is by another clock than the first"
		}
		m.Relative, known = relative, true
		it := Item{At: when}
		if len(values) == 0 {
			it.Service = rows.Seconds(t.At(took), time.Second)
			it.In, it.Out = tokens(t.At(t.Find("prompt_tokens", "input_tokens", "in_tokens"))), tokens(t.At(t.Find("output_tokens", "completion_tokens", "out_tokens")))
			emit(&it)
			return ""
		}
		it.Bin = true
		for _, v := range values {
			n, ok := rows.Number(t.At(v))
			if !ok || n < 0 {
				return fmt.Sprintf("%q in column %q is no number ≥ 0", rows.Clip(string(t.At(v))), t.Columns[v])
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

// valueColumns are the columns that are read: the chosen one, all for "sum", or the one of a known
// name; none where rows are requests.
func valueColumns(t *rows.Table, at, took int, m *Meta) (places []int, title string, err error) {
	var others []int
	for i := range t.Columns {
		if i != at && i != took {
			others = append(others, i)
		}
	}
	if c := strings.ToLower(m.Column); c != "" {
		m.Column = ""
		i := rows.Index(t.Columns, c)
		if n, ok := rows.Whole([]byte(c)); i < 0 && ok && n >= 1 && int(n) <= len(others) {
			i = others[n-1]
		}
		if i < 0 {
			return nil, "", fmt.Errorf("it has no column %q: want one of %s", c, rows.Clip(strings.Join(t.Columns, ", ")))
		}
		return []int{i}, t.Columns[i], nil
	}
	if i := t.Find(valueNames()...); i >= 0 && i != at {
		return []int{i}, t.Columns[i], nil
	}
	if len(others) == 1 && took < 0 {
		return others, t.Columns[others[0]], nil
	}
	if len(others) == 0 || took >= 0 || t.Find("prompt_tokens", "input_tokens") >= 0 {
		return nil, "", nil
	}
	return others, "the sum of all columns", nil
}

// ValueColumns lists the columns of values of columns with a header.
func ValueColumns(in *rows.Input) ([]string, error) {
	var t rows.Table
	if err := t.Start(in); err != nil {
		return nil, err
	}
	at := t.Find(timeNames()...)
	var columns []string
	for i, c := range t.Columns {
		if i != at {
			columns = append(columns, c)
		}
	}
	return columns, nil
}
