package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/checkpoint"
)

func (a *app) inspectCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show what is in a model folder, an adapter, a safetensors or a GGUF file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var info *checkpoint.Info
			var err error
			if a.named(args[0]) {
				f, err := a.builtin(args[0])
				if err != nil {
					return err
				}
				if info, err = f.Inspect(); err != nil {
					return err
				}
			} else {
				path, err := a.modelPath(cmd, args[0])
				if err != nil {
					return err
				}
				if info, err = checkpoint.Inspect(path); err != nil {
					return err
				}
			}
			if err != nil {
				return err
			}
			return a.result(info, func(w io.Writer) error {
				fmt.Fprintf(w, "%s: %s", info.Path, info.Kind)
				for _, s := range []string{info.ModelType, info.Architecture} {
					if s != "" {
						fmt.Fprintf(w, ", %s", s)
					}
				}
				fmt.Fprintf(w, "\n%s parameters, %s\n\n", humanize.Comma(info.Parameters), humanize.Bytes(uint64(info.Bytes)))
				t := newTable(w, "type", "tensors", "parameters", "bytes")
				for _, k := range slices.Sorted(maps.Keys(info.Types)) {
					v := info.Types[k]
					t.AppendRow([]any{k, v.Tensors, humanize.Comma(v.Parameters), humanize.Bytes(uint64(v.Bytes))})
				}
				t.Render()
				fmt.Fprintln(w)
				t = newTable(w, "tensor", "type", "shape")
				const shown = 20
				for i, x := range info.Tensors {
					if i == shown && !all && len(info.Tensors) > shown+5 {
						break
					}
					t.AppendRow([]any{x.Name, x.Type, fmt.Sprint(x.Shape)})
				}
				t.Render()
				if n := len(info.Tensors); n > shown+5 && !all {
					fmt.Fprintf(w, "… and %d more (--all)\n", n-shown)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list every tensor")
	return cmd
}
