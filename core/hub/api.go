package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Errors that callers may tell apart.
var (
	ErrNotFound = errors.New("not found on the hub")
	ErrAccess   = errors.New("access refused by the hub")
	ErrOffline  = errors.New("not in the cache, and the network may not be used (HF_HUB_OFFLINE)")
)

// maxListing bounds the answer that lists a repository.
const maxListing = 64 << 20

// remoteFile is a file of a repository. Size and sum are known where the listing gives them, 0 and "" otherwise.
type remoteFile struct {
	name string
	size int64
	blob string // git's hash of a small file
}

func (s *Settings) client() *http.Client {
	if s.Client != nil {
		return s.Client
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // sizes and ranges are of the plain bytes
	}}
}

func (s *Settings) request(ctx context.Context, method, u string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "temper")
	req.Header.Set("Accept-Encoding", "identity")
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	return req, nil
}

// sibling is a file as either listing describes it.
type sibling struct {
	Name string `json:"rfilename"` // of the revision's description
	Path string `json:"path"`      // of the tree
	Type string `json:"type"`      // of the tree: "file" or "directory"
	Size int64  `json:"size"`
	Blob string `json:"blobId"`
	OID  string `json:"oid"`
	LFS  *struct {
		Size int64 `json:"size"`
	} `json:"lfs"`
}

// list asks for the commit of a revision and its files. The description of a revision names them; servers that leave them out are asked for the
// tree, page by page.
func (s *Settings) list(ctx context.Context, c *http.Client, r Ref) (commit string, files []remoteFile, err error) {
	base := s.Endpoint + "/api/models/" + r.Repo
	var info struct {
		SHA      string    `json:"sha"`
		Siblings []sibling `json:"siblings"`
	}
	if _, err := s.getJSON(ctx, c, r, base+"/revision/"+url.PathEscape(r.Revision)+"?blobs=true", &info); err != nil {
		return "", nil, err
	}
	if !commitHash.MatchString(info.SHA) {
		return "", nil, fmt.Errorf("%s: expected a commit of 40 hexadecimal digits, got %.60q", s.Endpoint, info.SHA)
	}
	next := ""
	if len(info.Siblings) == 0 {
		next = base + "/tree/" + info.SHA + "?recursive=true"
	}
	for pages := 0; next != ""; pages++ {
		var page []sibling
		if next, err = s.getJSON(ctx, c, r, next, &page); err != nil {
			return "", nil, err
		}
		info.Siblings = append(info.Siblings, page...)
		if pages == 1000 {
			return "", nil, fmt.Errorf("%s: the list of files has no end", s.Endpoint)
		}
	}
	for _, f := range info.Siblings {
		if f.Type == "directory" {
			continue
		}
		name := cmp.Or(f.Name, f.Path)
		if name == "" || path.Clean("/" + name)[1:] != name || strings.ContainsAny(name, "\\:\x00") {
			return "", nil, fmt.Errorf("%s: the hub names a file %.60q, which points outside the model", s.Endpoint, name)
		}
		rf := remoteFile{name: name, size: max(f.Size, 0), blob: cmp.Or(f.Blob, f.OID)}
		if f.LFS != nil {
			rf.size = max(f.LFS.Size, rf.size)
		}
		files = append(files, rf)
	}
	return info.SHA, files, nil
}

// getJSON asks one question of the API; next is the address of the next page, if the answer goes on.
func (s *Settings) getJSON(ctx context.Context, c *http.Client, r Ref, u string, v any) (next string, err error) {
	var body []byte
	err = s.retry(ctx, func() error {
		req, err := s.request(ctx, http.MethodGet, u)
		if err != nil {
			return err
		}
		resp, err := s.storageClient(c).Do(req)
		if err != nil {
			return temporary{err}
		}
		defer resp.Body.Close()
		if err := s.status(resp, r, ""); err != nil {
			return err
		}
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxListing+1))
		if err != nil {
			return temporary{err}
		}
		if len(body) > maxListing {
			return fmt.Errorf("the list of files is larger than %d bytes", maxListing)
		}
		next = nextPage(resp)
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return "", fmt.Errorf("%s: expected the description of a model from the hub: %w", s.Endpoint, err)
	}
	return next, nil
}

