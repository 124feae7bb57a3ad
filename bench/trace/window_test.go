package trace_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

func TestWindowIsAPartOfTheWhole(t *testing.T) {
	t.Parallel()
	src, err := trace.Generate("poisson:rate=50,duration=10m")
	if err != nil {
		t.Fatal(err)
	}
	read := func(s trace.Source, size int) []trace.Request {
		a := s.Open(rand.New(rand.NewPCG(1, 2)))
		buf := make([]trace.Request, size)
		var out []trace.Request
		for n := a.Read(buf); n > 0; n = a.Read(buf) {
			out = append(out, buf[:n]...)
		}
		return out
	}
	all := read(src, 100)
	for _, c := range []struct{ from, to time.Duration }{{0, time.Minute}, {time.Minute, 2 * time.Minute}, {9 * time.Minute, time.Hour}, {0, 10 * time.Minute}} {
		w, err := trace.Window(src, c.from, c.to)
		if err != nil {
			t.Fatal(err)
		}
		var want []trace.Request
		for _, r := range all {
			if r.At >= c.from && r.At < c.to {
				r.At -= c.from
				want = append(want, r)
			}
		}
		if got := read(w, 7); !slices.Equal(got, want) {
			t.Errorf("%v–%v: %d requests, want the %d that the whole has there", c.from, c.to, len(got), len(want))
		}
		if got, want := w.Length(), min(c.to, src.Length())-c.from; got != want {
			t.Errorf("%v–%v: length %v, want %v", c.from, c.to, got, want)
		}
	}
	for _, c := range []struct{ from, to time.Duration }{{-1, time.Minute}, {time.Minute, time.Minute}, {time.Hour, 2 * time.Hour}} {
		if _, err := trace.Window(src, c.from, c.to); err == nil {
			t.Errorf("Window(%v, %v) is accepted, want a fault", c.from, c.to)
		}
	}
}
