// Package formats holds the formats of loads that are known: each has a name, a recogniser of its
// beginning and a parser, in one table (All).
package formats

import (
	"errors"

	"github.com/sluice-autoscaler/sluice/bench/intake/item"
	"github.com/sluice-autoscaler/sluice/bench/intake/rows"
)

type (
	// Item is a request, or a value over time.
	Item = item.Item
	// Meta is what a parser knows of its file.
	Meta = item.Meta
	// Unit is what the values of a file are.
	Unit = item.Unit
)

// The units (package item).
const (
	UnitAuto        = item.UnitAuto
	UnitRequests    = item.UnitRequests
	UnitRate        = item.UnitRate
	UnitConcurrency = item.UnitConcurrency
	UnitCounter     = item.UnitCounter
)

// Format is one kind of file.
type Format struct {
	// Name is what --format takes; Title says it to people.
	Name, Title string
	// recognise tells by the file's beginning whether it is of this kind.
	recognise func(h *rows.Head) bool
	// parse hands on each item.
	parse func(in *rows.Input, m *Meta, emit func(*Item)) error
}

// Parse hands on each item.
func (f *Format) Parse(in *rows.Input, m *Meta, emit func(*Item)) error { return f.parse(in, m, emit) }

// ErrNothing is returned for files without any item.
var ErrNothing = errors.New("there is nothing in it that could be read")
