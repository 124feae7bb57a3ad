package lookahead

import (
	"fmt"
	"math"
	"time"
)

// clock knows at what minutes of the hour the load jumps: cron jobs, rounds of batch work and pushes to many clients begin at the same ones. Of its zero
// value all minutes are alike. It is a part of the snapshot.
type clock struct {
	// Jumps is how many were seen in each minute, one for each hour at most, so that a wild one is not taken for a habit; one counts half after clockLife.
	Jumps [60]float64 `json:"jumps"`
	// Now are those of the present hour, which is the Hour-th since 1970.
	Now  [60]float64 `json:"now"`
	Hour int64       `json:"hour"`
}

const (
	// clockLife is after how many hours a jump counts half: some days, as what runs once in an hour is seen 24 times in one.
	clockLife = 72.0
	// span is for how long a factor is known to hold.
	span = 3 * time.Minute
	// jumped is by how much the load must exceed what was expected to have jumped.
	jumped = 1.5
	// fewJumps is from how many on minutes are compared; uneven is how many standard deviations their differences must exceed those of chance, by
	// Pearson's test, to be believed.
	fewJumps, uneven = 8.0, 4.0
	// unseen is how many jumps are assumed in every three minutes where none was seen.
	unseen = 0.5
)

func minute(at time.Time) int { return int(at.Unix()/60%60+60) % 60 }

// check says what is wrong with a clock of a snapshot.
func (c *clock) check() error {
	for i := range c.Jumps {
		if n, now := c.Jumps[i], c.Now[i]; !(n >= 0 && n <= 1e9 && now >= 0 && now <= 1e9) {
			return fmt.Errorf("jumps in minute %d = %v and %v: want 0–1e9", i, n, now)
		}
	}
	return nil
}

// add counts a jump, or a part of one, at an instant, which is in no earlier hour than those that were counted.
func (c *clock) add(at time.Time, weight float64) {
	if hour := at.Unix() / 3600; hour != c.Hour {
		sum := 0.0
		for _, n := range c.Now {
			sum += n
		}
		keep := math.Exp2(-float64(max(hour-c.Hour, 0)) / clockLife)
		for i, n := range c.Now {
			c.Jumps[i] = keep * (c.Jumps[i] + n/max(sum, 1))
		}
		c.Now, c.Hour = [60]float64{}, hour
	}
	c.Now[minute(at)] += weight
}

// spread counts one jump that came at some time between two instants.
func (c *clock) spread(from, to time.Time, weight float64) {
	n := max(int(to.Sub(from)/time.Minute), 1)
	for i := range n {
		c.add(from.Add(time.Duration(i)*time.Minute), weight/float64(n))
	}
}

// factor is how many times likelier a jump is within an interval than at any time: by the likeliest minute in it, with the ones beside that; 1 unless chance
// does not explain that minutes differ.
func (c *clock) factor(from, to time.Time) float64 {
	sum, squares := 0.0, 0.0
	for _, n := range c.Jumps {
		sum += n
		squares += n * n
	}
	mean := sum / 60
	if sum < fewJumps || squares/mean-sum < 59+uneven*math.Sqrt(2*59) {
		return 1
	}
	most := 0.0
	first := minute(from)
	for i := range min(int(to.Truncate(time.Minute).Sub(from.Truncate(time.Minute))/time.Minute)+1, 60) {
		m := first + i
		most = max(most, c.Jumps[(m+59)%60]+c.Jumps[m%60]+c.Jumps[(m+1)%60])
	}
	return (most + unseen) / (3*mean + unseen)
}
