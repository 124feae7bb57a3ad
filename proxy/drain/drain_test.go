package drain_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/proxy/drain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOrder(t *testing.T) {
	cases := []struct {
		name     string
		begin    time.Duration // by a call
		end      time.Duration // of the context
		work     time.Duration // what runs when the lame duck is over
		wantOver time.Duration
		wantErr  error
	}{
		{name: "by a call", begin: time.Minute, end: time.Hour, work: 2 * time.Second, wantOver: time.Minute + 5*time.Second},
		{name: "by the context's end", begin: time.Hour, end: time.Minute, work: 2 * time.Second, wantOver: time.Minute + 5*time.Second},
		{name: "the context's end does not hurry it", begin: time.Minute, end: time.Minute + time.Second, work: 20 * time.Second, wantOver: time.Minute + 23*time.Second},
		{name: "past the limit", begin: time.Minute, end: time.Hour, work: time.Hour, wantOver: time.Minute + 33*time.Second, wantErr: context.DeadlineExceeded},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := drain.New(3*time.Second, 30*time.Second)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.end)
				defer cancel()
				call := time.AfterFunc(c.begin, func() { d.Begin(); d.Begin() })
				defer call.Stop()
				began := min(c.begin, c.end)
				look := time.AfterFunc(began-1, func() {
					if d.Draining() {
						t.Error("draining before its begin")
					}
				})
				defer look.Stop()
				look2 := time.AfterFunc(began+1, func() {
					if !d.Draining() {
						t.Error("not draining after its begin")
					}
				})
				defer look2.Stop()

				err := d.Run(ctx, func(bound context.Context) error {
					if got := time.Since(start) - began; got != 3*time.Second {
						t.Errorf("lame duck lasted %v, want 3s", got)
					}
					select {
					case <-d.Done():
						t.Error("done before what runs has ended")
					case <-time.After(c.work):
						return nil
					case <-bound.Done():
						return bound.Err()
					}
					return nil
				})
				if got := time.Since(start); got != c.wantOver {
					t.Errorf("over after %v, want %v", got, c.wantOver)
				}
				if !errors.Is(err, c.wantErr) || !errors.Is(d.Err(), c.wantErr) {
					t.Errorf("Run = %v, Err = %v, want %v", err, d.Err(), c.wantErr)
				}
				<-d.Done()
			})
		})
	}
}
