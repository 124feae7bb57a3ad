package activation_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/scaler/activation"
	"github.com/sluice-autoscaler/sluice/wire"
)

func service(name string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.ServiceSpec{Ports: ports}}
}

// TestPortsStay assigns ports for many Services in one range: no number twice, and the same again when only the slices are left,
// as after a restart of the controller.
func TestPortsStay(t *testing.T) {
	t.Parallel()
	r := activation.PortRange{From: 20000, To: 20100}
	used := map[int]bool{}
	for i := range 50 {
		svc := service(fmt.Sprintf("web-%d", i), corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Name: "tcp-raw", Port: 9000})
		got, err := activation.Ports(svc, nil, used, r)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0].Protocol != "http" || got[1].Protocol != "tcp" {
			t.Fatalf("Ports(%s) = %+v, want http and tcp, no UDP", svc.Name, got)
		}
		slice := activation.Slice(svc, got, nil, false, metav1.OwnerReference{})
		again, err := activation.Ports(svc, slice, used, r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("with its slice alone Ports(%s) differs (-before +after):\n%s", svc.Name, diff)
		}
		for _, p := range got {
			if used[p.Listen] || p.Listen < r.From || p.Listen >= r.To {
				t.Fatalf("port %d of %s is taken or out of range", p.Listen, svc.Name)
			}
			used[p.Listen] = true
		}
	}
	if _, err := activation.Ports(service("one-too-many", corev1.ServicePort{Name: "http", Port: 80}), nil, used, r); err == nil {
		t.Error("Ports with an exhausted range succeeds, want an error")
	}
	if _, err := activation.Ports(service("udp", corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}), nil, nil, r); err == nil {
		t.Error("Ports of a Service without TCP succeeds, want an error")
	}
}

func TestSliceNamesAreValid(t *testing.T) {
	t.Parallel()
	long := ""
	for len(long) < 253 {
		long += "a"
	}
	for _, name := range []string{"web", long} {
		if got := activation.SliceName(name); len(got) > 253 {
			t.Errorf("SliceName of %d characters has %d, want at most 253", len(name), len(got))
		}
	}
	if activation.SliceName(long) == activation.SliceName(long[:252]+"b") {
		t.Error("two long names give one slice name")
	}
}

func TestListening(t *testing.T) {
	t.Parallel()
	port := wire.Assignment{Namespace: "shop", Service: "web", PortName: "http", Listen: 20000}
	report := func(listening bool) *wire.Report {
		return &wire.Report{Ports: []wire.PortReport{{Namespace: "shop", Service: "web", PortName: "http", Listening: listening, Error: "in use"}}}
	}
	gateways := []activation.Gateway{
		{Name: "good", Connected: true, Report: report(true)},
		{Name: "leaving", Connected: true, Report: report(true), Leaving: true},
		{Name: "silent", Report: report(true)},
		{Name: "closed", Connected: true, Report: report(false)},
		{Name: "new", Connected: true, Report: &wire.Report{}},
	}
	for i, g := range gateways {
		ok, fault := activation.Listening([]activation.Gateway{g}, []wire.Assignment{port})
		if want := i == 0; (len(ok) == 1) != want || (fault == "") != want {
			t.Errorf("Listening(%s) = %d gateways, fault %q; want it taken: %v", g.Name, len(ok), fault, want)
		}
	}
}
