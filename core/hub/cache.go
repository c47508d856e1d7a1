package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// repoCache is the folder of one model: blobs/ETAG hold the contents, snapshots/COMMIT/FILE links into them, refs/NAME holds a commit.
type repoCache struct {
	root  string // the whole cache
	name  string // models--org--name
	links bool   // false: the file system has no symbolic links; files are moved into the snapshot
}

func (s *Settings) repo(repo string) repoCache {
	return repoCache{root: s.Cache, name: "models--" + strings.ReplaceAll(repo, "/", "--"), links: true}
}

func (c repoCache) dir(parts ...string) string {
	return filepath.Join(append([]string{c.root, c.name}, parts...)...)
}

func (c repoCache) snapshot(commit string) string { return c.dir("snapshots", commit) }

// commitOf resolves a revision from the cache alone; "" where it is not known.
func (c repoCache) commitOf(revision string) string {
	if commitHash.MatchString(revision) {
		return revision
	}
	b, err := os.ReadFile(c.dir("refs", filepath.FromSlash(revision)))
	if err != nil {
		return ""
	}
	commit := strings.TrimSpace(string(b))
	if !commitHash.MatchString(commit) {
		return ""
	}
	return commit
}

// setRef remembers which commit a branch or tag stood at.
func (c repoCache) setRef(revision, commit string) error {
	if revision == commit || c.commitOf(revision) == commit {
		return nil
	}
	path := c.dir("refs", filepath.FromSlash(revision))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(commit), 0o644)
}

// link puts blob etag into the snapshot under the file's name, by a relative link as the Python client makes it. Where links cannot be
// made, the blob itself is moved there (fresh) or copied.
func (c repoCache) link(commit, file, etag string, fresh bool) error {
	path := filepath.Join(c.snapshot(commit), filepath.FromSlash(file))
	blob := c.dir("blobs", etag)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return err
	}
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.links {
		err := os.Symlink(target, path)
		if err == nil || errors.Is(err, fs.ErrExist) { // another process made the same link
			return nil
		}
	}
	if fresh {
		return os.Rename(blob, path)
	}
	in, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(path), ".copy-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		os.Remove(out.Name())
		return err
	}
	return os.Rename(out.Name(), path)
}

// lock takes the lock of a blob, shared with the Python client, waiting as long as ctx lives.
func (c repoCache) lock(ctx context.Context, etag string) (unlock func(), err error) {
	dir := filepath.Join(c.root, ".locks", c.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, etag+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		ok, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if ok {
			return func() {
				releaseLock(f)
				f.Close()
			}, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another download of the same file (%s): %w", path, ctx.Err())
		case <-time.After(wait):
		}
	}
}
