package formats

import (
	"bytes"
	"strings"

	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/intake/promjson"
	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

// rises turns counters into requests: the rise since the sample before, which stands in the bin
// that begins there. A fall is a restart, after which the counter begins at 0.
type rises struct {
	last map[string]sample
	emit func(*Item)
}

type sample struct {
	at    int64
	value float64
}

// maxSeries bounds how many series a file may have.
const maxSeries = 200_000

func (r *rises) add(key, series string, at int64, v float64) string {
	if r.last == nil {
		r.last = map[string]sample{}
	}
	before, seen := r.last[key]
	if !seen && len(r.last) >= maxSeries {
		return "it has more than 200000 series"
	}
	r.last[key] = sample{at, v}
	if !seen || at <= before.at {
		return ""
	}
	rise := v - before.value
	if rise < 0 {
		rise = v
	}
	r.emit(&Item{At: before.at, Bin: true, Value: rise, Series: series})
	return ""
}

// samples hands samples on by their unit. key tells series apart, and series is what they are
// chosen by.
func samples(m *Meta, emit func(*Item)) func(key, series, metric string, at int64, v float64) string {
	r := rises{emit: emit}
	return func(key, series, metric string, at int64, v float64) string {
		if m.Unit == UnitAuto {
			if m.Unit = item.UnitOf(metric); m.Unit == UnitAuto {
				m.Unit = UnitRate
			}
			m.Note("%q is taken for %s; say otherwise by --unit", metric, m.Unit)
		}
		if v < 0 {
			return "its value is below zero"
		}
		if m.Unit == UnitCounter {
			return r.add(key, series, at, v)
		}
		emit(&Item{At: at, Bin: true, Value: v, Series: series})
		return ""
	}
}

// chosenBy is the column if a label has that value, else the series' key.
func chosenBy(r *promjson.Series, column, key string) string {
	for _, v := range r.Metric {
		if column != "" && v == column {
			return column
		}
	}
	return key
}

func prometheusJSON() Format {
	return Format{
		Name: "prometheus", Title: "a saved answer of Prometheus' query_range",
		recognise: func(h *rows.Head) bool {
			t := string(h.All[:min(len(h.All), 4096)])
			return strings.Contains(t, `"resultType"`) || strings.HasPrefix(strings.TrimSpace(t), "[") && strings.Contains(t, `"metric"`) && strings.Contains(t, `"values"`)
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			add := samples(m, emit)
			return promjson.Decode(in.Reader, func(r *promjson.Series) error {
				name := r.Metric["__name__"]
				key := r.Labels()
				series := chosenBy(r, m.Column, key)
				for _, v := range r.Values {
					in.Lines++
					at, _, ok := rows.Instant(v[0])
					value, ok2 := rows.Number(bytes.Trim(v[1], `"`))
					why := "its sample is no time and number"
					if ok && ok2 {
						why = add(key, series, name, at, value)
					}
					if why != "" {
						in.Skip(why)
					}
				}
				return nil
			})
		},
	}
}

// seriesLine cuts a line NAME{LABELS} REST.
func seriesLine(line []byte) (series, metric string, rest [][]byte, ok bool) {
	line = bytes.TrimSpace(line)
	end := bytes.IndexByte(line, ' ')
	if open := bytes.IndexByte(line, '{'); open >= 0 && (end < 0 || open < end) {
		quoted := false
		end = -1
		for i := open; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\\' && quoted:
				i++
			case c == '"':
				quoted = !quoted
			case c == '}' && !quoted:
				end = i + 1
			}
			if end >= 0 {
				break
			}
		}
		metric = string(bytes.TrimSpace(line[:open]))
		if metric == "" && end > 0 { // promtool tsdb dump
			if _, after, found := bytes.Cut(line[open:end], []byte(`__name__="`)); found {
				name, _, _ := bytes.Cut(after, []byte{'"'})
				metric = string(name)
			}
		}
	} else if end > 0 {
		metric = string(line[:end])
	}
	if end < 0 {
		return "", "", nil, false
	}
	return string(line[:end]), metric, bytes.Fields(line[end:]), true
}

func openMetrics() Format {
	return Format{
		Name: "openmetrics", Title: "samples in the OpenMetrics or Prometheus text format, with times",
		recognise: func(h *rows.Head) bool {
			text := string(h.All)
			return strings.HasPrefix(h.Line(0), "# HELP ") || strings.HasPrefix(h.Line(0), "# TYPE ") || strings.Contains(text, "\n# EOF")
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			return textSamples(in, m, emit, true)
		},
	}
}

func tsdbDump() Format {
	return Format{
		Name: "tsdb-dump", Title: "promtool tsdb dump",
		recognise: func(h *rows.Head) bool {
			_, metric, rest, ok := seriesLine([]byte(h.Line(0)))
			return ok && strings.HasPrefix(h.Line(0), "{") && metric != "" && len(rest) == 2
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error { return textSamples(in, m, emit, false) },
	}
}

// textSamples reads a sample a line. Names that end in _bucket, _sum and _created are not demand
// and are left out.
func textSamples(in *rows.Input, m *Meta, emit func(*Item), types bool) error {
	add := samples(m, emit)
	kinds := map[string]string{}
	first := ""
	err := in.Each(func(line []byte) string {
		if line[0] == '#' {
			if fs := bytes.Fields(line); types && len(fs) == 4 && string(fs[1]) == "TYPE" && len(kinds) < 10_000 {
				kinds[string(fs[2])] = string(fs[3])
			}
			return ""
		}
		series, metric, rest, ok := seriesLine(line)
		if !ok || len(rest) == 0 {
			return "it is no sample"
		}
		for _, end := range []string{"_bucket", "_sum", "_created"} {
			if strings.HasSuffix(metric, end) {
				return ""
			}
		}
		if m.Column != "" && metric != m.Column && series != m.Column {
			return ""
		}
		if len(rest) < 2 {
			return "it has no time: samples of one scrape are no load over time"
		}
		v, ok := rows.Number(rest[0])
		at, _, ok2 := rows.Instant(rest[1])
		if !ok || !ok2 {
			return "its value or time is none"
		}
		if first == "" {
			first = metric
			if m.Unit == UnitAuto && kinds[strings.TrimSuffix(metric, "_total")] == "counter" {
				m.Unit = UnitCounter
				m.Note("%q is taken for counter; say otherwise by --unit", metric)
			}
		}
		if metric != first {
			m.Note("it has several metrics: only %q is read; choose another by its name", first)
			return ""
		}
		return add(series, m.Column, metric, at, v)
	})
	return err
}
