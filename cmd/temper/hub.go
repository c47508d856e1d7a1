package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/hub"
)

// pullNames are short names of small models that are larger than the built-in ones, and where the hub has them.
var pullNames = map[string]string{
	"minilm":       "sentence-transformers/all-MiniLM-L6-v2",
	"minilm-l12":   "sentence-transformers/all-MiniLM-L12-v2",
	"bge-small":    "BAAI/bge-small-en-v1.5",
	"modernbert":   "answerdotai/ModernBERT-base",
	"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
	"qwen3-0.6b":   "Qwen/Qwen3-0.6B",
}

// resolveHub brings a model of the hub into the shared cache, if it is not there yet, and returns where it is.
func (a *app) resolveHub(ctx context.Context, ref string) (string, error) {
	if full, ok := pullNames[ref]; ok {
		ref = full
	}
	r, err := hub.ParseRef(ref)
	if err != nil {
		return "", err
	}
	s, err := hub.FromEnv()
	if err != nil {
		return "", err
	}
	s.Log = func(line string) { a.logf("%s", line) }
	var bar *progress
	path, err := s.Resolve(ctx, r, func(p hub.Progress) {
		if p.Done == p.Total && bar == nil {
			return // all of it was there
		}
		if bar == nil {
			bar = a.progress("pulling "+r.String(), int(p.Total))
		}
		bar.set(int(p.Done), int(p.Total), fmt.Sprintf("%s of %s, %d/%d files", humanize.Bytes(uint64(p.Done)), humanize.Bytes(uint64(p.Total)), p.FilesDone, p.Files))
	})
	if bar != nil {
		bar.done()
	}
	if err != nil {
		return "", fmt.Errorf("%w (a local model is given by its path)", err)
	}
	return path, nil
}

func (a *app) pullCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "pull REF",
		Short: "Download a model from the hub into the shared cache",
		Long: "pull fetches org/name, org/name@revision or, where a repository holds GGUF files, org/name:TYPE, and prints where it is. The cache is the one\n" +
			"of the Python client: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean the same.\n\n" +
			"Short names: " + strings.Join(slices.Sorted(maps.Keys(pullNames)), ", ") + ".",
		Example: "  temper pull minilm\n  temper pull sentence-transformers/all-MiniLM-L6-v2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := a.resolveHub(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			n, err := size(path)
			if err != nil {
				return err
			}
			return a.result(map[string]any{"ref": args[0], "path": path, "bytes": n}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, path)
				return err
			})
		},
	}
}

// listed is a model that a verb can be given by name.
type listed struct {
	Name string `json:"name"`
	// Where it is: "built-in", "cached", or "hub" for what a first use downloads.
	Where string `json:"where"`
	Path  string `json:"path,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Note  string `json:"note,omitempty"`
}

func (a *app) modelsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "models",
		Short: "List the models that can be given by name: built in, cached, and short names of the hub's",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := models()
			if err != nil {
				return err
			}
			return a.result(map[string]any{"models": list}, func(w io.Writer) error {
				t := newTable(w, "name", "where", "size", "")
				for _, m := range list {
					bytes := ""
					if m.Bytes > 0 {
						bytes = humanize.Bytes(uint64(m.Bytes))
					}
					t.AppendRow(table.Row{m.Name, m.Where, bytes, cmp.Or(m.Note, m.Path)})
				}
				t.Render()
				return nil
			})
		},
	}
}

func models() ([]listed, error) {
	list := []listed{
		{Name: builtinBase, Where: "built-in", Note: "an encoder: a base to tune"},
		{Name: builtinStories, Where: "built-in", Note: "a decoder that writes children's stories"},
	}
	for i, m := range list {
		st, err := fs.Stat(builtinFiles, builtins[m.Name]+"/model.safetensors")
		if err != nil {
			return nil, err
		}
		list[i].Bytes = st.Size()
	}
	s, err := hub.FromEnv()
	if err != nil {
		return nil, err
	}
	cached, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, c := range cached {
		n, err := size(c.Path)
		if err != nil {
			return nil, err
		}
		list = append(list, listed{Name: c.Ref, Where: "cached", Path: c.Path, Bytes: n})
	}
	for _, short := range slices.Sorted(maps.Keys(pullNames)) {
		list = append(list, listed{Name: short, Where: "hub", Note: pullNames[short]})
	}
	return list, nil
}
