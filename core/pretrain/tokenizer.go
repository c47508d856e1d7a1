package pretrain

import (
	"context"
	"fmt"
	"iter"

	"github.com/temper-ml/temper/core/token"
)

// Tokenizers are the kinds that TrainTokenizer learns.
var Tokenizers = []string{"wordpiece", "bpe", "unigram"}

// TrainTokenizer learns a vocabulary of size tokens from texts, with the special tokens that the objective needs: those of BERT for WordPiece and
// Unigram, of RoBERTa for masked BPE, <|endoftext|> (BPE) or <s>, </s> (the others) for decoders.
func TrainTokenizer(ctx context.Context, kind string, texts Texts, size int, lower, masked bool) (*token.Tokenizer, error) {
	var failed error
	var all iter.Seq[string] = func(yield func(string) bool) {
		for p, err := range texts.All() {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				failed = err
				return
			}
			if !yield(p.Text) {
				return
			}
		}
	}
	o := token.TrainOptions{VocabSize: size, Lowercase: lower}
	bert := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	var t *token.Tokenizer
	var err error
	switch kind {
	case "wordpiece":
		o.Special = bert
		t, err = token.TrainWordPiece(all, o)
	case "bpe":
		if masked {
			o.Special = []string{"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
		}
		t, err = token.TrainBPE(all, o)
	case "unigram":
		if masked {
			o.Special = bert
		}
		t, err = token.TrainUnigram(all, o)
	default:
		return nil, fmt.Errorf("tokenizer %q: expected one of %v", kind, Tokenizers)
	}
	if failed != nil {
		return nil, failed
	}
	return t, err
}

// endOf is the token that follows each document: what ends a text, or separates two.
func endOf(t *token.Tokenizer) int32 {
	sp := t.Special()
	if sp.EOS >= 0 {
		return sp.EOS
	}
	return sp.SEP
}
