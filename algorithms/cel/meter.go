package cel

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

const (
	// maxBytes bounds the strings and lists that one evaluation makes or reads through, in bytes.
	// CEL's cost counts an operation on them as one however large they are, or counts it when it is
	// done.
	maxBytes = 1 << 20
	// bytesPerElement and bytesPerEntry are what an element of a list and an entry of a map take.
	bytesPerElement, bytesPerEntry = 16, 64
	// bytesPerNumber bounds a number in the text that format makes.
	bytesPerNumber = 512
	// maxPattern bounds a regular expression, in bytes.
	maxPattern = 256
	// maxZone bounds the name of a time zone, in bytes; zoneRunes are what it is made of.
	maxZone   = 64
	zoneRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-"
)

// errTooMuch says that an evaluation was given up.
var errTooMuch = errors.New("it works on more strings and lists than one decision may")

// meter counts what an evaluation makes and reads through. Once it is used up nothing more is done:
// operators such as || go on after an error.
type meter struct{ left int }

func (m *meter) reset() { m.left = maxBytes }

func (m *meter) exhausted() bool { return m.left < 0 }

// charge takes n bytes, and says whether they were left.
func (m *meter) charge(n int) bool {
	if n < 0 || n > m.left {
		m.left = -1
	}
	if m.left >= 0 {
		m.left -= n
	}
	return m.left >= 0
}

// chargeValue takes what a value holds, in all depths. A list can hold another many times over, so
// it stops where the meter is used up.
func (m *meter) chargeValue(v ref.Val) bool {
	switch v := v.(type) {
	case types.String:
		return m.charge(len(v))
	case types.Bytes:
		return m.charge(len(v))
	case traits.Mapper:
		if !m.charge(bytesPerEntry * size(v)) {
			return false
		}
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			value, _ := v.Find(key)
			if !m.chargeValue(key) || !m.chargeValue(value) {
				return false
			}
		}
	case traits.Lister:
		if !m.charge(bytesPerElement * size(v)) {
			return false
		}
		for i := range size(v) {
			if !m.chargeValue(v.Get(types.Int(i))) {
				return false
			}
		}
	}
	return true
}

func size(v traits.Sizer) int {
	n, ok := v.Size().(types.Int)
	if !ok {
		return 0
	}
	return int(n)
}

// metered decorates the operations that strings and lists are made or read through by.
func (p *Policy) metered(checked *cel.Ast, env *cel.Env) (interpreter.InterpretableDecoratorV2, error) {
	all := map[string]*functions.Overload{}
	for _, f := range env.Functions() {
		bound, err := f.Bindings()
		if err != nil {
			return nil, err
		}
		for _, o := range bound {
			all[o.Operator] = o
		}
	}
	native := checked.NativeRep()
	return func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		switch i := i.(type) {
		case interpreter.InterpretableCall:
			large := false
			for _, a := range i.Args() {
				switch native.GetType(a.ID()).Kind() {
				case types.BoolKind, types.IntKind, types.UintKind, types.DoubleKind, types.DurationKind, types.TimestampKind:
				default:
					large = true
				}
			}
			if f := i.Function(); !large || f == overloads.Size || f == "signal" || f == "known" {
				return i, nil
			}
			impl := p.implementation(i, all)
			if impl == nil {
				return i, nil
			}
			return interpreter.NewCall(i.ID(), i.Function(), i.OverloadID(), i.Args(), impl), nil
		case interpreter.InterpretableConstructor:
			for _, v := range i.InitVals() {
				if _, constant := v.(interpreter.InterpretableConst); !constant {
					return &meteredLiteral{InterpretableConstructor: i, meter: &p.meter}, nil
				}
			}
		}
		return i, nil
	}, nil
}

// meteredLiteral is a list or a map that is made anew in each evaluation.
type meteredLiteral struct {
	interpreter.InterpretableConstructor
	meter *meter
}

// Exec implements InterpretableV2.
func (l *meteredLiteral) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	if !l.meter.charge(bytesPerEntry * len(l.InitVals())) {
		return types.WrapErr(errTooMuch)
	}
	return l.InterpretableConstructor.Exec(frame)
}

// Eval implements Interpretable.
func (l *meteredLiteral) Eval(vars interpreter.Activation) ref.Val {
	return l.Exec(interpreter.AsFrame(vars))
}

// implementation is what a call does, behind the meter; nil leaves the call as it is.
func (p *Policy) implementation(call interpreter.InterpretableCall, all map[string]*functions.Overload) functions.FunctionOp {
	switch call.Function() {
	case operators.Add:
		return p.add
	case operators.Equals:
		return p.behind(func(args ...ref.Val) ref.Val { return types.Equal(args[0], args[1]) }, nil)
	case operators.NotEquals:
		return p.behind(func(args ...ref.Val) ref.Val { return types.Bool(types.Equal(args[0], args[1]) != types.True) }, nil)
	}
	if isCalendar(call.Function()) && len(call.Args()) == 2 {
		return p.inZone(call.Function())
	}
	o := all[call.OverloadID()]
	if o == nil {
		o = all[call.Function()]
	}
	if o == nil || o.NonStrict {
		return nil
	}
	var do functions.FunctionOp
	switch n := len(call.Args()); {
	case n == 1 && o.Unary != nil:
		do = func(args ...ref.Val) ref.Val { return o.Unary(args[0]) }
	case n == 2 && o.Binary != nil:
		do = func(args ...ref.Val) ref.Val { return o.Binary(args[0], args[1]) }
	default:
		do = o.Function
	}
	if do == nil {
		return nil
	}
	return p.behind(do, growth(call.Function()))
}

