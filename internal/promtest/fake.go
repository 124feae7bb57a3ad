package promtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Grammar checks what a Fake is asked. This package knows no PromQL, which would be imported into
// every module of tests.
type Grammar struct {
	// Parse refuses what is no query.
	Parse func(query string) error
	// Matches tells whether a selector, as match[] has it, takes a series, or that it is none.
	Matches func(selector string, series map[string]string) (bool, error)
}

// Fake speaks the part of Prometheus' API that Sluice uses, and is strict about it: what else is
// asked fails the test. It is safe for concurrent use; its fields change within Set.
type Fake struct {
	*httptest.Server
	t       testing.TB
	grammar Grammar
	hang    chan struct{}

	mu sync.Mutex
	// Series are the labels of series, with __name__.
	Series []map[string]string
	// Answer answers a query, and nil an empty vector.
	Answer func(w http.ResponseWriter, query string)
	// Fault answers any request in place of the Fake, unless it returns false.
	Fault func(w http.ResponseWriter) bool
	asked map[string]int
}

// NewFake runs a Fake on a port of an address of this machine until the test ends.
func NewFake(t testing.TB, host string, g Grammar, series ...map[string]string) *Fake {
	t.Helper()
	f := &Fake{t: t, grammar: g, hang: make(chan struct{}), Series: series, asked: map[string]int{}}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	f.Listener = l
	f.Start()
	t.Cleanup(func() {
		close(f.hang)
		f.Close()
	})
	return f
}

// Hang returns when the test ends: what calls it does not answer.
func (f *Fake) Hang() { <-f.hang }

// Set changes fields.
func (f *Fake) Set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Queries counts what was asked, by query.
func (f *Fake) Queries() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}

func (f *Fake) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	f.mu.Lock()
	fault, answer := f.Fault, f.Answer
	f.mu.Unlock()
	if fault != nil && fault(w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/api/v1/query" && r.Method == http.MethodPost:
		query := r.PostForm.Get("query")
		if err := f.grammar.Parse(query); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"status":"error","errorType":"bad_data","error":%q}`, err.Error())
			return
		}
		f.Set(func() { f.asked[query]++ })
		if answer != nil {
			answer(w, query)
			return
		}
		fmt.Fprint(w, Vector())
	case r.URL.Path == "/api/v1/label/__name__/values" && r.Method == http.MethodGet, r.URL.Path == "/api/v1/labels" && r.Method == http.MethodPost:
		f.list(w, r)
	default:
		f.t.Errorf("unexpected %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

// list lists the names of series (GET) or of their labels (POST).
func (f *Fake) list(w http.ResponseWriter, r *http.Request) {
	if _, err := strconv.ParseInt(r.Form.Get("start"), 10, 64); err != nil {
		f.t.Errorf("%s with %v: %v", r.URL.Path, r.Form, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]bool{}
	for _, s := range f.Series {
		ok, err := f.grammar.Matches(r.Form.Get("match[]"), s)
		if err != nil {
			f.t.Errorf("%s with %v: %v", r.URL.Path, r.Form, err)
		}
		if !ok {
			continue
		}
		if r.Method == http.MethodGet {
			found[s["__name__"]] = true
			continue
		}
		for label := range s {
			found[label] = true
		}
	}
	names := append([]string{}, slices.Sorted(maps.Keys(found))...)
	if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": names}); err != nil {
		f.t.Logf("a list was not taken: %v", err)
	}
}

// Sample writes a sample for Vector: labels such as `pod="a",code="200"`, and a value of now.
func Sample(labels, value string) string { return SampleAt(time.Now(), labels, value) }

// SampleAt is Sample with the time of the sample.
func SampleAt(at time.Time, labels, value string) string {
	var pairs []string
	for pair := range strings.SplitSeq(labels, ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			pairs = append(pairs, strconv.Quote(k)+":"+v)
		}
	}
	return fmt.Sprintf(`{"metric":{%s},"value":[%d.25,%q]}`, strings.Join(pairs, ","), at.Unix(), value)
}

// Vector writes the answer to an instant query.
func Vector(samples ...string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
}
