package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/distill"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/token"
)

// corpusFlags read unlabelled text for distill and pretrain.
type corpusFlags struct {
	files   []string
	limit   int
	columns dataFlags
}

func (c *corpusFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&c.files, "data", nil, "text to learn from (may be repeated): plain text, or the texts of .csv, .tsv, .jsonl, .parquet")
	f.IntVar(&c.limit, "limit", 0, "at most this many sentences from each file (0: all)")
	_ = cmd.MarkFlagRequired("data")
	c.columns.columns(cmd)
}

// sentences reads all files: rows of tables as they are, plain text cut into sentences; exact repeats once.
func (c *corpusFlags) sentences(a *app, seed uint64) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	for _, file := range c.files {
		var part []string
		switch ext := strings.ToLower(filepath.Ext(file)); {
		case c.columns.format != "" || ext == ".csv" || ext == ".tsv" || ext == ".jsonl" || ext == ".parquet":
			set, err := c.columns.open(a, file, "", true)
			if err != nil {
				return nil, err
			}
			part = textsOf(set)
		default:
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if bytes.IndexByte(b, 0) >= 0 {
				return nil, fmt.Errorf("%s: expected text, found binary data", file)
			}
			part = splitSentences(string(bytes.ToValidUTF8(b, nil)))
		}
		fresh := part[:0:0]
		for _, s := range part {
			if s = strings.Join(strings.Fields(s), " "); s != "" && !seen[s] {
				seen[s] = true
				fresh = append(fresh, s)
			}
		}
		if c.limit > 0 && len(fresh) > c.limit {
			rng := rand.New(rand.NewPCG(seed, 0x636f72707573))
			rng.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
			fresh = fresh[:c.limit]
		}
		out = append(out, fresh...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no text in %s", strings.Join(c.files, ", "))
	}
	return out, nil
}

func textsOf(set *data.Dataset) []string {
	if set.Pairs == nil {
		return set.Texts
	}
	return slices.Concat(set.Texts, set.Pairs)
}

// splitSentences cuts running text after . ! ? and at line ends, into pieces of at most 60 words.
func splitSentences(text string) []string {
	var out []string
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, max(len(text)+1, 1<<16))
	for sc.Scan() {
		var words []string
		flush := func() {
			if len(words) > 2 {
				out = append(out, strings.Join(words, " "))
			}
			words = words[:0]
		}
		for _, w := range strings.Fields(sc.Text()) {
			words = append(words, w)
			end := strings.TrimRightFunc(w, func(r rune) bool { return r == '"' || r == '\'' || r == ')' || r == '”' })
			if strings.ContainsAny(lastRune(end), ".!?") && len(words) > 3 || len(words) >= 60 {
				flush()
			}
		}
		flush()
	}
	return out
}

func lastRune(s string) string {
	r := []rune(s)
	if len(r) == 0 {
		return ""
	}
	return string(r[len(r)-1])
}

