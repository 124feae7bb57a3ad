package lookahead

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	end := begin.Add(5 * 24 * time.Hour)
	// each calls for every hour until end.
	each := func(f func(hour time.Time)) {
		for at := begin; at.Before(end); at = at.Add(time.Hour) {
			f(at)
		}
	}
	const seeds = 200
	for _, test := range []struct {
		name string
		fill func(c *jumpProfile, r *rand.Rand)
		// habit says that the minutes 2 and 32 are the likely ones; otherwise all are alike, for
		// all but one seed in a hundred.
		habit bool
	}{
		{name: "nothing", fill: func(*jumpProfile, *rand.Rand) {}},
		{name: "a job at two minutes past each full hour and half hour, every other time", habit: true, fill: func(c *jumpProfile, r *rand.Rand) {
			each(func(hour time.Time) {
				for _, m := range []int{2, 32} {
					if r.Float64() < 0.5 {
						c.add(hour.Add(time.Duration(60*m+r.IntN(40))*time.Second), 1)
					}
				}
			})
		}},
		{name: "the same among as many jumps by chance", habit: true, fill: func(c *jumpProfile, r *rand.Rand) {
			each(func(hour time.Time) {
				c.add(hour.Add(2*time.Minute), 1)
				m := r.IntN(30)
				c.add(hour.Add(time.Duration(m)*time.Minute), 1)
				c.add(hour.Add(32*time.Minute), 1)
				c.add(hour.Add(time.Duration(59-m)*time.Minute), 1)
			})
		}},
		{name: "at any minute", fill: func(c *jumpProfile, r *rand.Rand) {
			each(func(hour time.Time) { c.add(hour.Add(time.Duration(r.IntN(3600))*time.Second), 1) })
		}},
		{name: "over two minutes, as starts of that length see jumps", fill: func(c *jumpProfile, r *rand.Rand) {
			each(func(hour time.Time) {
				at := hour.Add(time.Duration(r.IntN(3540)) * time.Second)
				c.add(at, 0.5)
				c.add(at.Add(time.Minute), 0.5)
			})
		}},
		{name: "in bins of five minutes", fill: func(c *jumpProfile, r *rand.Rand) {
			each(func(hour time.Time) {
				at := hour.Add(time.Duration(r.IntN(12)) * 5 * time.Minute)
				c.addBetween(at, at.Add(5*time.Minute), 1)
			})
		}},
		{name: "thirty in one wild quarter of an hour", fill: func(c *jumpProfile, _ *rand.Rand) {
			for i := range 30 {
				c.add(begin.Add(time.Duration(i)*30*time.Second), 1)
			}
			c.add(end, 1)
		}},
		{name: "too few to tell", fill: func(c *jumpProfile, _ *rand.Rand) {
			for i := range 6 {
				c.add(begin.Add(time.Duration(i)*time.Hour+2*time.Minute), 1)
			}
		}},
		{name: "long ago", fill: func(c *jumpProfile, _ *rand.Rand) {
			for i := range 100 {
				c.add(begin.Add(time.Duration(i)*time.Hour+2*time.Minute), 1)
			}
			c.add(begin.Add(40*24*time.Hour), 1)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wrong := 0
			for seed := range uint64(seeds) {
				var c jumpProfile
				test.fill(&c, rand.New(rand.NewPCG(seed, 9)))
				at := func(m int, lead time.Duration) float64 {
					from := end.Add(time.Duration(m) * time.Minute)
					return c.factor(from, from.Add(lead))
				}
				due, quiet := at(2, time.Minute), at(15, time.Minute)
				if test.habit {
					if due < 3 || quiet >= 1 || at(31, 30*time.Second) < 3 || at(0, time.Minute) < 3 || at(5, time.Minute) >= 1 || at(40, 2*time.Hour) < 3 {
						t.Errorf("seed %d: factors %.2f when it is due, %.2f when it is not", seed, due, quiet)
					}
				} else if due != 1 || quiet != 1 {
					wrong++
				}
				if err := c.validate(); err != nil {
					t.Error(err)
				}
			}
			if wrong > seeds/100 {
				t.Errorf("a habit was seen where there was none under %d of %d seeds", wrong, seeds)
			}
		})
	}
	if err := (&jumpProfile{Jumps: [60]float64{3: math.NaN()}}).validate(); err == nil {
		t.Error("a clock with NaN was taken")
	}
}
