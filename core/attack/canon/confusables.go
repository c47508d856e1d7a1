package canon

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/temper-ml/temper/core/attack"
)

// moreLookAlikes are letters, digits and signs of scripts and repertoires that no text in Latin letters uses, each with the letter that most
// fonts draw alike: facts of Unicode's repertoire (cf. UTS 39), chosen by us. Living letters of Arabic, Hebrew and the Indic scripts are left
// alone. What attack.Confusables holds already is not repeated; compatibility forms are NFKC's.
var moreLookAlikes = map[rune]string{
	'A': "Ꭺᗅꓮ𖽀𐊠", 'B': "ꞴᏴᗷꓐ𐊂𐊡𐌁", 'C': "🝌𑣲𑣩ⲤᏟꓚ𐊢𐌂𐐕𐔜", 'D': "Ꭰᗞᗪꓓ", 'E': "⋿ⴹᎬꓰ𑢦𑢮𐊆", 'F': "𝈓Ꞙᖴꓝ𑣂𑢢𐊇𐊥𐔥", 'G': "ᏀᏳꓖ",
	'H': "ⲎᎻᕼꓧ𐋏", 'I': "ⲒꓲᛁⵏǀƖ𐊊𐌉", 'J': "ꞲͿᎫᒍꓙ", 'K': "ⲔᏦᛕꓗ𐔘", 'L': "𝈪ⳐᏞᒪꓡ𖼖𑢣𑢲𐐛𐔦", 'M': "ϺⲘᎷᗰᛖꓟ𐊰𐌑", 'N': "Ⲛꓠ𐔓",
	'O': "߀𑓐𑣠🯰Ⲟⵔዐ𐓂ꓳ𑢵𐊒𐊫𐐄𐔖", 'P': "ⲢᏢᑭꓑ𐊕", 'Q': "ⵕ", 'R': "𝈖ᎡᏒ𐒴ᖇꓣ𖼵", 'S': "ՏᏕᏚꓢ𖼺𐊖𐐠", 'T': "⊤⟙🝨ⲦᎢꓔ𖼊𑢼𐊗𐊱𐌕",
	'U': "∪⋃ሀ𐓎ᑌꓴ𖽂𑢸", 'V': "𝈍٧۷ѴⴸᏙᐯꛟꓦ𖼈𑢠𐔝", 'W': "𑣯𑣦ᎳᏔꓪ", 'X': "᙭╳𐌢𑣬ꞳⲬⵝᚷꓫ𐊐𐊴𐌗𐔧", 'Y': "ⲨУᎩᎽꓬ𖽃𑢤𐊲", 'Z': "𐋵𑣥Ꮓꓜ𑢩",
	'a': "⍺αᴀ", 'b': "ƄᏏᑲᖯʙ", 'c': "ᴄⲥꮯ𐐽", 'd': "Ꮷᑯꓒᴅ", 'e': "℮ꬲҽᴇ", 'f': "ꬵꞙſք", 'g': "ᶃƍցɢ", 'h': "հᏂʜ",
	'i': "⍳ɪɩιꙇӏꭵᎥ𑣃", 'j': "ᴊ", 'k': "ᴋ", 'l': "׀∣⏽١۱𐌠𞣇🯱ߊ𖼨ʟ", 'm': "ᴍ", 'n': "ռɴ",
	'o': "ంಂംං०੦૦௦౦೦൦๐໐၀٥۵ᴏᴑꬽσⲟჿ𐓪𑣈𑣗𐐬", 'p': "⍴ⲣᴘ", 'q': "գզ", 'r': "ꭇꭈᴦⲅꮁʀ", 's': "ꜱƽꮪ𑣁𐑈", 't': "ᴛ",
	'u': "ꞟᴜꭎꭒʋ𐓶𑣘", 'v': "∨⋁ᴠѵ𑜆ꮩ𑣀", 'w': "ɯᴡѡա𑜊𑜎𑜏ꮃ", 'x': "᙮×⤫⤬⨯ᕁᕽ", 'y': "ɣᶌʏỿꭚүყ𑣜", 'z': "ꮓ𑣄",
}

// confusables are the parts of Options.Confusables: one class of characters for each letter.
func confusables() []part {
	classes := map[rune][]rune{}
	add := func(to, r rune) {
		if !slices.Contains(classes[to], r) && norm.NFKD.String(string(r)) == string(r) {
			classes[to] = append(classes[to], r)
		}
	}
	for r, to := range attack.Confusables() {
		add(to, r)
	}
	for to, list := range moreLookAlikes {
		for _, r := range list {
			add(to, r)
		}
	}
	var parts []part
	for _, to := range slices.Sorted(maps.Keys(classes)) {
		slices.Sort(classes[to])
		parts = append(parts, replaceRegex("["+strings.ReplaceAll(string(classes[to]), "-", `\-`)+"]", string(to)))
	}
	// Two of ASCII, where letters stand around them: a bar for l, a zero for O.
	return append(parts, replaceRegex(`(?<=[A-Za-z])\|(?=[A-Za-z])|(?<![^\s])\|(?=[A-Za-z])|(?<=[A-Za-z])\|(?![^\s])`, "l"),
		replaceRegex(`(?<=[A-Za-z])0(?=[A-Za-z])|(?<![A-Za-z0-9])0(?=[A-Za-z]{2})`, "o"))
}
