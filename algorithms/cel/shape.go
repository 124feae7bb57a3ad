package cel

import (
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
)

const (
	// maxNesting is how deep lists and maps may stand in one another, those of macros among them.
	maxNesting = 10
	// maxLiterals is how many lists and maps may stand in macros, all macros together. A macro such
	// as map has two of its own.
	maxLiterals = 48
)

// shape measures what the checker of types works on. A chain of macros, each of which puts what it
// is given into a list, makes types that take it minutes.
type shape struct{ nesting, literals int }

// check refuses what would take long to check.
func (s *shape) check(parsed *cel.Ast) error {
	s.walk(parsed.NativeRep().Expr(), 0, false)
	if s.nesting > maxNesting || s.literals > maxLiterals {
		return fmt.Errorf("expression: ERROR: <input>:1:1: has %d lists and maps in macros and %d within one another: want at most %d and %d",
			s.literals, s.nesting, maxLiterals, maxNesting)
	}
	return nil
}

// walk visits an expression that stands in so many lists and maps, and perhaps in a macro.
func (s *shape) walk(e ast.Expr, nesting int, macro bool) {
	literal := func() {
		nesting++
		s.nesting = max(s.nesting, nesting)
		if macro {
			s.literals++
		}
	}
	switch e.Kind() {
	case ast.ListKind:
		literal()
		for _, x := range e.AsList().Elements() {
			s.walk(x, nesting, macro)
		}
	case ast.MapKind:
		literal()
		for _, x := range e.AsMap().Entries() {
			s.walk(x.AsMapEntry().Key(), nesting, macro)
			s.walk(x.AsMapEntry().Value(), nesting, macro)
		}
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			s.walk(call.Target(), nesting, macro)
		}
		for _, x := range call.Args() {
			s.walk(x, nesting, macro)
		}
	case ast.SelectKind:
		s.walk(e.AsSelect().Operand(), nesting, macro)
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		s.walk(c.IterRange(), nesting, macro)
		for _, x := range []ast.Expr{c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()} {
			s.walk(x, nesting, true)
		}
	default: // has no parts
	}
}
