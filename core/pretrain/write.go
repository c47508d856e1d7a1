package pretrain

import (
	"encoding/binary"
	"encoding/json"
	"math"

	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
	"github.com/temper-ml/temper/core/token"
)

// halved is t as bfloat16, rounded to nearest even.
func halved(t tensor.Tensor, v []float32) tensor.Tensor {
	b := make([]byte, 2*len(v))
	for i, x := range v {
		u := math.Float32bits(x)
		binary.LittleEndian.PutUint16(b[2*i:], uint16((u+0x7fff+u>>16&1)>>16))
	}
	return tensor.Tensor{Name: t.Name, DType: tensor.BF16, Shape: t.Shape, Data: b}
}

// tokenizerConfig is tokenizer_config.json: which tokens have which role.
func tokenizerConfig(t *token.Tokenizer, cfg *model.Config) ([]byte, error) {
	c := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast"}
	if n := cfg.MaxPositions - cfg.PositionOffset; n > 0 {
		c["model_max_length"] = n
	}
	sp := t.Special()
	name := func(key string, id int32) {
		if s, ok := t.Token(id); ok && id >= 0 {
			c[key] = s
		}
	}
	name("unk_token", sp.UNK)
	name("pad_token", sp.PAD)
	if cfg.Decoder {
		name("bos_token", endOf(t))
		name("eos_token", endOf(t))
	} else {
		name("bos_token", sp.BOS)
		name("eos_token", sp.EOS)
		name("cls_token", sp.CLS)
		name("sep_token", sp.SEP)
		name("mask_token", sp.MASK)
		if cfg.ModelType == "bert" && sp.CLS >= 0 {
			c["tokenizer_class"] = "BertTokenizer"
		}
	}
	return json.MarshalIndent(c, "", "  ")
}
