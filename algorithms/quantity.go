package algorithms

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Quantity is a number as Kubernetes writes it: "10", "500m", "1.5Gi", "1e3". The zero value is 0.
// As in the HPA it also has a value in whole thousandths.
type Quantity struct {
	text  string
	milli int64
	value float64
}

// ParseQuantity reads a quantity: a decimal number, and at most one suffix of n, u, m, k, M, G, T,
// P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent.
func ParseQuantity(s string) (Quantity, error) {
	fault := fmt.Errorf("quantity %q: want a number such as 10, 0.5, \"500m\" or \"2Gi\"", s)
	number := s
	power, factor := 0, int64(1)
	for _, u := range []struct {
		suffix string
		power  int
		factor int64
	}{
		{"Ki", 0, 1 << 10},
		{"Mi", 0, 1 << 20},
		{"Gi", 0, 1 << 30},
		{"Ti", 0, 1 << 40},
		{"Pi", 0, 1 << 50},
		{"Ei", 0, 1 << 60},
		{"n", -9, 1},
		{"u", -6, 1},
		{"m", -3, 1},
		{"k", 3, 1},
		{"M", 6, 1},
		{"G", 9, 1},
		{"T", 12, 1},
		{"P", 15, 1},
		{"E", 18, 1},
	} {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			number, power, factor = rest, u.power, u.factor
			break
		}
	}
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		e, err := strconv.Atoi(number[i+1:])
		if err != nil || power != 0 || factor != 1 || e < -30 || e > 30 {
			return Quantity{}, fault
		}
		number, power = number[:i], e
	}
	whole, part, _ := strings.Cut(strings.TrimLeft(number, "+-"), ".")
	digits := whole + part
	if digits == "" || len(digits) > 40 || strings.Trim(digits, "0123456789") != "" || len(number)-len(strings.TrimLeft(number, "+-")) > 1 {
		return Quantity{}, fault
	}
	power -= len(part)
	n, _ := new(big.Int).SetString(digits, 10)
	if number[0] == '-' {
		n.Neg(n)
	}
	n.Mul(n, big.NewInt(factor))
	f, _ := new(big.Float).SetInt(n).Float64()
	q := Quantity{text: s, value: f * math.Pow10(power)}
	// thousandths, rounded away from zero, as Kubernetes rounds them
	num, den := n, big.NewInt(1)
	ten := func(e int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(e)), nil) }
	if e := power + 3; e >= 0 {
		num = new(big.Int).Mul(num, ten(e))
	} else {
		den = ten(-e)
	}
	quo, rem := new(big.Int).QuoRem(num, den, new(big.Int))
	if rem.Sign() != 0 {
		quo.Add(quo, big.NewInt(int64(rem.Sign())))
	}
	if !quo.IsInt64() {
		return Quantity{}, fmt.Errorf("quantity %q: too large", s)
	}
	q.milli = quo.Int64()
	return q, nil
}

// Milli is the quantity in thousandths, rounded away from zero.
func (q Quantity) Milli() int64 { return q.milli }

// Float is the quantity as a float64, computed from its digits and its power of ten.
func (q Quantity) Float() float64 { return q.value }

// String is the quantity as it was written.
func (q Quantity) String() string {
	if q.text == "" {
		return "0"
	}
	return q.text
}

// MarshalJSON writes the quantity as a string.
func (q Quantity) MarshalJSON() ([]byte, error) { return json.Marshal(q.String()) }

// UnmarshalJSON reads a string or a number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return errors.New("quantity: not a JSON string")
		}
	}
	v, err := ParseQuantity(s)
	if err != nil {
		return err
	}
	*q = v
	return nil
}
