package signal

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// naive keeps every sample and integrates step by step.
type naive struct {
	at    []time.Time
	value []float64
	// gap says that the time before a sample is not known.
	gap    []bool
	broken bool
}

func (n *naive) add(at time.Time, v float64) {
	n.at, n.value, n.gap, n.broken = append(n.at, at), append(n.value, v), append(n.gap, n.broken || len(n.at) == 0), false
}

func (n *naive) over(width time.Duration) (mean, coverage float64) {
	if len(n.at) == 0 {
		return 0, 0
	}
	end := n.at[len(n.at)-1]
	sum, covered := 0.0, 0.0
	for i := 1; i < len(n.at); i++ {
		if n.gap[i] {
			continue
		}
		from, to := n.at[i-1], n.at[i]
		if lo := end.Add(-width); from.Before(lo) {
			from = lo
		}
		if d := to.Sub(from).Seconds(); d > 0 {
			sum += d * n.value[i]
			covered += d
		}
	}
	if covered == 0 {
		return 0, 0
	}
	return sum / covered, covered / width.Seconds()
}

// Means and coverage over any window are those of every sample kept, with gaps where nothing was
// known, and a queue that emptied is exactly empty however full it was.
func TestTrackIsNaive(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		var tr track
		var n naive
		at := time.Unix(1_800_000_000, 0)
		for gaps := 0; len(n.at) < 30; {
			switch {
			case random.IntN(8) == 0 && gaps < 6 && len(n.at) > 0:
				gaps++
				tr.gap()
				n.broken = true
			default:
				v := math.Floor(random.ExpFloat64() * 100)
				if random.IntN(4) == 0 {
					v = 0
				}
				at = at.Add(time.Duration(1+random.IntN(30)) * time.Second)
				tr.add(at, v)
				n.add(at, v)
			}
		}
		for _, width := range []time.Duration{time.Second, 6 * time.Second, 20 * time.Second, time.Minute} {
			got, covered := tr.over(width)
			want, share := n.over(width)
			if math.Abs(got-want) > 1e-6*(1+want) || math.Abs(covered-share) > 1e-6 {
				t.Fatalf("over %v it is %v known to %v, want %v known to %v (seed %d)", width, got, covered, want, share, seed)
			}
		}
	}
	var tr track
	at := time.Unix(1_800_000_000, 0)
	for _, v := range []float64{1e15, 1e15, 0.25, 0.25, 0, 0} {
		at = at.Add(15 * time.Second)
		tr.add(at, v)
	}
	if mean, share := tr.over(60 * time.Second); math.Abs(mean-0.125) > 1e-9 || share != 1 {
		t.Errorf("after a huge value it is %v known to %v, want 0.125 known wholly", mean, share)
	}
	if mean, _ := tr.over(30 * time.Second); mean != 0 {
		t.Errorf("an empty queue has %v", mean)
	}
}

// A sample that is seen again, or is older, adds nothing; before the first nothing is known.
func TestTrackSaysNothingTwice(t *testing.T) {
	t.Parallel()
	var tr track
	if v, share := tr.over(time.Minute); v != 0 || share != 0 {
		t.Errorf("nothing is %v known to %v", v, share)
	}
	at := time.Unix(1_800_000_000, 0)
	for range 5 {
		tr.add(at, 7)
	}
	if _, share := tr.over(time.Minute); share != 0 {
		t.Errorf("one sample covers %v of a minute", share)
	}
	if v, share := tr.over(0); v != 7 || share != 1 {
		t.Errorf("the sample itself is %v known to %v", v, share)
	}
	tr.add(at.Add(30*time.Second), 9)
	tr.add(at.Add(10*time.Second), 100)
	if v, share := tr.over(time.Minute); v != 9 || share != 0.5 {
		t.Errorf("half a minute is %v known to %v", v, share)
	}
	if _, share := tr.over(2 * time.Hour); share != 0 {
		t.Error("a window beyond the longest is answered")
	}
}
