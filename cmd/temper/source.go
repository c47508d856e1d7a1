package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/data"
)

// modelPath finds what MODEL or BASE names: a folder or .gguf file on disk, else a hub reference (org/name).
func (a *app) modelPath(cmd *cobra.Command, ref string) (string, error) {
	if _, err := os.Stat(ref); err == nil {
		return ref, nil
	}
	if _, ok := pullNames[ref]; !ok && looksLikePath(ref) {
		return "", fmt.Errorf("%s: no such file or folder", ref)
	}
	return a.resolveHub(cmd.Context(), ref)
}

// looksLikePath tells a mistyped path from a hub reference, which is org/name with an optional @revision.
func looksLikePath(ref string) bool {
	return ref == "" || filepath.IsAbs(ref) || strings.HasPrefix(ref, ".") || strings.HasSuffix(ref, string(filepath.Separator)) ||
		strings.HasSuffix(ref, ".gguf") || strings.Count(ref, "/") != 1
}

// dataFlags are those of every verb that reads examples.
type dataFlags struct {
	file, rows, text, textB, label, format string
}

func (d *dataFlags) add(cmd *cobra.Command, required bool) {
	f := cmd.Flags()
	f.StringVar(&d.file, "data", "", "labelled texts: .csv, .tsv, .jsonl or .parquet, - for standard input")
	f.StringVar(&d.rows, "rows", "", "file with the row numbers to use, from 0, one a line")
	d.columns(cmd)
	if required {
		_ = cmd.MarkFlagRequired("data")
	}
}

func (d *dataFlags) columns(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.text, "text-column", "", "column of the text (default: text, text_a, sentence1 or sentence)")
	f.StringVar(&d.textB, "text-b-column", "", "column of the second text of a pair")
	f.StringVar(&d.label, "label-column", "", "column of the label (default: label)")
	f.StringVar(&d.format, "format", "", "csv, tsv, jsonl, parquet or txt (default: by the file's name)")
}

func (d *dataFlags) open(a *app, file, rows string, unlabelled bool) (*data.Dataset, error) {
	return data.Open(file, data.Options{Format: d.format, Text: d.text, TextB: d.textB, Label: d.label, RowsFile: rows, Unlabelled: unlabelled, Stdin: a.in})
}
