package serve

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Check is one named condition of health.
type Check struct {
	// Name appears in the answer.
	Name string
	// Probe returns nil when the condition holds, else why not. It is called by many goroutines at
	// once and heeds ctx.
	Probe func(ctx context.Context) error
	// Warning says that the answer is 200 even when the condition does not hold: it is shown only.
	Warning bool
}

// Health answers 200 when every check holds that is no warning, else 503, with a line of plain text
// for each check.
// Without checks it answers 200 always. The handler is safe for concurrent use.
func Health(checks ...Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		var text strings.Builder
		for _, c := range checks {
			if err := c.Probe(r.Context()); err != nil {
				if c.Warning {
					fmt.Fprintf(&text, "[!] %s: %v\n", c.Name, err)
					continue
				}
				status = http.StatusServiceUnavailable
				fmt.Fprintf(&text, "[-] %s: %v\n", c.Name, err)
				continue
			}
			fmt.Fprintf(&text, "[+] %s\n", c.Name)
		}
		if len(checks) == 0 {
			text.WriteString("ok\n")
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text.String()))
	})
}
