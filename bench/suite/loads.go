// Package suite is the standard contest of policies. It takes every shared trace that suits, in
// four scenarios from 100 ms to a minute of start-up. The policy that is judged has one
// configuration. Its rivals are the classics with their defaults, the classics tuned to each trace
// with hindsight, and the cost of a schedule that knows the future.
package suite

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/sim"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Load is a part of a trace that is simulated, and what comes before it, which policies that learn
// are taught. It is a value.
type Load struct {
	// File and Column name the trace.
	File, Column string
	// Zeros says what empty bins are, by the traces' own README.
	Zeros recording.Zeros
	// Last is how much of the trace's end is simulated, 0 for all of it. History is how much before
	// that is taught.
	Last, History time.Duration
	// Join is how many bins are joined into one where instants are coarser than bins; 0 is 1.
	Join int
	// Sparse loads are taken as they are: the question is the last pod. Others are scaled to the
	// scenario's peak replicas.
	Sparse bool
}

const (
	day     = 24 * time.Hour
	history = 14 * day
	// leastCount is how many requests bins must hold on average to be scaled up: chance is then
	// below a fifth of it.
	leastCount = 30
)

// Dense are the loads that keep several pods busy: every trace with one column that is not sparse.
// Of those with bins of a minute and more the last twelve hours are simulated and two weeks before
// are taught; those with bins of a second are simulated whole, after nothing.
func Dense() []Load {
	long := func(file string, zeros recording.Zeros) Load {
		return Load{File: file, Zeros: zeros, Last: day / 2, History: history}
	}
	return []Load{
		long("nasa_jul95.csv", recording.ZerosInterpolate),
		long("twitter_aug21_a.csv", recording.ZerosInterpolate),
		long("wc98_may_jun.csv", recording.ZerosIdle),
		long("nab_elb_requests.csv", recording.ZerosIdle),
		long("nab_tweets_aapl.csv", recording.ZerosIdle),
		long("servegen_m_large.csv", recording.ZerosIdle),
		long("servegen_m_mid.csv", recording.ZerosInterpolate),
		long("servegen_m_small.csv", recording.ZerosInterpolate),
		{File: "servegen_mm_image.csv", Last: day / 2, History: history},
		long("appserver_hourly_2015_16.csv", recording.ZerosIdle),
		long("wikipedia_hourly_a.csv", recording.ZerosInterpolate),
		long("wikipedia_hourly_b.csv", recording.ZerosInterpolate),
		{File: "nasa_jul13_1s.csv", Zeros: recording.ZerosIdle},
		{File: "twitter_aug21_1s.csv", Zeros: recording.ZerosInterpolate},
		{File: "twitter_aug21_1s_b.csv", Zeros: recording.ZerosInterpolate},
		{File: "azure_llm_2023_code.csv"},
		{File: "mooncake_conversation.csv", Join: 3}, // its instants are quantised to 3 s
	}
}

// Sparse are the loads that leave a pod idle most of the time, as they are: the last two days of
// two traces, and of the wide ones every sixth column, without a look at what is in it.
func Sparse(dir fs.FS) ([]Load, error) {
	loads := []Load{
		{File: "alibaba_genai_sd_a.csv", Last: 2 * day, History: history, Sparse: true},
		{File: "nab_tweets_ups.csv", Last: 2 * day, History: history, Sparse: true},
	}
	for _, w := range []struct {
		file string
		last time.Duration
	}{{"azure2019_apps60.csv", 0}, {"servegen_m_large_clients.csv", 2 * day}} {
		f, err := dir.Open(w.file)
		if err != nil {
			return nil, err
		}
		columns, err := recording.Columns(f, w.file)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		for i := 0; i < len(columns); i += 6 {
			l := Load{File: w.file, Column: columns[i], Last: w.last, Sparse: true}
			if w.last > 0 {
				l.History = history
			}
			loads = append(loads, l)
		}
	}
	return loads, nil
}

// open reads the load for a scenario: the part that is simulated, and the past as samples of
// concurrency and rate. The scenario gets the replicas that it begins with.
func (l *Load) open(dir fs.FS, s *scenario.Scenario) (scored *trace.Trace, past []algorithms.Sample, err error) {
	f, err := dir.Open(l.File)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	opts := recording.Options{Column: l.Column, Zeros: l.Zeros, Service: s.Service.Mean()}
	if l.File == "azure2019_apps60.csv" { // containers busy: concurrency under names of apps
		opts.Kind = recording.KindConcurrency
	}
	whole, err := recording.Read(f, l.File, opts)
	if err != nil {
		return nil, nil, err
	}
	if l.Join > 1 {
		if whole, err = whole.Coarsen(l.Join); err != nil {
			return nil, nil, err
		}
	}
	from := time.Duration(0)
	if l.Last > 0 && l.Last < whole.Length() {
		from = (whole.Length() - l.Last).Truncate(whole.Width())
	}
	scored, err = whole.Slice(from, whole.Length())
	if err != nil {
		return nil, nil, err
	}
	factor := 1.0
	if !l.Sparse && s.PeakReplicas > 0 {
		// A bin's count is its rate and chance. Multiplying a small count would multiply the
		// chance, as no larger workload has it: before a trace is scaled up, bins are joined until
		// they hold enough.
		up := func() float64 {
			return s.PeakReplicas * float64(s.PodConcurrency) / s.Service.Mean().Seconds() / scored.PeakRate()
		}
		if mean := scored.Requests() / float64(scored.Len()); up() > 1 && mean < leastCount {
			k := int(math.Ceil(leastCount / mean))
			if scored, err = scored.Coarsen(k); err != nil {
				return nil, nil, err
			}
			if whole, err = whole.Coarsen(k); err != nil {
				return nil, nil, err
			}
		}
		factor = up()
		if scored, err = scored.Scale(factor); err != nil {
			return nil, nil, err
		}
	}
	for i := range whole.Len() {
		b := whole.Bin(i)
		end := b.Start + b.Width
		if end > from || from-b.Start > l.History {
			continue
		}
		rate := b.Requests * factor / b.Width.Seconds()
		at := sim.Epoch().Add(end - from)
		past = append(past,
			algorithms.Sample{At: at, Signal: algorithms.Concurrency, Value: rate * s.Service.Mean().Seconds()},
			algorithms.Sample{At: at, Signal: algorithms.Rate, Value: rate})
	}
	// The workload was there before: it begins with what its first bin needs.
	if !l.Sparse {
		busy := scored.Bin(0).Requests / scored.Width().Seconds() * s.Service.Mean().Seconds()
		s.InitialReplicas = min(max(1, int(math.Ceil(busy/s.PerPod()))), s.MaxReplicas)
	}
	return scored, past, nil
}

// name is what errors call the load.
func (l *Load) name() string {
	if l.Column == "" {
		return l.File
	}
	return fmt.Sprintf("%s#%s", l.File, l.Column)
}

// Name is what results call the load.
func (l *Load) Name() string {
	base := strings.TrimSuffix(l.File, ".csv")
	if l.Column == "" {
		return base
	}
	return base + "." + l.Column
}
