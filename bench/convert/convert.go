// Package convert writes loads that were read as the CSV that the bench itself reads.
package convert

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/intake"
)

// Kind tells what the first file holds.
func Kind(files []intake.File, o intake.Options) (string, error) {
	stop := errors.New("seen")
	kind := ""
	_, err := intake.First(files[0], o, func(it *intake.Item) error {
		kind = "log"
		if it.Bin {
			kind = "trace"
		}
		return stop
	})
	if kind != "" {
		return kind, nil
	}
	return "", err
}

// Trace writes bins, and returns words about them.
func Trace(w io.Writer, files []intake.File, o intake.Options) ([]string, error) {
	l, err := intake.Bins(files, o)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(w, "t_seconds,requests")
	var b []byte
	for i, v := range l.Requests {
		b = strconv.AppendFloat(b[:0], (time.Duration(i) * l.Width).Seconds(), 'f', -1, 64)
		b = append(b, ',')
		b = strconv.AppendFloat(b, v, 'f', -1, 64)
		b = append(b, '\n')
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	return l.Describe(), nil
}

// Log writes a line a request, in order, and returns words about them.
func Log(w io.Writer, files []intake.File, o intake.Options) (words []string, err error) {
	l, err := intake.Spool("import", files, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	tokens := l.In+l.Out > 0
	header := "t_seconds,service_seconds"
	if tokens {
		header += ",prompt_tokens,output_tokens"
	}
	fmt.Fprintln(w, header)
	var b []byte
	r := l.Requests()
	for {
		q, in, out, ok := r.Next()
		if !ok {
			break
		}
		b = appendSeconds(b[:0], q.At)
		b = append(b, ',')
		if q.Service > 0 {
			b = appendSeconds(b, q.Service)
		}
		if tokens {
			b = append(strconv.AppendInt(append(b, ','), int64(in), 10), ',')
			b = strconv.AppendInt(b, int64(out), 10)
		}
		b = append(b, '\n')
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	return l.Describe(), r.Err()
}

// appendSeconds writes a time without rounding it.
func appendSeconds(b []byte, d time.Duration) []byte {
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	rest := d % time.Second
	if rest == 0 {
		return b
	}
	text := strconv.FormatInt(int64(rest+time.Second), 10)[1:]
	return append(append(b, '.'), strings.TrimRight(text, "0")...)
}

// mostTimes bounds the file of service times.
const mostTimes = 100_000

// Times writes to the named file a random sample of the times that requests took, shortest first.
func Times(name string, files []intake.File, o intake.Options) error {
	var times []time.Duration
	n := 0
	rng := rand.New(rand.NewPCG(1, 1))
	if _, err := intake.Read(files, o, func(it *intake.Item) {
		if it.Service <= 0 {
			return
		}
		n++
		if len(times) < mostTimes {
			times = append(times, it.Service)
		} else if i := rng.IntN(n); i < mostTimes {
			times[i] = it.Service
		}
	}); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("--service-times: nothing in the file says how long requests took")
	}
	slices.Sort(times)
	var b []byte
	for _, d := range times {
		b = append(appendSeconds(b, d), '\n')
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		return fmt.Errorf("--service-times: %w", err)
	}
	return nil
}
