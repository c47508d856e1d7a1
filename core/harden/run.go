// Package harden makes classifiers stand against people who try to fool them: training on perturbed texts, made anew every time, and on
// worst-case changes of word embeddings, on top of full tuning or any adapter.
package harden

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/canon"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/peft"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/core/train"
)

// Methods are the names that Objective knows. "augment" and "online" (the worst of several copies, found by the model as it is) combine with
// any other by "+": "augment+fgm".
func Methods() []string {
	return []string{"augment", "online", "fgm", "fgm-matrix", "fgsm", "pgd", "pgd-linf", "free", "freelb", "tavat", "smart", "vat", "r-drop", "ascc", "a2t"}
}

// Sources are what methods draw from.
type Sources struct {
	// Perturbers are those of "augment" and "online"; none means character noise.
	Perturbers []attack.Perturber
	Labels     []string
	Victim     attack.Victim
	// Words are the synonyms of "ascc" and "a2t".
	Words attack.Neighbours
}

// needsWords tells whether a method string names a method that needs synonyms.
func needsWords(method string) bool {
	for p := range strings.SplitSeq(method, "+") {
		if p = strings.TrimSpace(p); p == "ascc" || p == "a2t" {
			return true
		}
	}
	return false
}

// Objective makes the objective of a method string. "none" is ordinary training.
func Objective(method string, s Sources) (train.Objective, error) {
	outer := ""
	var inner train.Objective
	for p := range strings.SplitSeq(method, "+") {
		switch p = strings.TrimSpace(p); p {
		case "none":
		case "augment", "online":
			if outer != "" {
				return nil, fmt.Errorf("method %q: %s after %s, expected one of them once", method, p, outer)
			}
			outer = p
		default:
			if inner != nil {
				return nil, fmt.Errorf("method %q: expected augment or online, and at most one other method", method)
			}
			var err error
			switch p {
			case "smart", "vat", "r-drop":
				inner, err = NewSmooth(p)
			case "fgm", "fgm-matrix", "fgsm", "pgd", "pgd-linf", "freelb":
				inner, err = NewEmbedding(p)
			case "free":
				inner = NewFree()
			case "tavat":
				inner = NewTavat()
			case "ascc":
				inner = NewHull(s.Words)
			case "a2t":
				inner = NewA2T(s.Words)
			default:
				err = fmt.Errorf("method %q: expected one of %s, or augment+ or online+ one of them", p, strings.Join(Methods(), ", "))
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if inner == nil {
		inner = train.Plain{}
	}
	if outer == "" {
		return inner, nil
	}
	if _, ok := inner.(*Free); ok {
		return nil, fmt.Errorf("method %q: free replays its batches, so copies made anew for each step have no place in it", method)
	}
	a := NewAugment(s.Perturbers...)
	a.Inner, a.Labels, a.Victim = inner, s.Labels, s.Victim
	if outer == "online" {
		a.Worst = 3
	}
	return a, nil
}

// Options describe a hardening run.
type Options struct {
	// Tune are the settings of the training itself; Tune.Method is "full", "lora", ….
	Tune train.Options
	// Method is the defence: see Methods.
	Method string
	// Perturbers are the sources of "augment" beside character noise, or in place of it when OnlyThese is set.
	Perturbers []attack.Perturber
	OnlyThese  bool
	// Share is the part of the texts that "augment" and "online" copy; 0 leaves it to NewAugment.
	Share float64
	// HeldOut names attack recipes whose edits training must not see, so that attacking with them afterwards tells how the defence does
	// against what it was not made for.
	HeldOut []string
	// Words finds synonyms for methods that need them; nil asks the base itself (see WordSpace).
	Words attack.Neighbours
	// Guard is the number of words, those that tell most of the label, whose misspellings the written tokenizer reads as the word itself (see
	// canon.Typos); 0 is none. Training runs without it, so that the weights resist what it does not catch.
	Guard int
	// Wide is the number of words guarded beside those: the most usual ones of the base's vocabulary that no training text holds.
	Wide int
	// Slips decides between an unusual word and a misspelling of a usual one (see canon.Guard); StandIns guards words of several pieces too: their
	// misspellings are read as the nearest word of one piece; Closed is the least share of the training texts' tokens that keeps a continuation
	// ("##ing") in the vocabulary, 0 keeps all.
	Slips    float64
	StandIns bool
	Closed   float64
	// Synonyms, when not nil, are words that the tokenizer reads as one with the word that they stand beside (see canon.Synonyms), in training too. Words
	// that speak for different labels are kept apart.
	Synonyms attack.Lexicon
	// Canon is the canonicalisation that the written tokenizer's normalizer begins with: zero-width and look-alike letters, spacing, leetspeak. Of
	// it training reads the numbers alone.
	Canon canon.Options
	// Augment, when not nil, changes the settings of augmentation before the run.
	Augment func(*Augment)

	// Examples are attacked before and after by each of Recipes (names); none measures nothing. Attack are the settings.
	Examples []attack.Example
	Recipes  []string
	Attack   attack.Options
	// Before names the model to compare with: a folder, or "" for the base itself if it is a classifier with these labels, else for
	// the same tuning without defence ("plain" forces that, "none" leaves the comparison out).
	Before string
	// Phase is told what begins: "before", "attack before", "harden", "attack after".
	Phase func(name string)
}

// Defaults are the settings that `temper harden` begins with.
func Defaults() Options {
	return Options{Method: DefaultMethod, Share: 0.5, Perturbers: []attack.Perturber{&WordNoise{Least: 0.25, Rate: 0.5}}, Guard: 8000, Wide: 4000,
		Slips: 0.25, Closed: 0.0004,
		Canon: canon.Options{Invisible: true, Compatibility: true, Confusables: true}}
}

// DefaultMethod is the defence of an empty Options.Method.
const DefaultMethod = "augment"

// Standing is how a model stands: accuracy on the dev set, and under each attack.
type Standing struct {
	Accuracy    float64                   `json:"accuracy"`
	UnderAttack map[string]float64        `json:"under_attack"`
	Reports     map[string]*attack.Report `json:"-"`
}

// Result is what a run reports; the JSON names are those of `temper harden`.
type Result struct {
	train.Result
	Defence string    `json:"defence"`
	Before  *Standing `json:"before,omitempty"`
	After   *Standing `json:"after,omitempty"`
}

// Run hardens a classifier and writes it.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Method == "" {
		o.Method = DefaultMethod
	}
	// Seeing through disguises takes longer to learn than the task: a third more passes than tuning, and adapters at twice its rate.
	if o.Tune.Epochs == 0 {
		o.Tune.Epochs = 4
	}
	if o.Tune.LR == 0 && o.Tune.Method != "full" && o.Tune.Method != "" {
		o.Tune.LR = 2 * peft.LearningRate(o.Tune.Method)
	}
	if o.Tune.Method == "head" {
		return nil, errors.New("harden: a head over a frozen encoder cannot learn to see through disguises; tune full, lora or another adapter")
	}
	sources := o.Perturbers
	if len(sources) == 0 || !o.OnlyThese {
		sources = append([]attack.Perturber{NewCharNoise()}, sources...)
	}
	sources, err := without(slices.Clone(sources), o.HeldOut)
	if err != nil {
		return nil, fmt.Errorf("harden: %w", err)
	}
	near := slices.IndexFunc(sources, func(p attack.Perturber) bool { n, ok := p.(*SynonymNoise); return ok && n.Words == nil })
	if (needsWords(o.Method) || near >= 0) && o.Words == nil {
		if o.Words, err = o.space(ctx); err != nil {
			return nil, fmt.Errorf("harden: synonyms: %w", err)
		}
	}
	for i, p := range sources {
		if n, ok := p.(*SynonymNoise); ok && n.Words == nil {
			own := *n
			own.Words = o.Words
			sources[i] = &own
		}
	}
	objective, err := Objective(o.Method, Sources{Perturbers: sources, Labels: o.Tune.Train.LabelNames, Words: o.Words})
	if err != nil {
		return nil, fmt.Errorf("harden: %w", err)
	}
	if a, ok := objective.(*Augment); ok {
		if o.Share > 0 {
			a.Share = o.Share
		}
		if o.Augment != nil {
			o.Augment(a)
		}
	}
	for _, r := range o.Recipes {
		if _, err := attack.NewRecipe(r); err != nil {
			return nil, fmt.Errorf("harden: %w", err)
		}
	}
	out := &Result{Defence: o.Method}
	var spent train.Cost
	started := time.Now()
	if out.Before, spent, err = o.before(ctx); err != nil {
		return nil, fmt.Errorf("harden: before: %w", err)
	}
	o.phase("harden")
	t := o.Tune
	t.Objective = objective
	guarded, alike, err := o.tokenizers(ctx)
	if err != nil {
		return nil, fmt.Errorf("harden: %w", err)
	}
	t.Tokenizer = alike
	t.Extra = fmt.Sprintf("%s %s %v", t.Extra, o.Method, describe(objective))
	r, err := train.Run(ctx, t)
	if r != nil {
		out.Result = *r
	}
	if err != nil {
		return out, err
	}
	out.Cost = out.Cost.Add(spent)
	if guarded != nil {
		if err := r.Bundle.SetTokenizer(guarded); err != nil {
			return out, fmt.Errorf("harden: guard: %w", err)
		}
		if o.Tune.Out != "" {
			config, err := r.Bundle.TokenizerConfig()
			if err != nil {
				return out, fmt.Errorf("harden: guard: %w", err)
			}
			for name, b := range map[string][]byte{checkpoint.TokenizerFile: guarded, checkpoint.TokenizerConfig: config} {
				if b == nil {
					continue
				}
				if err := checkpoint.WriteFile(filepath.Join(o.Tune.Out, name), func(w io.Writer) error {
					_, err := w.Write(b)
					return err
				}); err != nil {
					return out, fmt.Errorf("harden: guard: %w", err)
				}
			}
		}
		r.Dev = nil // measured without it
	}
	o.phase("attack after")
	p, err := pipeline.New(r.Bundle, o.Tune.Kernels, pipeline.Options{MaxTokens: o.Tune.MaxTokens})
	if err != nil {
		return out, err
	}
	if out.After, err = o.stand(ctx, p, r.Dev); err != nil {
		return out, fmt.Errorf("harden: attack after: %w", err)
	}
	out.Seconds = time.Since(started).Seconds()
	return out, nil
}

func (o *Options) phase(name string) {
	if o.Phase != nil {
		o.Phase(name)
	}
}

// Tokenizer is the tokenizer.json of the base as the written model has it: with words of one meaning read alike, the guard against typos and
// canonicalisation, nil for the base's own.
func (o *Options) Tokenizer(ctx context.Context) ([]byte, error) {
	written, _, err := o.tokenizers(ctx)
	return written, err
}

// tokenizers are the one that is written, nil for the base's own, and the one that training reads by, nil likewise.
func (o *Options) tokenizers(ctx context.Context) (written, training []byte, err error) {
	typos := o.Guard > 0 && o.Tune.Train.Labels != nil
	asked := typos || o.Canon != (canon.Options{}) || o.Synonyms != nil
	f := o.Tune.Folder
	if f == nil {
		if f, err = checkpoint.OpenFolder(o.Tune.Base); err != nil {
			return nil, nil, err
		}
		defer f.Close()
	}
	if !asked && !f.Has(checkpoint.TokenizerFile) {
		return nil, nil, nil
	}
	base, err := f.File(checkpoint.TokenizerFile)
	if err != nil {
		return nil, nil, fmt.Errorf("guard: %w", err)
	}
	// A base that was hardened before loses what its tokenizer was given then: the options say what it is given now.
	written, had, err := canon.Bare(base)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	if !asked && !had {
		return nil, nil, nil
	}
	if o.Canon.Numbers {
		if written, err = canon.Prepend(written, canon.Options{Numbers: true}); err != nil {
			return nil, nil, fmt.Errorf("%s: canonicalisation: %w", f.Path(), err)
		}
	}
	if had || o.Canon.Numbers { // texts say something else than by the base's own, so training must read them so too
		training = written
	}
	counts, err := o.counts(written)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	var alike []string
	if o.Synonyms != nil {
		if written, alike, err = canon.ReadAlike(written, o.synonyms(counts)); err != nil {
			return nil, nil, fmt.Errorf("%s: %w (run without them)", f.Path(), err)
		}
		training = written
	}
	if typos {
		g, err := o.guard(ctx, written, counts)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: guard: %w", f.Path(), err)
		}
		g.Real = alike
		if written, _, err = canon.Typos(written, g); err != nil {
			return nil, nil, fmt.Errorf("%s: %w (run without the guard)", f.Path(), err)
		}
	}
	if o.Canon != (canon.Options{}) {
		if written, err = canon.Prepend(written, o.Canon); err != nil {
			return nil, nil, fmt.Errorf("%s: canonicalisation: %w", f.Path(), err)
		}
	}
	return written, training, nil
}

