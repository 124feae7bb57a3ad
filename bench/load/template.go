package load

import (
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/trace"
)

// Template makes a request of an arrival: text in which {work_ms} is the work in whole
// milliseconds, {work_us} in microseconds, {work_s} in seconds with a fraction, and {n} the
// request's number, from 0.
type Template struct {
	// URL is the address, such as http://127.0.0.1:8080/?ms={work_ms}.
	URL string
	// Header is sent with each request; its values may have placeholders as well.
	Header http.Header
}

// placeholders are what a template may hold.
func placeholders() []string { return []string{"{work_ms}", "{work_us}", "{work_s}", "{n}"} }

// Validate refuses an unknown placeholder.
func (t Template) Validate() error {
	texts := []string{t.URL}
	for _, values := range t.Header {
		texts = append(texts, values...)
	}
	for _, text := range texts {
		for _, p := range regexp.MustCompile(`\{[^}]*\}`).FindAllString(text, -1) {
			if !slices.Contains(placeholders(), p) {
				return fmt.Errorf("%q: unknown placeholder %s: want one of %s", text, p, strings.Join(placeholders(), ", "))
			}
		}
	}
	return nil
}

// TellsWork reports whether the server learns how long it is to work.
func (t Template) TellsWork() bool {
	tells := strings.Contains(t.URL, "{work_")
	for _, values := range t.Header {
		for _, v := range values {
			tells = tells || strings.Contains(v, "{work_")
		}
	}
	return tells
}

// unit is what work is rounded to, so that the record says what the server was told.
func (t Template) unit() time.Duration {
	if strings.Contains(t.URL, "{work_ms}") {
		return time.Millisecond
	}
	return time.Microsecond
}

// Call makes the nth request. Where the server does not learn of its work, that is 0.
func (t Template) Call(n int, r trace.Request) Call {
	work := r.Service.Round(t.unit())
	if !t.TellsWork() {
		work = 0
	}
	fill := strings.NewReplacer(
		"{work_ms}", strconv.FormatInt(work.Round(time.Millisecond).Milliseconds(), 10),
		"{work_us}", strconv.FormatInt(work.Microseconds(), 10),
		"{work_s}", strconv.FormatFloat(work.Seconds(), 'f', 6, 64),
		"{n}", strconv.Itoa(n))
	c := Call{At: r.At, URL: fill.Replace(t.URL), Work: work}
	for name, values := range t.Header {
		if c.Header == nil {
			c.Header = http.Header{}
		}
		for _, v := range values {
			c.Header.Add(name, fill.Replace(v))
		}
	}
	return c
}

// Calls makes requests of arrivals, at most that many; cut is called if there were more, and may be
// nil.
func (t Template) Calls(arrivals trace.Arrivals, most int, cut func()) iter.Seq[Call] {
	return func(yield func(Call) bool) {
		buf := make([]trace.Request, 256)
		n := 0
		for {
			got := arrivals.Read(buf)
			if got == 0 {
				return
			}
			for _, r := range buf[:got] {
				if n == most {
					if cut != nil {
						cut()
					}
					return
				}
				if !yield(t.Call(n, r)) {
					return
				}
				n++
			}
		}
	}
}
