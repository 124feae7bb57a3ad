package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
)

// Logging configures the one log of a process. DefaultLogging gives the usual one; Validate reports
// what is wrong.
type Logging struct {
	// Level is the least level that is written: debug, info, warn or error.
	Level string
	// Format is the format of a line: text or json.
	Format string
}

// DefaultLogging returns the logging without any flag: info, as text.
func DefaultLogging() Logging { return Logging{Level: "info", Format: "text"} }

// Bind makes --log-level and --log-format set l; l's present values are their defaults.
func (l *Logging) Bind(f *pflag.FlagSet) {
	f.StringVar(&l.Level, "log-level", l.Level, "debug, info, warn or error")
	f.StringVar(&l.Format, "log-format", l.Format, "text or json")
}

// Validate returns every fault, joined, or nil.
func (l *Logging) Validate() error {
	var errs []error
	if _, ok := l.level(); !ok {
		errs = append(errs, fmt.Errorf("log-level = %q: want debug, info, warn or error", l.Level))
	}
	if l.Format != "text" && l.Format != "json" {
		errs = append(errs, fmt.Errorf("log-format = %q: want text or json", l.Format))
	}
	return errors.Join(errs...)
}

// New returns the logger of a valid configuration, which writes to w.
func (l *Logging) New(w io.Writer) *slog.Logger {
	level, _ := l.level()
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// level reads the name of a level, in any case. The names are closed: slog's own parser also takes
// "INFO+2".
func (l *Logging) level() (slog.Level, bool) {
	switch strings.ToLower(l.Level) {
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	}
	return slog.LevelInfo, false
}
