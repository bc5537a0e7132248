// Package http01 proves control of names over HTTP (RFC 8555 §8.3).
//
// A CA asks any of the addresses of a name, and a balancer may send it to any
// node. So the answer is the same wherever it is asked for, in one of four ways:
//
//	Gateway     CA ──→ balancer ──challenge path──→ Handler ──→ Board
//	Redirect    CA ──→ any node ──302──→ CA ──→ Handler ──→ Board
//	Stateless   CA ──→ any node, which answers token.thumbprint from a static rule
//	Distribute  CA ──→ any node, which answers from its webroot; the file is on all
//
// Preflight asks the CA's question first: every name, at every address of it and
// at every node.
//
// Invariant: a token is 22 to 256 characters of base64url and nothing else
// before it is used as a path or a key.
package http01

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
)

// Method is the challenge type, as farm.yaml and ACME name it.
const Method = "http-01"

// Path is what a CA's question begins with; the token follows.
const Path = "/.well-known/acme-challenge/"

// tokens are what a CA may send (RFC 8555 §8.3: base64url, at least 128 bits).
var tokens = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

// Handler answers challenges, and the questions of a preflight, with what lookup
// finds for a token. It may run on any controller. Whatever else is asked is not
// found, so it may stand on a public port.
func Handler(lookup func(ctx context.Context, token string) (keyAuth string, ok bool, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ours := strings.CutPrefix(r.URL.Path, Path)
		if !ours || !tokens.MatchString(token) {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "challenges are only read", http.StatusMethodNotAllowed)
			return
		}
		value, ok, err := lookup(r.Context(), token)
		switch {
		case err != nil:
			http.Error(w, "the answers cannot be read now", http.StatusServiceUnavailable)
			return
		case !ok:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, value) // whoever asked has gone: nobody to tell
	})
}

// A Board is where answers stand for all controllers: the store.
type Board interface {
	// Put keeps an answer; the same again is no error.
	Put(ctx context.Context, token, keyAuth string) error
	// Get finds an answer.
	Get(ctx context.Context, token string) (keyAuth string, ok bool, err error)
	// Remove takes an answer away; one that is not there is no error.
	Remove(ctx context.Context, token string) error
}

// A Gateway is the solver for `via: gateway`: what stands in front of the nodes
// routes the challenge path to the controllers.
type Gateway struct{ Board Board }

var _ prove.Solver = Gateway{}

// Present puts the answer on the board. Its receipt is the token.
func (g Gateway) Present(ctx context.Context, c farm.Challenge) (prove.Receipt, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if err := g.Board.Put(ctx, c.Token, c.Value); err != nil {
		return nil, fmt.Errorf("answer the challenge for %s: %w", c.Name, err)
	}
	return prove.Receipt(c.Token), nil
}

// check refuses what is no challenge of this method. A token that is none never
// becomes a path or a key (CVE-2026-40611).
func check(c farm.Challenge) error {
	if c.Type != Method || !tokens.MatchString(c.Token) || !strings.HasPrefix(c.Value, c.Token+".") {
		return fmt.Errorf("answer the challenge for %q: it is no %s challenge with a token and its key authorization", c.Name, Method)
	}
	return nil
}

// Ready is true at once: every controller reads the board.
func (g Gateway) Ready(context.Context, farm.Challenge, prove.Receipt) (bool, error) {
	return true, nil
}

// CleanUp takes the answer off the board.
func (g Gateway) CleanUp(ctx context.Context, c farm.Challenge, r prove.Receipt) error {
	token := c.Token
	if token == "" {
		token = string(r)
	}
	if !tokens.MatchString(token) {
		return fmt.Errorf("take away the answer for %q: neither the challenge nor the receipt has a token", c.Name)
	}
	if err := g.Board.Remove(ctx, token); err != nil {
		return fmt.Errorf("take away the answer for %s: %w", c.Name, err)
	}
	return nil
}

// Redirect is the solver for `via: redirect`: nodes or balancer answer 302 to a
// host that only the controllers serve. The answer stands where a Gateway's does;
// what leads a CA there is another rule.
type Redirect struct{ Gateway }

var _ prove.Solver = Redirect{}

// Question is the token of a preflight and the answer that it wants to see for
// it. Put both on the board, ask, and remove them. They follow from the seed, so
// that whoever died in between and asks again takes away what he put up; a new
// seed makes a question that no cache knows.
func Question(seed string) (token, want string) {
	sum := sha512.Sum384([]byte("certfarm preflight " + seed))
	text := base64.RawURLEncoding.EncodeToString(sum[:])
	return text[:43], text[:43] + "." + text[43:]
}
