package report

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Piece is a stretch of a text that an attack left, took out or put in.
type Piece struct {
	Text string
	// Changed is false for what both texts share.
	Changed bool
	// Points are the code points of a changed piece, as U+0430.
	Points []string
}

// maxDiff bounds the table of the comparison, in cells.
const maxDiff = 1 << 22

// Diff compares two texts by character: what of the original is gone, and what of the new text is new, each as pieces in order.
func Diff(before, after string) (old, new []Piece) {
	a, b := []rune(before), []rune(after)
	lo := 0
	for lo < len(a) && lo < len(b) && a[lo] == b[lo] {
		lo++
	}
	ha, hb := len(a), len(b)
	for ha > lo && hb > lo && a[ha-1] == b[hb-1] {
		ha, hb = ha-1, hb-1
	}
	goneA, newB := make([]bool, len(a)), make([]bool, len(b))
	n, m := ha-lo, hb-lo
	if n*m > maxDiff {
		for i := lo; i < ha; i++ {
			goneA[i] = true
		}
		for j := lo; j < hb; j++ {
			newB[j] = true
		}
		return pieces(a, goneA), pieces(b, newB)
	}
	// Longest common subsequence, from the end, so that the walk below goes forward.
	w := m + 1
	length := make([]int32, (n+1)*w)
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if a[lo+i] == b[lo+j] {
				length[i*w+j] = length[(i+1)*w+j+1] + 1
			} else {
				length[i*w+j] = max(length[(i+1)*w+j], length[i*w+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < n || j < m {
		switch {
		case i < n && j < m && a[lo+i] == b[lo+j]:
			i, j = i+1, j+1
		case j == m || i < n && length[(i+1)*w+j] >= length[i*w+j+1]:
			goneA[lo+i] = true
			i++
		default:
			newB[lo+j] = true
			j++
		}
	}
	return pieces(a, goneA), pieces(b, newB)
}

func pieces(runes []rune, changed []bool) []Piece {
	var out []Piece
	for i := 0; i < len(runes); {
		k := i
		for k < len(runes) && changed[k] == changed[i] {
			k++
		}
		p := Piece{Text: string(runes[i:k]), Changed: changed[i]}
		if p.Changed {
			p.Text = ""
			for _, r := range runes[i:k] {
				p.Points = append(p.Points, fmt.Sprintf("U+%04X", r))
				if invisible(r) {
					p.Text += fmt.Sprintf("[U+%04X]", r)
				} else {
					p.Text += string(r)
				}
			}
		}
		out = append(out, p)
		i = k
	}
	return out
}

// invisible tells whether a reader would see nothing of r.
func invisible(r rune) bool {
	return unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Zs, r) && r != ' ' || r == utf8.RuneError
}
