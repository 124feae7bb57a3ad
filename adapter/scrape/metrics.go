package scrape

import (
	"github.com/prometheus/client_golang/prometheus"
)

type instruments struct {
	reads    *prometheus.CounterVec
	duration prometheus.Histogram
	reports  *prometheus.CounterVec
	// presetReads are labelled by presets of the file, which are few, and not by pods.
	presetReads *prometheus.CounterVec
}

func newInstruments() instruments {
	return instruments{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_reads_total", Help: "Reads of pods' sidecars by result: ok, or what went wrong.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_adapter_read_duration_seconds", Help: "Duration of reads of pods, failed ones included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		presetReads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_preset_reads_total", Help: "Reads of pods by presets, by preset and result: ok, or what went wrong.",
		}, []string{"preset", "result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_adapter_gateway_reports_total", Help: "Reports received from gateways by result: ok, or what went wrong with a stream.",
		}, []string{"result"}),
	}
}

// register makes the scraper's metrics known.
func (s *Scraper) register(r prometheus.Registerer) error {
	gauge := func(name, help string, v func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(v()) })
	}
	for _, m := range []prometheus.Collector{
		s.metrics.reads, s.metrics.duration, s.metrics.reports, s.metrics.presetReads,
		gauge("sluice_adapter_pods", "Pods known.", func() int { n, _ := s.Store.Size(); return n }),
		gauge("sluice_adapter_sources", "Pods and gateways of which readings are kept, recently deleted ones included.",
			func() int { _, n := s.Store.Size(); return n }),
		gauge("sluice_adapter_targets", "Pods that are being read.", func() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.targets) + len(s.endpoints) }),
	} {
		if err := r.Register(m); err != nil {
			return err
		}
	}
	return nil
}
