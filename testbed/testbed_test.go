package testbed_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/testbed"
)

func TestImagesFlag(t *testing.T) {
	for _, tc := range []struct {
		name  string
		pairs []string
		want  testbed.Images // nil: an error
	}{
		{"two", []string{"demo/app=./app", "sluice/sidecar=/opt/sidecar"}, testbed.Images{"demo/app": "./app", "sluice/sidecar": "/opt/sidecar"}},
		{"tag, and = in the path", []string{"reg:5000/app:v1=/opt/a=b"}, testbed.Images{"reg:5000/app:v1": "/opt/a=b"}},
		{"no program", []string{"demo/app="}, nil},
		{"no name", []string{"=./app"}, nil},
		{"no =", []string{"demo/app"}, nil},
		{"twice", []string{"demo/app=a", "demo/app=b"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := testbed.Images{}
			var err error
			for _, p := range tc.pairs {
				err = errors.Join(err, got.Set(p))
			}
			if tc.want == nil {
				if err == nil {
					t.Errorf("Set(%q) gave %v, want an error", tc.pairs, got)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("Set(%q): error %v (-want +got):\n%s", tc.pairs, err, diff)
			}
		})
	}
}

func TestBuildRefusesImagesThatCannotRun(t *testing.T) {
	file := t.TempDir() + "/text"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"absent": file + ".absent", "not executable": file, "folder": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			_, err := testbed.Build(t.Context(), testbed.Options{Cache: t.TempDir(), Images: map[string]string{"demo/app": path}})
			if err == nil || !strings.Contains(err.Error(), "demo/app") {
				t.Errorf("error = %v, want one that names the image", err)
			}
		})
	}
}

func TestDefaultCache(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/home/somebody/.cache")
	for env, want := range map[string]string{"": "/home/somebody/.cache/sluice", "/elsewhere": "/elsewhere"} {
		t.Setenv("SLUICE_CACHE", env)
		if got, err := testbed.DefaultCache(); err != nil || got != want {
			t.Errorf("DefaultCache with SLUICE_CACHE=%q = %q, %v, want %q", env, got, err, want)
		}
	}
}

func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, polls := time.Now(), 0
		err := testbed.WaitFor(t.Context(), time.Second, "three polls", func(context.Context) (string, bool) {
			polls++
			return "", polls == 3
		})
		if took := time.Since(started); err != nil || took != 100*time.Millisecond {
			t.Errorf("WaitFor = %v after %s, want nil after two intervals of 50 ms", err, took)
		}

		started = time.Now()
		err = testbed.WaitFor(t.Context(), time.Second, "pods", func(ctx context.Context) (string, bool) {
			if ctx.Err() != nil {
				return "cancelled", false
			}
			return "1 of 2", false
		})
		if took := time.Since(started); took != time.Second || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pods") || !strings.Contains(err.Error(), "1 of 2") {
			t.Errorf("WaitFor = %v after %s, want after 1 s an error that names pods and the last state, 1 of 2", err, took)
		}
	})
}
