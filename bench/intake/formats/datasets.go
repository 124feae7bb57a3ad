package formats

import (
	"bytes"
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

// dayInName is the day that a file's name ends in: invocations_per_function_md.anon.d01.csv,
// day_012.csv.
var dayInName = regexp.MustCompile(`(?:\.d|day_?)(\d{1,3})\.`)

func azure2019() Format {
	return Format{
		Name: "azure2019", Title: "Azure Functions 2019, invocations per function and minute",
		recognise: func(h *rows.Head) bool { return h.Has("hashfunction", "1", "2") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Relative, m.Unit = true, UnitRequests
			m.Note("counts of invocations in a minute; the day is that of the file's name")
			day := int64(0)
			if d := dayInName.FindStringSubmatch(strings.ToLower(in.Name)); d != nil {
				if n, err := strconv.ParseInt(d[1], 10, 64); err == nil {
					day = max(0, n-1)
				}
			}
			var t rows.Table
			if err := t.Start(in); err != nil {
				return err
			}
			name := t.Find("hashfunction")
			minutes := make([]int64, len(t.Columns))
			for i, c := range t.Columns {
				minutes[i] = -1
				if n, ok := rows.Whole([]byte(c)); ok && n >= 1 && n <= 1440 {
					minutes[i] = (day*1440 + n - 1) * int64(time.Minute)
				}
			}
			return in.Each(func(line []byte) string {
				t.Row(line)
				if len(t.Fields) != len(t.Columns) {
					return "it has not as many fields as the header"
				}
				series := string(t.At(name))
				for i, f := range t.Fields {
					if minutes[i] < 0 {
						continue
					}
					v, ok := rows.Number(f)
					if !ok || v < 0 {
						return "a count of it is no number ≥ 0"
					}
					emit(&Item{At: minutes[i], Bin: true, Width: time.Minute, Value: v, Series: series})
				}
				return ""
			})
		},
	}
}

// requestTable is a data set with a request a row, in columns with a header.
type requestTable struct {
	format Format
	// need are the columns that tell it apart.
	need []string
	// time is the column of the arrival, in units of unit; 0 reads a date or seconds.
	time []string
	unit time.Duration
	// took is the column of the work, in units of tookUnit; ended says that time is that of its
	// end.
	took     []string
	tookUnit time.Duration
	ended    bool
	// in and out are the columns of tokens.
	in, out []string
	// series are columns that requests are chosen by, joined by a slash.
	series []string
}

func (r requestTable) make() Format {
	f := r.format
	f.recognise = func(h *rows.Head) bool { return h.Has(r.need...) }
	f.parse = func(in *rows.Input, m *Meta, emit func(*Item)) error {
		var t rows.Table
		if err := t.Start(in); err != nil {
			return err
		}
		at, took, tokensIn, tokensOut := t.Find(r.time...), t.Find(r.took...), t.Find(r.in...), t.Find(r.out...)
		var series []int
		for _, name := range r.series {
			if i := t.Find(name); i >= 0 {
				series = append(series, i)
			}
		}
		return in.Each(func(line []byte) string {
			t.Row(line)
			it := Item{}
			if r.unit > 0 {
				v, ok := rows.Number(t.At(at))
				if !ok || math.Abs(v)*float64(r.unit) > 4e18 {
					return "its time is no number"
				}
				it.At = int64(math.Round(v * float64(r.unit)))
				m.Relative = m.Relative || math.Abs(v)*float64(r.unit) < 1e17
			} else {
				var ok, relative bool
				if it.At, relative, ok = rows.Instant(t.At(at)); !ok {
					return "its time is none"
				}
				m.Relative = m.Relative || relative
			}
			it.Service = rows.Seconds(t.At(took), r.tookUnit)
			if r.ended {
				it.At -= int64(it.Service)
			}
			it.In, it.Out = tokens(t.At(tokensIn)), tokens(t.At(tokensOut))
			if m.Column != "" {
				it.Series = join(t.Fields, series)
			}
			emit(&it)
			return ""
		})
	}
	return f
}

// tokens reads a count of tokens, 0 where there is none.
func tokens(b []byte) int {
	if v, ok := rows.Number(b); ok && v >= 0 && v <= 1e9 {
		return int(v)
	}
	return 0
}

func join(fields [][]byte, places []int) string {
	var parts []string
	for _, i := range places {
		parts = append(parts, string(fields[min(i, len(fields)-1)]))
	}
	return strings.Join(parts, "/")
}

// requestTables are those of published data sets.
func requestTables() []Format {
	return []Format{
		requestTable{
			format: Format{Name: "azure2021", Title: "Azure Functions 2021, invocations"},
			need:   []string{"end_timestamp", "duration", "func"}, time: []string{"end_timestamp"}, unit: time.Second,
			took: []string{"duration"}, tookUnit: time.Second, ended: true, series: []string{"app", "func"},
		}.make(),
		requestTable{
			format: Format{Name: "azurellm", Title: "Azure's LLM inference traces of 2023 and 2024"},
			need:   []string{"timestamp", "contexttokens", "generatedtokens"}, time: []string{"timestamp"},
			in: []string{"contexttokens"}, out: []string{"generatedtokens"},
		}.make(),
		requestTable{
			format: Format{Name: "huawei2025", Title: "Huawei's public cloud trace of 2025, requests"},
			need:   []string{"time_worker", "requestid"}, time: []string{"time_frontend", "time_worker"}, unit: time.Second,
			took: []string{"runtimecost", "totalcost_worker"}, tookUnit: time.Second, ended: true, series: []string{"funcname"},
		}.make(),
		requestTable{
			format: Format{Name: "huawei2025-starts", Title: "Huawei's public cloud trace of 2025, cold starts"},
			need:   []string{"day", "time", "totalcost_cold_start"}, time: []string{"time"}, unit: time.Second, series: []string{"funcname"},
		}.make(),
		requestTable{
			format: Format{Name: "burstgpt", Title: "BurstGPT"},
			need:   []string{"timestamp", "request tokens", "response tokens"}, time: []string{"timestamp"}, unit: time.Second,
			took: []string{"elapsed time"}, tookUnit: time.Second, in: []string{"request tokens"}, out: []string{"response tokens"}, series: []string{"model"},
		}.make(),
		requestTable{
			format: Format{Name: "alibaba-microservices", Title: "Alibaba's microservices traces, calls"},
			need:   []string{"traceid", "timestamp", "rt"}, time: []string{"timestamp"}, unit: time.Millisecond,
			took: []string{"rt"}, tookUnit: time.Millisecond, series: []string{"dm"},
		}.make(),
		requestTable{
			format: Format{Name: "alibaba-genai", Title: "Alibaba's GenAI trace of 2026, requests"},
			need:   []string{"gmt_create", "exec_time_seconds"}, time: []string{"gmt_create"},
			took: []string{"exec_time_seconds"}, tookUnit: time.Second,
		}.make(),
	}
}

func huawei2023() Format {
	return Format{
		Name: "huawei2023", Title: "Huawei's traces of 2023, requests per function",
		recognise: func(h *rows.Head) bool {
			c := h.Columns()
			return len(c) >= 3 && c[0] == "day" && c[1] == "time" && allWhole(c[2:])
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Relative, m.Unit = true, UnitRequests
			m.Note("counts of a bin; what is empty counts as none")
			var t rows.Table
			if err := t.Start(in); err != nil {
				return err
			}
			return in.Each(func(line []byte) string {
				t.Row(line)
				at, ok := rows.Number(t.At(1))
				if !ok || at < 0 || at > 1e9 {
					return "its time is no number of seconds"
				}
				for i := 2; i < len(t.Fields) && i < len(t.Columns); i++ {
					v := 0.0
					if f := t.Fields[i]; len(f) > 0 && !bytes.EqualFold(f, []byte("nan")) {
						if v, ok = rows.Number(f); !ok || v < 0 {
							return "a count of it is no number ≥ 0"
						}
					}
					emit(&Item{At: int64(math.Round(at * 1e9)), Bin: true, Value: v, Series: t.Columns[i]})
				}
				return ""
			})
		},
	}
}

func allWhole(words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { _, ok := rows.Whole([]byte(w)); return !ok })
}

