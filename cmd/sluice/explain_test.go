package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
)

// apiServer is as much of an API server as explain needs. Journal answers for the journal.
func apiServer(t *testing.T, journal http.HandlerFunc) (kubeconfig string) {
	t.Helper()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	as := v1alpha1.Autoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "sluice.dev/v1alpha1", Kind: "Autoscaler"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: v1alpha1.AutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}},
		Status: v1alpha1.AutoscalerStatus{
			Phase:     "Awake",
			Decisions: []v1alpha1.DecisionRecord{{Time: metav1.NewMicroTime(at), From: 0, To: 1, Reason: "Wake", Message: "7 wait", Applied: true}},
		},
	}
	write := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		}
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: "sluice.dev/v1alpha1", Version: "v1alpha1"}
	group := metav1.APIGroup{Name: "sluice.dev", Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	mux := http.NewServeMux()
	mux.HandleFunc("/api", write(metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}}))
	mux.HandleFunc("/apis", write(metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList"}, Groups: []metav1.APIGroup{group}}))
	mux.HandleFunc("/apis/sluice.dev", write(group))
	mux.HandleFunc("/apis/sluice.dev/v1alpha1", write(metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: "sluice.dev/v1alpha1",
		APIResources: []metav1.APIResource{{Name: "autoscalers", Namespaced: true, Kind: "Autoscaler"}},
	}))
	mux.HandleFunc("/apis/sluice.dev/v1alpha1/namespaces/shop/autoscalers/web", write(as))
	mux.HandleFunc("/apis/explain.sluice.dev/v1alpha1/namespaces/shop/autoscalers/web/journal", journal)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
		"clusters": [{"name": "c", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}], "users": [{"name": "u", "user": {"token": "secret"}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// status answers as an API server does that refuses.
func status(code int, reason metav1.StatusReason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
		})
	}
}

// served is a journal with a change and a round that changed nothing.
func served(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer secret" {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	at := time.Date(2026, 11, 23, 12, 1, 0, 0, time.UTC)
	_ = json.NewEncoder(w).Encode(scaler.WorkloadJournal{Namespace: "shop", Name: "web", Entries: []scaler.Entry{
		{Since: at, Rounds: 1, Record: loop.Record{
			At: at, From: 1, To: 10, Applied: true, Reason: "Panic", Message: "125 requests",
			Clamps:   []algorithms.Clamp{{Rule: "MaxReplicas", From: 13, To: 10}},
			Signals:  []algorithms.Signal{{Name: "concurrency", Window: 6 * time.Second, Value: 125, Known: true, Coverage: 0.9, Age: time.Second}},
			Replicas: algorithms.Replicas{Ready: 1},
		}},
	}})
}

const (
	journalText = `12:01:00.000  scaled 1 → 10  Panic: 125 requests
    rule MaxReplicas: 13 → 10
    seen: concurrency over 6s 125 (1s old, 90 % known), 1 ready
`
	statusText = "12:00:00.000  scaled 0 → 1  Wake: 7 wait\n"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	asks := &atomic.Int32{}
	for _, c := range []struct {
		name    string
		journal http.HandlerFunc
		want    string // after the first line
		said    string // on stderr
		asks    int32  // 0 for any
	}{
		{"journal", served, journalText + statusText, "", 0},
		{"forbidden", status(403, metav1.StatusReasonForbidden, "autoscalers/journal is forbidden"), statusText, "what follows is the status, with the last decisions that changed something: read the journal of shop/web: autoscalers/journal is forbidden\n", 0},
		{"no such API", http.NotFound, statusText, "the server could not find the requested resource", 0},
		{"no journal", status(404, metav1.StatusReasonNotFound, "there is no journal of it"), statusText, "there is no journal of it", 0},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, statusText, "invalid character", 0},
		{"not the leader", func(w http.ResponseWriter, r *http.Request) {
			if asks.Add(1) < 4 {
				status(503, metav1.StatusReasonServiceUnavailable, "not the leader")(w, r)
				return
			}
			served(w, r)
		}, journalText + statusText, "", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out, stderr strings.Builder
			if err := execute(t.Context(), []string{"explain", "web", "--kubeconfig", apiServer(t, c.journal)}, nil, &out, &stderr); err != nil {
				t.Fatal(err)
			}
			first, rest, _ := strings.Cut(out.String(), "\n")
			if !strings.HasPrefix(first, "shop/web scales Deployment web: Awake") || rest != c.want {
				t.Errorf("explain wrote\n%s\nwant a line about the status, and\n%s", out.String(), c.want)
			}
			if !strings.Contains(stderr.String(), c.said) || (c.said == "") != (stderr.Len() == 0) || strings.Count(stderr.String(), "\n") > 1 {
				t.Errorf("explain said %q, want one line with %q", stderr.String(), c.said)
			}
			if c.asks != 0 && asks.Load() != c.asks {
				t.Errorf("the journal was asked for %d times, want %d", asks.Load(), c.asks)
			}
		})
	}
}

func TestExplainJSON(t *testing.T) {
	t.Parallel()
	var out, stderr strings.Builder
	if err := execute(t.Context(), []string{"explain", "web", "-o", "json", "--kubeconfig", apiServer(t, served)}, nil, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	var got scaler.WorkloadJournal
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got.Name != "web" || len(got.Entries) != 1 || got.Entries[0].Record.To != 10 {
		t.Errorf("explain -o json = %+v, %v", got, err)
	}
	err := execute(t.Context(), []string{"explain", "web", "-o", "json", "--kubeconfig", apiServer(t, http.NotFound)}, nil, &out, &stderr)
	if err == nil || !strings.HasPrefix(err.Error(), "read the journal of shop/web: ") {
		t.Errorf("explain -o json without a journal: %v, want an error that says so", err)
	}
}
