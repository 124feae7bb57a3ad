package preset_test

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
)

var at = time.Unix(1_800_000_000, 0)

func builtin(t testing.TB) *preset.Set {
	t.Helper()
	s, err := preset.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read reads a text with a preset: the values by signal, "value" or "value/per", and what is
// missing.
func read(t *testing.T, p *preset.Preset, text string) (values map[string]float64, per map[string]float64, missing map[string]string) {
	t.Helper()
	r, err := p.Read(t.Context(), http.Header{"Content-Type": {"text/plain; version=0.0.4"}}, strings.NewReader(text), at)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	values, per, missing = map[string]float64{}, map[string]float64{}, map[string]string{}
	for _, v := range r.Values {
		switch {
		case v.Missing != "":
			missing[v.Signal] = v.Missing
		case v.Ratio:
			values[v.Signal], per[v.Signal] = v.Value, v.Per
		default:
			values[v.Signal] = v.Value
		}
	}
	return values, per, missing
}

// TestBuiltins reads each built-in preset from an exposition in the form that its project's
// documentation shows.
func TestBuiltins(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, preset, text string
		want, per          map[string]float64
	}{
		{
			"knative", "knative", `
# HELP queue_average_concurrent_requests Number of requests currently being handled by this pod
# TYPE queue_average_concurrent_requests gauge
queue_average_concurrent_requests{destination_configuration="c",destination_namespace="ns",destination_pod="p",destination_revision="r"} 2.5
# TYPE queue_average_proxied_concurrent_requests gauge
queue_average_proxied_concurrent_requests{destination_configuration="c",destination_namespace="ns",destination_pod="p",destination_revision="r"} 0
# TYPE queue_requests_per_second gauge
queue_requests_per_second{destination_configuration="c",destination_namespace="ns",destination_pod="p",destination_revision="r"} 12
`, map[string]float64{"concurrency": 2.5, "rate": 12}, nil,
		},
		{
			"knative, metrics for users", "knative-user", `
# TYPE revision_request_count counter
revision_request_count{configuration_name="c",container_name="queue-proxy",namespace_name="ns",pod_name="p",response_code="200",response_code_class="2xx",revision_name="r",service_name="s"} 40
# TYPE revision_request_latencies histogram
revision_request_latencies_bucket{response_code="200",le="5"} 30
revision_request_latencies_bucket{response_code="200",le="+Inf"} 40
revision_request_latencies_sum{response_code="200"} 8000
revision_request_latencies_count{response_code="200"} 40
`, map[string]float64{"concurrency": 8, "rate": 40}, nil,
		},
		{
			"envoy", "envoy", `
# TYPE envoy_http_downstream_rq_total counter
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="admin"} 900
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="ingress_http"} 50
# TYPE envoy_http_downstream_rq_active gauge
envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix="admin"} 1
envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix="ingress_http"} 4
# TYPE envoy_http_downstream_rq_time histogram
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress_http",le="0.5"} 0
envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="ingress_http"} 2000
envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="ingress_http"} 49
`, map[string]float64{"concurrency": 4, "rate": 50, "duration": 2}, map[string]float64{"duration": 49},
		},
		{
			"istio", "istio", `
# TYPE istio_build gauge
istio_build{component="proxy",tag="1.27.0"} 1
# TYPE istio_requests_total counter
istio_requests_total{reporter="destination",source_workload="a",destination_workload="b",request_protocol="http",response_code="200"} 30
istio_requests_total{reporter="destination",source_workload="a",destination_workload="b",request_protocol="http",response_code="503"} 2
istio_requests_total{reporter="source",source_workload="b",destination_workload="c",request_protocol="http",response_code="200"} 1000
# TYPE istio_request_duration_milliseconds histogram
istio_request_duration_milliseconds_bucket{reporter="destination",response_code="200",le="1"} 0
istio_request_duration_milliseconds_sum{reporter="destination",response_code="200"} 3000
istio_request_duration_milliseconds_count{reporter="destination",response_code="200"} 30
istio_request_duration_milliseconds_sum{reporter="source",response_code="200"} 999999
`, map[string]float64{"concurrency": 3, "rate": 32, "duration": 3}, map[string]float64{"duration": 30},
		},
		{
			"istio before the first request", "istio", "istio_build{component=\"proxy\",tag=\"1.27.0\"} 1\n",
			map[string]float64{"concurrency": 0, "rate": 0},
			nil,
		},
		{
			"linkerd", "linkerd", `
# TYPE request_total counter
request_total{direction="inbound",tls="no_identity",no_tls_reason="not_provided_by_remote"} 1756
request_total{authority="web:8085",direction="outbound",tls="true"} 536
# TYPE response_total counter
response_total{direction="inbound",tls="no_identity",status_code="200",classification="success"} 1750
response_total{direction="inbound",tls="no_identity",status_code="500",classification="failure"} 2
`, map[string]float64{"concurrency": 4, "rate": 1752}, nil,
		},
		{
			"linkerd, no response yet", "linkerd", "proxy_build_info{version=\"2\"} 1\nrequest_total{direction=\"inbound\"} 3\n",
			map[string]float64{"concurrency": 3, "rate": 0},
			nil,
		},
		{
			"nginx-ingress", "nginx-ingress", `
# TYPE nginx_ingress_controller_nginx_process_connections gauge
nginx_ingress_controller_nginx_process_connections{controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="p",state="active"} 9
nginx_ingress_controller_nginx_process_connections{controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="p",state="reading"} 1
nginx_ingress_controller_nginx_process_connections{controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="p",state="waiting"} 3
nginx_ingress_controller_nginx_process_connections{controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="p",state="writing"} 5
# TYPE nginx_ingress_controller_nginx_process_requests_total counter
nginx_ingress_controller_nginx_process_requests_total{controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="p"} 700
nginx_ingress_controller_request_duration_seconds_sum{host="a",status="200"} 35
nginx_ingress_controller_request_duration_seconds_count{host="a",status="200"} 70
`, map[string]float64{"concurrency": 6, "rate": 700, "duration": 35}, map[string]float64{"duration": 70},
		},
		{
			"traefik 3", "traefik", `
traefik_config_reloads_total 1
traefik_open_connections{entrypoint="web",protocol="TCP"} 7
traefik_open_connections{entrypoint="traefik",protocol="TCP"} 2
traefik_entrypoint_requests_total{code="200",entrypoint="web",method="GET",protocol="http"} 20
traefik_entrypoint_requests_total{code="200",entrypoint="traefik",method="GET",protocol="http"} 500
traefik_entrypoint_request_duration_seconds_sum{code="200",entrypoint="web",method="GET",protocol="http"} 4
traefik_entrypoint_request_duration_seconds_count{code="200",entrypoint="web",method="GET",protocol="http"} 20
`, map[string]float64{"concurrency": 4, "rate": 20, "connections": 7, "duration": 4}, map[string]float64{"duration": 20},
		},
		{
			"kong", "kong", `
# TYPE kong_nginx_connections_total gauge
kong_nginx_connections_total{node_id="n",subsystem="http",state="accepted"} 100
kong_nginx_connections_total{node_id="n",subsystem="http",state="active"} 9
kong_nginx_connections_total{node_id="n",subsystem="http",state="reading"} 0
kong_nginx_connections_total{node_id="n",subsystem="http",state="total"} 300
kong_nginx_connections_total{node_id="n",subsystem="http",state="writing"} 4
# TYPE kong_nginx_requests_total gauge
kong_nginx_requests_total{node_id="n",subsystem="http"} 300
kong_request_latency_ms_sum{service="s",route="r"} 6000
kong_request_latency_ms_count{service="s",route="r"} 60
`, map[string]float64{"concurrency": 4, "rate": 300, "duration": 6}, map[string]float64{"duration": 60},
		},
		{
			"of-watchdog", "of-watchdog", `
# TYPE http_requests_in_flight gauge
http_requests_in_flight 3
# TYPE http_requests_total counter
http_requests_total{code="200",method="GET"} 11
http_request_duration_seconds_sum{code="200",method="GET"} 5.5
http_request_duration_seconds_count{code="200",method="GET"} 11
`, map[string]float64{"concurrency": 3, "rate": 11, "duration": 5.5}, map[string]float64{"duration": 11},
		},
		{
			"php-fpm", "php-fpm", `
# TYPE phpfpm_accepted_connections counter
phpfpm_accepted_connections{pool="www",scrape_uri="tcp://127.0.0.1:9000/status"} 3600
# TYPE phpfpm_active_processes gauge
phpfpm_active_processes{pool="www",scrape_uri="tcp://127.0.0.1:9000/status"} 2
phpfpm_listen_queue{pool="www",scrape_uri="tcp://127.0.0.1:9000/status"} 5
phpfpm_total_processes{pool="www",scrape_uri="tcp://127.0.0.1:9000/status"} 10
`, map[string]float64{"concurrency": 7, "queue": 5, "rate": 3600}, nil,
		},
		{
			"app-gauge", "app-gauge", `http_server_active_requests{http_request_method="GET",url_scheme="http"} 2` + "\n",
			map[string]float64{"concurrency": 2},
			nil,
		},
		{
			"app-histogram", "app-histogram", `
http_server_request_duration_seconds_bucket{http_request_method="GET",le="0.005"} 1
http_server_request_duration_seconds_sum{http_request_method="GET"} 12
http_server_request_duration_seconds_count{http_request_method="GET"} 4
`, map[string]float64{"concurrency": 12, "rate": 4, "duration": 12}, map[string]float64{"duration": 4},
		},
		{
			"vllm", "vllm", `
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 8.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.75
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 27453.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="length",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="meta-llama/Llama-3.1-8B-Instruct"} 130.0
vllm:e2e_request_latency_seconds_sum{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 262
vllm:e2e_request_latency_seconds_count{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 131
`, map[string]float64{"concurrency": 11, "queue": 3, "kv_cache": 0.75, "tokens": 27453, "rate": 131, "duration": 262}, map[string]float64{"duration": 131},
		},
		{
			"vllm before 0.10", "vllm", `
vllm:num_requests_running{model_name="m"} 1
vllm:num_requests_waiting{model_name="m"} 0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:generation_tokens_total{model_name="m"} 5
`, map[string]float64{"concurrency": 1, "queue": 0, "kv_cache": 0.25, "tokens": 5, "rate": 0}, nil,
		},
		{
			"sglang", "sglang", `
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{model_name="meta-llama/Llama-3.1-8B-Instruct"} 7.557572e+06
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.28
sglang:num_running_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 161
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct"} 2826
sglang:num_requests_total{model_name="meta-llama/Llama-3.1-8B-Instruct"} 11228
sglang:e2e_request_latency_seconds_sum{model_name="meta-llama/Llama-3.1-8B-Instruct"} 3.116093850019932e+06
sglang:e2e_request_latency_seconds_count{model_name="meta-llama/Llama-3.1-8B-Instruct"} 11228
`, map[string]float64{
				"concurrency": 2987, "queue": 2826, "kv_cache": 0.28, "tokens": 7.557572e+06, "rate": 11228, "duration": 3.116093850019932e+06,
			}, map[string]float64{"duration": 11228},
		},
		{
			"tgi", "tgi", `
# TYPE tgi_queue_size gauge
tgi_queue_size 2
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 5
tgi_request_success{method="generate"} 70
tgi_request_generated_tokens_sum 8000
tgi_request_duration_sum 35
tgi_request_duration_count 70
`, map[string]float64{"concurrency": 7, "queue": 2, "tokens": 8000, "rate": 70, "duration": 35}, map[string]float64{"duration": 70},
		},
		{
			"triton", "triton", `
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="a",version="1"} 20
nv_inference_request_success{model="b",version="1"} 5
nv_inference_request_duration_us{model="a",version="1"} 4000000
nv_inference_request_duration_us{model="b",version="1"} 1000000
nv_inference_pending_request_count{model="a",version="1"} 3
`, map[string]float64{"concurrency": 5, "queue": 3, "rate": 25, "duration": 5}, map[string]float64{"duration": 25},
		},
		{
			"llm-d EPP", "llm-d-epp", `
llm_d_epp_ready_endpoints{name="pool"} 3
llm_d_epp_request_running{model_name="m"} 6
llm_d_epp_flow_control_queue_size{fairness_id="a",priority="0"} 2
llm_d_epp_flow_control_queue_size{fairness_id="b",priority="-10"} 1
llm_d_epp_average_kv_cache_utilization{name="pool"} 0.4
llm_d_epp_request_total{model_name="m",target_model_name="m"} 90
`, map[string]float64{"concurrency": 9, "queue": 3, "kv_cache": 0.4, "rate": 90}, nil,
		},
		{
			"the inference gateway's EPP, idle", "llm-d-epp", `
inference_pool_average_kv_cache_utilization{name="pool"} 0
inference_pool_average_queue_size{name="pool"} 0
inference_pool_ready_pods{name="pool"} 3
`, map[string]float64{"concurrency": 0, "queue": 0, "kv_cache": 0, "rate": 0}, nil,
		},
	}
	set := builtin(t)
	read1 := map[string]bool{}
	for _, tt := range cases {
		read1[tt.preset] = true
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, per, missing := read(t, set.Get(tt.preset), tt.text)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("values (-want +got):\n%s\nmissing: %v", d, missing)
			}
			if tt.per == nil {
				tt.per = map[string]float64{}
			}
			if d := cmp.Diff(tt.per, per); d != "" {
				t.Errorf("counts (-want +got):\n%s", d)
			}
			for signal, why := range missing {
				if why == "" || !set.Get(tt.preset).Gives(signal) {
					t.Errorf("signal %s is missing: %q", signal, why)
				}
			}
		})
	}
	for _, name := range set.Names() {
		if !read1[name] {
			t.Errorf("preset %s is read by no case", name)
		}
		// Nothing of it is known of an answer that has none of its samples.
		values, _, missing := read(t, set.Get(name), "go_goroutines 5\n")
		if len(values) != 0 || len(missing) == 0 {
			t.Errorf("preset %s of another program's exposition gives %v", name, values)
		}
	}
}

