// Package page writes the results of a bench as one HTML page that loads nothing else.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's parts
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/text"
)

//go:embed assets/page.html
var pageTemplate string

//go:embed assets/page.css
var pageStyle string

//go:embed assets/page.js
var pageScript string

//go:embed assets/uplot.min.js
var plotScript string

//go:embed assets/uplot.min.css
var plotStyle string

//go:embed assets/uplot.LICENSE
var plotLicense string

// Options bound what is embedded into a page. The zero value means the defaults.
type Options struct {
	// MaxRuns is how many runs' series are embedded, about 40 kB each. More make a page that is
	// slower to load; fewer leave out more, which a note then tells. All runs of a trace, scenario
	// and seed go in together, first seeds first. 0 means 160, and a negative number none.
	MaxRuns int
	// MaxPoints is how many points a series keeps at most, ≥ 2; 0 means 1500.
	MaxPoints int
	// MaxChanges is how many of a run's last decisions are kept; 0 means 300, or fewer if there are
	// many runs: 16,000 in all, and 50 at least.
	MaxChanges int
	// Hint is the sentence that tells how to get what was left out. Empty means one that names
	// `sluice bench report --runs N DIR`.
	Hint string
}

func (o Options) filled() Options {
	if o.MaxRuns == 0 {
		o.MaxRuns = 160
	}
	if o.MaxPoints < 2 {
		o.MaxPoints = 1500
	}
	if o.Hint == "" {
		o.Hint = "`sluice bench report --runs N DIR` embeds the series of up to N runs; raw/ holds all of them."
	}
	return o
}

// pageData is what the page's script reads. Traces, scenarios and policies are given by their place
// in the lists, and series by their place in Arrays, as runs share many: those of one trace and
// seed have the same arrivals.
type pageData struct {
	Baseline  string   `json:"baseline"`
	Policies  []string `json:"policies"`
	Traces    []string `json:"traces"`
	Scenarios []string `json:"scenarios"`
	// Promises are the scenarios' SLOs: the longest wait in seconds and the share that may break
	// it; 0 is unknown.
	Promises [][2]float64      `json:"promises"`
	Metrics  []pageMetric      `json:"metrics"`
	Rows     []pageRow         `json:"rows"`
	Overall  []pageOverall     `json:"overall"`
	Fronts   []pageFront       `json:"fronts"`
	Runs     []pageRun         `json:"runs"`
	Arrays   []json.RawMessage `json:"arrays"`
}

type pageMetric struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
}

// pageInterval is mean, low, high and the count.
type pageInterval [4]float64

type pageRow struct {
	T        int                     `json:"t"`
	S        int                     `json:"s"`
	P        int                     `json:"p"`
	Seeds    int                     `json:"seeds"`
	Requests int64                   `json:"requests"`
	Mean     map[string]pageInterval `json:"mean"`
	Ratio    map[string]pageInterval `json:"ratio"`
	Delta    map[string]pageInterval `json:"delta"`
}

type pageOverall struct {
	S          int                     `json:"s"`
	P          int                     `json:"p"`
	Traces     int                     `json:"traces"`
	Ratio      map[string]pageInterval `json:"ratio"`
	Mean       map[string]float64      `json:"mean"`
	Worst      float64                 `json:"worst"`
	WorstTrace int                     `json:"worstTrace"`
}

type pageFront struct {
	T int   `json:"t"`
	S int   `json:"s"`
	P []int `json:"p"`
}

type pageRun struct {
	T    int    `json:"t"`
	S    int    `json:"s"`
	P    int    `json:"p"`
	Seed string `json:"seed"` // a script's numbers cannot hold all seeds
	// Step is in seconds; Per is how many of the run's own steps are in one.
	Step float64 `json:"step"`
	Per  int     `json:"per"`
	// The rest are places in Arrays.
	Arrivals   int          `json:"a"`
	Demand     int          `json:"d"`
	Waiting    int          `json:"q"`
	Wanted     int          `json:"w"`
	Ready      int          `json:"r"`
	Starting   int          `json:"st"`
	ColdStarts int          `json:"c"`
	Violations int          `json:"v"`
	WaitMax    int          `json:"m"`
	CCDF       [2][]float64 `json:"ccdf"`
	// Changes are [t, from, to, reason, message]; ChangesAll is how many the run had.
	Changes    [][5]any `json:"changes"`
	ChangesAll int64    `json:"changesAll"`
}

type fact struct{ Name, Value, Full string }

