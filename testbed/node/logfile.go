package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxLogBytes bounds one container's log; past it the file starts anew, keeping its older half as
// .old.
const maxLogBytes = 16 << 20

// logFile is one run of one container: lines of "time stream tag text" as container runtimes write
// them. Its writers are safe for concurrent use.
type logFile struct {
	now func() time.Time

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string, now func() time.Time) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &logFile{now: now, file: f}, nil
}

func (l *logFile) line(stream string, full bool, text []byte) error {
	tag := "F"
	if !full {
		tag = "P"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > maxLogBytes {
		if err := os.Rename(l.file.Name(), l.file.Name()+".old"); err != nil {
			return err
		}
		f, err := os.OpenFile(l.file.Name(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		_ = l.file.Close()
		l.file, l.size = f, 0
	}
	n, err := fmt.Fprintf(l.file, "%s %s %s %s\n", l.now().UTC().Format(time.RFC3339Nano), stream, tag, text)
	l.size += int64(n)
	return err
}

// Close ends the file.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// maxLogLine is where a line is cut into partial ones.
const maxLogLine = 16 << 10

// lineWriter cuts a stream into lines. It belongs to one goroutine; flush writes what came after
// the last newline.
type lineWriter struct {
	log    *logFile
	stream string
	rest   []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		switch {
		case i >= 0 && i <= maxLogLine:
			if err := w.log.line(w.stream, true, w.rest[:i]); err != nil {
				return 0, err
			}
			w.rest = w.rest[i+1:]
		case len(w.rest) >= maxLogLine:
			if err := w.log.line(w.stream, false, w.rest[:maxLogLine]); err != nil {
				return 0, err
			}
			w.rest = w.rest[maxLogLine:]
		default:
			w.rest = append([]byte(nil), w.rest...)
			return len(p), nil
		}
	}
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		_ = w.log.line(w.stream, true, w.rest)
		w.rest = nil
	}
}
