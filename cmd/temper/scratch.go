package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/token"
)

// scratch is a small BERT with random weights and a vocabulary learnt from texts, as a folder in memory.
func scratch(texts []string) (*checkpoint.Folder, error) {
	tok, err := token.TrainWordPiece(slices.Values(texts), token.TrainOptions{VocabSize: 2000, Lowercase: true})
	if err != nil {
		return nil, err
	}
	raw, err := tok.Save()
	if err != nil {
		return nil, err
	}
	cfgJSON := studentConfig(int(tok.MaxID())+1, 128, 2, 4, 256, 128)
	cfg, err := model.ParseConfig(cfgJSON)
	if err != nil {
		return nil, err
	}
	m, err := model.New(cfg, nil, model.Options{Head: model.HeadNone, Random: true, Seed: 1})
	if err != nil {
		return nil, err
	}
	var w bytes.Buffer
	if err := checkpoint.EncodeSafetensors(&w, model.Tensors(m), nil); err != nil {
		return nil, fmt.Errorf("scratch model: %w", err)
	}
	return checkpoint.NewFolder("built-in", map[string][]byte{checkpoint.ConfigFile: cfgJSON, checkpoint.TokenizerFile: raw, checkpoint.WeightsFile: w.Bytes()})
}
