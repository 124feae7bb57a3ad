package review_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/sluice-autoscaler/sluice/internal/review"
)

// cluster answers reviews: a token is its user's name, "bad" is none, "scraper" may get /metrics.
type cluster struct {
	*fake.Clientset
	tokens, accesses atomic.Int64
	down             atomic.Bool
}

func newCluster() *cluster {
	c := &cluster{Clientset: fake.NewClientset()}
	c.PrependReactor("create", "tokenreviews", func(a kubetesting.Action) (bool, runtime.Object, error) {
		c.tokens.Add(1)
		if c.down.Load() {
			return true, nil, errors.New("no route")
		}
		review := a.(kubetesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		review.Status.Authenticated = review.Spec.Token != "bad" && len(review.Spec.Token) < 100
		review.Status.User = authenticationv1.UserInfo{Username: review.Spec.Token, Groups: []string{"people"}}
		return true, review, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a kubetesting.Action) (bool, runtime.Object, error) {
		c.accesses.Add(1)
		review := a.(kubetesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		n := review.Spec.NonResourceAttributes
		review.Status.Allowed = review.Spec.User == "scraper" && review.Spec.Groups[0] == "people" && n != nil && n.Path == "/metrics" && n.Verb == "get"
		return true, review, nil
	})
	return c
}

func get(h http.Handler, path, authorization string) int {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Code
}

func served(http.ResponseWriter, *http.Request) {}

func TestGuard(t *testing.T) {
	c := newCluster()
	h := review.New(c, slog.New(slog.DiscardHandler)).Guard(http.HandlerFunc(served))
	for _, tt := range []struct {
		name, path, authorization string
		want                      int
	}{
		{"nobody", "/metrics", "", 401},
		{"no token", "/metrics", "Bearer ", 401},
		{"another scheme", "/metrics", "Basic scraper", 401},
		{"a bad token", "/metrics", "Bearer bad", 401},
		{"a tenant", "/metrics", "Bearer tenant", 403},
		{"a scraper", "/metrics", "Bearer scraper", 200},
		{"a scraper elsewhere", "/other", "Bearer scraper", 403},
	} {
		for range 2 { // the second answer is remembered
			if got := get(h, tt.path, tt.authorization); got != tt.want {
				t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
			}
		}
	}
	if n := c.tokens.Load(); n != 4 {
		t.Errorf("%d tokens were reviewed, want 4: those without a token cost nothing, and answers are remembered", n)
	}
}

// TestVerdictsAge: a right that was taken is noticed, and one that was given soon.
func TestVerdictsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		h := review.New(c, slog.New(slog.DiscardHandler)).Guard(http.HandlerFunc(served))
		for token, ttl := range map[string]time.Duration{"scraper": 2 * time.Minute, "tenant": 10 * time.Second} {
			before := c.accesses.Load()
			get(h, "/metrics", "Bearer "+token)
			time.Sleep(ttl - time.Second)
			get(h, "/metrics", "Bearer "+token)
			if n := c.accesses.Load() - before; n != 1 {
				t.Errorf("%s was reviewed %d times within %v", token, n, ttl)
			}
			time.Sleep(2 * time.Second)
			get(h, "/metrics", "Bearer "+token)
			if n := c.accesses.Load() - before; n != 2 {
				t.Errorf("%s was reviewed %d times after %v", token, n, ttl)
			}
		}
	})
}

// TestDown: while nobody can be asked, who was allowed goes on, and nobody else gets in.
func TestDown(t *testing.T) {
	c := newCluster()
	h := review.New(c, slog.New(slog.DiscardHandler)).Guard(http.HandlerFunc(served))
	if got := get(h, "/metrics", "Bearer scraper"); got != 200 {
		t.Fatal(got)
	}
	c.down.Store(true)
	for token, want := range map[string]int{"scraper": 200, "tenant": 503} {
		if got := get(h, "/metrics", "Bearer "+token); got != want {
			t.Errorf("%s: %d, want %d", token, got, want)
		}
	}
}

// TestManyTokens: a flood of tokens does not make the scraper's forgotten.
func TestManyTokens(t *testing.T) {
	c := newCluster()
	h := review.New(c, slog.New(slog.DiscardHandler)).Guard(http.HandlerFunc(served))
	get(h, "/metrics", "Bearer scraper")
	for i := range 5000 {
		get(h, "/metrics", fmt.Sprintf("Bearer guess-%d", i))
	}
	before := c.tokens.Load()
	if got := get(h, "/metrics", "Bearer scraper"); got != 200 || c.tokens.Load() != before {
		t.Errorf("the scraper got %d, reviewed %d times more", got, c.tokens.Load()-before)
	}
}
