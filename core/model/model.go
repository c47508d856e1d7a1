// Package model turns token ids into hidden states and logits. A family is a config reader, a name map and the order of its layers, in
// one file each; layers are shared. A forward is written once and runs recorded or in place, whole or cached (see grad.Ctx).
package model

import (
	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
)

// Batch is a packed batch: the ids of all sequences one after the other, no padding.
type Batch struct {
	IDs     []int32
	Types   []int32 // token type ids; nil means all 0; families without types ignore them
	Offsets []int32 // sequence i is IDs[Offsets[i]:Offsets[i+1]]; len = sequences+1
	// Positions, when not nil, replaces the positions that the family would count.
	Positions []int32
	// Embeds, when not nil, replaces the output of the word-embedding table [len(IDs), H] (before positions, types and norm):
	// adversarial training and prompt methods enter here. IDs still gives the layout.
	Embeds *grad.Value
	// Perturb, when not nil, is called with that output and returns what to go on with (embedding-space attacks).
	Perturb func(c *grad.Ctx, e *grad.Value) *grad.Value
	// Enter, when not nil, are the states [len(IDs), Hidden] before block From: the embeddings and the blocks below are not run. It may be
	// overwritten. Until, when not 0, stops before that block: Output.Last are the states there, and nothing else is computed.
	Enter       *grad.Value
	From, Until int
	// Prefix, when not nil, gives keys and values that every sequence sees before its own, one pair per layer (prefix tuning).
	// Positions shift by their number of rows.
	Prefix []KeyValue
	// Cache, when not nil, holds keys and values of earlier positions per sequence (decoders only). A prefix enters an empty cache once.
	Cache Cache
	// Rows, when not nil, are the tokens whose logits are wanted, in this order (token heads only): the masked ones, say.
	Rows []int32
	// Targets are the classes of WantLoss, one for each row of logits; negative ones are ignored. LossWeight multiplies that loss.
	Targets    []int32
	LossWeight float32
	// Want says which outputs are needed, so that nothing else is computed.
	Want Want
}

// KeyValue is a pair of keys and values [tokens, KVHeads·HeadDim]. Keys are used as they are: not rotated.
type KeyValue struct{ K, V *grad.Value }

// Want selects outputs.
type Want uint8

// Outputs that a caller may want. WantLastLogits computes causal logits of the last token of each sequence only.
const (
	WantLogits Want = 1 << iota
	WantLastLogits
	WantPooled // sentence embedding, by the pooling of the model folder, not normalised
	WantHidden // Output.Layers
	WantLoss   // Output.Loss of a token head for Batch.Targets: over a large vocabulary it needs much less memory than the logits
)

// Sequences is the number of sequences.
func (b *Batch) Sequences() int { return len(b.Offsets) - 1 }

// Output of a forward. Rows of per-token values are those of Batch.IDs.
type Output struct {
	Last   *grad.Value // last hidden states [tokens, H], after the final norm
	Pooled *grad.Value // [sequences, H], WantPooled
	Pooler *grad.Value // output of the pooler layer [sequences, H], where the model has one and a head or WantHidden needs it
	Logits *grad.Value // [sequences, labels] for sequence heads and WantLastLogits, [tokens or Rows, vocab|labels] for token heads
	Loss   *grad.Value // [1, 1], WantLoss: LossWeight times the sum over rows of −log p(target)
	// LossSum is the same sum in full precision and without LossWeight.
	LossSum float64
	Layers  []*grad.Value // WantHidden: embeddings, then each block, as transformers' hidden_states
}

// Cache keeps keys and values between calls: it is a FloatRows or a StoredRows too.
type Cache interface {
	// Len is the number of positions already held for sequence i of the batch.
	Len(i int) int
	// Advance is called once after all layers.
	Advance(offsets []int32)
}

// FloatRows is a cache of float32 that all sequences share.
type FloatRows interface {
	Cache
	// Append adds k and v [tokens, KVHeads·HeadDim] of layer; it returns whole key and value stores with the sequences' extents.
	Append(layer int, k, v []float32, cols int, offsets []int32) (ks, vs []float32, seqs []backend.Seq)
}

// StoredRows is a cache of any type, with storage of its own for each sequence. It may forget what a layer that sees window positions (0: all) will not
// see again, in multiples of KeyBlock.
type StoredRows interface {
	Cache
	// Extend makes room in layer for the rows of the batch, of cols values, and returns the stores of the sequences, which end with those rows. They
	// are good until the next call for the layer.
	Extend(layer, cols, window int, offsets []int32) []backend.Stored
}

// KeyBlock is the number of keys at whose multiples kernels may cut their sums: a cache that forgets keys in these steps does not change results.
const KeyBlock = 512

// Model is a loaded network.
type Model interface {
	Config() *Config
	// Params lists all parameters in a fixed order, with Hugging Face's names.
	Params() []*grad.Param
	// Linears lists the linear layers by module name ("bert.encoder.layer.0.attention.self.query"): where adapters attach.
	Linears() []*Linear
	// Embeddings lists the word tables by module name ("model.embed_tokens"): where adapters of embeddings attach.
	Embeddings() []*Embedding
	// Forward runs the batch.
	Forward(c *grad.Ctx, b *Batch) (Output, error)
}
