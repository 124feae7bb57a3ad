package endpoints_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
		"port out of range": {in: []*discovery.EndpointSlice{
			slice("a", func(s *discovery.EndpointSlice) { s.Ports[0].Port = new(int32(0)) }),
			slice("b", func(s *discovery.EndpointSlice) { s.Ports[0].Port = new(int32(-1)) }),
			slice("c", func(s *discovery.EndpointSlice) { s.Ports[0].Port = new(int32(65536)) }),
		}, port: "http", want: []hold.Endpoint{}},
		"addresses of no pod": {in: []*discovery.EndpointSlice{
			slice("a", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses[0] = "127.0.0.1" }),
			slice("b", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses[0] = "169.254.169.254" }),
			slice("c", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses[0] = "0.0.0.0" }),
			slice("d", func(s *discovery.EndpointSlice) { s.Endpoints[0].Addresses[0] = "metadata.internal" }),
		}, port: "http", want: []hold.Endpoint{}},
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

// watch runs a source over client inside a synctest bubble, and returns it once it is synced.
func watch(t *testing.T, client kubernetes.Interface) *endpoints.Slices {
	t.Helper()
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
	// an event between the informer's list and its watch would be lost: the fake client keeps no
	// history
	synctest.Wait()
	if !s.Synced() {
		t.Fatal("not synced")
	}
	return s
}

// starting changes a slice's endpoint to one that is not ready yet.
func starting(s *discovery.EndpointSlice) {
	s.Endpoints[0].Conditions.Ready, s.Endpoints[0].Conditions.Serving = no, no
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(slice("sluice", func(s *discovery.EndpointSlice) {
			s.Labels[discovery.LabelManagedBy] = "sluice.dev"
			s.Endpoints[0].Addresses[0] = "10.9.9.9"
		}))
		s := watch(t, client)
		api := client.DiscoveryV1().EndpointSlices("shop")
		var updates, second [][]hold.Endpoint
		// check takes all updates since the last one.
		check := func(what string, err error, want ...[]hold.Endpoint) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if diff := cmp.Diff(want, updates); diff != "" {
				t.Errorf("%s: updates (-want +got):\n%s", what, diff)
			}
			updates = nil
		}
		none := []hold.Endpoint{}
		stop := s.Subscribe(target, func(e []hold.Endpoint) { updates = append(updates, e) })
		check("at first", nil, none)
		_, err := api.Create(t.Context(), slice("a", starting), metav1.CreateOptions{})
		check("a starting pod", err, []hold.Endpoint{{Address: "10.0.0.1:8012"}})
		ready := []hold.Endpoint{{Address: "10.0.0.1:8012", Ready: true, Serving: true}}
		_, err = api.Update(t.Context(), slice("a", nil), metav1.UpdateOptions{})
		check("a ready pod", err, ready)
		_, err = api.Update(t.Context(), slice("a", func(s *discovery.EndpointSlice) { s.Labels["team"] = "blue" }), metav1.UpdateOptions{})
		check("a change of something else", err)
		check("no pod", api.Delete(t.Context(), "a", metav1.DeleteOptions{}), none)
		stop()
		defer s.Subscribe(target, func(e []hold.Endpoint) { second = append(second, e) })()
		_, err = api.Create(t.Context(), slice("b", nil), metav1.CreateOptions{})
		check("after the subscription ended", err)
		if diff := cmp.Diff([][]hold.Endpoint{none, ready}, second); diff != "" {
			t.Errorf("another subscription: updates (-want +got):\n%s", diff)
		}
	})
}

// The store runs ahead of the events: while a subscriber is told of one change, the next one may be
// in the store already. It is then told of that one once, and not again when the event of it
// arrives.
func TestSubscribeStoreAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(slice("a", starting))
		s := watch(t, client)
		api := client.DiscoveryV1().EndpointSlices("shop")
		var updates [][]hold.Endpoint
		release := make(chan struct{})
		defer s.Subscribe(target, func(e []hold.Endpoint) {
			updates = append(updates, e)
			if len(updates) == 2 { // ready: the store changes meanwhile
				<-release
			}
		})()
		if _, err := api.Update(t.Context(), slice("a", nil), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := api.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		want := [][]hold.Endpoint{{{Address: "10.0.0.1:8012"}}, {{Address: "10.0.0.1:8012", Ready: true, Serving: true}}, {}}
		if diff := cmp.Diff(want, updates); diff != "" {
			t.Errorf("updates (-want +got):\n%s", diff)
		}
	})
}
