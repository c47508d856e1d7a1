package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Need is a capability that a recipe cannot do without.
type Need string

// Needs.
const (
	NeedEncoder  Need = "encoder"
	NeedWords    Need = "neighbours"
	NeedMasker   Need = "masked language model"
	NeedGradient Need = "gradients"
	NeedGuide    Need = "gradients of edits"
	NeedFlips    Need = "gradient-ranked substitutions"
)

// Recipe is a goal, constraints, a transformation and a search under a name. Version grows whenever outcomes change.
type Recipe struct {
	Name    string
	Version int
	// Paper cites the source, Departures says where the recipe leaves it.
	Paper      string
	Departures string
	// Goal defaults to Untargeted.
	Goal           Goal
	Constraints    []Constraint
	Transformation Transformation
	Search         Search
	Needs          []Need
	// Prepare, when set, completes the recipe from all examples before the run (universal attacks).
	Prepare func(ctx context.Context, v Victim, examples []Example, opts Options) (Recipe, error)

	trigger string
}

func protect() []Constraint { return []Constraint{NoRepeat{}, NoStopWords{}} }

func deepWordBug() Transformation {
	return Composite{"deepwordbug", []Transformation{
		SwapChars(CharOptions{}), SubstituteChars(CharOptions{}), DeleteChars(CharOptions{}), InsertChars(CharOptions{}),
	}}
}

func inner() CharOptions { return CharOptions{SkipFirst: true, SkipLast: true} }

func textBuggerChars() []Transformation {
	space := inner()
	space.Letters = " "
	one := inner()
	return []Transformation{InsertChars(space), DeleteChars(one), SwapChars(one), Homoglyphs(CharOptions{})}
}

func innerAll() CharOptions { return CharOptions{All: true, SkipFirst: true, SkipLast: true} }

func evasions() Transformation {
	return Composite{"evasions", []Transformation{Leet(CharOptions{}), Spacing(), Homoglyphs(CharOptions{All: true}), Invisible(CharOptions{}), FullWidth()}}
}

