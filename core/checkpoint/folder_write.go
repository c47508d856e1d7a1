package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// FolderWriter collects the files of a model folder out of sight; WriteFolder puts them in place together.
type FolderWriter struct {
	stage  string
	names  map[string]bool
	memory map[string][]byte // not nil: files are kept here
}

// MemoryFolder lets write fill a folder that is only held in memory (a page has no disk) and returns its files.
func MemoryFolder(write func(*FolderWriter) error) (map[string][]byte, error) {
	w := &FolderWriter{names: map[string]bool{}, memory: map[string][]byte{}}
	if err := write(w); err != nil {
		return nil, err
	}
	return w.memory, nil
}

// File adds a file; name is slash-separated and may lie in a subfolder.
func (w *FolderWriter) File(name string, b []byte) error {
	return w.Stream(name, func(out io.Writer) error {
		_, err := out.Write(b)
		return err
	})
}

// Safetensors adds a safetensors file.
func (w *FolderWriter) Safetensors(name string, tensors []tensor.Tensor, metadata map[string]string) error {
	return w.Stream(name, func(out io.Writer) error { return EncodeSafetensors(out, tensors, metadata) })
}

// Stream adds a file that write produces.
func (w *FolderWriter) Stream(name string, write func(io.Writer) error) (err error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return fmt.Errorf("write folder: %q points outside the folder", name)
	}
	if w.names[name] {
		return fmt.Errorf("write folder: %s is written twice", name)
	}
	w.names[name] = true
	if w.memory != nil {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		w.memory[name] = b.Bytes()
		return nil
	}
	path := filepath.Join(w.stage, local)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Copy adds a file of another folder when it is there.
func (w *FolderWriter) Copy(from *Folder, names ...string) error {
	for _, name := range names {
		b, err := from.File(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = w.File(name, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteFolder lets write fill a folder and puts it at dir as a whole: a crash, a full disk or an error of write leaves what was
// there. Files of an earlier model at dir are replaced; files that are no part of a model (notes, checkpoints, logs) stay. Where the
// parent cannot be written (dir is a mount point), files are moved into dir one by one, config last.
func WriteFolder(dir string, write func(*FolderWriter) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write model folder %s: %w", dir, err)
		}
	}()
	dir = filepath.Clean(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // replace what a link points to, not the link
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	dir = abs
	exists := false
	switch st, err := os.Stat(dir); {
	case err == nil && !st.IsDir():
		return fmt.Errorf("expected a folder or nothing, it is %s", describeMode(st.Mode()))
	case err == nil:
		exists = true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if !exists {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	inside := false
	stage, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".tmp-*")
	if err != nil && exists {
		inside = true
		stage, err = os.MkdirTemp(dir, ".tmp-*")
	}
	if err != nil {
		return fmt.Errorf("cannot write here: %w", err)
	}
	defer os.RemoveAll(stage) // nothing is left of it on success
	os.Chmod(stage, 0o755)    // systems without modes refuse, which is no harm
	w := &FolderWriter{stage: stage, names: map[string]bool{}}
	if err := write(w); err != nil {
		return err
	}
	syncDir(stage)
	if !exists {
		if err := os.Rename(stage, dir); err != nil {
			return err
		}
		syncDir(parent)
		return nil
	}
	if !inside {
		done, err := swapFolder(stage, dir)
		if done || err != nil {
			return err
		}
	}
	return moveInto(stage, dir, w.names)
}

// swapFolder carries what is no part of a model from dir into stage, then exchanges the two. It reports false when the system cannot
// rename dir (a mount point), with nothing changed.
func swapFolder(stage, dir string) (bool, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	var carried []string
	back := func() {
		for _, name := range carried {
			os.Rename(filepath.Join(stage, name), filepath.Join(dir, name))
		}
	}
	for _, e := range list {
		name := e.Name()
		if isModelFile(name) {
			continue
		}
		to := filepath.Join(stage, name)
		if _, err := os.Lstat(to); err == nil {
			continue // written anew
		}
		if err := os.Rename(filepath.Join(dir, name), to); err != nil {
			back()
			return false, nil
		}
		carried = append(carried, name)
	}
	if exchange(stage, dir) == nil {
		syncDir(filepath.Dir(dir))
		return true, nil // stage now holds the old files and is removed by the caller
	}
	old, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".old-*")
	if err != nil {
		back()
		return false, nil
	}
	defer os.RemoveAll(old)
	aside := filepath.Join(old, "model")
	if err := os.Rename(dir, aside); err != nil {
		back()
		return false, nil
	}
	if err := os.Rename(stage, dir); err != nil {
		err = errors.Join(err, os.Rename(aside, dir))
		back()
		return false, err
	}
	syncDir(filepath.Dir(dir))
	return true, nil
}

// moveInto renames the staged files into dir: weights and tokenizer first, the config that makes them a model last.
func moveInto(stage, dir string, names map[string]bool) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var first, last []string
	for name := range names {
		if name == ConfigFile || name == AdapterConfigFile {
			last = append(last, name)
		} else {
			first = append(first, name)
		}
	}
	for _, name := range append(first, last...) {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(stage, filepath.FromSlash(name)), to); err != nil {
			return err
		}
	}
	for _, e := range list {
		if name := e.Name(); isModelFile(name) && !names[name] && !e.IsDir() {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	syncDir(dir)
	return nil
}

// isModelFile recognises what a newly written model replaces, so that no shard, adapter or tokenizer of an older one stays behind.
func isModelFile(name string) bool {
	switch name {
	case ConfigFile, IndexFile, TokenizerFile, TokenizerConfig, SpecialTokensFile, VocabFile, ModulesFile, AdapterConfigFile, AdapterWeightsFile,
		"vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja", "generation_config.json", "sentence_bert_config.json",
		"config_sentence_transformers.json", "1_Pooling", "2_Normalize":
		return true
	}
	return strings.HasPrefix(name, "model") && strings.HasSuffix(name, ".safetensors")
}
