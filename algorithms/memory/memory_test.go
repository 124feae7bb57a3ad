package memory_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/sluice-autoscaler/sluice/algorithms/memory"
)

type state struct {
	N float64 `json:"n"`
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	got, err := memory.Load[state]("mine", 2, memory.Save("mine", 2, state{N: 1.5}))
	if err != nil || got.N != 1.5 {
		t.Errorf("Load of Save = %+v, %v", got, err)
	}
	if raw := memory.Save("mine", 2, state{N: math.NaN()}); string(raw) != "null" {
		t.Errorf("a NaN is saved as %s, want null", raw)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"policy":"mine","version":1,"state":{"n":1}}`:          "version 1: want 2",
		`{"policy":"other","version":2,"state":{"n":1}}`:         `of policy "other": want mine`,
		`{"policy":"mine","version":2,"state":{"m":1}}`:          "unknown field",
		`{"policy":"mine","version":2,"state":{"n":1},"more":1}`: "unknown field",
		`null`: `of policy ""`,
		`{`:    "mine snapshot",
	} {
		if _, err := memory.Load[state]("mine", 2, json.RawMessage(raw)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%s) = %v, want an error with %q", raw, err, want)
		}
	}
}