// recipes are the built-in ones, the cheapest first. Each call makes fresh values.
func recipes() []Recipe {
	with := func(more ...Constraint) []Constraint { return append(protect(), more...) }
	return []Recipe{
		{
			Name: "deepwordbug", Version: 2,
			Paper:          "Gao, Lanchantin, Soffa, Qi: Black-box Generation of Adversarial Text Sequences to Evade Deep Learning Classifiers, 2018",
			Departures:     "as in TextAttack 0.3.11: words ranked by replacing each with [UNK], all four edits tried; own list of function words",
			Constraints:    with(MaxEdits{30}),
			Transformation: deepWordBug(), Search: GreedyRanked{By: Unk},
		},
		{
			Name: "textbugger-chars", Version: 2,
			Paper:          "Li, Ji, Du, Li, Wang: TextBugger, NDSS 2019",
			Departures:     "the four character bugs only: no embedding neighbours and no sentence encoder (textbugger has both); words split by a bug keep their place in the ranking",
			Constraints:    protect(),
			Transformation: Composite{"textbugger-chars", textBuggerChars()}, Search: GreedyRanked{By: Delete},
		},
		{
			Name: "textbugger", Version: 2,
			Paper:          "Li, Ji, Du, Li, Wang: TextBugger, NDSS 2019",
			Departures:     "similarity by the given sentence encoder instead of the Universal Sentence Encoder; neighbours from a lexicon or the victim's embeddings",
			Constraints:    with(Similar{Min: 0.8}),
			Transformation: Composite{"textbugger", append(textBuggerChars(), Synonyms{5})}, Search: GreedyRanked{By: Delete},
			Needs: []Need{NeedEncoder, NeedWords},
		},
		{
			Name: "pruthi", Version: 2,
			Paper:       "Pruthi, Dhingra, Lipton: Combating Adversarial Misspellings with Robust Word Recognition, ACL 2019",
			Departures:  "one word, as in TextAttack",
			Constraints: []Constraint{MinLength{4}, NoStopWords{}, MaxWords{Words: 1}, NoRepeat{}},
			Transformation: Composite{"misspellings", []Transformation{
				SwapChars(innerAll()), DeleteChars(innerAll()), InsertChars(innerAll()), Keyboard(innerAll()),
			}},
			Search: Beam{1},
		},
		{
			Name: "bad-characters", Version: 2,
			Paper:       "Boucher, Shumailov, Anderson, Papernot: Bad Characters: Imperceptible NLP Attacks, IEEE S&P 2022",
			Departures:  "greedy by importance instead of differential evolution; all four classes of characters in one attack",
			Constraints: []Constraint{NoRepeat{}},
			Transformation: Composite{"imperceptible", []Transformation{
				Invisible(CharOptions{}), Homoglyphs(CharOptions{All: true}), Reorder(CharOptions{}), Backspaced(CharOptions{}),
			}},
			Search: GreedyRanked{By: Delete},
		},
		{
			Name: "viper", Version: 2,
			Paper:          "Eger et al.: Text Processing Like Humans Do: Visually Attacking and Shielding NLP Systems, NAACL 2019",
			Departures:     "look-alikes from a table of accented and confusable letters instead of character embeddings; the search is guided by scores",
			Constraints:    []Constraint{NoRepeat{}, LooksAlike{0.02}},
			Transformation: Composite{"visual", []Transformation{Visual(CharOptions{All: true}), Homoglyphs(CharOptions{})}}, Search: GreedyRanked{By: Unk},
		},
		{
			Name: "leetspeak", Version: 2, Paper: "folk evasion of filters", Constraints: protect(),
			Transformation: Leet(CharOptions{All: true}), Search: GreedyRanked{By: Unk},
		},
		{
			Name: "spacing", Version: 2, Paper: "folk evasion of filters; cf. Gröndahl et al.: All You Need is “Love”, AISec 2018", Constraints: protect(),
			Transformation: Spacing(), Search: GreedyRanked{By: Unk},
		},
		{
			Name: "keyboard", Version: 2, Paper: "Belinkov, Bisk: Synthetic and Natural Noise Both Break Neural Machine Translation, ICLR 2018",
			Departures:  "guided by scores",
			Constraints: protect(), Transformation: Keyboard(CharOptions{All: true}), Search: GreedyRanked{By: Unk},
		},
		{
			Name: "evasions", Version: 2, Paper: "folk evasion of filters", Constraints: []Constraint{NoRepeat{}},
			Transformation: evasions(), Search: GreedyRanked{By: Delete},
		},
		{
			Name: "checklist", Version: 2,
			Paper:          "Ribeiro, Wu, Guestrin, Singh: Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, ACL 2020",
			Departures:     "names, places, numbers and contractions from small lists of our own; no part-of-speech tagger",
			Constraints:    []Constraint{NoRepeat{}},
			Transformation: Composite{"checklist", []Transformation{Names(), Numbers(), Contract{}}}, Search: Beam{1},
		},
		{
			Name: "synonyms", Version: 2,
			Paper:          "Jin, Jin, Zhou, Szolovits: Is BERT Really Robust? (TextFooler), AAAI 2020",
			Departures:     "neighbours from a lexicon file or the victim's embeddings; at most 40 % of the words; no sentence encoder, no part-of-speech filter",
			Constraints:    with(MaxWords{Share: 0.4}),
			Transformation: Synonyms{12}, Search: GreedyRanked{By: Delete}, Needs: []Need{NeedWords},
		},
		{
			Name: "textfooler", Version: 2,
			Paper:          "Jin, Jin, Zhou, Szolovits: Is BERT Really Robust? (TextFooler), AAAI 2020",
			Departures:     "neighbours from a lexicon file or the victim's embeddings, similarity by the given sentence encoder on 15-word windows, parts of speech by a small tagger",
			Constraints:    with(SamePart{NounVerb: true}, Similar{Min: 0.84, Window: 15}),
			Transformation: Synonyms{50}, Search: GreedyRanked{By: Delete, Similarity: true}, Needs: []Need{NeedWords, NeedEncoder},
		},
		{
			Name: "pwws", Version: 2,
			Paper:          "Ren, Deng, He, Che: Generating Natural Language Adversarial Examples through Probability Weighted Word Saliency, ACL 2019",
			Departures:     "synonyms from a lexicon file or the victim's embeddings instead of WordNet, kept to the part of speech by a small tagger; no named-entity swaps",
			Constraints:    with(SamePart{}),
			Transformation: Synonyms{12}, Search: GreedyRanked{By: Saliency}, Needs: []Need{NeedWords},
		},
		{
			Name: "bae", Version: 2,
			Paper:          "Garg, Ramakrishnan: BAE: BERT-based Adversarial Examples, EMNLP 2020 (BAE-R)",
			Departures:     "parts of speech by a small tagger; similarity by the given sentence encoder",
			Constraints:    with(SamePart{NounVerb: true}, Similar{Min: 0.936, Window: 15}),
			Transformation: MaskedReplace{N: 50}, Search: GreedyRanked{By: Delete}, Needs: []Need{NeedMasker, NeedEncoder},
		},
		{
			Name: "bert-attack", Version: 2,
			Paper:          "Li, Ma, Guo, Xue, Qiu: BERT-ATTACK, EMNLP 2020",
			Departures:     "whole words only, the word itself is masked; at most 40 % of the words; similarity by the given sentence encoder",
			Constraints:    with(MaxWords{Share: 0.4}, Similar{Min: 0.2}),
			Transformation: MaskedReplace{N: 8}, Search: GreedyRanked{By: Unk}, Needs: []Need{NeedMasker, NeedEncoder},
		},
		{
			Name: "clare", Version: 2,
			Paper:       "Li, Zhang, Peng, Chen, Brockett, Sun, Dolan: Contextualized Perturbation for Textual Adversarial Attack, NAACL 2021",
			Departures:  "merges only pairs that may both change; similarity by the given sentence encoder",
			Constraints: with(Similar{Min: 0.7, Window: 15}),
			Transformation: Composite{"clare", []Transformation{
				MaskedReplace{N: 50, MinP: 5e-4}, MaskedInsert{N: 50}, MaskedMerge{N: 50, MinP: 5e-3},
			}},
			Search: Beam{1}, Needs: []Need{NeedMasker, NeedEncoder},
		},
		{
			Name: "a2t", Version: 2,
			Paper:          "Yoo, Qi: Towards Improving Adversarial Training of NLP Models, Findings of EMNLP 2021",
			Departures:     "neighbours from a lexicon file or the victim's embeddings, similarity by the given sentence encoder, parts of speech by a small tagger",
			Constraints:    with(MaxRate{0.1, 4}, SamePart{}, Similar{Min: 0.9}),
			Transformation: Synonyms{20}, Search: GreedyRanked{By: Gradient}, Needs: []Need{NeedWords, NeedEncoder, NeedGradient},
		},
		{
			Name: "hotflip", Version: 2,
			Paper:          "Ebrahimi, Rao, Lowd, Dou: HotFlip: White-Box Adversarial Examples for Text Classification, ACL 2018",
			Departures:     "word flips only; word similarity by the given encoder when there is one is left to synonyms recipes; parts of speech by a small tagger",
			Constraints:    with(MaxWords{Words: 2}, SamePart{}),
			Transformation: Flip{1}, Search: Beam{10}, Needs: []Need{NeedFlips},
		},
		{
			Name: "deepwordbug-gradient", Version: 2,
			Paper:          "edits of Gao et al. 2018, chosen as Ebrahimi et al. 2018 choose flips; gradients averaged as in Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017",
			Departures:     "twelve edits a word are drawn, gradients rank words and edits, and only the two most promising edits of a word are asked of the victim; each pass for gradients counts as a query",
			Constraints:    with(MaxEdits{30}),
			Transformation: Composite{"deepwordbug", []Transformation{deepWordBug(), deepWordBug(), deepWordBug()}}, Search: Guided{Keep: 2},
			Needs: []Need{NeedGuide},
		},
		{
			Name: "input-reduction", Version: 2,
			Paper:          "Feng, Wallace, Grissom, Iyyer, Rodriguez, Boyd-Graber: Pathologies of Neural Models Make Interpretations Difficult, EMNLP 2018",
			Departures:     "greedy, words ranked once; won means that at least one word could go without the prediction changing",
			Goal:           keepLabel{},
			Constraints:    protect(),
			Transformation: RemoveWord{}, Search: Reduce{},
		},
		{
			Name: "universal-triggers", Version: 2,
			Paper:          "Wallace, Feng, Kandpal, Gardner, Singh: Universal Adversarial Triggers for Attacking and Analyzing NLP, EMNLP 2019",
			Departures:     "coordinate search over words of the examples, scored on a sample, instead of gradients; the search's queries are not part of the per-example figures",
			Transformation: Prepend{}, Search: Once{}, Prepare: prepareTriggers,
		},
		{
			Name: "genetic", Version: 2,
			Paper:          "Alzantot, Sharma, Elgohary, Ho, Srivastava, Chang: Generating Natural Language Adversarial Examples, EMNLP 2018",
			Departures:     "neighbours from a lexicon file or the victim's embeddings; no language model; children are checked against the constraints",
			Constraints:    with(MaxWords{Share: 0.2}),
			Transformation: Synonyms{8}, Search: Genetic{Size: 60, Rounds: 20}, Needs: []Need{NeedWords},
		},
		{
			Name: "pso", Version: 2,
			Paper:          "Zang, Qi, Yang, Liu, Zhang, Liu, Sun: Word-level Textual Adversarial Attacking as Combinatorial Optimization, ACL 2020",
			Departures:     "neighbours from a lexicon file or the victim's embeddings instead of HowNet sememes",
			Constraints:    protect(),
			Transformation: Synonyms{8}, Search: Swarm{Size: 60, Rounds: 20}, Needs: []Need{NeedWords},
		},
	}
}