// HTML writes the report as one page that needs nothing else: no network, no other file. The same
// input makes the same bytes. Raw records that are missing or broken are named in a note on the
// page.
func HTML(w io.Writer, s summary.Summary, src summary.Source, o Options) error {
	o = o.filled()
	data, notes := collect(s, src, o)
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("embed the data: %w", err)
	}
	page, err := template.New("page").Funcs(template.FuncMap{"code": code}).Parse(pageTemplate)
	if err != nil {
		return fmt.Errorf("parse the page: %w", err)
	}
	script := joinScripts()
	sum := sha256.Sum256([]byte(script))
	var scenarios []string
	for _, raw := range s.Scenarios {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("scenario: %w", err)
		}
		scenarios = append(scenarios, b.String())
	}
	return page.Execute(w, struct {
		Title, Command, ScriptHash string
		Facts                      []fact
		Scenarios, Notes           []string
		Empty                      bool
		Data, Script               template.JS
		Style                      template.CSS
	}{
		Title:      fmt.Sprintf("%s on %s", many(data.Policies, "policy", "policies"), many(data.Traces, "trace", "traces")),
		Command:    commandLine(s.Command),
		ScriptHash: "sha256-" + base64.StdEncoding.EncodeToString(sum[:]),
		Facts:      facts(s, data),
		Scenarios:  scenarios,
		Notes:      append(slices.Clone(s.Notes), notes...),
		Empty:      len(s.Results) == 0,
		Data:       template.JS(text),                          //nolint:gosec // Marshal escapes <, > and &
		Script:     template.JS(script),                        //nolint:gosec // embedded above
		Style:      template.CSS(plotStyle + "\n" + pageStyle), //nolint:gosec // embedded above
	})
}

// joinScripts puts the library's licence before it in place of its banner, which has an address
// that is of no use here.
func joinScripts() string {
	_, body, _ := strings.Cut(plotScript, "*/\n")
	return "/*! uPlot 1.6.32\n" + strings.TrimSpace(plotLicense) + "\n*/\n" + strings.TrimSpace(body) + "\n" + pageScript
}

// many is a single name itself, or how many there are.
func many(names []string, one, more string) string {
	if len(names) == 1 && names[0] != "" {
		return names[0]
	}
	if len(names) == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", len(names), more)
}

