package formats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

// k6Requests makes requests of k6's samples: http_reqs counts them, and the http_req_duration that
// follows says how long each took, and ends at its time.
type k6Requests struct {
	pending bool
	item    Item
	emit    func(*Item)
}

func (k *k6Requests) count(at int64) {
	k.flush()
	k.item, k.pending = Item{At: at}, true
}

func (k *k6Requests) took(at int64, d time.Duration) {
	if !k.pending {
		k.item = Item{At: at}
	}
	k.item.Service = d
	k.item.At -= int64(d)
	k.pending = false
	k.emit(&k.item)
}

func (k *k6Requests) flush() {
	if k.pending {
		k.pending = false
		k.emit(&k.item)
	}
}

const k6Note = "a request is a sample of http_reqs; the http_req_duration behind it ends at its time"

func k6CSV() Format {
	return Format{
		Name: "k6-csv", Title: "k6's results as CSV",
		recognise: func(h *rows.Head) bool { return h.Has("metric_name", "timestamp", "metric_value") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note(k6Note)
			var t rows.Table
			if err := t.Start(in); err != nil {
				return err
			}
			name, stamp, value := t.Find("metric_name"), t.Find("timestamp"), t.Find("metric_value")
			k := k6Requests{emit: emit}
			err := in.Each(func(line []byte) string {
				t.Row(line)
				metric := string(t.At(name))
				if metric != "http_reqs" && metric != "http_req_duration" {
					return ""
				}
				at, relative, ok := rows.Instant(t.At(stamp))
				if !ok {
					return "its timestamp is none"
				}
				m.Relative = relative
				if metric == "http_reqs" {
					k.count(at)
				} else {
					k.took(at, rows.Seconds(t.At(value), time.Millisecond))
				}
				return ""
			})
			k.flush()
			return err
		},
	}
}

func k6JSON() Format {
	return Format{
		Name: "k6-json", Title: "k6's results as JSON",
		recognise: func(h *rows.Head) bool { return h.Object("type", "data", "metric") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Note(k6Note)
			k := k6Requests{emit: emit}
			err := in.Each(func(line []byte) string {
				var s struct {
					Type, Metric string
					Data         struct {
						Time  string
						Value float64
					}
				}
				if json.Unmarshal(line, &s) != nil {
					if bytes.Contains(line, []byte(`"Metric"`)) {
						return ""
					}
					return "it is no JSON object of k6"
				}
				if s.Type != "Point" || s.Metric != "http_reqs" && s.Metric != "http_req_duration" {
					return ""
				}
				at, _, ok := rows.Instant([]byte(s.Data.Time))
				if !ok {
					return "its time is none"
				}
				if s.Metric == "http_reqs" {
					k.count(at)
				} else if d := s.Data.Value * 1e6; d >= 0 && d < 1e17 {
					k.took(at, time.Duration(d))
				}
				return ""
			})
			k.flush()
			return err
		},
	}
}

func vegetaCSV() Format {
	return Format{
		Name: "vegeta-csv", Title: "vegeta's results as CSV",
		recognise: func(h *rows.Head) bool {
			fs := rows.Split([]byte(h.Line(0)), ',', nil)
			if len(fs) < 9 || len(fs[0]) != 19 {
				return false
			}
			_, at := rows.Nanos(fs[0])
			_, code := rows.Whole(fs[1])
			_, latency := rows.Whole(fs[2])
			return at && code && latency
		},
		parse: func(in *rows.Input, _ *Meta, emit func(*Item)) error {
			var fs [][]byte
			return in.Each(func(line []byte) string {
				fs = rows.Split(line, ',', fs[:0])
				if len(fs) < 4 {
					return "it has fewer than 4 fields"
				}
				at, ok := rows.Nanos(fs[0])
				latency, ok2 := rows.Whole(fs[2])
				if !ok || !ok2 {
					return "it does not begin with nanoseconds, code and latency"
				}
				emit(&Item{At: at, Service: time.Duration(min(latency, 1e17))})
				return ""
			})
		},
	}
}

func vegetaJSON() Format {
	l := jsonLog{times: []string{"timestamp"}, durations: []jsonDuration{{"latency", time.Nanosecond, false}}}
	return Format{
		Name: "vegeta-json", Title: "vegeta's results as JSON", parse: l.parse,
		recognise: func(h *rows.Head) bool {
			return h.Object("attack", "latency", "timestamp") || h.Object("seq", "latency", "timestamp")
		},
	}
}

