package lookahead

import (
	"fmt"
	"math"
	"time"
)

// jumpProfile counts the jumps of the load by minute of the hour: scheduled jobs, batch work and
// pushes to many clients begin at the same minutes. In its zero value all minutes are alike. It is
// a part of the snapshot.
type jumpProfile struct {
	// Jumps are the counts by minute, one for each hour at most, so that one wild hour is no habit.
	// A jump counts half after profileHalfLife.
	Jumps [60]float64 `json:"jumps"`
	// Now are those of the present hour, which is the Hour-th since 1970.
	Now  [60]float64 `json:"now"`
	Hour int64       `json:"hour"`
}

const (
	// profileHalfLife is after how many hours a jump counts half: some days, in which an hourly job
	// is seen 24 times a day.
	profileHalfLife = 72.0
	// span is for how long a factor is known to hold.
	span = 3 * time.Minute
	// jumpThreshold is the factor over the forecast from which on a load has jumped.
	jumpThreshold = 1.5
	// minJumps is from how many jumps on minutes are compared. unevenSigmas is how many standard
	// deviations their differences must exceed those of chance, by Pearson's test.
	minJumps, unevenSigmas = 8.0, 4.0
	// priorJumps is how many jumps are assumed in every three minutes.
	priorJumps = 0.5
)

func minute(at time.Time) int { return int(at.Unix()/60%60+60) % 60 }

// validate reports faults of a snapshot.
func (c *jumpProfile) validate() error {
	for i := range c.Jumps {
		if n, now := c.Jumps[i], c.Now[i]; !(n >= 0 && n <= 1e9 && now >= 0 && now <= 1e9) {
			return fmt.Errorf("jumps in minute %d = %v and %v: want 0–1e9", i, n, now)
		}
	}
	return nil
}

// add counts a jump, or a part of one, at an instant whose hour is not before the last one.
func (c *jumpProfile) add(at time.Time, weight float64) {
	if hour := at.Unix() / 3600; hour != c.Hour {
		sum := 0.0
		for _, n := range c.Now {
			sum += n
		}
		keep := math.Exp2(-float64(max(hour-c.Hour, 0)) / profileHalfLife)
		for i, n := range c.Now {
			c.Jumps[i] = keep * (c.Jumps[i] + n/max(sum, 1))
		}
		c.Now, c.Hour = [60]float64{}, hour
	}
	c.Now[minute(at)] += weight
}

// addBetween counts one jump at an unknown time between two instants.
func (c *jumpProfile) addBetween(from, to time.Time, weight float64) {
	n := max(int(to.Sub(from)/time.Minute), 1)
	for i := range n {
		c.add(from.Add(time.Duration(i)*time.Minute), weight/float64(n))
	}
}

// factor is how many times likelier a jump is within an interval than at any time: by the likeliest
// minute in it and the two beside that one. It is 1 unless the test rejects that minutes are alike.
func (c *jumpProfile) factor(from, to time.Time) float64 {
	sum, squares := 0.0, 0.0
	for _, n := range c.Jumps {
		sum += n
		squares += n * n
	}
	mean := sum / 60
	if sum < minJumps || squares/mean-sum < 59+unevenSigmas*math.Sqrt(2*59) {
		return 1
	}
	most := 0.0
	first := minute(from)
	for i := range min(int(to.Truncate(time.Minute).Sub(from.Truncate(time.Minute))/time.Minute)+1, 60) {
		m := first + i
		most = max(most, c.Jumps[(m+59)%60]+c.Jumps[m%60]+c.Jumps[(m+1)%60])
	}
	return (most + priorJumps) / (3*mean + priorJumps)
}
