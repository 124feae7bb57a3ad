package memory_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// A look never waits, and each query has its own time between two requests.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		m := memory.New(10*time.Second, time.Hour, time.Now, func(_ context.Context, key memory.Key) (answer.Result, error) {
			mu.Lock()
			asked[key.PromQL]++
			mu.Unlock()
			if key.PromQL == "broken" {
				return answer.Result{}, errors.New("it is broken")
			}
			time.Sleep(time.Second)
			return answer.Result{Scalar: true}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.Run(ctx) }()
		key := func(text string, every time.Duration) memory.Key {
			return memory.Key{Query: source.Query{PromQL: text}, Every: every}
		}
		if _, ok := m.Look(key("often", 2*time.Second)); ok {
			t.Error("there is an outcome before the first answer")
		}
		m.Look(key("seldom", time.Minute))
		m.Look(key("usual", 0))
		m.Look(key("broken", 0))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if f, ok := m.Look(key("often", 2*time.Second)); !ok || f.Err != nil || time.Since(f.At) > 4*time.Second {
			t.Errorf("the last outcome is %+v", f)
		}
		if f, ok := m.Look(key("broken", 0)); !ok || f.Err == nil {
			t.Errorf("the last outcome is %+v", f)
		}
		mu.Lock()
		defer mu.Unlock()
		for text, within := range map[string][2]int{"often": {280, 301}, "usual": {58, 62}, "seldom": {9, 12}} {
			if n := asked[text]; n < within[0] || n > within[1] {
				t.Errorf("%s was asked %d times in 10 minutes, want %v", text, n, within)
			}
		}
		cancel()
	})
}
