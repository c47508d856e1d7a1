package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/harden/smooth"
	"github.com/temper-ml/temper/core/pipeline"
)

// certifyResult is what temper certify prints with --json. Shares are of all examples.
type certifyResult struct {
	Kind       string  `json:"kind"`
	Keep       float64 `json:"keep,omitempty"`
	Samples    int     `json:"samples"`
	Confidence float64 `json:"confidence"`
	Seed       uint64  `json:"seed"`
	Examples   int     `json:"examples"`
	// Accuracy counts votes for the right label, abstentions as wrong.
	Accuracy  float64 `json:"accuracy"`
	Abstained float64 `json:"abstained"`
	// Exact is the share of texts all of whose versions voted.
	Exact float64 `json:"exact"`
	// Certified[r] is the share of predictions that no change of r words or fewer can turn; CertifiedAccuracy[r] of those that are right as well.
	Certified         []float64 `json:"certified"`
	CertifiedAccuracy []float64 `json:"certified_accuracy"`
	Seconds           float64   `json:"seconds"`
	// Attacked certificates were attacked within their radius, Tried is the number of texts, Broken that of certificates that fell.
	Attacked int             `json:"attacked,omitempty"`
	Tried    int             `json:"tried,omitempty"`
	Broken   int             `json:"broken"`
	Results  []certifiedText `json:"results,omitempty"`
}

type certifiedText struct {
	Row       int                `json:"row"`
	Label     string             `json:"label"`
	Predicted string             `json:"predicted"`
	Vote      smooth.Certificate `json:"vote"`
	Attack    *smooth.Attacked   `json:"attack,omitempty"`
}

