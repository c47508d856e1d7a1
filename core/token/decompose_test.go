package token

import (
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

// TestDecomposed compares single characters with the library's normal forms, and short texts with marks in any order.
func TestDecomposed(t *testing.T) {
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) || unicode.Is(laterDecompositions, r) {
			continue
		}
		text := []byte(string(r))
		for _, form := range []norm.Form{norm.NFD, norm.NFKD} {
			require.Equal(t, form.String(string(r)), string(appendDecomposed(nil, form, r, text)), "%U", r)
		}
	}
	sc := &scratch{}
	for _, text := range []string{"a\u0323\u0307", "a\u0307\u0323", "e\u0301\u0301", "\u1100\u1161\u11a8x\uac00\u11a8", "\u0344\u0301", "\u1e9b\u0323", "Å\u0301ﬁ½", "q\u0307\u0323\u0301\u0327", "\u0915\u093c\u0301"} {
		for form, n := range map[norm.Form]normalizerFunc{norm.NFC: nfc, norm.NFD: nfd, norm.NFKC: nfkc, norm.NFKD: nfkd} {
			sc.reset()
			a := newAligned(sc, text, true)
			n(sc, &a)
			require.Equal(t, form.String(text), string(a.text), "%+q", text)
			require.Len(t, a.at, len(a.text))
		}
	}
}
