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
				d := drain.New(3*time.Second, 30*time.Second, 0)
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

				over := make(chan time.Duration, 1)
				go func() {
					<-d.Done()
					over <- time.Since(start)
				}()
				err := d.Run(ctx, drain.Steps{Finish: func(bound context.Context) error {
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
				}})
				if got := <-over; got != c.wantOver {
					t.Errorf("over after %v, want %v", got, c.wantOver)
				}
				if got := time.Since(start); got != max(c.wantOver, c.end) {
					t.Errorf("Run returned after %v, want %v", got, max(c.wantOver, c.end))
				}
				if !errors.Is(err, c.wantErr) || !errors.Is(d.Err(), c.wantErr) {
					t.Errorf("Run = %v, Err = %v, want %v", err, d.Err(), c.wantErr)
				}
				<-d.Done()
			})
		})
	}
}

// TestUndo asks for drains that no end of the process follows. Each is undone two minutes after it
// was over, or was last asked for, and the next one is a whole drain again.
func TestUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lame, undo = 3 * time.Second, 2 * time.Minute
		d := drain.New(lame, 30*time.Second, undo)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		begun, undone, finished := 0, 0, 0
		go func() {
			ended <- d.Run(ctx, drain.Steps{
				Begun: func() { begun++ }, Undone: func() { undone++ },
				Finish: func(context.Context) error { finished++; return nil },
			})
		}()
		expect := func(what string, draining bool, wantBegun, wantUndone int) {
			t.Helper()
			synctest.Wait()
			if d.Draining() != draining || begun != wantBegun || undone != wantUndone || finished != wantBegun {
				t.Errorf("%s: draining %v, %d begun, %d finished, %d undone; want %v, %d begun and finished, %d undone",
					what, d.Draining(), begun, finished, undone, draining, wantBegun, wantUndone)
			}
		}
		for round := 1; round <= 3; round++ {
			d.Begin()
			<-d.Done()
			time.Sleep(undo - time.Second)
			expect("before the end of its time", true, round, round-1)
			d.Begin() // the kubelet, after somebody else: it may rely on two minutes
			<-d.Done()
			time.Sleep(undo - time.Second)
			expect("asked again", true, round, round-1)
			if err := d.Overdue(time.Now()); err != nil {
				t.Errorf("Overdue = %v", err)
			}
			time.Sleep(2 * time.Second)
			expect("when its time is over", false, round, round)
			time.Sleep(time.Hour)
			expect("an hour later", false, round, round)
		}
		d.Begin()
		<-d.Done()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		time.Sleep(time.Hour)
		expect("when the process ends", true, 4, 3)
		if err := d.Overdue(time.Now()); err != nil {
			t.Errorf("Overdue = %v for a process that ends", err)
		}
	})
}

// TestOverdue: a drain that hangs is a fault of the process, once it should have been undone.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := drain.New(3*time.Second, 30*time.Second, 2*time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		hang, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- d.Run(ctx, drain.Steps{Finish: func(context.Context) error { <-hang; return nil }})
		}()
		if err := d.Overdue(time.Now().Add(time.Hour)); err != nil {
			t.Errorf("Overdue = %v without a drain", err)
		}
		d.Begin()
		if err := d.Overdue(time.Now().Add(2*time.Minute + 53*time.Second)); err != nil {
			t.Errorf("Overdue = %v within the time of a drain", err)
		}
		if err := d.Overdue(time.Now().Add(2*time.Minute + 54*time.Second)); err == nil {
			t.Error("a drain that hangs is not overdue")
		}
		close(hang)
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
