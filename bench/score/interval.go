package score

import (
	"errors"
	"fmt"
	"math"
)

// Interval is an estimate over seeds with its confidence interval. Of a single value there is none:
// then N is 1 and Low, High and Mean are the same.
type Interval struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// N is the number of values, ≥ 1.
	N int `json:"n"`
}

// Confidence95 is the usual confidence.
const Confidence95 = 0.95

// Mean is the mean of independent values with Student's interval, mean ± t·s/√n with n−1 degrees of
// freedom, at a confidence within 0–1, both excluded. It fails without values and if one is not
// finite.
func Mean(values []float64, confidence float64) (Interval, error) {
	if err := check(confidence, values); err != nil {
		return Interval{}, err
	}
	n := float64(len(values))
	mean, square := moments(values)
	half := 0.0
	if len(values) > 1 {
		half = StudentT(0.5+confidence/2, n-1) * math.Sqrt(square/(n-1)/n)
	}
	return Interval{Mean: mean, Low: mean - half, High: mean + half, N: len(values)}, nil
}

// moments gives the mean and the sum of squared deviations from it.
func moments(values []float64) (mean, square float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		square += (v - mean) * (v - mean)
	}
	return mean, square
}

func check(confidence float64, lists ...[]float64) error {
	if !(confidence > 0 && confidence < 1) {
		return fmt.Errorf("confidence %v: want above 0 and below 1, such as 0.95", confidence)
	}
	for _, values := range lists {
		if len(values) == 0 {
			return errors.New("no values")
		}
		if len(values) != len(lists[0]) {
			return fmt.Errorf("%d values are paired with %d: want as many", len(lists[0]), len(values))
		}
		for i, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("value %d is %v: want a finite number", i, v)
			}
		}
	}
	return nil
}

// Difference is the mean of a−b over pairs (the same seeds), with its interval: what two policies
// differ by, free of what the seeds have in common.
func Difference(a, b []float64, confidence float64) (Interval, error) {
	if err := check(confidence, a, b); err != nil {
		return Interval{}, err
	}
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	return Mean(d, confidence)
}

// Ratio is mean(a)/mean(b) over pairs, with the interval r ± t·s/(√n·mean(b)), s² the variance of a
// − r·b (the ratio estimator, Cochran, Sampling Techniques, ch. 6). It fails if the mean of b is
// not above 0.
func Ratio(a, b []float64, confidence float64) (Interval, error) {
	if err := check(confidence, a, b); err != nil {
		return Interval{}, err
	}
	over, _ := moments(a)
	under, _ := moments(b)
	if under <= 0 {
		return Interval{}, fmt.Errorf("ratio to a mean of %v: want > 0", under)
	}
	r := over / under
	rest := make([]float64, len(a))
	for i := range a {
		rest[i] = a[i] - r*b[i]
	}
	in, err := Mean(rest, confidence)
	if err != nil {
		return Interval{}, err
	}
	half := (in.High - in.Low) / 2 / under
	return Interval{Mean: r, Low: r - half, High: r + half, N: len(a)}, nil
}

// GeometricMean is exp of the mean of the logarithms, with exp of its interval: the right mean of
// ratios over traces. It fails if one is not above 0.
func GeometricMean(ratios []float64, confidence float64) (Interval, error) {
	logs := make([]float64, len(ratios))
	for i, r := range ratios {
		if !(r > 0) {
			return Interval{}, fmt.Errorf("ratio %d is %v: want > 0", i, r)
		}
		logs[i] = math.Log(r)
	}
	in, err := Mean(logs, confidence)
	if err != nil {
		return Interval{}, err
	}
	return Interval{Mean: math.Exp(in.Mean), Low: math.Exp(in.Low), High: math.Exp(in.High), N: in.N}, nil
}

// StudentT is the quantile of Student's t distribution: the x with P(T ≤ x) = p, for 0 < p < 1 and
// df > 0 degrees of freedom; NaN otherwise. It inverts the distribution by bisection, to about
// 1e-12 relative.
func StudentT(p, df float64) float64 {
	if !(p > 0 && p < 1) || !(df > 0) {
		return math.NaN()
	}
	if p < 0.5 {
		return -StudentT(1-p, df)
	}
	tail := 1 - p
	if tail == 0.5 {
		return 0
	}
	lo, hi := 0.0, 1.0
	for studentTail(hi, df) > tail && hi < 1e300 {
		lo, hi = hi, hi*2
	}
	for range 200 {
		mid := lo + (hi-lo)/2
		if mid == lo || mid == hi {
			break
		}
		if studentTail(mid, df) > tail {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

// studentTail is P(T > x) for x ≥ 0: I_{df/(df+x²)}(df/2, 1/2) / 2.
func studentTail(x, df float64) float64 {
	return incompleteBeta(df/2, 0.5, df/(df+x*x), x*x/(df+x*x)) / 2
}

// logBetaHalf is ln B(a, ½) for a ≥ ½, for large a by its asymptotic series, as the difference of
// two large logarithms of Γ would lose its digits.
func logBetaHalf(a float64) float64 {
	logPi := math.Log(math.Pi) / 2 // ln Γ(½)
	if a > 100 {
		return logPi - (math.Log(a)/2 - 1/(8*a) + 1/(192*a*a*a))
	}
	la, _ := math.Lgamma(a)
	lab, _ := math.Lgamma(a + 0.5)
	return logPi + la - lab
}

// incompleteBeta is the regularised incomplete beta function I_x(a, b), y = 1−x, where the lesser
// of a and b is ½, by its continued fraction (DLMF 8.17.22) with Lentz's method.
func incompleteBeta(a, b, x, y float64) float64 {
	if x <= 0 {
		return 0
	}
	if y <= 0 {
		return 1
	}
	if x > (a+1)/(a+b+2) {
		return 1 - incompleteBeta(b, a, y, x)
	}
	front := math.Exp(a*math.Log(x)+b*math.Log(y)-logBetaHalf(max(a, b))) / a
	const tiny = 1e-300
	f, c, d := 1.0, 1.0, 0.0
	for i := range 10_000 {
		m := float64(i / 2)
		var numerator float64
		switch {
		case i == 0:
			numerator = 1
		case i%2 == 0:
			numerator = m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		default:
			numerator = -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		}
		d = 1 + numerator*d
		if math.Abs(d) < tiny {
			d = tiny
		}
		d = 1 / d
		c = 1 + numerator/c
		if math.Abs(c) < tiny {
			c = tiny
		}
		f *= c * d
		if math.Abs(1-c*d) < 1e-15 {
			break
		}
	}
	return front * (f - 1)
}
