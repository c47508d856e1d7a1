package main

import (
	"context"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/hub"
)

// resolveHub finds org/name[@revision] in the hub's cache, or fetches it.
func (a *app) resolveHub(ctx context.Context, ref string) (string, error) {
	r, err := hub.ParseRef(ref)
	if err != nil {
		return "", fmt.Errorf("%s: neither a file or folder, nor a hub reference: %w", ref, err)
	}
	s, err := hub.FromEnv()
	if err != nil {
		return "", err
	}
	s.Log = func(line string) { a.logf("%s", line) }
	bar := a.progress("fetching "+r.String(), -1)
	path, err := s.Resolve(ctx, r, func(p hub.Progress) {
		const unit = 1 << 10
		bar.set(int(p.Done/unit), int(max(p.Total, 1)/unit), fmt.Sprintf("kB, %s, %d of %d files", p.File, p.FilesDone, p.Files))
	})
	bar.done()
	return path, err
}

func (a *app) pullCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "pull ORG/NAME[@REVISION]",
		Short:   "Fetch a model from the hub into the cache it shares with the Python tools",
		Example: "  temper pull sentence-transformers/all-MiniLM-L6-v2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := a.resolveHub(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r := written{To: "cache", Path: path}
			if r.Bytes, err = size(path); err != nil {
				return err
			}
			return a.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s (%s)\n", path, humanize.Bytes(uint64(r.Bytes)))
				return err
			})
		},
	}
}
