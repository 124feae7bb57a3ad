package filter_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/common/expfmt"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/filter"
)

func wants(names ...string) *filter.Filter {
	return &filter.Filter{Body: 1 << 20, Kept: 64 << 10, Sample: 16 << 10, Labels: 4, Family: 8 << 10, Wanted: func(name []byte) bool {
		return slices.Contains(names, string(name))
	}}
}

func TestLines(t *testing.T) {
	t.Parallel()
	long := `{a="` + strings.Repeat("x", 10_000) + `"} 1`
	cases := []struct{ name, text, want string }{
		{"what is wanted", "# TYPE a gauge\na 1\nb 2\na{x=\"y\"} 3\n", "a 1\na{x=\"y\"} 3\n"},
		{"a prefix is another name", "ab 1\na 2\n", "a 2\n"},
		{"no end of the last line", "b 1\na 2", "a 2\n"},
		{"a name in quotes", `{"x.y",a="b"} 1` + "\n" + `{"x.z"} 2` + "\n", `{"x.y",a="b"} 1` + "\n"},
		{"longer than what is read at a time", "b" + long + "\na" + long + "\na 1\n", "a" + long + "\na 1\n"},
		{"empty lines and carriage returns", "\n\r\n  \na 1\r\n", "a 1\r\n"},
		{"nothing", "", ""},
	}
	for _, tt := range cases {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.text), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.text))} {
			got, err := wants("a", "x.y").Read(t.Context(), expfmt.TypeTextPlain, r)
			if err != nil || string(got) != tt.want {
				t.Errorf("%s, %s: Read = %.100q, %v; want %.100q", tt.name, name, got, err, tt.want)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, text string
		want       error
	}{
		{"too long", "b{a=\"" + strings.Repeat("x", 2<<20) + "\"} 1\n", filter.ErrTooLarge},
		{"a long sample", "a{b=\"" + strings.Repeat("x", 20_000) + "\"} 1\n", filter.ErrKept},
		{"many labels", "a{b=\"\",c=\"\",d=\"\",e=\"\",f=\"\"} 1\n", filter.ErrKept},
		{"many samples", strings.Repeat("a 1\n", 20_000), filter.ErrKept},
		{"no name", "<html>\n", filter.ErrFormat},
	}
	for _, tt := range cases {
		if _, err := wants("a").Read(t.Context(), expfmt.TypeTextPlain, strings.NewReader(tt.text)); !errors.Is(err, tt.want) {
			t.Errorf("%s: Read = %v, want %v", tt.name, err, tt.want)
		}
	}
	broken := errors.New("broken")
	if _, err := wants("a").Read(t.Context(), expfmt.TypeTextPlain, io.MultiReader(strings.NewReader("a 1\n"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("Read = %v, want the reader's error", err)
	}
	message := func(name string, n int) string { // of n bytes of which the name is the first field
		body := "\x0a" + string(rune(len(name))) + name
		body += strings.Repeat("\x00", n-len(body))
		return string([]byte{byte(n&0x7f | 0x80), byte(n >> 7)}) + body
	}
	for _, n := range []int{200, 5000, 8192} {
		text := message("b", 300) + message("a", n)
		got, err := wants("a").Read(t.Context(), expfmt.TypeProtoDelim, strings.NewReader(text))
		if err != nil || string(got) != message("a", n) {
			t.Errorf("a message of %d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	if _, err := wants("a").Read(t.Context(), expfmt.TypeProtoDelim, strings.NewReader(message("a", 8193))); !errors.Is(err, filter.ErrKept) {
		t.Errorf("a message over its bound: %v, want %v", err, filter.ErrKept)
	}
	for i := range 300 {
		cut := message("a", 300)[:i]
		if _, err := wants("a").Read(t.Context(), expfmt.TypeProtoDelim, strings.NewReader(cut)); i > 0 && !errors.Is(err, filter.ErrFormat) {
			t.Errorf("a message cut short at %d: %v", i, err)
		}
	}
}
