// Command hardening trains a small encoder with and without defence on several data sets, attacks both with temper's recipes and with an
// independent attacker that shares no code with temper, and prints what each keeps. See README.md beside it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/temper-ml/temper/backend/native"
)

// options are the flags.
type options struct {
	data, model, python, attacker, out, json string
	sets, variants, judges, recipes          string
	examples, ownExamples, threads           int
	dtype                                    string
	seed                                     uint64
	maxTokens                                int
	dev, ablation                            bool
	epochs, seeds                            int
	svg, set, defences, elsewhere            string
	lexicon                                  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cache, _ := os.UserCacheDir()
	cache = filepath.Join(cache, "temper-test")
	var o options
	flag.StringVar(&o.data, "data", envOr("TEMPER_DATA", filepath.Join("..", "shared", "data")), "folder of the data sets")
	flag.StringVar(&o.model, "model", envOr("TEMPER_MINILM", filepath.Join(cache, "minilm")), "Hugging Face folder of a BERT encoder")
	flag.StringVar(&o.python, "python", filepath.Join(cache, "peers", "bin", "python"), "Python with torch, transformers and textattack")
	flag.StringVar(&o.attacker, "attacker", os.Getenv("TEMPER_TEXTATTACK"), "script of the independent attacker; empty: temper's own recipes only")
	flag.StringVar(&o.out, "out", "hardening-out", "folder for models and results; what is there already is not made again")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.StringVar(&o.sets, "sets", "sst2,mr,ag_news,jigsaw_toxic_balanced,sms_spam", "data sets")
	flag.StringVar(&o.variants, "variants", "plain,hardened,held-out", "models to train and measure: "+strings.Join(variantNames(), ", "))
	flag.StringVar(&o.judges, "judges", "deepwordbug,synonyms,imperceptible", "attacks of the independent attacker")
	flag.StringVar(&o.recipes, "recipes", "", "recipes of temper to attack with as well")
	flag.IntVar(&o.examples, "examples", 100, "test rows that the independent attacker attacks")
	flag.IntVar(&o.ownExamples, "own-examples", 200, "test rows that temper's recipes attack")
	flag.StringVar(&o.lexicon, "lexicon", "", "synonyms that the variant lexicon reads alike; empty: the judge's own, of the data folder")
	flag.BoolVar(&o.dev, "dev", false, "choose settings: measure on dev rows with temper's recipes, and leave the test set alone")
	flag.IntVar(&o.threads, "threads", 1, "worker threads")
	flag.StringVar(&o.dtype, "dtype", "f32", "arithmetic of training: f32 or bf16")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of everything random")
	flag.IntVar(&o.maxTokens, "max-tokens", 64, "texts are cut at this many tokens, by everybody")
	flag.StringVar(&o.set, "set", "", "settings of hardened models, name=value,…: with -dev and a fresh -out, to choose them")
	flag.BoolVar(&o.ablation, "ablation", false, "compare all defences on sst2 in place of the tables")
	flag.IntVar(&o.epochs, "epochs", 2, "passes of -ablation")
	flag.IntVar(&o.seeds, "seeds", 1, "seeds of -ablation, from -seed on")
	flag.StringVar(&o.defences, "defences", "", "those of -ablation, separated by commas; empty: all")
	flag.StringVar(&o.elsewhere, "elsewhere", "", "labelled file of another domain that -ablation measures on")
	flag.StringVar(&o.svg, "svg", "", "draw -ablation to this file")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "hardening:", err)
		os.Exit(1)
	}
}

func envOr(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func run(ctx context.Context, o options) error {
	if o.dtype != "f32" && o.dtype != "bf16" {
		return fmt.Errorf("-dtype %q: expected f32 or bf16", o.dtype)
	}
	if o.dev {
		o.attacker = ""
	}
	if o.lexicon == "" {
		o.lexicon = filepath.Join(o.data, "lexicons", "counterfitted_neighbours.tsv")
	}
	b := &bench{options: o}
	var err error
	if b.tweak, err = parseSettings(o.set); err != nil {
		return err
	}
	if b.k, err = native.New(native.Options{Threads: o.threads}); err != nil {
		return err
	}
	defer b.k.Close()
	b.trainK = b.k
	if o.dtype == "bf16" {
		if b.trainK, err = native.New(native.Options{Threads: o.threads, BF16: true}); err != nil {
			return err
		}
		defer b.trainK.Close()
	}
	if o.ablation {
		if o.recipes == "" {
			b.recipes = "deepwordbug,synonyms"
		}
		return b.ablation(ctx, o.epochs, o.seeds, o.svg)
	}
	var all []*measured
	for _, name := range strings.Split(o.sets, ",") {
		i := slices.IndexFunc(sets, func(s set) bool { return s.Name == name })
		if i < 0 {
			return fmt.Errorf("-sets: %q is not known", name)
		}
		for _, v := range strings.Split(o.variants, ",") {
			j := slices.IndexFunc(variants, func(x variant) bool { return x.Name == v })
			if j < 0 {
				return fmt.Errorf("-variants: %q, expected some of %s", v, strings.Join(variantNames(), ", "))
			}
			m, err := b.measure(ctx, sets[i], variants[j])
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, v, err)
			}
			all = append(all, m)
		}
	}
	printTables(os.Stdout, all)
	if o.json == "" {
		return nil
	}
	return writeJSON(o.json, all)
}

func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}