// commandLine joins a command's words, in single quotes where a shell needs them.
func commandLine(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$`&|;<>()*?[]#~!{}") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

// code marks what a sentence has between back quotes.
func code(s string) template.HTML {
	var b strings.Builder
	parts := strings.Split(s, "`")
	for i, part := range parts {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 && i < len(parts)-1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

func facts(s summary.Summary, d pageData) []fact {
	var out []fact
	add := func(name, value, full string) {
		if value != "" {
			out = append(out, fact{name, value, full})
		}
	}
	names := func(title string, list []string) {
		full := strings.Join(list, ", ")
		value := full
		if len(list) > 4 || len(full) > 80 {
			value = strconv.Itoa(len(list))
		}
		add(title, value, full)
	}
	names("policies", d.Policies)
	names("traces", d.Traces)
	names("scenarios", d.Scenarios)
	seeds := summary.Distinct(s.Results, func(r score.Result) string { return strconv.FormatUint(r.Seed, 10) })
	names("seeds", seeds)
	if len(s.Results) > 0 {
		var requests, length float64
		for _, r := range s.Results {
			requests += float64(r.Requests)
			length += r.Length
		}
		add("runs", strconv.Itoa(len(s.Results)), "")
		add("requests in all", text.Count(requests), "")
		add("time simulated", text.Duration(length), "")
	}
	add("ratios are to", s.Baseline, "")
	add("Sluice", s.Sluice, "")
	commit := s.Commit
	if len(commit) > 12 {
		commit = commit[:12]
	}
	add("commit", commit, s.Commit)
	return out
}

// collect gathers what the script needs, and notes on what is not there.
func collect(s summary.Summary, src summary.Source, o Options) (pageData, []string) {
	d := pageData{
		Policies:  summary.Policies(s.Results),
		Traces:    summary.Distinct(s.Results, func(r score.Result) string { return r.Trace }),
		Scenarios: summary.Distinct(s.Results, func(r score.Result) string { return r.Scenario }),
		Rows:      []pageRow{}, Overall: []pageOverall{}, Fronts: []pageFront{}, Runs: []pageRun{}, Arrays: []json.RawMessage{},
	}
	if slices.Contains(d.Policies, s.Baseline) {
		d.Baseline = s.Baseline
	}
	for _, name := range d.Scenarios {
		d.Promises = append(d.Promises, promise(s.Scenarios, name))
	}
	for _, m := range summary.Metrics() {
		d.Metrics = append(d.Metrics, pageMetric{m.Name, m.Title, m.Unit})
	}
	at := place{summary.Places(d.Policies), summary.Places(d.Traces), summary.Places(d.Scenarios)}
	d.collectTables(s, at)
	return d, d.collectRuns(s, src, o, at)
}

// place finds policies, traces and scenarios in the page's lists.
type place struct{ policy, trace, scenario map[string]int }

// known reports whether the lists have all three.
func (p place) known(policy, trace, scenario string) bool {
	_, a := p.policy[policy]
	_, b := p.trace[trace]
	_, c := p.scenario[scenario]
	return a && b && c
}

// collectTables takes what the tables show.
func (d *pageData) collectTables(s summary.Summary, at place) {
	for _, r := range s.Comparison {
		if at.known(r.Policy, r.Trace, r.Scenario) {
			d.Rows = append(d.Rows, pageRow{
				T: at.trace[r.Trace], S: at.scenario[r.Scenario], P: at.policy[r.Policy], Seeds: r.Seeds, Requests: r.Requests,
				Mean: intervals(r.Mean), Ratio: intervals(r.Ratio), Delta: intervals(r.Delta),
			})
		}
	}
	for _, v := range s.Overall {
		if at.known(v.Policy, v.WorstTrace, v.Scenario) {
			d.Overall = append(d.Overall, pageOverall{
				S: at.scenario[v.Scenario], P: at.policy[v.Policy], Traces: v.Traces,
				Ratio: intervals(v.Ratio), Mean: v.Mean, Worst: v.Worst, WorstTrace: at.trace[v.WorstTrace],
			})
		}
	}
	for _, f := range s.Pareto {
		x := pageFront{T: at.trace[f.Trace], S: at.scenario[f.Scenario], P: []int{}}
		for _, name := range f.Policies {
			x.P = append(x.P, at.policy[name])
		}
		d.Fronts = append(d.Fronts, x)
	}
}

// collectRuns takes the series of as many runs as the options allow. It returns notes of what is
// not there.
func (d *pageData) collectRuns(s summary.Summary, src summary.Source, o Options, at place) []string {
	chosen := choose(s.Results, o.MaxRuns)
	if o.MaxChanges <= 0 {
		o.MaxChanges = min(max(16_000/max(len(chosen), 1), 50), 300)
	}
	arrays := map[string]int{}
	missing := 0
	var broken error
	for _, i := range chosen {
		run, err := src.Run(i)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
			continue
		case err != nil:
			broken = errors.Join(broken, err)
			continue
		}
		r := s.Results[i]
		x := pageRun{
			T: at.trace[r.Trace], S: at.scenario[r.Scenario], P: at.policy[r.Policy], Seed: strconv.FormatUint(r.Seed, 10),
			CCDF: ccdf(run.Waits), ChangesAll: max(r.Changes, int64(len(run.Decisions))), Changes: [][5]any{},
		}
		x.embed(run.Series, o.MaxPoints, func(values []float64) int {
			raw := compact(values)
			n, ok := arrays[raw]
			if !ok {
				n = len(d.Arrays)
				arrays[raw] = n
				d.Arrays = append(d.Arrays, json.RawMessage(raw))
			}
			return n
		})
		for _, ch := range run.Decisions[max(0, len(run.Decisions)-o.MaxChanges):] {
			if !math.IsNaN(ch.T) && !math.IsInf(ch.T, 0) {
				x.Changes = append(x.Changes, [5]any{ch.T, ch.From, ch.To, ch.Reason, ch.Message})
			}
		}
		d.Runs = append(d.Runs, x)
	}
	var notes []string
	if missing > 0 {
		notes = append(notes, fmt.Sprintf("%s of %d are missing under raw/: their charts are too.", text.Plural(missing, "raw record"), len(s.Results)))
	}
	if broken != nil {
		first, _, more := strings.Cut(broken.Error(), "\n")
		if more {
			first += ", and others"
		}
		notes = append(notes, "Raw records cannot be read, so their charts are missing: "+first)
	}
	if n := len(s.Results) - len(chosen); n > 0 {
		notes = append(notes, fmt.Sprintf("The charts over time and of waits have %s of %d; the tables count all. Left out: %s. %s", text.Plural(len(chosen), "run"), len(s.Results), left(s.Results, chosen), o.Hint))
	}
	return notes
}

// promise finds the SLO of a scenario: its longest wait in seconds, and the share of requests that
// may break it. What is not there or not as the simulator writes it is 0, and is not drawn.
func promise(scenarios []json.RawMessage, name string) [2]float64 {
	for _, raw := range scenarios {
		var s struct {
			Name string `json:"name"`
			SLO  struct {
				Wait  string  `json:"wait"`
				Share float64 `json:"share"`
			} `json:"slo"`
		}
		if err := json.Unmarshal(raw, &s); err != nil || s.Name != name {
			continue
		}
		wait, err := time.ParseDuration(s.SLO.Wait)
		if err != nil || wait < 0 {
			wait = 0
		}
		return [2]float64{wait.Seconds(), min(max(s.SLO.Share, 0), 1)}
	}
	return [2]float64{}
}

func intervals(m map[string]score.Interval) map[string]pageInterval {
	out := make(map[string]pageInterval, len(m))
	for k, i := range m {
		out[k] = pageInterval{i.Mean, i.Low, i.High, float64(i.N)}
	}
	return out
}

// choose picks the runs whose series are embedded: group by group of a trace, scenario and seed, so
// that policies can be compared, the first seeds of all traces before the second ones of any. It
// returns their places, in the order of the results.
func choose(results []score.Result, limit int) []int {
	type cell struct{ scenario, trace string }
	type group struct {
		cell
		seed uint64
	}
	members := map[group][]int{}
	turn := map[group]int{}
	seeds := map[cell]int{}
	var order []group
	for i, r := range results {
		g := group{cell{r.Scenario, r.Trace}, r.Seed}
		if members[g] == nil {
			order = append(order, g)
			turn[g] = seeds[g.cell]
			seeds[g.cell]++
		}
		members[g] = append(members[g], i)
	}
	slices.SortStableFunc(order, func(a, b group) int { return turn[a] - turn[b] })
	var out []int
	for _, g := range order {
		room := limit - len(out)
		if room <= 0 {
			break
		}
		out = append(out, members[g][:min(room, len(members[g]))]...)
	}
	slices.Sort(out)
	return out
}

// left says in a few words which runs were not chosen.
func left(results []score.Result, chosen []int) string {
	in := map[int]bool{}
	for _, i := range chosen {
		in[i] = true
	}
	var out []score.Result
	for i, r := range results {
		if !in[i] {
			out = append(out, r)
		}
	}
	cells := summary.Distinct(out, func(r score.Result) string {
		return text.Heading(r.Trace, r.Scenario) + ", seed " + strconv.FormatUint(r.Seed, 10)
	})
	const most = 6
	if len(cells) > most {
		return strings.Join(cells[:most], "; ") + fmt.Sprintf("; and %d more", len(cells)-most)
	}
	return strings.Join(cells, "; ")
}

// embed brings the series to at most so many points. Means stay means over the longer steps, counts
// are added up, and of the longest waits the longest is kept.
func (x *pageRun) embed(s score.Series, points int, array func([]float64) int) {
	n := len(s.Arrivals)
	x.Per = max(1, (n+points-1)/points)
	x.Step = s.Step * float64(x.Per)
	if !(x.Step > 0) || math.IsInf(x.Step, 0) {
		x.Step = 1
	}
	for _, f := range []struct {
		to     *int
		values []float32
		how    func([]float32) float64
	}{
		{&x.Arrivals, s.Arrivals, score.MeanOf},
		{&x.Demand, s.Demand, score.MeanOf},
		{&x.Waiting, s.Waiting, score.MeanOf},
		{&x.Wanted, s.Wanted, score.MeanOf},
		{&x.Ready, s.Ready, score.MeanOf},
		{&x.Starting, s.Starting, score.MeanOf},
		{&x.ColdStarts, s.ColdStarts, score.SumOf},
		{&x.Violations, s.Violations, score.SumOf},
		{&x.WaitMax, s.WaitMax, func(v []float32) float64 { return score.PeakOf(v) }},
	} {
		*f.to = array(score.Shrink(f.values, x.Per, f.how))
	}
}

// compact writes values as a JSON array with four significant digits, and what is not finite as
// null.
func compact(values []float64) string {
	b := make([]byte, 0, 5*len(values)+2)
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		switch a := math.Abs(v); {
		case math.IsNaN(v) || math.IsInf(v, 0):
			b = append(b, "null"...)
		case v == 0:
			b = append(b, '0')
		case a < 1e-4 || a >= 1e9:
			b = strconv.AppendFloat(b, v, 'e', 3, 64)
		default:
			// Adding places only where they count keeps small and large numbers short.
			places := max(0, 3-int(math.Floor(math.Log10(a))))
			b = strconv.AppendFloat(b, v, 'f', places, 64)
			if places > 0 {
				b = bytes.TrimRight(b, "0")
				b = bytes.TrimSuffix(b, []byte{'.'})
			}
		}
	}
	return string(append(b, ']'))
}

// ccdf are bounds and the share of values above each, at most 240 of them.
func ccdf(buckets []score.Bucket) [2][]float64 {
	out := [2][]float64{{}, {}}
	total := 0.0
	for _, b := range buckets {
		total += float64(b.Count)
	}
	if total <= 0 {
		return out
	}
	const most = 240
	every := max(1, (len(buckets)+most-1)/most)
	below := 0.0
	for i, b := range buckets {
		below += float64(b.Count)
		last := i == len(buckets)-1
		if (i%every != 0 && !last) || math.IsNaN(b.Upper) || math.IsInf(b.Upper, 0) {
			continue
		}
		share := max(0, 1-below/total)
		if share < 1e-12 || last {
			share = 0
		}
		out[0], out[1] = append(out[0], b.Upper), append(out[1], share)
	}
	return out
}
