package api

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A Permission is what a route needs. Roles are sets of these.
type Permission string

// The permissions.
const (
	View    Permission = "view"    // read everything but secrets
	Operate Permission = "operate" // renew, verify, pause, resume, abort, undo, freeze, hold
	Approve Permission = "approve" // let a wave begin that waits for assent
	Edit    Permission = "edit"    // apply farm.yaml, retire a target, bring a certificate from elsewhere
	Secrets Permission = "secrets" // set and remove secrets, change, revoke and erase keys; nobody can read one
)

// Permissions lists every permission.
func Permissions() []Permission { return []Permission{View, Operate, Approve, Edit, Secrets} }

// A Caller is who asks: a name for the journal, and what they may do.
type Caller struct {
	Name string
	May  []Permission // nil: everything
}

func (c Caller) may(p Permission) bool { return c.May == nil || slices.Contains(c.May, p) }

// Tokens are the bearer tokens of a token file. It keeps their digests only.
type Tokens []token

type token struct {
	caller Caller
	digest [sha256.Size]byte
}

// leastToken is how long a token must be: 128 bits in hex.
const leastToken = 32

// ReadTokens reads a token file: a line for each token, `NAME TOKEN`, and after
// that the permissions if it has not all of them (`view,operate`). Empty lines
// and those after # are skipped. A file that others than its user may read is
// refused. An error never shows a line.
func ReadTokens(path string) (Tokens, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token file %s can be read by others (mode %04o): chmod 600 it, and change the tokens", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	var all Tokens
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		t, err := parseToken(fields)
		if err != nil {
			return nil, fmt.Errorf("token file %s, line %d: %w", path, n, err)
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("token file %s: there is no token in it; a line is: NAME TOKEN [view,operate]", path)
	}
	return all, nil
}

func parseToken(fields []string) (token, error) {
	if len(fields) < 2 || len(fields) > 3 {
		return token{}, fmt.Errorf("a line is: NAME TOKEN [view,operate]")
	}
	if len(fields[1]) < leastToken {
		return token{}, fmt.Errorf("the token of %s is too short: make one of %d characters with `openssl rand -hex 32`", fields[0], leastToken)
	}
	t := token{caller: Caller{Name: fields[0]}, digest: sha256.Sum256([]byte(fields[1]))}
	if len(fields) == 3 {
		t.caller.May = []Permission{}
		for word := range strings.SplitSeq(fields[2], ",") {
			p := Permission(word)
			if !slices.Contains(Permissions(), p) {
				return token{}, fmt.Errorf("there is no permission %q: %v", word, Permissions())
			}
			t.caller.May = append(t.caller.May, p)
		}
	}
	return t, nil
}

// caller finds who holds a token. It compares digests, and all of them, so that
// the time says nothing about the tokens.
func (ts Tokens) caller(bearer string) (Caller, bool) {
	digest := sha256.Sum256([]byte(bearer))
	var found Caller
	ok := false
	for _, t := range ts {
		if subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1 {
			found, ok = t.caller, true
		}
	}
	return found, ok
}
