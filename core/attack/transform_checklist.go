package attack

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Contractions turns word pairs into contractions and back, on the words "it is" and the like, which keep their meaning.
var contractionPairs = [][2]string{
	{"is not", "isn't"}, {"are not", "aren't"}, {"was not", "wasn't"}, {"were not", "weren't"}, {"do not", "don't"}, {"does not", "doesn't"},
	{"did not", "didn't"}, {"have not", "haven't"}, {"has not", "hasn't"}, {"had not", "hadn't"}, {"will not", "won't"},
	{"would not", "wouldn't"}, {"could not", "couldn't"}, {"should not", "shouldn't"}, {"cannot", "can't"}, {"it is", "it's"},
	{"that is", "that's"}, {"there is", "there's"}, {"what is", "what's"}, {"he is", "he's"}, {"she is", "she's"}, {"i am", "i'm"},
	{"you are", "you're"}, {"we are", "we're"}, {"they are", "they're"}, {"i have", "i've"}, {"you have", "you've"}, {"we have", "we've"},
	{"they have", "they've"}, {"i will", "i'll"}, {"you will", "you'll"}, {"we will", "we'll"}, {"they will", "they'll"}, {"let us", "let's"},
}

// Contract writes contractions out and word pairs as contractions.
type Contract struct{}

func (Contract) Name() string { return "contractions" }

func (Contract) Apply(_ *Task, x *Text, words []int) ([]*Text, error) {
	var out []*Text
	for _, i := range words {
		w := strings.ToLower(x.Word(i))
		for _, p := range contractionPairs {
			long, short := p[0], p[1]
			if w == short {
				out = append(out, x.Replace(i, matchFirst(long, x.Word(i))))
			}
			if w == long {
				out = append(out, x.Replace(i, matchFirst(short, x.Word(i))))
			}
			a, b, two := strings.Cut(long, " ")
			if two && w == a && i+1 < x.Len() && strings.ToLower(x.Word(i+1)) == b && x.S[x.Spans[i].End:x.Spans[i+1].Start] == " " {
				y := x.Replace(i+1, "")
				out = append(out, y.Replace(i, matchFirst(short, x.Word(i))))
			}
		}
	}
	return out, nil
}

func matchFirst(w, like string) string {
	if r, _ := utf8.DecodeRuneInString(like); unicode.IsUpper(r) {
		return strings.ToUpper(w[:1]) + w[1:]
	}
	return w
}

// Numbers changes a number a little, keeping its width.
func Numbers() WordSwap {
	return WordSwap{Label: "numbers", Variants: func(word string, r *Rand) []string {
		n, err := strconv.Atoi(word)
		if err != nil || len(word) > 9 {
			return nil
		}
		var out []string
		for range 3 {
			d := 1 + r.IntN(max(1, n/5+2))
			if r.IntN(2) == 0 && n > d {
				d = -d
			}
			out = append(out, strconv.Itoa(n+d))
		}
		return out
	}}
}

const (
	givenNames = `James Mary John Linda Robert Susan Michael Karen David Nancy Daniel Emma Oliver Sophia Lucas Mia Ahmed Fatima Wei Mei Raj Priya Carlos
Ana Yuki Hana Ivan Olga Kofi Ama Omar Layla Pierre Claire Hans Greta Paolo Giulia Sven Astrid`
	familyNames = `Smith Jones Brown Taylor Wilson Davies Evans Thomas Johnson Roberts Walker Wright Robinson Thompson White Hughes Edwards Green Hall
Wood Harris Lewis Martin Jackson Clarke Turner Hill Cooper Ward Moore Garcia Chen Singh Kim Nguyen Rossi Schmidt Dubois`
	placeNames = `London Paris Berlin Madrid Rome Vienna Dublin Lisbon Athens Oslo Cairo Lagos Nairobi Delhi Mumbai Tokyo Seoul Beijing Sydney Toronto
Chicago Boston Dallas Denver Seattle France Germany Spain Italy Greece Ireland Norway Sweden Poland Egypt Kenya India China Japan Canada Mexico
Brazil Chile Peru Australia`
)

// Names replaces given names, family names and places by others of their kind.
func Names() WordSwap {
	lists := [][]string{strings.Fields(givenNames), strings.Fields(familyNames), strings.Fields(placeNames)}
	kind := map[string]int{}
	for k, l := range lists {
		for _, w := range l {
			kind[strings.ToLower(w)] = k
		}
	}
	return WordSwap{Label: "names", Variants: func(word string, r *Rand) []string {
		k, ok := kind[strings.ToLower(word)]
		if !ok {
			return nil
		}
		// A lower-case "hill" or "green" is a plain word, unless the whole text is lower-case; the two cannot be told apart here, so only
		// places and given names go lower-case.
		if k == 1 && !unicode.IsUpper([]rune(word)[0]) {
			return nil
		}
		var out []string
		for range 5 {
			w := lists[k][r.IntN(len(lists[k]))]
			if unicode.IsLower([]rune(word)[0]) {
				w = strings.ToLower(w)
			}
			out = append(out, w)
		}
		return out
	}}
}
