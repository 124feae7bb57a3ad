// Package review guards HTTP handlers as the components of Kubernetes do: the cluster's API server
// is asked who a caller is, by its bearer token, and whether it may get the path. It is for
// programs that do not link k8s.io/apiserver.
package review

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// timeout bounds the reviews of one request, the wait for their turn included.
	timeout = 10 * time.Second
	// atOnce bounds the requests that are reviewed at once.
	atOnce = 8
	// allowedTTL is how long a token that may is believed, refusedTTL one that may not. The first
	// is longer than the usual time between two scrapes.
	allowedTTL, refusedTTL = 2 * time.Minute, 10 * time.Second
	// maxVerdicts bounds the verdicts that are remembered.
	maxVerdicts = 1024
)

// verdict is what was found of a token and a path: the status code of its answer.
type verdict struct {
	code int
	ends time.Time
}

// Reviewer asks the API server, which must let it create TokenReviews and SubjectAccessReviews. New
// makes it; it is safe for concurrent use.
type Reviewer struct {
	client kubernetes.Interface
	log    *slog.Logger
	slots  chan struct{}

	mu       sync.Mutex
	verdicts map[[sha256.Size]byte]verdict
}

// New returns a Reviewer that asks by client.
func New(client kubernetes.Interface, log *slog.Logger) *Reviewer {
	return &Reviewer{client: client, log: log, slots: make(chan struct{}, atOnce), verdicts: map[[sha256.Size]byte]verdict{}}
}

// Guard passes requests on to next whose callers may get their path. Others are answered 401
// without a valid token, 403 without the right, and 503 while that cannot be found out.
func (r *Reviewer) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch code := r.review(req); code {
		case http.StatusOK:
			next.ServeHTTP(w, req)
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "want a token of the cluster, as \"Authorization: Bearer TOKEN\"", code)
		case http.StatusForbidden:
			http.Error(w, fmt.Sprintf("want the right to get the nonResourceURL %s, such as by ClusterRole sluice-metrics-scraper", req.URL.Path), code)
		default:
			http.Error(w, "the cluster's API server cannot be asked who you are: try again", code)
		}
	})
}

// review returns the status code of the answer to a request, 200 for one that may go on.
func (r *Reviewer) review(req *http.Request) int {
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if token = strings.TrimSpace(token); !ok || token == "" {
		return http.StatusUnauthorized
	}
	key := sha256.Sum256([]byte(req.URL.Path + "\x00" + token))
	r.mu.Lock()
	v, known := r.verdicts[key]
	r.mu.Unlock()
	if known && time.Now().Before(v.ends) {
		return v.code
	}
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	defer cancel()
	code, err := r.ask(ctx, token, req.URL.Path)
	if err != nil {
		r.log.WarnContext(ctx, "caller not reviewed", slog.String("path", req.URL.Path), slog.Any("error", err))
		return http.StatusServiceUnavailable
	}
	v = verdict{code, time.Now().Add(refusedTTL)}
	if code == http.StatusOK {
		v.ends = time.Now().Add(allowedTTL)
	}
	r.remember(key, v)
	return code
}

// remember keeps a verdict. It makes room by forgetting refusals, and all else if that is not
// enough.
func (r *Reviewer) remember(key [sha256.Size]byte, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verdicts) >= maxVerdicts {
		now := time.Now()
		for k, old := range r.verdicts {
			if old.code != http.StatusOK || !now.Before(old.ends) {
				delete(r.verdicts, k)
			}
		}
		if len(r.verdicts) >= maxVerdicts {
			clear(r.verdicts)
		}
	}
	r.verdicts[key] = v
}

// ask asks the API server whose a token is, and whether that user may get a path.
func (r *Reviewer) ask(ctx context.Context, token, path string) (int, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return 0, errors.New("too many callers are being reviewed")
	}
	who, err := r.client.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("review a token: %w", err)
	}
	if !who.Status.Authenticated {
		return http.StatusUnauthorized, nil
	}
	user := who.Status.User
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	may, err := r.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: "get"},
		},
	}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("review the access of %s: %w", user.Username, err)
	case !may.Status.Allowed:
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}