func mooncake() Format {
	return Format{
		Name: "mooncake", Title: "Mooncake's request traces",
		recognise: func(h *rows.Head) bool { return h.Object("timestamp", "input_length", "output_length") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Relative = true
			m.Note("timestamps are in milliseconds")
			return in.Each(func(line []byte) string {
				var r struct {
					Timestamp *float64 `json:"timestamp"`
					In        float64  `json:"input_length"`
					Out       float64  `json:"output_length"`
				}
				if json.Unmarshal(line, &r) != nil || r.Timestamp == nil || math.Abs(*r.Timestamp) > 1e12 {
					return "it is no request with a timestamp"
				}
				emit(&Item{At: int64(math.Round(*r.Timestamp * 1e6)), In: int(min(max(r.In, 0), 1e9)), Out: int(min(max(r.Out, 0), 1e9))})
				return ""
			})
		},
	}
}

// hourInName is the hour that a dump of page views is of: pageviews-20150701-000000.
var hourInName = regexp.MustCompile(`(?:pageviews|pagecounts|projectviews)-(\d{4})(\d{2})(\d{2})-(\d{2})\d{4}`)

func pageviews() Format {
	return Format{
		Name: "wikipedia", Title: "Wikimedia's page views of an hour",
		recognise: func(h *rows.Head) bool { return hourInName.MatchString(h.Name) },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Unit = UnitRequests
			at := int64(0)
			if h := hourInName.FindStringSubmatch(strings.ToLower(in.Name)); h != nil {
				at, _ = rows.ISO([]byte(h[1] + "-" + h[2] + "-" + h[3] + "T" + h[4] + ":00:00"))
			} else {
				m.Note("the file's name tells no hour (pageviews-YYYYMMDD-HH0000): it is laid at 1970-01-01")
			}
			var total float64
			any := false
			err := in.Each(func(line []byte) string {
				fs := bytes.Fields(line)
				if len(fs) < 3 {
					return "it has fewer than 3 fields"
				}
				// Domain, title and views, and bytes in most files; a title has no spaces.
				v, ok := rows.Number(fs[len(fs)-2])
				if len(fs) == 3 {
					v, ok = rows.Number(fs[1])
					if !ok {
						v, ok = rows.Number(fs[2])
					}
				}
				if !ok || v < 0 {
					return "its views are no number"
				}
				if m.Column != "" && string(fs[0]) != m.Column && string(fs[1]) != m.Column {
					return ""
				}
				total, any = total+v, true
				return ""
			})
			if any {
				emit(&Item{At: at, Bin: true, Width: time.Hour, Value: total})
			}
			return err
		},
	}
}

