package token

// Byte-level BPE writes bytes as visible letters: itself for printable ASCII and Latin-1, U+0100 onwards for the rest (GPT-2).
var (
	byteLetter [256]rune
	letterOf   [512]int16 // byte of a letter, -1 for none
)

func init() {
	for i := range letterOf {
		letterOf[i] = -1
	}
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		byteLetter[b] = r
		letterOf[r] = int16(b)
	}
}

func letterByte(r rune) (byte, bool) {
	if r < 0 || int(r) >= len(letterOf) || letterOf[r] < 0 {
		return 0, false
	}
	return byte(letterOf[r]), true
}
