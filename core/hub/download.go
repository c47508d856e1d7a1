package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// fetch brings one file into the cache: its blob, then the link in the snapshot. add reports bytes as they arrive (or are found).
func (s *Settings) fetch(ctx context.Context, c *http.Client, r Ref, cache repoCache, commit string, f remoteFile, add func(int64)) error {
	if commitHash.MatchString(commit) {
		// A commit never changes: a file in its snapshot is the file.
		if st, err := os.Stat(filepath.Join(cache.snapshot(commit), filepath.FromSlash(f.name))); err == nil && st.Mode().IsRegular() {
			add(st.Size())
			return nil
		}
	}
	m, err := s.head(ctx, c, r, commit, f.name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache.dir("blobs"), 0o755); err != nil {
		return err
	}
	unlock, err := cache.lock(ctx, m.etag)
	if err != nil {
		return err
	}
	defer unlock()
	blob := cache.dir("blobs", m.etag)
	fresh := false
	st, err := os.Stat(blob)
	switch {
	case err == nil && (m.size < 0 || st.Size() == m.size):
		add(st.Size())
	case err == nil || errors.Is(err, fs.ErrNotExist):
		fresh = true
		if err := s.download(ctx, c, r, commit, f, blob, m, add); err != nil {
			return err
		}
	default:
		return err
	}
	return cache.link(commit, f.name, m.etag, fresh)
}

// download fills blob through blob.incomplete, going on where an earlier try stopped, and checks size and checksum.
func (s *Settings) download(ctx context.Context, c *http.Client, r Ref, commit string, f remoteFile, blob string, m fileMeta, add func(int64)) error {
	file := f.name
	part := blob + ".incomplete"
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	at, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if m.size >= 0 && at > m.size {
		if at, err = 0, out.Truncate(0); err != nil {
			return err
		}
	}
	add(at)
	err = s.retry(ctx, func() error {
		if at == m.size {
			return nil
		}
		req, err := s.request(ctx, http.MethodGet, s.fileURL(r, commit, file))
		if err != nil {
			return err
		}
		if at > 0 {
			req.Header.Set("Range", "bytes="+strconv.FormatInt(at, 10)+"-")
		}
		resp, err := s.storageClient(c).Do(req)
		if err != nil {
			return temporary{err}
		}
		defer resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
			add(-at)
			if at, err = 0, out.Truncate(0); err != nil {
				return err
			}
			return temporary{fmt.Errorf("%s: the hub cannot go on at the end of the partial file; starting over", file)}
		case resp.StatusCode == http.StatusPartialContent:
			if from, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || from != at {
				return fmt.Errorf("%s: asked for bytes from %d, the hub sends %q", file, at, resp.Header.Get("Content-Range"))
			}
		default:
			if err := s.status(resp, r, file); err != nil {
				return err
			}
			if at > 0 { // the whole file comes, wanted or not
				add(-at)
				if at, err = 0, out.Truncate(0); err != nil {
					return err
				}
			}
		}
		if _, err := out.Seek(at, io.SeekStart); err != nil {
			return err
		}
		body := io.Reader(resp.Body)
		if m.size >= 0 {
			body = io.LimitReader(body, m.size-at+1) // one byte more than announced shows a wrong file
		}
		buf := make([]byte, 256<<10)
		for {
			n, err := body.Read(buf)
			if n > 0 {
				if _, err := out.Write(buf[:n]); err != nil {
					return err // a full disk: what is there is kept
				}
				at += int64(n)
				add(int64(n))
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return temporary{fmt.Errorf("%s: the connection broke at byte %d: %w", file, at, err)}
			}
		}
		if at < m.size {
			return temporary{fmt.Errorf("%s: the connection ended at byte %d of %d", file, at, m.size)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.size >= 0 && at != m.size {
		out.Close()
		os.Remove(part)
		return fmt.Errorf("%s: expected %d bytes, the hub sends more", file, m.size)
	}
	if err := verify(out, m.etag, f.blob, at); err != nil {
		out.Close()
		os.Remove(part)
		return fmt.Errorf("%s: %w; the partial file is removed, try again", file, err)
	}
	if err := errors.Join(out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(part, blob)
}

// storageClient follows redirects to storage on other hosts without taking the token there.
func (s *Settings) storageClient(c *http.Client) *http.Client {
	bare := *c
	bare.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		if req.URL.Host != via[0].URL.Host {
			req.Header.Del("Authorization")
		}
		return nil
	}
	return &bare
}

func rangeStart(v string) (int64, bool) {
	v, ok := strings.CutPrefix(v, "bytes ")
	if !ok {
		return 0, false
	}
	v, _, _ = strings.Cut(v, "-")
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

// verify compares the file with its etag: the sha256 of a large file, or git's hash of a small one where the listing says that it is one.
// Other etags prove nothing.
func verify(f *os.File, etag, blob string, size int64) error {
	var h hash.Hash
	switch {
	case sha256Hash.MatchString(etag):
		h = sha256.New()
	case commitHash.MatchString(etag) && etag == blob:
		h = sha1.New() // what git names blobs by; not a security measure
		fmt.Fprintf(h, "blob %d\x00", size)
	default:
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != etag {
		return fmt.Errorf("the checksum is %s, expected %s", got, etag)
	}
	return nil
}