// synonyms are those of the lexicon, but for words of grammar.
func (o *Options) synonyms(counts *wordCounts) canon.Synonyms {
	s := canon.Synonyms{Near: map[string][]string{}, Counts: counts.all, Leave: attack.IsStopWord}
	for _, w := range slices.Sorted(maps.Keys(o.Synonyms)) {
		low := strings.ToLower(w)
		for _, x := range o.Synonyms[w] {
			s.Near[low] = append(s.Near[low], strings.ToLower(x))
		}
	}
	if d := o.Tune.Train; d.Labels != nil {
		v := votes(d.Texts, d.Labels)
		s.Apart = func(a, b string) bool { return v.against(a, b) || v.against(b, a) }
	}
	return s
}

// wordCounts say how often words occur.
type wordCounts struct {
	// all counts words of the training texts, and a little for whole words of the vocabulary; unseen are those of the latter that no training text
	// holds, the most usual first.
	all    map[string]float64
	unseen []string
}

func (o *Options) counts(tokenizer []byte) (*wordCounts, error) {
	c := &wordCounts{all: map[string]float64{}}
	tok, err := token.Load(tokenizer)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, t := range o.Tune.Train.Texts {
		for _, w := range lowerWords(t) {
			c.all[w]++
			total++
		}
	}
	// Words that the training texts do not hold may still come: a little of what Zipf's law gives them, as vocabularies begin with the
	// most usual words.
	const share = 0.02
	rank := 0
	for id := int32(0); id <= tok.MaxID(); id++ {
		w, ok := tok.Token(id)
		if !ok || tok.IsSpecial(id) || len(w) < 2 || !letterWord(w) {
			continue
		}
		rank++
		if c.all[w] == 0 {
			c.unseen = append(c.unseen, w)
		}
		c.all[w] += share * float64(total) / float64(rank)
	}
	return c, nil
}

