package binaries_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluice-autoscaler/sluice/testbed/internal/binaries"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFlags(t *testing.T) {
	const version = "k8s.io/component-base/version."
	for _, tc := range []struct {
		name, gomod string
		want        string // of the linker; empty: an error
	}{
		{
			"in a block", "module m\n\nrequire (\n\tgo.etcd.io/etcd/server/v3 v3.7.0\n\tk8s.io/kubernetes v1.37.2\n)\n",
			"-s -w -X " + version + "gitVersion=v1.37.2 -X " + version + "gitMajor=1 -X " + version + "gitMinor=37",
		},
		{
			"on a line", "module m\nrequire k8s.io/kubernetes v1.40.0-rc.1\n",
			"-s -w -X " + version + "gitVersion=v1.40.0-rc.1 -X " + version + "gitMajor=1 -X " + version + "gitMinor=40",
		},
		{"absent", "module m\nrequire k8s.io/kubernetes-other v1.2.3\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := binaries.Flags([]byte(tc.gomod))
			if tc.want == "" {
				if err == nil {
					t.Errorf("Flags = %q, want an error", got)
				}
				return
			}
			if diff := cmp.Diff([]string{"-trimpath", "-ldflags", tc.want}, got); err != nil || diff != "" {
				t.Errorf("Flags: error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestKeyDependsOnEachInput(t *testing.T) {
	keys := map[string]string{}
	for name, inputs := range map[string][][]byte{
		"base":           {[]byte("ab"), []byte("c")},
		"first changed":  {[]byte("xb"), []byte("c")},
		"second changed": {[]byte("ab"), []byte("x")},
		"boundary moved": {[]byte("a"), []byte("bc")},
		"input added":    {[]byte("ab"), []byte("c"), nil},
	} {
		key := binaries.Key(inputs...)
		if again := binaries.Key(inputs...); again != key {
			t.Errorf("Key of %s = %s, then %s", name, key, again)
		}
		if other, same := keys[key]; same {
			t.Errorf("Key of %q equals that of %q", name, other)
		}
		keys[key] = name
	}
}

// fakeGo puts a go command first on the PATH. It notes every build in the returned file, and builds
// what the file "slow" or "broken" beside that file does not forbid.
func fakeGo(t *testing.T) (notes string) {
	t.Helper()
	dir := t.TempDir()
	notes = filepath.Join(dir, "notes")
	script := `#!/bin/sh
case $1 in
version) echo go version fake ;;
build)
	echo "$3" >> ` + notes + `
	if [ -e ` + dir + `/slow ]; then sleep 0.3; fi
	echo half > "$3"
	if [ -e ` + dir + `/broken ]; then echo no such package >&2; exit 1; fi
	echo whole > "$3" ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return notes
}

func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "require k8s.io/kubernetes v1.37.2\n", "go.sum": "", "etcd/main.go": "package main\n"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func builds(t *testing.T, notes string) int {
	t.Helper()
	data, err := os.ReadFile(notes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(data, []byte("\n"))
}

func whole(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "whole\n" {
			t.Errorf("program %s = %q, %v, want a whole one", name, data, err)
		}
	}
}

func TestEnsureBuildsOnce(t *testing.T) {
	notes := fakeGo(t)
	cache := binaries.Cache{Dir: t.TempDir(), Source: source(t), Progress: io.Discard}
	dir, err := cache.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole(t, dir)
	again, err := cache.Ensure(t.Context())
	if err != nil || again != dir {
		t.Errorf("second Ensure = %q, %v, want %q", again, err, dir)
	}
	if got := builds(t, notes); got != 6 {
		t.Errorf("after two calls %d builds, want 6", got)
	}
	if err := os.WriteFile(filepath.Join(cache.Source, "go.sum"), []byte("changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := cache.Ensure(t.Context())
	if err != nil || other == dir {
		t.Errorf("Ensure after a change of go.sum = %q, %v, want another folder", other, err)
	}
}

func TestEnsureAtOnceBuildsOnce(t *testing.T) {
	notes := fakeGo(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(notes), "slow"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := binaries.Cache{Dir: t.TempDir(), Source: source(t), Progress: io.Discard}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			dir, err := cache.Ensure(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			whole(t, dir)
		})
	}
	wg.Wait()
	if got := builds(t, notes); got != 6 {
		t.Errorf("three calls at once made %d builds, want 6", got)
	}
}

func TestEnsureKeepsNothingHalfBuilt(t *testing.T) {
	notes := fakeGo(t)
	broken := filepath.Join(filepath.Dir(notes), "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cache := binaries.Cache{Dir: t.TempDir(), Source: source(t), Progress: io.Discard}
	if _, err := cache.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "no such package") {
		t.Fatalf("Ensure with a failing compiler: error %v, want its words", err)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole(t, dir)
}

func TestEnsureShowsProgress(t *testing.T) {
	notes := fakeGo(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(notes), "slow"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cache := binaries.Cache{Dir: t.TempDir(), Source: source(t), Progress: &out, Every: 20 * time.Millisecond}
	if _, err := cache.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"building kube-apiserver (1/6)\n", "building kube-apiserver (1/6): 0 s so far\n", "built etcd (6/6) in "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("progress lacks %q:\n%s", want, out.String())
		}
	}
}
