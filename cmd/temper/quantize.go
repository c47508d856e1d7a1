package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/quant"
)

func (a *app) quantizeCmd() *cobra.Command {
	var out, typ string
	var again bool
	cmd := &cobra.Command{
		Use:   "quantize MODEL --type T -o PATH",
		Short: "Store a model's weights in fewer bits",
		Long: "quantize writes an encoder's folder with int8 rows (int8), which temper maps and multiplies in integers, or a decoder as a GGUF file\n" +
			"(the other types), mixed as llama.cpp mixes them.\n\nTypes: " + strings.Join(quant.Types(), ", "),
		Example: "  temper quantize out/ --type int8 -o out-int8/\n  temper quantize llama/ --type q4_k_m -o llama-q4_k_m.gguf",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ = strings.ToLower(typ)
			if !slices.Contains(quant.Types(), typ) {
				return usagef("--type %q: expected one of %s", typ, strings.Join(quant.Types(), ", "))
			}
			bar := a.progress("quantizing", -1)
			o := quant.Options{Type: typ, Threads: a.threads, Requantize: again, Progress: func(done, total int, name string) { bar.set(done, total, name) }}
			r, err := a.quantize(cmd, args[0], out, o)
			bar.done()
			if err == nil {
				err = a.keepCost(cmd, args[0], out)
			}
			if err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				worst := quant.TensorReport{}
				for _, t := range r.Tensors {
					if t.Relative > worst.Relative {
						worst = t
					}
				}
				_, err := fmt.Fprintf(w, "%s → %s, %.2f bits a weight; largest relative error %.4f (%s)\nwrote %s\n",
					humanize.Bytes(uint64(r.Before)), humanize.Bytes(uint64(r.After)), r.BitsPerWeight(), worst.Relative, worst.Name, out)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "folder (int8) or .gguf file to write")
	_ = cmd.MarkFlagRequired("out")
	f.StringVar(&typ, "type", "int8", "element type")
	f.BoolVar(&again, "requantize", false, "allow a model that is quantized already: its loss adds up")
	return cmd
}

func (a *app) quantize(cmd *cobra.Command, ref, out string, o quant.Options) (*quant.Report, error) {
	path, err := a.modelPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".gguf") {
		if o.Type == quant.Int8 {
			return nil, fmt.Errorf("%s: int8 folders are made of Hugging Face folders; for GGUF files use q8_0", path)
		}
		g, err := checkpoint.OpenGGUF(path)
		if err != nil {
			return nil, err
		}
		defer g.Close()
		m, err := g.Model()
		if err != nil {
			return nil, err
		}
		return quant.GGUF(cmd.Context(), m, out, o)
	}
	f, err := checkpoint.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if o.Type == quant.Int8 {
		return quant.Int8Folder(cmd.Context(), f, out, o)
	}
	m, err := f.GGUFModel()
	if err != nil {
		return nil, err
	}
	return quant.GGUF(cmd.Context(), m, out, o)
}