// guard chooses what the tokenizer is to read through.
func (o *Options) guard(ctx context.Context, tokenizer []byte, counts *wordCounts) (canon.Guard, error) {
	d := o.Tune.Train
	g := canon.Guard{Words: canon.Telling(d.Texts, d.Labels, o.Guard), Counts: counts.all, Slips: o.Slips}
	wide := 0
	for _, w := range counts.unseen {
		if wide < o.Wide && len(w) > 3 {
			g.Words = append(g.Words, w)
			wide++
		}
	}
	if o.Closed > 0 {
		tok, err := token.Load(tokenizer)
		if err != nil {
			return g, err
		}
		used := map[int32]float64{}
		all := 0.0
		for _, t := range d.Texts {
			for _, id := range tok.AppendIDs(nil, t, false) {
				used[id]++
				all++
			}
		}
		g.Pieces = map[string]bool{}
		for id, n := range used {
			if w, ok := tok.Token(id); ok && n >= o.Closed*all {
				g.Pieces[w] = true
			}
		}
	}
	if o.StandIns {
		var err error
		if g.StandIns, err = o.standIns(ctx, g.Words); err != nil {
			return g, err
		}
	}
	return g, nil
}

// standIns are words of one piece for those of several, by what the base says of each word alone.
func (o *Options) standIns(ctx context.Context, words []string) (map[string]string, error) {
	s, tok, err := o.spaceAndTokenizer(ctx)
	if err != nil {
		return nil, err
	}
	whole := func(w string) bool {
		_, ok := tok.ID(w)
		return ok
	}
	out := map[string]string{}
	for _, w := range words {
		if !whole(w) {
			if near := s.StandIn(w, whole); near != "" {
				out[w] = near
			}
		}
	}
	return out, nil
}

