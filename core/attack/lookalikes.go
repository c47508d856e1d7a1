package attack

import (
	"strings"
	"sync"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// homoglyphRows pair a character with others that most fonts draw the same: facts of Unicode's repertoire (see UTS 39), chosen by us.
const homoglyphRows = `
a а ɑ
b Ь
c с ϲ
d ԁ ⅾ
e е
f ƒ
g ɡ
h һ
i і ⅰ
j ј ϳ
k κ
l ⅼ ӏ
m ⅿ
n ո
o о ο օ
p р ρ
q ԛ
r г
s ѕ
t τ
u υ ս
v ν ⅴ
w ԝ
x х ⅹ
y у γ
z ᴢ
A А Α
B В Β
C С Ϲ
D Ⅾ
E Е Ε
F Ϝ
G Ԍ
H Н Η
I І Ι
J Ј
K К Κ
L Ⅼ
M М Μ
N Ν
O О Ο
P Р Ρ
Q Ԛ
R Ʀ
S Ѕ
T Т Τ
U Ս
V Ⅴ
W Ԝ
X Х Χ
Y Υ Ү
Z Ζ
0 О
1 l
3 Ʒ
4 Ꮞ
5 Ƽ
6 б
8 Ȣ
9 ৭
- ˗
`

// lookAlikeRows pair a letter with others that a reader takes for it.
const lookAlikeRows = `
a á à â ä ã å ā ă ą
b ƀ ɓ
c ç ć č ĉ ċ
d ď đ ɗ
e é è ê ë ē ė ę ě
f ḟ
g ğ ĝ ġ ģ
h ĥ ħ
i í ì î ï ī į ı
j ĵ
k ķ ƙ
l ĺ ļ ľ ł
m ḿ ṁ
n ñ ń ņ ň
o ó ò ô ö õ ō ø ő
p ṕ ṗ
q ʠ
r ŕ ř ŗ
s ś š ş ŝ
t ť ţ ŧ
u ú ù û ü ū ů ű ų
v ṽ
w ŵ ẁ
x ẋ
y ý ÿ ŷ
z ź ž ż
A Á À Â Ä Ã Å
C Ç Ć Č
E É È Ê Ë
I Í Ì Î Ï
N Ñ Ń
O Ó Ò Ô Ö Õ Ø
S Ś Š Ş
U Ú Ù Û Ü
Y Ý Ÿ
Z Ź Ž Ż
`

const leetRows = `
a 4 @
b 8
e 3
g 9
i 1 !
l 1
o 0
s 5 $
t 7
z 2
A 4 @
B 8
E 3
G 9
I 1 !
O 0
S 5 $
T 7
Z 2
`

var (
	// Made when they are first asked for: most runs never do.
	homoglyphs = sync.OnceValue(func() map[rune][]rune { return runeTable(homoglyphRows) })
	lookAlikes = sync.OnceValue(func() map[rune][]rune { return runeTable(lookAlikeRows) })
	leet       = sync.OnceValue(func() map[rune][]rune { return runeTable(leetRows) })
	skeletonOf = sync.OnceValue(func() map[rune]rune {
		m := map[rune]rune{}
		for _, rows := range []map[rune][]rune{lookAlikes(), homoglyphs()} {
			for to, list := range rows {
				for _, r := range list {
					if r > unicode.MaxASCII && (to > '9' || to == '-') {
						m[r] = to
					}
				}
			}
		}
		return m
	})
)

func runeTable(rows string) map[rune][]rune {
	m := map[rune][]rune{}
	for line := range strings.Lines(strings.TrimSpace(rows)) {
		f := strings.Fields(line)
		key := []rune(f[0])[0]
		for _, s := range f[1:] {
			m[key] = append(m[key], []rune(s)[0])
		}
	}
	return m
}

// Skeleton undoes disguises of single characters: compatibility forms and accents (NFKD without marks), confusable letters, and characters
// that do not show.
func Skeleton(s string) string {
	s = norm.NFKD.String(s)
	skeleton := skeletonOf()
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) || r == '\b' {
			return -1
		}
		if to, ok := skeleton[r]; ok {
			return to
		}
		return r
	}, s)
}

// Confusables maps characters to the ASCII letter or hyphen that they are taken for. Characters that Unicode decomposes into a letter and
// marks, or into a compatibility form, are not in it: NFKD undoes those.
func Confusables() map[rune]rune {
	m := map[rune]rune{}
	for r, to := range skeletonOf() {
		if norm.NFKD.String(string(r)) == string(r) {
			m[r] = to
		}
	}
	return m
}
