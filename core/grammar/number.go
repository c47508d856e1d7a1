package grammar

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// number is an integer or a number between bounds; without any it is the general rule. Bounds of integers hold to the digit. Those of numbers
// with fractions are kept by taking decimals without exponents, of as many whole digits as the bounds have and at most six more.
func (c *compiler) number(v *ordered, integer bool) (string, error) {
	lo, err := limit(v, "minimum", "exclusiveMinimum")
	if err != nil {
		return "", err
	}
	hi, err := limit(v, "maximum", "exclusiveMaximum")
	if err != nil {
		return "", err
	}
	if lo == nil && hi == nil {
		if integer {
			return "integer", nil
		}
		return "number", nil
	}
	if integer {
		return integers(lo, hi)
	}
	return decimals(lo, hi)
}

// bound is a limit of a number; open ones are not met by the value itself.
type bound struct {
	at   *big.Rat
	open bool
}

// limit reads a bound: the stricter one where both keys are given.
func limit(v *ordered, key, exclusive string) (*bound, error) {
	var got *bound
	for i, k := range []string{key, exclusive} {
		x := v.get(k)
		if x == nil {
			continue
		}
		var n json.Number
		if err := json.Unmarshal(x.raw, &n); err != nil || x.kind != 'v' || strings.HasPrefix(string(x.raw), `"`) {
			return nil, fmt.Errorf("%s %.40s: want a number", k, x.raw)
		}
		if len(n) > 40 || strings.ContainsAny(n.String(), "eE") {
			return nil, fmt.Errorf("%s %.40s: want a plain decimal of at most 40 digits", k, n)
		}
		at, ok := new(big.Rat).SetString(n.String())
		if !ok {
			return nil, fmt.Errorf("%s %s: want a number", k, n)
		}
		b := &bound{at, i == 1}
		if got != nil {
			cmp := b.at.Cmp(got.at)
			if key == "maximum" {
				cmp = -cmp
			}
			if cmp < 0 {
				continue
			}
		}
		got = b
	}
	return got, nil
}

var one = big.NewInt(1)

// maxDigits is the length of an integer that no bound limits, as in the general rule.
const maxDigits = 16

// integers writes the whole numbers between two bounds.
func integers(lo, hi *bound) (string, error) {
	most := new(big.Int).Sub(new(big.Int).Exp(big.NewInt(10), big.NewInt(maxDigits), nil), one)
	from, to := new(big.Int).Neg(most), most
	if lo != nil {
		q, m := new(big.Int).DivMod(lo.at.Num(), lo.at.Denom(), new(big.Int)) // towards −∞
		if m.Sign() != 0 || lo.open {
			q.Add(q, one)
		}
		from = q
	}
	if hi != nil {
		q, m := new(big.Int).DivMod(hi.at.Num(), hi.at.Denom(), new(big.Int))
		if m.Sign() == 0 && hi.open {
			q.Sub(q, one)
		}
		to = q
	}
	if lo != nil && hi == nil && to.Cmp(from) < 0 {
		to = new(big.Int).Mul(from, big.NewInt(10))
	}
	if hi != nil && lo == nil && to.Cmp(from) < 0 {
		from = new(big.Int).Mul(to, big.NewInt(10))
	}
	if to.Cmp(from) < 0 {
		return "", fmt.Errorf("no whole number lies between the bounds")
	}
	var alts []string
	if from.Sign() < 0 {
		end := new(big.Int).Neg(from)
		start := new(big.Int).Set(one)
		if to.Sign() < 0 {
			start.Neg(to)
		}
		alts = append(alts, `"-" ( `+strings.Join(naturals(start, end), " | ")+" )")
	}
	if to.Sign() >= 0 {
		start := new(big.Int)
		if from.Sign() > 0 {
			start.Set(from)
		}
		alts = append(alts, naturals(start, to)...)
	}
	return "( " + strings.Join(alts, " | ") + " )", nil
}

// naturals are the alternatives for whole numbers of 0 or more in [from, to], without leading zeros.
func naturals(from, to *big.Int) []string {
	var alts []string
	for from.Cmp(to) <= 0 {
		s := from.String()
		end := new(big.Int).Sub(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(s))), nil), one)
		if end.Cmp(to) > 0 {
			end = to
		}
		alts = append(alts, digits(s, end.String()))
		from = new(big.Int).Add(end, one)
	}
	return alts
}

// digits is an expression for the strings of digits between two of the same length.
func digits(a, b string) string {
	if a == "" {
		return `""`
	}
	if rest := len(a) - 1; strings.Trim(a[1:], "0") == "" && strings.Trim(b[1:], "9") == "" { // all that begin with a[0] … b[0]
		s := fmt.Sprintf("[%c-%c]", a[0], b[0])
		if rest > 0 {
			s += fmt.Sprintf(" [0-9]{%d}", rest)
		}
		return s
	}
	if a[0] == b[0] {
		return fmt.Sprintf(`"%c" %s`, a[0], digits(a[1:], b[1:]))
	}
	nines, zeros := strings.Repeat("9", len(a)-1), strings.Repeat("0", len(a)-1)
	alts := []string{fmt.Sprintf(`"%c" %s`, a[0], digits(a[1:], nines))}
	if a[0]+1 < b[0] {
		alts = append(alts, fmt.Sprintf("[%c-%c] [0-9]{%d}", a[0]+1, b[0]-1, len(a)-1))
	}
	return "( " + strings.Join(append(alts, fmt.Sprintf(`"%c" %s`, b[0], digits(zeros, b[1:]))), " | ") + " )"
}

