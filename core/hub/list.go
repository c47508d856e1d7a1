package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Cached is a complete model of the cache.
type Cached struct {
	// Ref is what a verb takes to name it.
	Ref string `json:"ref"`
	// Path is the snapshot folder or the .gguf file.
	Path string `json:"path"`
}

// List returns the complete models of the cache, by name: one for each branch or tag that was pulled. What was fetched in part is passed
// over, and a cache that is not there holds none.
func (s Settings) List() ([]Cached, error) {
	dirs, err := os.ReadDir(s.Cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Cached
	for _, d := range dirs {
		repo, ok := strings.CutPrefix(d.Name(), "models--")
		if !ok {
			continue
		}
		r, err := ParseRef(strings.ReplaceAll(repo, "--", "/"))
		if err != nil {
			continue // not a name that the hub gives
		}
		cache := s.repo(r.Repo)
		refs := cache.dir("refs")
		err = filepath.WalkDir(refs, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // no refs: only single commits were asked for
			}
			rel, err := filepath.Rel(refs, p)
			if err != nil {
				return err
			}
			r.Revision = filepath.ToSlash(rel)
			if !validRevision(r.Revision) {
				return nil
			}
			if path, ok := cachedModel(cache.snapshot(cache.commitOf(r.Revision)), r); ok {
				out = append(out, Cached{Ref: r.String(), Path: path})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b Cached) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}