// space asks the base what words mean.
func (o *Options) space(ctx context.Context) (*WordSpace, error) {
	s, _, err := o.spaceAndTokenizer(ctx)
	return s, err
}

func (o *Options) spaceAndTokenizer(ctx context.Context) (*WordSpace, *token.Tokenizer, error) {
	f := o.Tune.Folder
	if f == nil {
		var err error
		if f, err = checkpoint.OpenFolder(o.Tune.Base); err != nil {
			return nil, nil, err
		}
	}
	b, err := peft.OpenFolder(f, peft.OpenOptions{})
	if err != nil {
		if o.Tune.Folder == nil {
			err = errors.Join(err, f.Close())
		}
		return nil, nil, err
	}
	if o.Tune.Folder == nil {
		defer b.Close()
	}
	p, err := pipeline.New(b, o.Tune.Kernels, pipeline.Options{})
	if err != nil {
		return nil, nil, err
	}
	s, err := NewWordSpace(ctx, p, o.Tune.Kernels, o.Tune.Train)
	return s, b.Tokenizer, err
}

// describe renders the settings of an objective, for the fingerprint of its checkpoints.
func describe(x train.Objective) string {
	switch m := x.(type) {
	case *Augment:
		names := make([]string, len(m.Sources))
		for i, s := range m.Sources {
			names[i] = s.Name()
			switch c := s.(type) {
			case *CharNoise:
				names[i] = fmt.Sprintf("%s %v", c.Name(), *c)
			case *WordNoise:
				names[i] = fmt.Sprintf("%s %v", c.Name(), *c)
			case *SynonymNoise:
				names[i] = fmt.Sprint(c.Name(), c.Least, c.Rate, c.N)
			}
		}
		return fmt.Sprint("augment ", names, m.Share, m.Copies, m.Consistency, m.Likeness, m.Words, m.Worst, m.Rounds, describe(m.Inner))
	case *Free:
		return fmt.Sprint("free ", m.Replays, m.Epsilon, m.Ramp)
	case *Tavat:
		return fmt.Sprint("tavat ", m.Steps, m.StepSize, m.Radius, m.InitMagnitude, m.Ramp)
	case *Hull:
		return fmt.Sprint("ascc ", m.Steps, m.StepSize, m.Sparsity, m.Weight, m.Synonyms)
	case *A2T:
		return fmt.Sprint("a2t ", m.Share, m.Rate, m.Synonyms, m.Tries, describe(m.Inner))
	case *Embedding:
		return fmt.Sprint(m.Kind, m.Epsilon, m.Steps, m.StepSize, m.Radius, m.InitMagnitude, m.Relative, m.Ramp)
	case *Smooth:
		return fmt.Sprint(m.Kind, m.Weight, m.NoiseStd, m.StepSize, m.Radius)
	}
	return fmt.Sprintf("%T", x)
}

