package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/report"
	"github.com/temper-ml/temper/core/checkpoint"
)

// cardKey is the member of config.json that holds the robustness card.
const cardKey = "temper_robustness"

// putCard writes the robustness card into README.md of a model folder, and its figures into config.json. Costs of the model's earlier steps
// come first.
func putCard(dir string, reports []*attack.Report, meta report.Meta) error {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fmt.Errorf("robustness card: %s is not a folder", dir)
	}
	life, err := readLedger(dir)
	if err != nil {
		return err
	}
	var costs []report.Cost
	for _, s := range life.Steps {
		costs = append(costs, report.Cost{Step: s.Step, Seconds: s.Seconds, Detail: s.Method})
	}
	meta.Costs = append(costs, meta.Costs...)
	path := filepath.Join(dir, "README.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := checkpoint.WriteFile(path, func(w io.Writer) error {
		_, err := io.WriteString(w, report.PutCard(string(old), report.Card(reports, meta)))
		return err
	}); err != nil {
		return err
	}
	path = filepath.Join(dir, checkpoint.ConfigFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) { // an adapter folder alone
		return nil
	}
	if err != nil {
		return err
	}
	var config map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&config); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	config[cardKey] = report.CardData(reports, meta)
	return checkpoint.WriteFile(path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(config)
	})
}
