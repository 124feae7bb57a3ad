//go:build !e2e

package node_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-autoscaler/sluice/testbed/node"
)

func TestProbes(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound) // not followed: another host
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/sick", http.StatusFound)
		case r.URL.Path == "/sick", r.UserAgent() != "kube-probe/1.37", r.URL.Path == "/named" && r.Host != "app.example":
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	port := func(addr net.Addr) int32 { return int32(addr.(*net.TCPAddr).Port) } //nolint:errcheck,forcetypeassert // listeners of this test

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, states := grpc.NewServer(), health.NewServer()
	states.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(srv, states)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()

	c := &v1.Container{Name: "main", Ports: []v1.ContainerPort{{Name: "http", ContainerPort: port(plain.Listener.Addr())}}}
	get := func(path string) *v1.HTTPGetAction {
		return &v1.HTTPGetAction{Path: path, Port: intstr.FromString("http")}
	}
	tls := get("/")
	tls.Port, tls.Scheme = intstr.FromInt32(port(secure.Listener.Addr())), v1.URISchemeHTTPS
	named := get("/named")
	named.HTTPHeaders = []v1.HTTPHeader{{Name: "Host", Value: "app.example"}}
	tests := map[string]struct {
		handler v1.ProbeHandler
		ok      bool
		message string
		fails   bool
	}{
		"http":                    {v1.ProbeHandler{HTTPGet: get("/?a=b")}, true, "", false},
		"http 500":                {v1.ProbeHandler{HTTPGet: get("/sick")}, false, "HTTP probe failed with statuscode: 500", false},
		"https":                   {v1.ProbeHandler{HTTPGet: tls}, true, "", false},
		"host header":             {v1.ProbeHandler{HTTPGet: named}, true, "", false},
		"redirect elsewhere":      {v1.ProbeHandler{HTTPGet: get("/away")}, true, "", false},
		"redirect to a bad place": {v1.ProbeHandler{HTTPGet: get("/moved")}, false, "HTTP probe failed with statuscode: 500", false},
		"no such port":            {v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromString("x")}}, false, "", true},
		"tcp":                     {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromString("http")}}, true, "", false},
		"tcp refused": {
			v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(port(closed.Addr()))}},
			false,
			"dial tcp 127.0.0.1:" + strconv.Itoa(int(port(closed.Addr()))) + ": connect: connection refused", false,
		},
		"grpc":      {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: port(l.Addr())}}, true, "", false},
		"grpc sick": {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: port(l.Addr()), Service: new("sick")}}, false, `service unhealthy (responded with "NOT_SERVING")`, false},
		"none":      {v1.ProbeHandler{}, false, "", true},
	}
	p := node.NewNetProber(newStage())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ok, message, err := p.Probe(t.Context(), &tt.handler, node.NewTarget(c, "127.0.0.1"))
			if ok != tt.ok || message != tt.message || (err != nil) != tt.fails {
				t.Errorf("Probe = %v, %q, %v; want %v, %q, failure: %v", ok, message, err, tt.ok, tt.message, tt.fails)
			}
		})
	}
}
