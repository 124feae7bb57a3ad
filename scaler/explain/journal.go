package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// writeJournal writes entries, newest first, until left is 0: the latest, those that changed
// something or could not be carried out, and with Options.All the others.
func writeJournal(b *lines, journal []scaler.Entry, left *int, o Options) {
	for i := range slices.Backward(journal) {
		e := &journal[i]
		if *left == 0 {
			return
		}
		if r := &e.Record; r.From != r.To || r.Fault != "" || o.All || i == len(journal)-1 {
			writeEntry(b, e, o.Terms)
			*left--
		}
	}
}

// writeEntry writes what was decided, each rule that changed it, and what was seen.
func writeEntry(b *lines, e *scaler.Entry, terms bool) {
	r := &e.Record
	round := fmt.Sprintf("%s  %s  %s: %s", clock(r.At), deed(r), r.Reason, r.Message)
	if r.Waiting != "" {
		round += "; " + r.Waiting
	}
	if e.Rounds > 1 {
		round += fmt.Sprintf(" (%d rounds since %s)", e.Rounds, clock(e.Since))
	}
	b.add("%s", round)
	if r.Fault != "" {
		b.add("    not carried out: %s", r.Fault)
	}
	for _, c := range r.Clamps {
		from := "no answer"
		if c.From >= 0 {
			from = fmt.Sprint(c.From)
		}
		b.add("    rule %s: %s → %d", c.Rule, from, c.To)
	}
	b.add("    seen: %s", strings.Join(append(signals(r.Signals), pods(r)), ", "))
	if terms {
		for _, t := range r.Terms {
			b.add("    %s = %.6g", t.Name, t.Value)
		}
	}
}

// deed is what became of a decision.
func deed(r *loop.Record) string {
	switch {
	case r.From == r.To:
		return fmt.Sprintf("kept %d", r.From)
	case r.Applied:
		return fmt.Sprintf("scaled %d → %d", r.From, r.To)
	case r.Mode == loop.ModeDryRun:
		return fmt.Sprintf("would scale %d → %d", r.From, r.To)
	}
	return fmt.Sprintf("could not scale %d → %d", r.From, r.To)
}

// signals are what was read, with the ages and shares that are worth a word.
func signals(all []algorithms.Signal) []string {
	var out []string
	for i := range all {
		s := &all[i]
		text := s.Name
		if s.Window != algorithms.Instant {
			text += " over " + s.Window.String()
		}
		var notes []string
		if s.Age > 0 {
			notes = append(notes, s.Age.Round(100*time.Millisecond).String()+" old")
		}
		if s.Coverage < 1 {
			notes = append(notes, fmt.Sprintf("%.0f %% known", 100*s.Coverage))
		}
		if s.Known {
			text += fmt.Sprintf(" %.4g", s.Value)
		} else {
			text += " unknown"
			if s.Missing != "" {
				notes = append(notes, s.Missing)
			}
		}
		if len(notes) > 0 {
			text += " (" + strings.Join(notes, ", ") + ")"
		}
		out = append(out, text)
	}
	return out
}

// pods are the instances by state.
func pods(r *loop.Record) string {
	text := fmt.Sprintf("%d ready", r.Replicas.Ready)
	if n := r.Replicas.Starting; n > 0 {
		text += fmt.Sprintf(", %d starting", n)
	}
	if n := r.Replicas.Terminating; n > 0 {
		text += fmt.Sprintf(", %d terminating", n)
	}
	return text
}
