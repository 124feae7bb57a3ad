package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/bench/history"
)

// TestRecordIsBacktested: what explain records is read as demand, and what could not be read is no
// demand of zero.
func TestRecordIsBacktested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		get := func(context.Context) (*v1alpha1.Autoscaler, error) {
			n++
			as := &v1alpha1.Autoscaler{Status: v1alpha1.AutoscalerStatus{CurrentReplicas: 3, ReadyReplicas: 2, Concurrency: "12.50"}}
			switch {
			case n == 20:
				cancel()
			case n == 5:
				return nil, errors.New("connection refused")
			case n > 10:
				as.Status.Concurrency = ""
			}
			return as, nil
		}
		var out, stderr strings.Builder
		lines, err := recordEvery(ctx, 10*time.Second, get, &out, &stderr)
		if err != nil || lines != 18 || !strings.Contains(stderr.String(), "a gap in the record: connection refused") {
			t.Errorf("recorded %d lines, %v, and said %q: want 18, and a gap", lines, err, &stderr)
		}
		demand, pods, err := history.ReadRecords(strings.NewReader(out.String()), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if demand.Mean() != 12.5 || pods.Mean() != 3 || len(demand.Values) != 9 {
			t.Errorf("read back: mean %v over %d steps, %v pods, want 12.5 over 9 and 3", demand.Mean(), len(demand.Values), pods.Mean())
		}
	})
}

func TestRecordEnds(t *testing.T) {
	t.Parallel()
	gone := apierrors.NewNotFound(schema.GroupResource{Resource: "autoscalers"}, "web")
	get := func(context.Context) (*v1alpha1.Autoscaler, error) { return nil, gone }
	var out, stderr strings.Builder
	if n, err := recordEvery(t.Context(), time.Second, get, &out, &stderr); n != 0 || !apierrors.IsNotFound(err) {
		t.Errorf("an Autoscaler that is gone: %d lines, %v", n, err)
	}
	once := func(context.Context) (*v1alpha1.Autoscaler, error) { return &v1alpha1.Autoscaler{}, nil }
	if n, err := recordEvery(t.Context(), 0, once, &out, &stderr); n != 1 || err != nil {
		t.Errorf("once: %d lines, %v", n, err)
	}
}