// behind does something once its arguments, and what it makes of them, are charged.
func (p *Policy) behind(do functions.FunctionOp, grows func([]ref.Val) int) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		for _, a := range args {
			if !p.meter.chargeValue(a) {
				return types.WrapErr(errTooMuch)
			}
		}
		if grows != nil && !p.meter.charge(grows(args)) {
			return types.WrapErr(errTooMuch)
		}
		return do(args...)
	}
}

// growth is how many bytes a function makes of its arguments, or how many steps it takes, where
// that is more than a small multiple of their own size; nil where it is not.
func growth(function string) func([]ref.Val) int {
	text := func(v ref.Val) string {
		s, _ := v.(types.String)
		return string(s)
	}
	switch function {
	case "replace":
		return func(args []ref.Val) int { return strings.Count(text(args[0]), text(args[1])) * len(text(args[2])) }
	case "join":
		return func(args []ref.Val) int {
			if l, ok := args[0].(traits.Lister); ok && len(args) == 2 {
				return size(l) * len(text(args[1]))
			}
			return 0
		}
	case "format":
		return func(args []ref.Val) int { return bytesPerNumber * strings.Count(text(args[0]), "%") }
	case "split", "reverse", "charAt", "substring", "lowerAscii", "upperAscii", "strings.quote":
		return func(args []ref.Val) int { return bytesPerElement * len(text(args[0])) }
	case "indexOf", "lastIndexOf":
		return func(args []ref.Val) int { return len(text(args[0])) * (4 + len(text(args[1]))) }
	}
	return nil
}

// add is +. Lists are copied: CEL's own sum of two refers to both, so that a short expression makes
// one of any length.
func (p *Policy) add(args ...ref.Val) ref.Val {
	a, b := args[0], args[1]
	ok := true
	switch x := a.(type) {
	case types.String, types.Bytes:
		ok = p.meter.chargeValue(a) && p.meter.chargeValue(b)
	case traits.MutableLister: // collects what a comprehension makes, one by one
		if y, is := b.(traits.Lister); is {
			ok = p.meter.charge(bytesPerElement * size(y))
		}
	case traits.Lister:
		y, is := b.(traits.Lister)
		if !is {
			break
		}
		if !p.meter.charge(bytesPerElement * (size(x) + size(y))) {
			return types.WrapErr(errTooMuch)
		}
		sum := make([]ref.Val, 0, size(x)+size(y))
		for _, l := range []traits.Lister{x, y} {
			for i := range size(l) {
				sum = append(sum, l.Get(types.Int(i)))
			}
		}
		return types.NewRefValList(types.DefaultTypeAdapter, sum)
	}
	if !ok {
		return types.WrapErr(errTooMuch)
	}
	if x, is := a.(traits.Adder); is {
		return x.Add(b)
	}
	return types.MaybeNoSuchOverloadErr(a)
}

// isCalendar tells of a function that reads a part of a timestamp.
func isCalendar(function string) bool {
	switch function {
	case overloads.TimeGetFullYear, overloads.TimeGetMonth, overloads.TimeGetDayOfYear, overloads.TimeGetDate, overloads.TimeGetDayOfMonth,
		overloads.TimeGetDayOfWeek, overloads.TimeGetHours, overloads.TimeGetMinutes, overloads.TimeGetSeconds, overloads.TimeGetMilliseconds:
		return true
	}
	return false
}

// inZone reads a part of a timestamp in a zone that New has loaded: CEL itself loads it in each
// evaluation.
func (p *Policy) inZone(function string) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		t, ok := args[0].(types.Timestamp)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		name, ok := args[1].(types.String)
		if zone := p.zones[string(name)]; ok && zone != nil {
			return types.Timestamp{Time: t.In(zone)}.Receive(function, "", nil)
		}
		return t.Receive(function, "", args[1:]) // an offset such as +02:00
	}
}

// checkLiterals finds what has to be a literal, so that New can judge it: the zones of timestamps,
// which are loaded, and regular expressions, whose size says little of the cost.
func (p *Policy) checkLiterals(call ast.CallExpr) error {
	args := call.Args()
	switch {
	case isCalendar(call.FunctionName()) && call.IsMemberFunction() && len(args) == 1:
		name, ok := literal(args[0])
		if !ok || len(name) > maxZone {
			return fmt.Errorf("%s: want a literal time zone of at most %d bytes, such as \"Europe/Berlin\" or \"+02:00\"", call.FunctionName(), maxZone)
		}
		if strings.Contains(name, ":") || p.zones[name] != nil {
			return nil
		}
		if strings.Trim(name, zoneRunes) != "" {
			return fmt.Errorf("%s: %q is no time zone", call.FunctionName(), name)
		}
		zone, err := time.LoadLocation(name)
		if err != nil {
			return fmt.Errorf("%s: %q is no time zone", call.FunctionName(), name)
		}
		p.zones[name] = zone
	case call.FunctionName() == overloads.Matches && len(args) > 0:
		pattern, ok := literal(args[len(args)-1])
		if !ok || len(pattern) > maxPattern || strings.Contains(pattern, "{") {
			return fmt.Errorf("matches: want a literal of at most %d bytes, without counts in braces", maxPattern)
		}
	}
	return nil
}

// literal is the text of a literal string.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}