// before measures what the model is compared with.
func (o *Options) before(ctx context.Context) (*Standing, train.Cost, error) {
	if o.Before == "none" || o.Tune.Dev == nil && len(o.Examples) == 0 {
		return nil, train.Cost{}, nil
	}
	o.phase("before")
	path := o.Before
	if path == "" {
		if o.classifier() {
			path = o.Tune.Base
		} else {
			path = "plain"
		}
	}
	var p *pipeline.Pipeline
	var dev *train.Scores
	var spent train.Cost
	if path == "plain" {
		t := o.Tune
		t.Out, t.Objective, t.Resume = "", nil, false
		r, err := train.Run(ctx, t)
		if err != nil {
			return nil, spent, err
		}
		dev, spent = r.Dev, r.Cost
		if p, err = pipeline.New(r.Bundle, o.Tune.Kernels, pipeline.Options{MaxTokens: o.Tune.MaxTokens}); err != nil {
			r.Bundle.Close()
			return nil, spent, err
		}
	} else {
		var err error
		if p, err = pipeline.Open(path, o.Tune.Kernels, pipeline.Options{MaxTokens: o.Tune.MaxTokens}); err != nil {
			return nil, spent, err
		}
	}
	defer p.Close()
	o.phase("attack before")
	s, err := o.stand(ctx, p, dev)
	return s, spent, err
}

