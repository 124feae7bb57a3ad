package endpoints_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/gateway/endpoints"
	"github.com/sluice-autoscaler/sluice/gateway/hold"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	yes, no = new(true), new(false)
	target  = gateway.Target{Namespace: "shop", Service: "web", PortName: "http"}
)

func slice(name string, change func(*discovery.EndpointSlice)) *discovery.EndpointSlice {
	s := &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: new("http"), Port: new(int32(8012))}, {Name: new("admin"), Port: new(int32(9000))}},
		Endpoints:   []discovery.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discovery.EndpointConditions{Ready: yes, Serving: yes, Terminating: no}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func TestOf(t *testing.T) {
	conditions := func(ready, serving, terminating *bool) func(*discovery.EndpointSlice) {
		return func(s *discovery.EndpointSlice) {
			s.Endpoints[0].Conditions = discovery.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}
		}
	}
	ready := hold.Endpoint{Address: "10.0.0.1:8012", Ready: true, Serving: true}
	tests := map[string]struct {
		in   []*discovery.EndpointSlice
		port string
		want []hold.Endpoint
	}{
		"ready":              {in: []*discovery.EndpointSlice{slice("a", nil)}, port: "http", want: []hold.Endpoint{ready}},
		"other port":         {in: []*discovery.EndpointSlice{slice("a", nil)}, port: "admin", want: []hold.Endpoint{{Address: "10.0.0.1:9000", Ready: true, Serving: true}}},
		"no such port":       {in: []*discovery.EndpointSlice{slice("a", nil)}, port: "", want: []hold.Endpoint{}},
		"unknown is ready":   {in: []*discovery.EndpointSlice{slice("a", conditions(nil, nil, nil))}, port: "http", want: []hold.Endpoint{ready}},
		"starting":           {in: []*discovery.EndpointSlice{slice("a", conditions(no, no, no))}, port: "http", want: []hold.Endpoint{{Address: ready.Address}}},
		"terminating":        {in: []*discovery.EndpointSlice{slice("a", conditions(no, yes, yes))}, port: "http", want: []hold.Endpoint{{Address: ready.Address, Serving: true, Terminating: true}}},
		"moving to another":  {in: []*discovery.EndpointSlice{slice("a", conditions(no, yes, yes)), slice("b", nil), slice("c", conditions(no, no, no))}, port: "http", want: []hold.Endpoint{ready}},
		"Sluice's own":       {in: []*discovery.EndpointSlice{slice("a", func(s *discovery.EndpointSlice) { s.Labels[discovery.LabelManagedBy] = "sluice.dev" })}, port: "http", want: []hold.Endpoint{}},
		"without an address": {in: []*discovery.EndpointSlice{slice("a", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses = nil })}, port: "http", want: []hold.Endpoint{}},
		"IPv6": {
			in:   []*discovery.EndpointSlice{slice("a", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses[0] = "fd00::1" })},
			port: "http", want: []hold.Endpoint{{Address: "[fd00::1]:8012", Ready: true, Serving: true}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, endpoints.Of(tc.in, tc.port)); diff != "" {
				t.Errorf("Of() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubscribe(t *testing.T) {
	own := slice("sluice", func(s *discovery.EndpointSlice) {
		s.Labels[discovery.LabelManagedBy] = "sluice.dev"
		s.Endpoints[0].Addresses[0] = "10.9.9.9"
	})
	client := fake.NewClientset(own)
	s, err := endpoints.New(client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	updates := make(chan []hold.Endpoint, 100)
	stop := s.Subscribe(target, func(e []hold.Endpoint) { updates <- e })
	want := func(what string, want ...hold.Endpoint) {
		t.Helper()
		if want == nil {
			want = []hold.Endpoint{}
		}
		timeout := time.After(10 * time.Second)
		var last []hold.Endpoint
		for {
			select {
			case last = <-updates:
				if cmp.Equal(want, last) {
					return
				}
			case <-timeout:
				t.Fatalf("%s: last update %v, want %v", what, last, want)
			}
		}
	}
	want("at first")
	api := client.DiscoveryV1().EndpointSlices("shop")
	made := slice("a", func(s *discovery.EndpointSlice) {
		s.Endpoints[0].Conditions.Ready = no
		s.Endpoints[0].Conditions.Serving = no
	})
	if _, err := api.Create(ctx, made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	want("a starting pod", hold.Endpoint{Address: "10.0.0.1:8012"})
	if !s.Synced() {
		t.Error("not synced after an event")
	}
	if _, err := api.Update(ctx, slice("a", nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	want("a ready pod", hold.Endpoint{Address: "10.0.0.1:8012", Ready: true, Serving: true})
	if err := api.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want("no pod")
	stop()
	second := make(chan []hold.Endpoint, 100)
	defer s.Subscribe(target, func(e []hold.Endpoint) { second <- e })()
	<-second
	if _, err := api.Create(ctx, slice("b", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	<-second
	select {
	case e := <-updates:
		t.Errorf("update %v after the subscription ended", e)
	default:
	}
}
