package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
)

// pathKey is the key of a request's path in its context.
type pathKey struct{}

// KeepPath keeps the path of each request as it came, so that names are passed on with the escapes
// that they had.
func KeepPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _, _ := strings.Cut(r.RequestURI, "?")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), pathKey{}, raw)))
	})
}

// keptPath is the path as it came; empty where it was not kept.
func keptPath(ctx context.Context) string {
	raw, _ := ctx.Value(pathKey{}).(string)
	return raw
}

// maxName bounds the names in a path.
const maxName = 1 << 10

// Call is a request to a provider. What it names has been authorized.
type Call struct {
	External bool
	Resource schema.GroupResource
	// Namespace is empty outside of namespaces; Name is an object's, or * for all that match.
	Namespace, Name string
	Metric          string
	// Objects selects objects, Metrics series.
	Objects, Metrics labels.Selector
}

// Area is the namespace that a call is about.
func (c *Call) Area() string {
	if !c.External && c.Namespace == "" && c.Resource == (schema.GroupResource{Resource: "namespaces"}) && c.Name != "*" {
		return c.Name
	}
	return c.Namespace
}

// Target writes a call as path and query, with segments as the path that came has them.
func (c *Call) Target(version, came string) (string, error) {
	segments := []string{"apis", custom_metrics.GroupName, version}
	if c.External {
		segments = append([]string{"apis", external_metrics.GroupName, version}, "namespaces", c.Namespace, c.Metric)
	} else {
		resource := c.Resource.String()
		if c.Resource == (schema.GroupResource{Resource: "namespaces"}) && c.Namespace == "" {
			segments = append(segments, "namespaces", c.Name, "metrics", c.Metric)
		} else {
			if c.Namespace != "" {
				segments = append(segments, "namespaces", c.Namespace)
			}
			segments = append(segments, resource, c.Name, c.Metric)
		}
	}
	var b strings.Builder
	raw := strings.Split(strings.TrimPrefix(came, "/"), "/")
	for i, s := range segments {
		if err := usable(s); err != nil {
			return "", err
		}
		b.WriteByte('/')
		if i < len(raw) && len(raw) == len(segments) && stands(raw[i], s) {
			b.WriteString(raw[i])
		} else {
			b.WriteString(url.PathEscape(s))
		}
	}
	q := url.Values{}
	for _, p := range []struct {
		key      string
		selector labels.Selector
	}{{"labelSelector", c.Objects}, {"metricLabelSelector", c.Metrics}} {
		if p.selector == nil {
			continue
		}
		if _, selectable := p.selector.Requirements(); !selectable {
			return "", apierrors.NewBadRequest(p.key + " selects nothing")
		}
		if !p.selector.Empty() {
			q.Set(p.key, p.selector.String())
		}
	}
	if len(q) > 0 {
		b.WriteByte('?')
		b.WriteString(q.Encode())
	}
	return b.String(), nil
}

// usable refuses names that would name something else in a path.
func usable(s string) error {
	if s == "" || s == "." || s == ".." || len(s) > maxName || strings.ContainsAny(s, "/\\") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return apierrors.NewBadRequest(fmt.Sprintf("%q is no name of a namespace, an object or a metric", s[:min(len(s), 100)]))
	}
	return nil
}

// stands reports whether a segment as it came stands for the name, and for nothing else.
func stands(raw, name string) bool {
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '/' || c == '?' || c == '#' || c == '\\' {
			return false
		}
	}
	text, err := url.PathUnescape(raw)
	return err == nil && text == name
}
