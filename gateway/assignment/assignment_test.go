package assignment_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/gateway/assignment"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestPutRefusesPortByPort(t *testing.T) {
	t.Parallel()
	const good = `{"namespace":"ok","service":"ok","listen":9000,"protocol":"http"}`
	tests := map[string]struct{ in, want string }{
		"none":         {``, ""},
		"good":         {`{"namespace":"a","service":"b","listen":80,"protocol":"http","unknown":1}`, ""},
		"bad name":     {`{"namespace":"A/","service":"b","listen":80,"protocol":"http"}`, `namespace = "A/"`},
		"bad port":     {`{"namespace":"a","service":"b","listen":65536,"protocol":"http"}`, "listen = 65536: want 1–65535"},
		"bad protocol": {`{"namespace":"a","service":"b","listen":80,"protocol":"udp"}`, `protocol = "udp"`},
		"bad numbers": {
			`{"namespace":"a","service":"b","listen":80,"protocol":"tcp","maxHeld":-1,"maxHeldBytes":-1,"holdSeconds":1e9,"podConcurrency":-2}`,
			"podConcurrency = -2",
		},
		"port twice":    {`{"namespace":"a","service":"b","listen":9000,"protocol":"tcp"}`, "listen = 9000 is taken by ports[0]"},
		"Service twice": {`{"namespace":"ok","service":"ok","listen":81,"protocol":"tcp"}`, "ok/ok is assigned by ports[0]"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := `{"epoch":1,"generation":1,"ports":[` + good + strings.TrimSuffix(","+tc.in, ",") + `]}`
			a, err := assignment.Decode(strings.NewReader(in))
			if err != nil {
				t.Fatalf("Decode(%s) = %v", in, err)
			}
			var table assignment.Table
			refused, err := table.Put("main", a)
			if err != nil {
				t.Fatalf("Put(%+v) = %v", a, err)
			}
			if tc.want == "" && len(refused) > 0 || tc.want != "" && (len(refused) != 1 || !strings.Contains(refused[0].Error, tc.want)) {
				t.Errorf("Put(%s) refuses %+v, want %q", in, refused, tc.want)
			}
			if _, ok := table.InEffect()[assignment.Target{Namespace: "ok", Service: "ok"}]; !ok {
				t.Error("the good port is not in effect")
			}
		})
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`ports: []`: "decode assignments", `{} {}`: "more than one", `{"ports":null}`: ""} {
		_, err := assignment.Decode(strings.NewReader(in))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want %q", in, err, want)
		}
	}
}

// FuzzDecode: what is decoded is the same after a round trip, and never makes Put panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"generation":2,"ports":[{"namespace":"a","service":"b","portName":"c","listen":80,"protocol":"http","inPath":true,"holdSeconds":1.5,"failure":"x"}]}`))
	f.Add([]byte(`{"ports":[{"listen":-1}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := assignment.Decode(bytes.NewReader(in))
		if err != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		again, err := assignment.Decode(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("decode %s: %v", out, err)
		}
		if diff := cmp.Diff(a, again); diff != "" {
			t.Errorf("round trip: %s", diff)
		}
		var table assignment.Table
		if _, err := table.Put("main", a); err != nil {
			t.Errorf("Put(%s) = %v", in, err)
		}
	})
}

func TestPutKeepsNewerAndBoundsOwners(t *testing.T) {
	t.Parallel()
	var table assignment.Table
	put := func(owner string, epoch int64, generation uint64) error {
		_, err := table.Put(owner, wire.Assignments{Epoch: epoch, Generation: generation})
		return err
	}
	for _, step := range []struct {
		epoch      int64
		generation uint64
		want       error
	}{{5, 2, nil}, {5, 2, nil}, {5, 1, assignment.ErrStale}, {4, 9, assignment.ErrStale}, {6, 0, nil}} {
		if err := put("main", step.epoch, step.generation); !errors.Is(err, step.want) {
			t.Errorf("Put(epoch %d, generation %d) = %v, want %v", step.epoch, step.generation, err, step.want)
		}
	}
	for i := 1; i < assignment.MaxOwners; i++ {
		if err := put(fmt.Sprint("other-", i), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("one-too-many", 1, 1); !errors.Is(err, assignment.ErrTooManyOwners) {
		t.Errorf("Put of an owner more = %v, want %v", err, assignment.ErrTooManyOwners)
	}
	table.Delete("other-1")
	if err := put("one-too-many", 1, 1); err != nil {
		t.Errorf("Put after Delete = %v, want nil", err)
	}
}

// TestTableRandom drives random pushes of four owners: no number and no Service port is in effect
// twice, each owner's wish is in effect, or another's of the same number stands for it, or it is
// refused; and what is in effect and still wished stays in effect.
func TestTableRandom(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(12, 12))
	var table assignment.Table
	wishes := map[string][]wire.Assignment{}
	for step := range 5000 {
		before := table.InEffect()
		owner := fmt.Sprint("o", rng.IntN(4))
		if rng.IntN(10) == 0 {
			delete(wishes, owner)
			table.Delete(owner)
		} else {
			var ports []wire.Assignment
			services, numbers := rng.Perm(8), rng.Perm(10)
			for i := range rng.IntN(6) {
				ports = append(ports, wire.Assignment{Namespace: "n", Service: fmt.Sprint("s", services[i]), Listen: 100 + numbers[i], Protocol: assignment.HTTP})
			}
			wishes[owner] = ports
			if _, err := table.Put(owner, wire.Assignments{Epoch: 1, Generation: uint64(step), Ports: ports}); err != nil {
				t.Fatal(err)
			}
		}
		refused := map[string]bool{}
		for _, r := range table.Refused() {
			refused[fmt.Sprint(r.Owner, r.Service, r.Listen)] = true
		}
		numbers := map[int]bool{}
		for target, c := range table.InEffect() {
			if numbers[c.Listen] {
				t.Fatalf("step %d: number %d is in effect twice", step, c.Listen)
			}
			numbers[c.Listen] = true
			if assignment.TargetOf(c.Assignment) != target {
				t.Fatalf("step %d: %v holds %+v", step, target, c)
			}
		}
		for owner, ports := range wishes {
			for _, p := range ports {
				c, ok := table.InEffect()[assignment.TargetOf(p)]
				if served := ok && c.Listen == p.Listen; served == refused[fmt.Sprint(owner, p.Service, p.Listen)] {
					t.Fatalf("step %d: %s's %+v: in effect %v and refused %v", step, owner, p, served, !served)
				}
				if was := before[assignment.TargetOf(p)]; was.Owner == owner && was.Listen == p.Listen && (!ok || c.Owner != owner || c.Listen != p.Listen) {
					t.Fatalf("step %d: %s lost %+v, which was in effect", step, owner, p)
				}
			}
		}
	}
}