// Names lists the built-in recipes.
func RecipeNames() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.Name)
	}
	return append(names, "mixed")
}

// NewRecipe returns a built-in recipe. "mixed" escalates from the cheapest to the strongest of those that available capabilities allow.
func NewRecipe(name string, available ...Need) (Recipe, error) {
	if name == "mixed" {
		return mixed(available), nil
	}
	for _, r := range recipes() {
		if r.Name == name {
			return r, nil
		}
	}
	return Recipe{}, fmt.Errorf("attack: no recipe %q, expected one of %s", name, strings.Join(RecipeNames(), ", "))
}

// Capabilities tells which needs a run with this victim and these options can meet.
func Capabilities(v Victim, opts Options) []Need {
	r := &run{victim: v, opts: opts}
	var out []Need
	for _, n := range []Need{NeedEncoder, NeedWords, NeedMasker, NeedGradient, NeedGuide, NeedFlips} {
		if r.needs(Recipe{Needs: []Need{n}}) == nil {
			out = append(out, n)
		}
	}
	return out
}

func mixed(available []Need) Recipe {
	var stages []Recipe
	var names []string
	for _, name := range []string{"keyboard", "deepwordbug", "evasions", "synonyms", "bert-attack", "genetic"} {
		r, err := NewRecipe(name)
		if err != nil {
			continue
		}
		met := true
		for _, n := range r.Needs {
			met = met && slices.Contains(available, n)
		}
		if met {
			stages = append(stages, r)
			names = append(names, name)
		}
	}
	return Recipe{
		Name: "mixed", Version: 2, Paper: "escalation through " + strings.Join(names, ", "),
		Departures: "each stage starts from the untouched text; the first that wins ends the search", Transformation: stages[0].Transformation,
		Search: Escalate{stages},
	}
}

