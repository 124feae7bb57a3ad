package algorithms

import "time"

// Maxima is the largest pod count of a recent time window. It keeps only counts that no later one
// reaches, so its length is bounded by the distinct falling counts. The zero value is empty. It is
// not safe for concurrent use.
type Maxima []Count

// Count is a pod count at an instant.
type Count struct {
	At   time.Time `json:"at"`
	Pods int       `json:"pods"`
}

// Add records n at now and returns the largest count after now − window (n itself when window is
// 0).
func (m *Maxima) Add(now time.Time, n int, window time.Duration) int {
	keep := (*m)[:0]
	for _, c := range *m {
		if now.Sub(c.At) < window && c.Pods > n {
			keep = append(keep, c)
		}
	}
	*m = append(keep, Count{At: now, Pods: n})
	return (*m)[0].Pods
}