func heyCSV() Format {
	return Format{
		Name: "hey-csv", Title: "hey's results as CSV",
		recognise: func(h *rows.Head) bool { return h.Has("response-time", "offset") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Relative = true
			var t rows.Table
			if err := t.Start(in); err != nil {
				return err
			}
			took, offset := t.Find("response-time"), t.Find("offset")
			return in.Each(func(line []byte) string {
				t.Row(line)
				at, ok := rows.Number(t.At(offset))
				if !ok || math.Abs(at) > 1e9 {
					return "its offset is no number"
				}
				emit(&Item{At: int64(math.Round(at * 1e9)), Service: rows.Seconds(t.At(took), time.Second)})
				return ""
			})
		},
	}
}

func locust() Format {
	return Format{
		Name: "locust", Title: "locust's stats history",
		recognise: func(h *rows.Head) bool { return h.Has("timestamp", "user count", "total request count") },
		parse: func(in *rows.Input, m *Meta, emit func(*Item)) error {
			m.Unit = UnitRequests
			m.Note("requests are the rises of the total of all names (Aggregated)")
			var t rows.Table
			if err := t.Start(in); err != nil {
				return err
			}
			stamp, name, total := t.Find("timestamp"), t.Find("name"), t.Find("total request count")
			last := 0.0
			return in.Each(func(line []byte) string {
				t.Row(line)
				if n := string(t.At(name)); n != "Aggregated" && n != "Total" {
					return ""
				}
				at, _, ok := rows.Instant(t.At(stamp))
				v, ok2 := rows.Number(t.At(total))
				if !ok || !ok2 || v < 0 {
					return "its timestamp or total is none"
				}
				rise := v - last
				if rise < 0 { // the statistics were reset
					rise = v
				}
				last = v
				emit(&Item{At: at, Bin: true, Value: rise})
				return ""
			})
		},
	}
}

// hdrLatencies is a percentile distribution as wrk2 and HdrHistogram print it. It knows no
// arrivals: a constant rate, of which wrk2 says how many requests in which time.
func hdrLatencies() Format {
	return Format{
		Name: "hdrhistogram", Title: "a distribution of latencies by wrk2 or HdrHistogram",
		recognise: func(h *rows.Head) bool {
			text := string(h.All)
			return strings.Contains(text, "Percentile") && strings.Contains(text, "TotalCount") && strings.Contains(text, "1/(1-Percentile)")
		},
		parse: parseHDR,
	}
}

// mostLatencies bounds the requests of a distribution, each of which is made.
const mostLatencies = 50_000_000

func parseHDR(in *rows.Input, m *Meta, emit func(*Item)) error {
	m.Relative = true
	type step struct {
		value float64
		count int64
	}
	var steps []step
	var requests, length float64
	unit := time.Millisecond
	err := in.Each(func(line []byte) string {
		fs := bytes.Fields(line)
		if i := bytes.Index(line, []byte(" requests in ")); i > 0 {
			n, ok := rows.Number(line[:i])
			rest, _, _ := bytes.Cut(line[i+len(" requests in "):], []byte{','})
			d, err := time.ParseDuration(strings.TrimSpace(string(rest)))
			if ok && err == nil && d > 0 {
				requests, length = n, d.Seconds()
			}
			return ""
		}
		if len(fs) < 3 || fs[0][0] == '#' {
			return ""
		}
		v, ok := rows.Number(fs[0])
		share, ok2 := rows.Number(fs[1])
		count, ok3 := rows.Whole(fs[2])
		if ok && ok2 && ok3 && share >= 0 && share <= 1 && v >= 0 && len(steps) < 1e6 {
			steps = append(steps, step{v, count})
		}
		return ""
	})
	if err != nil || len(steps) == 0 {
		return err
	}
	total := steps[len(steps)-1].count
	if length == 0 {
		length = 1
		m.Note("it has no arrivals: all are laid into one second. Take its times by --service empirical:@FILE of sluice bench import --service-times")
	} else {
		m.Note("it has no arrivals: %v requests at a constant rate for %v", requests, time.Duration(length*1e9))
	}
	if total <= 0 || total > mostLatencies {
		return fmt.Errorf("its total is %d requests: want 1–%d", total, int64(mostLatencies))
	}
	m.Note("latencies are in milliseconds; each is that of its percentile, in an order without meaning")
	n := int64(requests)
	if n <= 0 {
		n = total
	}
	if n > mostLatencies {
		return fmt.Errorf("it has %d requests: want at most %d", n, int64(mostLatencies))
	}
	for i := range n {
		// a permutation: neighbours are far apart in the distribution
		place := (i * 7919) % n
		if n%7919 == 0 {
			place = i
		}
		wanted := place * total / n
		lo, hi := 0, len(steps)-1
		for lo < hi {
			if mid := (lo + hi) / 2; steps[mid].count > wanted {
				hi = mid
			} else {
				lo = mid + 1
			}
		}
		d := steps[lo].value * float64(unit)
		if d > 1e17 {
			d = 0
		}
		emit(&Item{At: int64(float64(i) * length * 1e9 / float64(n)), Service: time.Duration(d)})
	}
	return nil
}