// classifier reports whether the base has a head for the labels of the data already.
func (o *Options) classifier() bool {
	f := o.Tune.Folder
	if f == nil {
		var err error
		if f, err = checkpoint.OpenFolder(o.Tune.Base); err != nil {
			return false
		}
		defer f.Close()
	}
	if f.Has(checkpoint.AdapterConfigFile) {
		return false
	}
	raw, err := f.Config()
	if err != nil {
		return false
	}
	c, err := model.ParseConfig(raw)
	if err != nil || c.Head != model.HeadSequence || o.Tune.Train == nil {
		return false
	}
	a, b := slices.Clone(c.Labels), slices.Clone(o.Tune.Train.LabelNames)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// stand measures a model. dev are its scores on the dev set where they are known.
func (o *Options) stand(ctx context.Context, p *pipeline.Pipeline, dev *train.Scores) (*Standing, error) {
	s := &Standing{UnderAttack: map[string]float64{}, Reports: map[string]*attack.Report{}}
	if dev == nil && o.Tune.Dev != nil {
		var err error
		if dev, err = scores(ctx, p.Bundle(), o.Tune.Kernels, &o.Tune); err != nil {
			return nil, err
		}
	}
	if dev != nil {
		s.Accuracy = dev.Accuracy
	}
	if len(o.Examples) == 0 {
		return s, nil
	}
	v, err := p.Victim()
	if err != nil {
		return nil, err
	}
	examples, err := o.relabel(v.Labels())
	if err != nil {
		return nil, err
	}
	for _, name := range o.Recipes {
		r, err := attack.NewRecipe(name, attack.Capabilities(v, o.Attack)...)
		if err != nil {
			return nil, err
		}
		rep, err := attack.Run(ctx, v, examples, r, o.Attack)
		if err != nil {
			return nil, err
		}
		s.UnderAttack[name], s.Reports[name] = rep.AccuracyUnderAttack, rep
		if dev == nil {
			s.Accuracy = rep.CleanAccuracy
		}
	}
	return s, nil
}

// relabel renumbers the examples, whose labels are those of the training data, as the model does.
func (o *Options) relabel(labels []string) ([]attack.Example, error) {
	names := o.Tune.Train.LabelNames
	out := slices.Clone(o.Examples)
	for i, e := range out {
		if e.Label < 0 || e.Label >= len(names) {
			return nil, fmt.Errorf("row %d has label %d, expected 0 to %d", e.Row, e.Label, len(names)-1)
		}
		if out[i].Label = slices.Index(labels, names[e.Label]); out[i].Label < 0 {
			return nil, fmt.Errorf("row %d: the model does not know the label %q", e.Row, names[e.Label])
		}
	}
	return out, nil
}

func scores(ctx context.Context, b *peft.Bundle, k backend.Kernels, t *train.Options) (*train.Scores, error) {
	dev := *t.Dev
	labels := b.Model.Config().Labels
	if err := dev.MapLabels(labels); err != nil {
		return nil, err
	}
	set, err := train.EncodeAll(b, &dev, t.MaxTokens)
	if err != nil {
		return nil, err
	}
	s, err := train.EvaluateBundle(ctx, k, b, set)
	return &s, err
}
