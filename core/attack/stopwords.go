package attack

import "strings"

// functionWords are common English words that carry grammar more than meaning, grouped by kind. Attacks leave them alone, tellingWords apart.
const functionWords = `
a an the this that these those some any each every either neither both all half such same other another others several few many much more
most less least enough no none nothing nobody own
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself they
them their theirs themselves one ones oneself someone somebody something anyone anybody anything everyone everybody everything noone whoever
whatever whichever whose who whom which what when where why how whether while whenever wherever whereas
be am is are was were been being do does did done doing have has had having can could may might must shall should will would ought cannot
seem seems become becomes get gets
and or but nor so yet for if then else because since until till unless although though as than lest
of at by with about against between among amongst into through during before after above below to from up down in out on off over under
again further onto upon within without across along around behind beneath beside besides beyond despite except inside outside near per plus
throughout toward towards via amid
not never ever also too very just only even still already almost always often sometimes perhaps rather quite well really here there now once
twice thus hence therefore however moreover otherwise indeed instead meanwhile nevertheless anyhow anyway anywhere everywhere nowhere
somewhere elsewhere somehow afterwards beforehand thereby therein whereby wherein hereby together apart back away
two three four five six seven eight nine ten eleven twelve first last next
`

// tellingWords are function words that carry meaning of their own: negations, quantities, degrees, doubt. A sentiment may hang on one, so attacks may
// touch them; the usual English stop-word lists leave most of them out too.
const tellingWords = `
enough nothing nobody none noone least less most several few many much never ever always often sometimes almost already still even quite really rather
well perhaps instead despite without unless although though whereas however nevertheless otherwise indeed alone apart away together back
seem seems become becomes gets cannot beside besides beyond near inside outside plus amid half twice everything everyone everybody something
someone somebody anything nowhere everywhere first last next
`

func wordSet(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for _, w := range strings.Fields(l) {
			m[w] = true
		}
	}
	return m
}

var closedWords = wordSet(functionWords)

var stopWords = func() map[string]bool {
	m := wordSet(functionWords)
	for w := range wordSet(tellingWords) {
		delete(m, w)
	}
	return m
}()

// IsStopWord tells whether word is a common English function word without much meaning of its own. Case counts: a capitalised word is not in the
// list, as in TextAttack.
func IsStopWord(word string) bool { return stopWords[word] }
