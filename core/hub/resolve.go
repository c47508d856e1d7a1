package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Progress is the state of a download. Total may grow while sizes become known.
type Progress struct {
	File        string // the file that last made progress
	Files       int
	FilesDone   int
	Done, Total int64 // bytes
}

// Resolve returns where the model is on disk: a snapshot folder, or a .gguf file when the repository holds those instead. Files that are not
// in the cache are fetched; when the hub cannot be reached, a complete cached snapshot serves. progress, when not nil, is called from one
// goroutine at a time.
func (s Settings) Resolve(ctx context.Context, r Ref, progress func(Progress)) (string, error) {
	cache := s.repo(r.Repo)
	cached := func() (string, bool) {
		commit := cache.commitOf(r.Revision)
		if commit == "" {
			return "", false
		}
		return cachedModel(cache.snapshot(commit), r)
	}
	if s.Offline {
		if p, ok := cached(); ok {
			return p, nil
		}
		return "", fmt.Errorf("%s: %w", r, ErrOffline)
	}
	if commitHash.MatchString(r.Revision) {
		if p, ok := cached(); ok {
			return p, nil
		}
	}
	client := s.client()
	commit, files, err := s.list(ctx, client, r)
	if err != nil {
		var t temporary
		if p, ok := cached(); ok && errors.As(err, &t) && ctx.Err() == nil {
			s.log("%v; using the cached copy", err)
			return p, nil
		}
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	wanted, gguf, err := choose(files, r)
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	if err := s.fetchAll(ctx, client, r, cache, commit, wanted, progress); err != nil {
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	// The name is set last, so that it never stands for half a model.
	if err := cache.setRef(r.Revision, commit); err != nil {
		return "", fmt.Errorf("pull %s: %w", r, err)
	}
	dir := cache.snapshot(commit)
	if gguf != "" {
		return filepath.Join(dir, filepath.FromSlash(gguf)), nil
	}
	return dir, nil
}

func (s *Settings) fetchAll(ctx context.Context, c *http.Client, r Ref, cache repoCache, commit string, files []remoteFile, progress func(Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	state := Progress{Files: len(files)}
	for _, f := range files {
		state.Total += f.size
	}
	var firstErr error
	jobs := make(chan remoteFile)
	var wg sync.WaitGroup
	workers := s.Workers
	if workers < 1 {
		workers = 4
	}
	for range min(workers, len(files)) {
		wg.Go(func() {
			for f := range jobs {
				got := int64(0)
				err := s.fetch(ctx, c, r, cache, commit, f, func(n int64) {
					mu.Lock()
					defer mu.Unlock()
					got += n
					state.Done += n
					if got > f.size { // the listing did not say its size
						state.Total += got - max(f.size, got-n)
					}
					state.File = f.name
					if progress != nil {
						progress(state)
					}
				})
				mu.Lock()
				if err != nil && firstErr == nil {
					firstErr = err
					cancel()
				}
				if err == nil {
					state.FilesDone++
					state.File = f.name
					if progress != nil {
						progress(state)
					}
				}
				mu.Unlock()
			}
		})
	}
	// Large files first: the last to finish should be a small one.
	slices.SortStableFunc(files, func(a, b remoteFile) int { return -int(min(max(a.size-b.size, -1), 1)) })
feed:
	for _, f := range files {
		select {
		case jobs <- f:
		case <-ctx.Done():
			break feed
		}
	}
	close(jobs)
	wg.Wait()
	if firstErr != nil {
		return firstErr
	}
	return ctx.Err()
}

var (
	shardName = regexp.MustCompile(`^model-\d+-of-\d+\.safetensors$`)
	// modulePath matches the folders of sentence-transformers: 1_Pooling, 2_Dense.
	modulePath = regexp.MustCompile(`^\d+_[A-Za-z]+/(config\.json|model\.safetensors)$`)
	ggufShard  = regexp.MustCompile(`-\d{5}-of-\d{5}\.gguf$`)
)

// smallFiles are the configs, tokenizers and templates that a model may come with. Pickles, code and exports for other engines are left.
var smallFiles = []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
	"adapter_config.json", "README.md", "model.safetensors.index.json"}

// choose picks the files to fetch; gguf is the one that is the model, when the repository holds GGUF files and no safetensors (or a variant is
// asked for).
func choose(files []remoteFile, r Ref) (wanted []remoteFile, gguf string, err error) {
	has := map[string]bool{}
	for _, f := range files {
		has[f.name] = true
	}
	weights := false
	for _, f := range files {
		n := f.name
		switch {
		case n == "model.safetensors" || n == "adapter_model.safetensors",
			shardName.MatchString(n) && !has["model.safetensors"]:
			weights = true
			wanted = append(wanted, f)
		case slices.Contains(smallFiles, n), modulePath.MatchString(n):
			if n != "model.safetensors.index.json" || !has["model.safetensors"] {
				wanted = append(wanted, f)
			}
		}
	}
	if weights && r.Variant == "" {
		return wanted, "", nil
	}
	f, err := chooseGGUF(files, r.Variant)
	if err != nil {
		return nil, "", err
	}
	if f.name != "" {
		return []remoteFile{f}, f.name, nil
	}
	for n := range has {
		if strings.HasSuffix(n, ".bin") || strings.HasSuffix(n, ".pt") || strings.HasSuffix(n, ".ckpt") {
			return nil, "", fmt.Errorf("the model has no safetensors file, only pickles (%s), which are not read", n)
		}
	}
	return nil, "", errors.New("expected model.safetensors, shards of it, an adapter or a .gguf file, the repository has none")
}

// chooseGGUF finds the file of a variant; without one, the usual types in this order, or the only file.
func chooseGGUF(files []remoteFile, variant string) (remoteFile, error) {
	var all []remoteFile
	for _, f := range files {
		if strings.HasSuffix(f.name, ".gguf") && !strings.HasPrefix(path.Base(f.name), "mmproj") {
			all = append(all, f)
		}
	}
	var names []string
	for _, f := range all {
		names = append(names, f.name)
	}
	find := func(v string) (remoteFile, bool, error) {
		var found []remoteFile
		for _, f := range all {
			base := path.Base(f.name)
			if f.name == v || base == v || strings.HasSuffix(strings.ToLower(strings.TrimSuffix(base, ".gguf")), strings.ToLower(v)) &&
				endsWord(strings.TrimSuffix(base, ".gguf"), len(v)) {
				found = append(found, f)
			}
		}
		if len(found) > 1 {
			return remoteFile{}, false, fmt.Errorf("%q fits several files: %s, %s", v, found[0].name, found[1].name)
		}
		return append(found, remoteFile{})[0], len(found) == 1, nil
	}
	candidates := []string{variant}
	if variant == "" {
		if len(all) == 1 {
			return usable(all[0])
		}
		candidates = []string{"Q4_K_M", "Q8_0", "Q4_0"}
	}
	for _, v := range candidates {
		f, ok, err := find(v)
		if err != nil {
			return f, err
		}
		if ok {
			return usable(f)
		}
	}
	if variant != "" || len(all) > 0 {
		if len(all) == 0 {
			return remoteFile{}, fmt.Errorf("no GGUF file %q: the repository has no .gguf file", variant)
		}
		return remoteFile{}, fmt.Errorf("choose one of its GGUF files with org/name:TYPE: %s", strings.Join(names, ", "))
	}
	return remoteFile{}, nil
}

func usable(f remoteFile) (remoteFile, error) {
	if ggufShard.MatchString(f.name) {
		return f, fmt.Errorf("%s is a part of a divided GGUF file, which is not supported", f.name)
	}
	return f, nil
}

// endsWord reports whether the last n bytes of s begin a word: Q4_0 is not the end of IQ4_0.
func endsWord(s string, n int) bool {
	return len(s) == n || strings.ContainsRune(".-_", rune(s[len(s)-n-1]))
}

// cachedModel finds a complete model in a snapshot.
func cachedModel(dir string, r Ref) (string, bool) {
	var files []remoteFile
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if _, err := os.Stat(p); err != nil { // a link whose blob is gone
			return err
		}
		rel, err := filepath.Rel(dir, p)
		files = append(files, remoteFile{name: filepath.ToSlash(rel)})
		return err
	})
	if err != nil {
		return "", false
	}
	wanted, gguf, err := choose(files, r)
	switch {
	case err != nil:
		return "", false
	case gguf != "":
		return filepath.Join(dir, filepath.FromSlash(gguf)), true
	}
	has := func(name string) bool {
		return slices.ContainsFunc(wanted, func(f remoteFile) bool { return f.name == name })
	}
	if !has("config.json") && !has("adapter_config.json") {
		return "", false // the Python client may have fetched single files
	}
	return dir, has("model.safetensors") || has("adapter_model.safetensors") || allShards(dir)
}

// allShards reports whether every shard that the index names is there.
func allShards(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if err != nil {
		return false
	}
	names := regexp.MustCompile(`"(model-\d+-of-\d+\.safetensors)"`).FindAllStringSubmatch(string(b), -1)
	for _, m := range names {
		if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
			return false
		}
	}
	return len(names) > 0
}
