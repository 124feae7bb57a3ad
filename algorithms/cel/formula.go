package cel

import (
	"fmt"
	"math"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// Formula is arithmetic over named numbers, as in KEDA's scaling modifiers: every number is a
// double, so that a/2 is half of a. Besides CEL's operators it has min and max of two to four, abs,
// ceil, floor and round. It is safe for concurrent use.
type Formula struct {
	program cel.Program
	names   []string
}

// formulaCost bounds one evaluation, in CEL's units.
const formulaCost = 10_000

// NewFormula compiles an expression over the names. Faults name line and column.
func NewFormula(expression string, names []string) (*Formula, error) {
	if len(expression) > 8192 {
		return nil, fmt.Errorf("formula has %d bytes: want at most 8192", len(expression))
	}
	options := []cel.EnvOption{cel.ParserRecursionLimit(100)}
	for _, n := range names {
		options = append(options, cel.Variable(n, cel.DoubleType))
	}
	for name, f := range map[string]func(float64) float64{"abs": math.Abs, "ceil": math.Ceil, "floor": math.Floor, "round": math.Round} {
		options = append(options, cel.Function(name, cel.Overload(name+"_double", []*cel.Type{cel.DoubleType}, cel.DoubleType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return types.Double(f(number(v))) }))))
	}
	for name, f := range map[string]func(a, b float64) float64{"min": math.Min, "max": math.Max} {
		var overloads []cel.FunctionOpt
		args := []*cel.Type{cel.DoubleType}
		for range 3 {
			args = append(args, cel.DoubleType)
			overloads = append(overloads, cel.Overload(fmt.Sprintf("%s_%d", name, len(args)), append([]*cel.Type(nil), args...), cel.DoubleType,
				cel.FunctionBinding(func(vs ...ref.Val) ref.Val {
					out := number(vs[0])
					for _, v := range vs[1:] {
						out = f(out, number(v))
					}
					return types.Double(out)
				})))
		}
		options = append(options, cel.Function(name, overloads...))
	}
	env, err := cel.NewCustomEnv(append(options, cel.StdLib())...)
	if err != nil {
		return nil, fmt.Errorf("set up the formula's language: %w", err)
	}
	parsed, issues := env.Parse(expression)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("formula: %w", err)
	}
	if err := new(shape).check(parsed); err != nil {
		return nil, err
	}
	factory := ast.NewExprFactory()
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.LiteralKind {
			return
		}
		if i, ok := e.AsLiteral().(types.Int); ok {
			e.SetKindCase(factory.NewLiteral(e.ID(), types.Double(i)))
		}
	}))
	checked, issues := env.Check(parsed)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("formula: %w", err)
	}
	if err := onlyNumbers(checked); err != nil {
		return nil, err
	}
	if t := checked.OutputType(); !t.IsExactType(cel.DoubleType) {
		return nil, fmt.Errorf("formula: ERROR: <input>:1:1: gives %s: want a number", t)
	}
	program, err := env.Program(checked, cel.CostLimit(formulaCost))
	if err != nil {
		return nil, fmt.Errorf("formula: %w", err)
	}
	return &Formula{program: program, names: names}, nil
}

// onlyNumbers refuses formulas with anything but numbers and truth values in them: what works on
// text and lists can cost much more than CEL counts.
func onlyNumbers(checked *cel.Ast) error {
	var err error
	native := checked.NativeRep()
	ast.PostOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch t := native.GetType(e.ID()); t.Kind() {
		case types.BoolKind, types.IntKind, types.UintKind, types.DoubleKind:
		default:
			if err == nil {
				at := native.SourceInfo().GetStartLocation(e.ID())
				err = fmt.Errorf("formula: ERROR: <input>:%d:%d: is %s: want numbers only", at.Line(), at.Column()+1, t)
			}
		}
	}))
	return err
}

func number(v ref.Val) float64 {
	if d, ok := v.(types.Double); ok {
		return float64(d)
	}
	return math.NaN()
}

// Value evaluates the formula; values are in the order of the names. A result that is not finite is
// an error.
func (f *Formula) Value(values []float64) (float64, error) {
	in := make(map[string]any, len(values))
	for i, n := range f.names {
		in[n] = values[i]
	}
	out, _, err := f.program.Eval(in)
	if err != nil {
		return 0, fmt.Errorf("formula: %w", err)
	}
	if v := number(out); !math.IsNaN(v) && !math.IsInf(v, 0) {
		return v, nil
	}
	return 0, fmt.Errorf("formula gives %v: want a finite number", out.Value())
}