// places is the number of decimals that bounded numbers have at most.
const places = 6

// decimals writes numbers between two bounds: whole numbers strictly inside with any fraction, and the pieces at the bounds' own whole parts.
func decimals(lo, hi *bound) (string, error) {
	for _, b := range []*bound{lo, hi} {
		if b != nil && !fits(b.at) {
			return "", fmt.Errorf("a bound of %s: want at most %d decimals", b.at.FloatString(places+2), places)
		}
	}
	// In units of the last decimal, all is whole.
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(places), nil)
	most := new(big.Int).Exp(big.NewInt(10), big.NewInt(maxDigits), nil)
	most.Sub(most.Mul(most, scale), one)
	from, to := new(big.Int).Neg(most), most
	units := func(r *big.Rat) *big.Int {
		return new(big.Int).Div(new(big.Int).Mul(r.Num(), scale), r.Denom())
	}
	if lo != nil {
		if from = units(lo.at); lo.open {
			from.Add(from, one)
		}
	}
	if hi != nil {
		if to = units(hi.at); hi.open {
			to = new(big.Int).Sub(to, one)
		}
	}
	if to.Cmp(from) < 0 {
		if lo != nil && hi != nil {
			return "", fmt.Errorf("no number of %d decimals lies between the bounds", places)
		}
		return "", fmt.Errorf("a bound of more than %d digits is not supported", maxDigits)
	}
	var alts []string
	if from.Sign() < 0 {
		end, start := new(big.Int).Neg(from), new(big.Int).Set(one)
		if to.Sign() < 0 {
			start.Neg(to)
		}
		alts = append(alts, `"-" ( `+strings.Join(fractions(start, end, scale), " | ")+" )")
	}
	if to.Sign() >= 0 {
		start := new(big.Int)
		if from.Sign() > 0 {
			start.Set(from)
		}
		alts = append(alts, fractions(start, to, scale)...)
	}
	return "( " + strings.Join(alts, " | ") + " )", nil
}

func fits(r *big.Rat) bool {
	scaled := new(big.Rat).Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(places), nil)))
	return scaled.IsInt()
}

// fractions are the alternatives for decimals of 0 or more in [from, to], both in units of the last place.
func fractions(from, to, scale *big.Int) []string {
	a, b := new(big.Int), new(big.Int)
	low, high := new(big.Int), new(big.Int)
	a.DivMod(from, scale, low)
	b.DivMod(to, scale, high)
	last := new(big.Int).Sub(scale, one)
	pad := func(n *big.Int) string { return fmt.Sprintf("%0*s", places, n.String()) }
	piece := func(whole, low, high *big.Int) string {
		return fmt.Sprintf(`"%s" %s`, whole, tail(pad(low), pad(high)))
	}
	if a.Cmp(b) == 0 {
		return []string{piece(a, low, high)}
	}
	var alts []string
	first, end := new(big.Int).Set(a), new(big.Int).Set(b)
	if low.Sign() != 0 {
		alts = append(alts, piece(a, low, last))
		first.Add(first, one)
	}
	if high.Cmp(last) != 0 {
		alts = append(alts, piece(b, new(big.Int), high))
		end.Sub(end, one)
	}
	if first.Cmp(end) <= 0 {
		alts = append(alts, "( "+strings.Join(naturals(first, end), " | ")+fmt.Sprintf(` ) ( "." [0-9]{1,%d} )?`, places))
	}
	return alts
}

// tail is an expression for the fractions between two of so many places, both included, with the point; zeros at the end may be left out, and
// nothing stands for 0.
func tail(low, high string) string {
	inner := fraction(low, high)
	if strings.Trim(low, "0") == "" {
		return `( "." ` + inner + " )?"
	}
	return `"." ` + inner
}

// fraction is an expression for one digit or more, at most as many as low has, whose value with zeros after them lies in [low, high].
func fraction(low, high string) string {
	rest := len(low) - 1
	end := func(low, high string) string { // further digits, which may be left out where low is zero
		if rest == 0 {
			return ""
		}
		s := fraction(low, high)
		if strings.Trim(low, "0") == "" {
			return " ( " + s + " )?"
		}
		return " " + s
	}
	if strings.Trim(low, "0") == "" && strings.Trim(high, "9") == "" {
		return fmt.Sprintf("[0-9]{1,%d}", len(low))
	}
	if low[0] == high[0] {
		return fmt.Sprintf(`"%c"%s`, low[0], end(low[1:], high[1:]))
	}
	nines, zeros := strings.Repeat("9", rest), strings.Repeat("0", rest)
	alts := []string{fmt.Sprintf(`"%c"%s`, low[0], end(low[1:], nines))}
	if low[0]+1 < high[0] {
		alts = append(alts, fmt.Sprintf("[%c-%c]%s", low[0]+1, high[0]-1, end(zeros, nines)))
	}
	return "( " + strings.Join(append(alts, fmt.Sprintf(`"%c"%s`, high[0], end(zeros, high[1:]))), " | ") + " )"
}
