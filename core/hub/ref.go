package hub

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Ref names a model on the hub.
type Ref struct {
	Repo     string // org/name, or the bare name of an old model
	Revision string // branch, tag or commit; "main" by default
	// Variant chooses among the GGUF files of a repository, by type ("Q4_K_M") or by name.
	Variant string
}

var repoPart = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$`)

// ParseRef reads org/name, org/name@revision and org/name:variant (and both: org/name@revision:variant).
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, fmt.Errorf("model reference %q: %s (expected org/name, org/name@revision or org/name:gguf-type)", s, why)
	}
	r := Ref{Repo: s, Revision: "main"}
	if at := strings.LastIndexByte(r.Repo, ':'); at >= 0 {
		r.Repo, r.Variant = r.Repo[:at], r.Repo[at+1:]
		if r.Variant == "" || strings.ContainsAny(r.Variant, `/\`) {
			return bad("no GGUF type after the colon")
		}
	}
	if repo, rev, ok := strings.Cut(r.Repo, "@"); ok {
		r.Repo, r.Revision = repo, rev
		if !validRevision(rev) {
			return bad("the revision is not valid")
		}
	}
	parts := strings.Split(r.Repo, "/")
	if len(parts) > 2 {
		return bad("more than one slash")
	}
	for _, p := range parts {
		if !repoPart.MatchString(p) || strings.Contains(p, "--") || strings.Contains(p, "..") || strings.HasSuffix(p, ".git") {
			return bad("names are made of letters, digits, '-', '_' and '.'")
		}
	}
	return r, nil
}

func validRevision(rev string) bool {
	if rev == "" || len(rev) > 200 || strings.ContainsAny(rev, "\\ ~^:?*[\x00\n") {
		return false
	}
	return filepath.IsLocal(filepath.FromSlash(rev)) && !strings.Contains(rev, "..")
}

func (r Ref) String() string {
	s := r.Repo
	if r.Revision != "main" {
		s += "@" + r.Revision
	}
	if r.Variant != "" {
		s += ":" + r.Variant
	}
	return s
}

var (
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
	sha256Hash = regexp.MustCompile(`^[0-9a-f]{64}$`)
)
