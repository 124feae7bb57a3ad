package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/sluice-autoscaler/sluice/adapter/server"
)

// reviews are the questions that the cluster was asked.
type reviews struct {
	mu  sync.Mutex
	all []authorizationv1.SubjectAccessReviewSpec
}

func (r *reviews) add(s authorizationv1.SubjectAccessReviewSpec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
}

// of lists what was asked of a user's rights to resources.
func (r *reviews) of(user string) []authorizationv1.ResourceAttributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []authorizationv1.ResourceAttributes
	for _, s := range r.all {
		if s.User == user && s.ResourceAttributes != nil {
			out = append(out, *s.ResourceAttributes)
		}
	}
	return out
}

// paths lists what was asked of a user's rights to paths.
func (r *reviews) paths(user string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.all {
		if n := s.NonResourceAttributes; s.User == user && n != nil {
			out = append(out, n.Verb+" "+n.Path)
		}
	}
	return out
}

// journal knows the Autoscaler web, and what goes wrong with others.
func journal(namespace, name string, w io.Writer) error {
	fmt.Fprintf(w, `{"of":"%s/%s"}`, namespace, name)
	switch name {
	case "web":
		return nil
	case "elsewhere":
		return server.ErrNotLeader
	case "broken":
		return errors.New("a fault of ours")
	}
	return fmt.Errorf("autoscaler %s: %w", name, server.ErrNoJournal)
}

func TestJournal(t *testing.T) {
	w := start(t)
	viewer := http.Header{"Authorization": {"Bearer viewer"}}
	const root = "/apis/explain.sluice.dev/v1alpha1"

	t.Run("answers", func(t *testing.T) {
		for _, c := range []struct {
			path string
			code int
			want string
		}{
			{"/namespaces/shop/autoscalers/web/journal", 200, `{"of":"shop/web"}`},
			{"/namespaces/shop/autoscalers/ghost/journal", 404, `autoscalers.explain.sluice.dev \"ghost\" not found`},
			{"/namespaces/shop/autoscalers/elsewhere/journal", 503, "journal of Autoscaler shop/elsewhere: this replica is not the leader"},
			{"/namespaces/shop/autoscalers/broken/journal", 500, "a fault of ours"},
			{"/namespaces/shop/autoscalers/web", 404, "namespaces/NAMESPACE/autoscalers/NAME/journal"},
			{"/namespaces/shop/autoscalers", 404, "autoscalers/NAME/journal"},
			{"/namespaces/shop/autoscalers/web/journal/more", 404, "autoscalers/NAME/journal"},
			{"/autoscalers/web/journal", 404, "autoscalers/NAME/journal"},
			{"/namespaces/shop/pods/web/journal", 404, "autoscalers/NAME/journal"},
		} {
			code, body := w.get(t, w.plain, root+c.path, viewer)
			if code != c.code || !strings.Contains(body, c.want) {
				t.Errorf("GET %s = %d %s, want %d %s", c.path, code, body, c.code, c.want)
			}
			if code != 200 && strings.Contains(body, `"of"`) {
				t.Errorf("GET %s = %s: what was written before the fault went out", c.path, body)
			}
		}
	})

	t.Run("errors are statuses", func(t *testing.T) {
		_, body := w.get(t, w.plain, root+"/namespaces/shop/autoscalers/elsewhere/journal", viewer)
		var s metav1.Status
		if err := json.Unmarshal([]byte(body), &s); err != nil || s.Kind != "Status" || s.Code != 503 || s.Reason != metav1.StatusReasonServiceUnavailable {
			t.Errorf("%s: %+v, %v", body, s, err)
		}
	})

	t.Run("rights", func(t *testing.T) {
		path := root + "/namespaces/shop/autoscalers/web/journal"
		for _, c := range []struct {
			name   string
			client *http.Client
			header http.Header
			want   int
		}{
			{"passed on by the front proxy", w.frontProxy, http.Header{"X-Remote-User": {hpa}}, 200},
			{"passed on, without the right", w.frontProxy, http.Header{"X-Remote-User": {"mallory"}}, 403},
			{"headers without the front proxy's certificate", w.plain, http.Header{"X-Remote-User": {hpa}}, 403},
			{"bad token", w.plain, http.Header{"Authorization": {"Bearer bad"}}, 401},
			{"nobody", w.plain, nil, 403},
		} {
			if code, body := w.get(t, c.client, path, c.header); code != c.want {
				t.Errorf("%s: %d, want %d: %s", c.name, code, c.want, body)
			}
		}
		want := []authorizationv1.ResourceAttributes{{
			Namespace: "shop", Verb: "get", Group: "explain.sluice.dev", Version: "v1alpha1", Resource: "autoscalers", Subresource: "journal", Name: "web",
		}}
		if d := cmp.Diff(want, w.reviews.of("mallory")); d != "" {
			t.Errorf("the cluster was asked (-want +got):\n%s", d)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "https://"+w.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = viewer
		resp, err := w.plain.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("DELETE = %d, want 405", resp.StatusCode)
		}
	})

	t.Run("discovery", func(t *testing.T) {
		for path, want := range map[string]string{
			"/apis/explain.sluice.dev": `{"kind":"APIGroup","apiVersion":"v1","name":"explain.sluice.dev","versions":[{"groupVersion":"explain.sluice.dev/v1alpha1","version":"v1alpha1"}],"preferredVersion":{"groupVersion":"explain.sluice.dev/v1alpha1","version":"v1alpha1"}}`,
			root:                       `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"explain.sluice.dev/v1alpha1","resources":[{"name":"autoscalers/journal","singularName":"","namespaced":true,"kind":"Journal","verbs":["get"]}]}`,
		} {
			code, body := w.get(t, w.plain, path, viewer)
			if d := cmp.Diff(want, strings.TrimSpace(body)); code != http.StatusOK || d != "" {
				t.Errorf("GET %s: %d (-want +got):\n%s", path, code, d)
			}
		}
		c, err := discovery.NewDiscoveryClientForConfig(w.serving)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]discovery.DiscoveryInterface{"aggregated": c, "legacy": c.WithLegacy()} {
			_, lists, err := c.ServerGroupsAndResources()
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(lists, func(l *metav1.APIResourceList) bool { return l.GroupVersion == "explain.sluice.dev/v1alpha1" })
			if i < 0 || !slices.ContainsFunc(lists[i].APIResources, func(r metav1.APIResource) bool { return r.Name == "autoscalers/journal" && r.Namespaced }) {
				t.Errorf("%s: %+v, want autoscalers/journal", name, lists)
			}
		}
	})
}
