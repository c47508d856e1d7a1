package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/pipeline"
	"github.com/temper-ml/temper/core/quant"
	"github.com/temper-ml/temper/core/tensor"
)

// written is the answer of verbs that write a model.
type written struct {
	To    string `json:"to"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// size is the number of bytes of a file, or of all files below a folder.
func size(path string) (n int64, err error) {
	err = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := os.Stat(p) // a cache holds links
		if err == nil {
			n += st.Size()
		}
		return err
	})
	return n, err
}

func (a *app) printWritten(to, path string) error {
	r := written{To: to, Path: path}
	var err error
	if r.Bytes, err = size(path); err != nil {
		return err
	}
	return a.result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "wrote %s (%s)\n", r.Path, humanize.Bytes(uint64(r.Bytes)))
		return err
	})
}

func (a *app) mergeCmd() *cobra.Command {
	var out, base string
	cmd := &cobra.Command{
		Use:     "merge ADAPTER -o DIR",
		Short:   "Merge an adapter into its base model",
		Example: "  temper merge out/adapter -o merged/",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.openPipeline(cmd, args[0], pipeline.Options{Base: base})
			if err != nil {
				return err
			}
			defer p.Close()
			if p.Bundle().Adapter == nil {
				return usagef("%s holds no adapter to merge", args[0])
			}
			if err := errors.Join(p.Save(out), a.keepCost(cmd, args[0], out)); err != nil {
				return err
			}
			return a.printWritten("hf", out)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "folder to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&base, "base", "", "base model, where the adapter names none that can be found")
	return cmd
}

func (a *app) exportCmd() *cobra.Command {
	var out, to string
	cmd := &cobra.Command{
		Use:   "export MODEL --to hf|peft|gguf|browser -o PATH",
		Short: "Write a model for other tools or for the page",
		Long: "export writes MODEL as a Hugging Face folder (hf, adapters merged), as a PEFT adapter folder (peft), as a GGUF file of 16-bit floats that\n" +
			"llama.cpp loads (gguf; merge adapters first, and see quantize for smaller types), or as one file that the npm package and the in-browser demo\n" +
			"load (browser).",
		Example: "  temper export hard/ --to browser -o hard.temper",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch to {
			case "hf":
				p, err := a.openPipeline(cmd, args[0], pipeline.Options{})
				if err != nil {
					return err
				}
				defer p.Close()
				if err := p.Save(out); err != nil {
					return err
				}
			case "peft":
				f, err := a.openFolder(cmd, args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				dir := f.Path()
				if !f.Has(checkpoint.AdapterConfigFile) {
					dir = filepath.Join(dir, "adapter")
				}
				af, err := checkpoint.OpenFolder(dir)
				if err != nil || !af.Has(checkpoint.AdapterConfigFile) {
					return fmt.Errorf("%s holds no adapter: only what was tuned with one can be exported as peft", f.Path())
				}
				defer af.Close()
				if err := checkpoint.WriteFolder(out, func(w *checkpoint.FolderWriter) error { return w.Copy(af, af.Files()...) }); err != nil {
					return err
				}
			case "browser":
				f, err := a.openFolder(cmd, args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				files, err := bundle.FromFolder(f)
				if err != nil {
					return err
				}
				if err := checkpoint.WriteFile(out, func(w io.Writer) error { return bundle.Write(w, files) }); err != nil {
					return err
				}
			case "gguf":
				f, err := a.openFolder(cmd, args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				if err := exportGGUF(cmd.Context(), f, out); err != nil {
					return err
				}
			default:
				return usagef("--to %q: expected hf, peft, gguf or browser", to)
			}
			if to != "browser" {
				if err := a.keepCost(cmd, args[0], out); err != nil {
					return err
				}
			}
			return a.printWritten(to, out)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "folder or file to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&to, "to", "hf", "format: hf, peft, gguf, browser")
	return cmd
}

// exportGGUF writes a decoder in the 16-bit type that keeps most of what it has: bf16 stays, anything else becomes f16.
func exportGGUF(ctx context.Context, f *checkpoint.Folder, out string) error {
	m, err := f.GGUFModel()
	if err != nil {
		return err
	}
	kind := "f16"
	for _, t := range m.Tensors {
		if t.DType == tensor.BF16 {
			kind = "bf16"
		}
	}
	_, err = quant.GGUF(ctx, m, out, quant.Options{Type: kind})
	return err
}

// openFolder opens what MODEL names without loading it.
func (a *app) openFolder(cmd *cobra.Command, ref string) (*checkpoint.Folder, error) {
	if a.named(ref) {
		return a.builtin(ref)
	}
	path, err := a.modelPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	return checkpoint.OpenFolder(path)
}