func pageviewsJSON() Format {
	return Format{
		Name: "wikipedia-json", Title: "an answer of Wikimedia's page view API",
		recognise: func(h *rows.Head) bool {
			t := string(h.All[:min(len(h.All), 4096)])
			return strings.Contains(t, `"items"`) && strings.Contains(t, `"views"`) && strings.Contains(t, `"timestamp"`)
		},
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Unit = UnitRequests
			d := json.NewDecoder(in.Reader)
			for {
				t, err := d.Token()
				if err != nil {
					return err
				}
				if t == json.Delim('[') {
					break
				}
			}
			for d.More() {
				var item struct {
					Article     string
					Granularity string
					Timestamp   string
					Views       float64
				}
				if err := d.Decode(&item); err != nil {
					return err
				}
				in.Lines++
				s := item.Timestamp
				if len(s) < 10 || item.Views < 0 {
					in.Skip("its timestamp or views are none")
					continue
				}
				at, ok := rows.ISO([]byte(s[:4] + "-" + s[4:6] + "-" + s[6:8] + "T" + s[8:10] + ":00:00"))
				if !ok {
					in.Skip("its timestamp is none")
					continue
				}
				width := time.Duration(0)
				switch item.Granularity {
				case "hourly":
					width = time.Hour
				case "daily":
					width = 24 * time.Hour
				}
				emit(&Item{At: at, Bin: true, Width: width, Value: item.Views, Series: item.Article})
			}
			return nil
		},
	}
}