// PluginRecipe attacks with the candidates of a Perturber: greedy by importance, words changed once, function words kept.
func PluginRecipe(p Perturber) Recipe {
	return Recipe{
		Name: "plugin:" + p.Name(), Version: 2, Constraints: protect(), Transformation: By{Perturber: p}, Search: GreedyRanked{By: Unk},
	}
}

// PluginsRecipe attacks with the candidates of several Perturbers together. One that fails on an example is left out for the rest of that example,
// which is counted, and the attack goes on with the others.
func PluginsRecipe(ps ...Perturber) Recipe {
	if len(ps) == 1 {
		return PluginRecipe(ps[0])
	}
	all := Composite{Label: "plugins"}
	var names []string
	for _, p := range ps {
		all.Parts = append(all.Parts, By{Perturber: p, Optional: true})
		names = append(names, p.Name())
	}
	r := PluginRecipe(ps[0])
	r.Name, r.Transformation = "plugins:"+strings.Join(names, "+"), all
	return r
}

// NewPerturber returns a built-in transformation as a Perturber, for augmentation and on-line training.
func NewPerturber(name string) (Perturber, error) {
	for _, p := range perturbers() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("attack: no perturber %q, expected one of %s", name, strings.Join(PerturberNames(), ", "))
}

// PerturberNames lists what NewPerturber makes.
func PerturberNames() []string {
	var names []string
	for _, p := range perturbers() {
		names = append(names, p.Name())
	}
	return names
}

func perturbers() []Perturber {
	return []Perturber{
		deepWordBug().(Composite), evasions().(Composite), SwapChars(CharOptions{}), SubstituteChars(CharOptions{}), DeleteChars(CharOptions{}),
		InsertChars(CharOptions{}), RepeatChars(CharOptions{}), Keyboard(CharOptions{}), Homoglyphs(CharOptions{}), Visual(CharOptions{}),
		Leet(CharOptions{}), Invisible(CharOptions{}), Spacing(), FullWidth(), Accents(), Names(), Numbers(), Synonyms{12},
	}
}