// phrases cuts n spans of 1 to 6 words from random sentences, so that short texts are learnt too.
func phrases(sentences []string, n int, seed uint64) []string {
	rng := rand.New(rand.NewPCG(seed, 0x706872617365))
	seen := map[string]bool{}
	var out []string
	for tries := 0; len(out) < n && tries < 4*n; tries++ {
		w := strings.Fields(sentences[rng.IntN(len(sentences))])
		size := min(1+rng.IntN(6), len(w))
		at := rng.IntN(len(w) - size + 1)
		p := strings.TrimFunc(strings.Join(w[at:at+size], " "), func(r rune) bool { return unicode.IsPunct(r) || unicode.IsSpace(r) })
		if p != "" && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

// studentConfig is the config.json of a BERT encoder of the given shape.
func studentConfig(vocab, hidden, layers, heads, ffn, positions int) []byte {
	return fmt.Appendf(nil, `{"architectures":["BertModel"],"model_type":"bert","vocab_size":%d,"hidden_size":%d,"num_hidden_layers":%d,"num_attention_heads":%d,`+
		`"intermediate_size":%d,"max_position_embeddings":%d,"type_vocab_size":2,"hidden_act":"gelu","hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1,`+
		`"initializer_range":0.02,"layer_norm_eps":1e-12,"pad_token_id":0}`, vocab, hidden, layers, heads, ffn, positions)
}

func (a *app) distillCmd() *cobra.Command {
	var c corpusFlags
	var o distill.Options
	var vocab, hidden, layers, heads, ffn, positions, held, cut int
	var tokenizer, config, from string
	var base string // where --init was found
	var deep layerFlags
	var lab labelFlags
	cmd := &cobra.Command{
		Use:   "distill TEACHER --data FILE -o DIR",
		Short: "Train a small model to say what a large one says",
		Long: "distill trains a student of a given shape on a teacher's sentence embeddings and on how alike the teacher finds the sentences of a batch.\n" +
			"The student gets a WordPiece vocabulary of its own, learnt from the same text, unless --tokenizer gives one.\n\n" +
			"With --hidden-loss, --attention-loss, --logit-loss or --embedding-loss the student reads the teacher's tokens and is compared with it inside;\n" +
			"--from-layers makes it of some of the teacher's blocks, --keep-vocab of part of its vocabulary.\n\n" +
			"With --labels-from a teacher (a classifier, or any model with --labels) labels texts; --student then learns them.",
		Example: "  temper distill minilm/ --data corpus.txt --data messages.tsv --hidden 192 --layers 4 --noise 0.3 -o mini/\n" +
			"  temper distill minilm/ --data corpus.txt --from-layers 1,3,5 --keep-vocab 8000 --attention-loss 1 --embedding-loss 1 -o half/\n" +
			"  temper distill --labels-from gemma.gguf --data mails.txt --labels order,complaint --examples few.csv --student temper-mini -o mails/",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if (len(args) == 0) != (lab.from != "") {
				return usagef("give a TEACHER, or --labels-from")
			}
			if lab.from != "" {
				return lab.run(a, cmd, &c, o.Out)
			}
			if lab.zero.wanted() || lab.student != "" {
				return usagef("--labels, --examples and --student go with --labels-from")
			}
			for name, v := range map[string]int{"vocab": vocab, "hidden": hidden, "layers": layers, "heads": heads, "ffn": ffn, "positions": positions} {
				if v < 1 {
					return usagef("--%s %d: want 1 or more", name, v)
				}
			}
			if o.Noise < 0 || o.Noise > 1 {
				return usagef("--noise %g: want a share between 0 and 1", o.Noise)
			}
			sentences, err := c.sentences(a, a.seed)
			if err != nil {
				return err
			}
			rng := rand.New(rand.NewPCG(a.seed, 0x68656c64))
			rng.Shuffle(len(sentences), func(i, j int) { sentences[i], sentences[j] = sentences[j], sentences[i] })
			n := min(held, len(sentences)/10)
			o.Held, o.Texts = sentences[:n], sentences[n:]
			o.Texts = append(slices.Clone(o.Texts), phrases(o.Texts, cut, a.seed)...)
			if from != "" {
				if deep.wanted() {
					return usagef("--init goes without losses inside: --from-layers begins with the teacher's blocks")
				}
				f, err := a.openFolder(cmd, from)
				if err != nil {
					return err
				}
				defer f.Close()
				if base = from; !a.named(from) {
					base = f.Path()
				}
				if o.Init, err = f.Source(); err != nil {
					return err
				}
				if o.Config, err = f.Config(); err != nil {
					return err
				}
				if o.Tokenizer, err = f.File(checkpoint.TokenizerFile); err != nil {
					return err
				}
			}
			if deep.wanted() {
				o.Texts = append(o.Texts, o.Held...) // what is compared inside is not measured apart
				shape := func(vocab int) []byte { return studentConfig(vocab, hidden, layers, heads, ffn, positions) }
				return deep.run(a, cmd, args[0], &o, config, shape)
			}
			if tokenizer != "" {
				if o.Tokenizer, err = os.ReadFile(tokenizer); err != nil {
					return err
				}
			} else if from == "" {
				t, err := token.TrainWordPiece(slices.Values(o.Texts), token.TrainOptions{VocabSize: vocab, Lowercase: true})
				if err != nil {
					return err
				}
				if o.Tokenizer, err = t.Save(); err != nil {
					return err
				}
			}
			t, err := token.Load(o.Tokenizer)
			if err != nil {
				return err
			}
			if config != "" {
				if o.Config, err = os.ReadFile(config); err != nil {
					return err
				}
			} else if from == "" {
				o.Config = studentConfig(int(t.MaxID())+1, hidden, layers, heads, ffn, positions)
			}
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{Head: model.HeadNone, MaxTokens: o.MaxTokens})
			if err != nil {
				return err
			}
			defer p.Close()
			o.Teacher, o.TeacherName = p, filepath.Base(args[0])
			if o.Kernels, err = a.backend(); err != nil {
				return err
			}
			o.Noiser, o.Seed, o.Rates = harden.NewCharNoise(), a.seed, a.rates()
			a.logf("%s texts, %d pieces", humanize.Comma(int64(len(o.Texts))), t.VocabSize())
			teach := a.progress("teacher", -1)
			o.Teaching = func(done, total int) { teach.set(done, total, "texts") }
			watch, done := a.watch("distilling")
			o.Progress = watch
			r, err := distill.Run(ctx, o)
			teach.done()
			done()
			if err != nil {
				return a.interrupted(ctx, err, o.Out)
			}
			if err := addCost(base, o.Out, ledgerStep{Step: "distill", Method: o.TeacherName, Seconds: r.Seconds, Cost: r.Cost}); err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s parameters, %d steps, loss %.4f, cosine to the teacher on held-out text %.3f, %s, %s\nwrote %s\n",
					humanize.Comma(int64(r.Parameters)), r.Steps, r.Loss, r.HeldCosine, seconds(r.Seconds), money(r.Cost), o.Out)
				return err
			})
		},
	}
	c.add(cmd)
	deep.add(cmd)
	lab.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.Out, "out", "o", "", "folder to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&config, "config", "", "config.json of the student (default: a BERT of the shape below)")
	f.IntVar(&vocab, "vocab", 8000, "pieces of the student's vocabulary")
	f.IntVar(&hidden, "hidden", 192, "width")
	f.IntVar(&layers, "layers", 4, "blocks")
	f.IntVar(&heads, "heads", 6, "attention heads")
	f.IntVar(&ffn, "ffn", 768, "width of the feed-forward layers")
	f.IntVar(&positions, "positions", 256, "longest text in tokens")
	f.StringVar(&tokenizer, "tokenizer", "", "tokenizer.json of the student (default: learnt from the text)")
	f.StringVar(&from, "init", "", "go on from the weights, tokenizer and shape of this student")
	f.StringVar(&o.Cache, "cache", "", "file that keeps the teacher's outputs")
	f.IntVar(&held, "held", 1000, "sentences held out to measure on")
	f.IntVar(&cut, "phrases", 0, "also learn this many phrases of 1 to 6 words cut from the text")
	f.IntVar(&o.Epochs, "epochs", 3, "passes over the text")
	f.IntVar(&o.Batch, "batch", 64, "texts a step")
	f.IntVar(&o.MaxTokens, "max-tokens", 64, "texts are cut at this many tokens")
	f.Float64Var(&o.LR, "lr", 1e-3, "learning rate")
	f.Float64Var(&o.WeightDecay, "weight-decay", 0.01, "decoupled weight decay")
	f.Float64Var(&o.Relation, "relation", 1, "weight of the loss on pairwise similarities")
	f.Float64Var(&o.Noise, "noise", 0, "share of texts that the student reads misspelt")
	f.BoolVar(&o.Resume, "resume", false, "go on from the last checkpoint in the folder to write")
	return cmd
}
