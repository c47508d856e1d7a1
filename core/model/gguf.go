package model

import (
	"fmt"

	"github.com/temper-ml/temper/core/checkpoint"
)

// FromGGUF reads the config of a decoder in a GGUF file and gives its tensors Hugging Face's names and layout. Quantized blocks stay as
// they are in the file; only what llama.cpp stores in another order or with another offset is copied (see checkpoint.GGUF.Source).
func FromGGUF(g *checkpoint.GGUF) (*Config, checkpoint.Source, error) {
	data, err := g.ConfigJSON()
	if err != nil {
		return nil, nil, err
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", g.Path(), err)
	}
	src, err := g.Source()
	return cfg, src, err
}