// nextPage reads the Link header (RFC 8288). Only pages of the same host are followed.
func nextPage(resp *http.Response) string {
	for link := range strings.SplitSeq(resp.Header.Get("Link"), ",") {
		target, rel, _ := strings.Cut(strings.TrimSpace(link), ">")
		u, err := resp.Request.URL.Parse(strings.TrimPrefix(target, "<"))
		if err == nil && strings.Contains(rel, `rel="next"`) && u.Host == resp.Request.URL.Host {
			return u.String()
		}
	}
	return ""
}

// fileMeta is what the hub says of one file before it is fetched.
type fileMeta struct {
	etag string // name of the blob: sha256 of large files, git's hash of small ones
	size int64  // -1: not said
}

func (s *Settings) fileURL(r Ref, commit, file string) string {
	segments := strings.Split(file, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	return s.Endpoint + "/" + r.Repo + "/resolve/" + commit + "/" + strings.Join(segments, "/")
}

// head asks for a file's etag without following redirects to storage, whose etags are others.
func (s *Settings) head(ctx context.Context, c *http.Client, r Ref, commit, file string) (m fileMeta, err error) {
	bare := *c
	bare.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Host == via[0].URL.Host && len(via) < 10 { // a renamed repository
			return nil
		}
		return http.ErrUseLastResponse
	}
	err = s.retry(ctx, func() error {
		req, err := s.request(ctx, http.MethodHead, s.fileURL(r, commit, file))
		if err != nil {
			return err
		}
		resp, err := bare.Do(req)
		if err != nil {
			return temporary{err}
		}
		resp.Body.Close()
		if resp.StatusCode < 300 || resp.StatusCode >= 400 {
			if err := s.status(resp, r, file); err != nil {
				return err
			}
		}
		first := func(keys ...string) string {
			for _, k := range keys {
				if v := resp.Header.Get(k); v != "" {
					return v
				}
			}
			return ""
		}
		m = fileMeta{etag: strings.Trim(strings.TrimPrefix(first("X-Linked-Etag", "Etag"), "W/"), `"`), size: -1}
		if v := first("X-Linked-Size", "Content-Length"); v != "" && (resp.StatusCode < 300 || resp.Header.Get("X-Linked-Size") != "") {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
				m.size = n
			}
		}
		// The etag becomes a file name.
		if m.etag == "" || strings.ContainsAny(m.etag, `/\:`) || strings.HasPrefix(m.etag, ".") || len(m.etag) > 128 {
			return fmt.Errorf("%s: expected an etag for %s, got %.60q", s.Endpoint, file, m.etag)
		}
		return nil
	})
	return m, err
}

// status turns an answer that is no success into an error. Server errors and rate limits are worth another try.
func (s *Settings) status(resp *http.Response, r Ref, file string) error {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	what := r.Repo
	if file != "" {
		what += "/" + file
	}
	detail := resp.Header.Get("X-Error-Message")
	if detail != "" {
		detail = ": " + detail
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || resp.Header.Get("X-Error-Code") == "RepoNotFound":
		if s.Token == "" {
			return fmt.Errorf("%s: %w: no such model, or a private one (set HF_TOKEN)%s", what, ErrNotFound, detail)
		}
		return fmt.Errorf("%s: %w: no such model, or one that HF_TOKEN does not open%s", what, ErrNotFound, detail)
	case code == http.StatusForbidden:
		return fmt.Errorf("%s: %w: accept its terms at %s/%s and set HF_TOKEN%s", what, ErrAccess, s.Endpoint, r.Repo, detail)
	case resp.Header.Get("X-Error-Code") == "RevisionNotFound":
		return fmt.Errorf("%s: revision %q: %w", what, r.Revision, ErrNotFound)
	case code == http.StatusNotFound:
		return fmt.Errorf("%s: %w%s", what, ErrNotFound, detail)
	case code == http.StatusTooManyRequests || code >= 500:
		return temporary{fmt.Errorf("%s: the hub answers %s%s", what, resp.Status, detail)}
	}
	return fmt.Errorf("%s: the hub answers %s%s", what, resp.Status, detail)
}

// temporary marks an error that may pass.
type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }

const maxTries = 5

// retry calls f up to five times while its errors are temporary, waiting longer each time.
func (s *Settings) retry(ctx context.Context, f func() error) error {
	delay := s.retryDelay
	if delay == 0 {
		delay = time.Second
	}
	for try := 1; ; try++ {
		err := f()
		var t temporary
		if err == nil || !errors.As(err, &t) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if try == maxTries {
			return err
		}
		s.log("%v; trying again (%d of %d)", err, try, maxTries-1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
			delay *= 2
		}
	}
}
