package generate

// draft guesses what comes next by looking up the last few tokens in the text so far (prompt look-up decoding, Saxena 2023): the longest
// suffix of up to maxMatch tokens that occurred before, latest first, and what followed it there. It returns at most n tokens, appended to dst.
func draft(dst, text []int32, n int) []int32 {
	const minMatch, maxMatch = 2, 5
	for size := min(maxMatch, len(text)-1); size >= minMatch; size-- {
		suffix := text[len(text)-size:]
	next:
		for at := len(text) - size - 1; at >= 0 && at >= len(text)-4096; at-- {
			for i, id := range suffix {
				if text[at+i] != id {
					continue next
				}
			}
			follow := text[at+size:]
			return append(dst, follow[:min(n, len(follow))]...)
		}
	}
	return dst
}