func TestValuesThatAreNone(t *testing.T) {
	t.Parallel()
	set, err := preset.New([]byte(`
presets:
- name: x
  port: 80
  signals:
    a: {gauge: g}
    b: {gauge: max(g)}
    c: {gauge: g - h}
    d: {gauge: g / h}
    e: {counter: n_total}
`))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ name, text string }{
		{"NaN", "g NaN\nh 1\nn_total NaN\n"},
		{"one NaN of two", "g{a=\"1\"} 3\ng{a=\"2\"} NaN\nh 1\nn_total{a=\"1\"} NaN\nn_total 1\n"},
		{"+Inf", "g +Inf\nh 1\nn_total +Inf\n"},
		{"-Inf", "g -Inf\nh 1\nn_total -Inf\n"},
		{"negative", "g -1\nh 1\nn_total -1\n"},
		{"overflow", "g 1e308\ng{a=\"1\"} 1e308\nh -1e308\nn_total 1e308\nn_total{a=\"1\"} 1e308\n"},
	}
	for _, tt := range cases {
		values, _, missing := read(t, set.Get("x"), tt.text)
		for s, v := range values {
			if s != "b" || tt.name != "overflow" || math.IsInf(v, 0) {
				t.Errorf("%s: signal %s = %v, want none", tt.name, s, v)
			}
		}
		if len(missing) < 4 {
			t.Errorf("%s: missing %v", tt.name, missing)
		}
	}
	values, _, missing := read(t, set.Get("x"), "g 1\nh 0\n")
	if _, ok := values["d"]; ok || !strings.Contains(missing["d"], "no amount") {
		t.Errorf("1/0 = %v, %q", values["d"], missing["d"])
	}
	old := at.Add(-2 * time.Minute).UnixMilli()
	if values, _, missing := read(t, set.Get("x"), "g 1 "+strconv.FormatInt(old, 10)+"\n"); len(values) != 0 {
		t.Errorf("a sample of two minutes ago gives %v, %v", values, missing)
	}
}