func (a *app) certifyCmd() *cobra.Command {
	var d dataFlags
	var maxTokens, examples, verify, votes int
	var lexicon string
	var all bool
	s, _ := smooth.New("delete") // a kind that there is
	cmd := &cobra.Command{
		Use:   "certify MODEL --data FILE",
		Short: "Prove how many words of a text must change before the prediction can",
		Long: "certify lets a classifier vote over many random versions of each text and computes, from the margin of the vote, the number of words\n" +
			"that may be replaced without turning it: by anything (--kind mask, delete) or by synonyms (--kind synonyms). A certificate is of the vote,\n" +
			"not of a single pass, and holds with probability --confidence over the drawing of versions, or for certain where a text has no more than\n" +
			"--samples versions. --verify attacks that many certificates.\n\n" +
			"Models that were hardened with --word-noise, as they are by default, are certified further.",
		Example: "  temper certify hard/ --data test.tsv --kind delete --examples 200 --verify 100",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if !slices.Contains(smooth.Kinds(), s.Kind) {
				return usagef("--kind %q: expected one of %s", s.Kind, strings.Join(smooth.Kinds(), ", "))
			}
			if !(s.Keep > 0 && s.Keep <= 1) {
				return usagef("--keep %g: want more than 0, at most 1", s.Keep)
			}
			if !(s.Confidence > 0.5 && s.Confidence < 1) {
				return usagef("--confidence %g: want more than 0.5, less than 1", s.Confidence)
			}
			if s.Samples < 1 || s.Select < 1 || verify < 0 || votes < 1 || examples < 0 {
				return usagef("--samples %d, --select %d, --verify %d, --verify-votes %d, --examples %d: want positive numbers", s.Samples, s.Select, verify, votes, examples)
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{MaxTokens: maxTokens})
			if err != nil {
				return err
			}
			defer p.Close()
			set, err := labelled(a, &d, p.Labels())
			if err != nil {
				return err
			}
			if set, err = pick(set, examples, a.seed); err != nil {
				return err
			}
			v, err := p.Victim()
			if err != nil {
				return err
			}
			var words attack.Neighbours
			if near, ok := v.(attack.EmbeddingVictim); ok {
				words = near
			}
			if lexicon != "" {
				l, err := readLexicon("--lexicon", lexicon)
				if err != nil {
					return err
				}
				words = l
			}
			tok := p.Bundle().Tokenizer
			if s.Mask, _ = tok.Token(tok.Special().MASK); s.Kind == "mask" && s.Mask == "" {
				return fmt.Errorf("%s: its tokenizer has no mask token; use --kind delete", args[0])
			}
			s.Words, s.Seed = words, a.seed
			began := time.Now()
			bar := a.progress("certifying", set.Len())
			list, err := s.Certify(ctx, v, set.Texts, func(n int) { bar.set(n, set.Len(), "") })
			bar.done()
			if err != nil {
				return err
			}
			r := &certifyResult{Kind: s.Kind, Keep: s.Keep, Samples: s.Samples, Confidence: s.Confidence, Seed: a.seed, Examples: set.Len()}
			if s.Kind == "synonyms" {
				r.Keep = 0
			}
			widest := 0
			for _, c := range list {
				widest = max(widest, c.Radius)
			}
			r.Certified, r.CertifiedAccuracy = make([]float64, widest+1), make([]float64, widest+1)
			bar = a.progress("attacking certificates", verify)
			for i, c := range list {
				one := certifiedText{Row: set.Rows[i], Label: p.Labels()[set.Labels[i]], Predicted: p.Labels()[c.Class], Vote: c}
				share := 1 / float64(len(list))
				right := c.Class == set.Labels[i]
				if c.Exact {
					r.Exact += share
				}
				if c.Abstained {
					r.Abstained += share
				} else if right {
					r.Accuracy += share
				}
				for k := 0; k <= c.Radius; k++ {
					r.Certified[k] += share
					if right {
						r.CertifiedAccuracy[k] += share
					}
				}
				if c.Radius > 0 && r.Attacked < verify {
					got, err := s.Attack(ctx, v, set.Texts[i], c, votes, func(word string) ([]string, error) {
						list, err := words.Nearest(ctx, word, s.Synonyms)
						if s.Kind != "synonyms" {
							list = append(list, "the", "qzx")
						}
						return list, err
					})
					if err != nil {
						return err
					}
					one.Attack = &got
					r.Attacked++
					r.Tried += got.Tried
					if got.Broken {
						r.Broken++
					}
					bar.set(r.Attacked, verify, fmt.Sprintf("%d texts tried, %d broken", r.Tried, r.Broken))
				}
				r.Results = append(r.Results, one)
			}
			bar.done()
			r.Seconds = time.Since(began).Seconds()
			if !all && a.json {
				r.Results = nil
			}
			return a.result(r, func(w io.Writer) error { return printCertificates(w, r) })
		},
	}
	d.add(cmd, true)
	f := cmd.Flags()
	f.StringVar(&s.Kind, "kind", s.Kind, "how versions are made: "+strings.Join(smooth.Kinds(), ", "))
	f.Float64Var(&s.Keep, "keep", s.Keep, "share of the words that a version keeps (mask, delete)")
	f.IntVar(&s.Samples, "samples", s.Samples, "versions that estimate the vote")
	f.IntVar(&s.Select, "select", s.Select, "versions that choose the label")
	f.Float64Var(&s.Confidence, "confidence", s.Confidence, "probability with which each certificate holds")
	f.IntVar(&s.Synonyms, "synonyms", s.Synonyms, "synonyms of a word (--kind synonyms, and to attack with)")
	f.StringVar(&lexicon, "lexicon", "", "file of synonyms, word<TAB>synonym synonym … (default: words near in the model's embeddings)")
	f.IntVar(&examples, "examples", 0, "certify this many examples, drawn by --seed (default: all)")
	f.IntVar(&verify, "verify", 0, "attack this many certificates within their radius: every word by its synonyms and two others")
	f.IntVar(&votes, "verify-votes", 300, "versions that each attacked text is voted on, all where there are no more")
	f.IntVar(&maxTokens, "max-tokens", 0, "cut texts at this many tokens (default: what the model takes)")
	f.BoolVar(&all, "results", false, "with --json: list every example")
	return cmd
}

func printCertificates(w io.Writer, r *certifyResult) error {
	t := newTable(w, "words changed", "certified", "certified and right")
	for k := range r.Certified {
		t.AppendRow([]any{strconv.Itoa(k), percent(r.Certified[k]), percent(r.CertifiedAccuracy[k])})
	}
	t.Render()
	_, err := fmt.Fprintf(w, "\n%d examples, accuracy of the vote %s, %s abstained; %s, %d versions, confidence %g, %s exact\n", r.Examples, percent(r.Accuracy), percent(r.Abstained), r.Kind, r.Samples, r.Confidence, percent(r.Exact))
	if err == nil && r.Attacked > 0 {
		_, err = fmt.Fprintf(w, "%d certificates attacked with %d texts within their radius: %d broken\n", r.Attacked, r.Tried, r.Broken)
	}
	return err
}

// readLexicon reads the file of --lexicon.
func readLexicon(flag, path string) (attack.Lexicon, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	l, err := attack.ReadLexicon(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}
