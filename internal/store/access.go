package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A Grant is what is said of somebody who may do something: a role, and where.
// What a role may do is not for the store to know (see package access).
type Grant struct {
	Role string   `json:"role" doc:"viewer, operator, approver, editor or admin"`
	Farm string   `json:"farm,omitempty" doc:"only in this farm; not set: in every farm"`
	Tags []string `json:"tags,omitempty" doc:"only for sites with one of these tags; not set: for all, and for what concerns a whole farm"`
}

// An APIToken lets programs and people in. The token itself is kept nowhere.
type APIToken struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Grants  []Grant   `json:"grants"`
	By      string    `json:"by" doc:"who made it"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero" doc:"not set: never"`
	Used    time.Time `json:"used,omitzero" doc:"when it was last used, to the minute; not set: never"`
	Digest  string    `json:"-"` // SHA-256 in hex
}

const apiTokenColumns = `doc, digest, used`

func apiTokenRow(scan func(...any) error) (APIToken, error) {
	var doc, digest string
	var used int64
	if err := scan(&doc, &digest, &used); err != nil {
		return APIToken{}, err
	}
	k, err := decode[APIToken](doc)
	k.Digest, k.Used = digest, instant(used)
	return k, err
}

// AddAPIToken keeps a new token. A name that is taken is refused by the database; see
// APITokenNamed.
func (t *Tx) AddAPIToken(ctx context.Context, k APIToken) error {
	k.Used = time.Time{}
	doc, _, err := document(k)
	if err != nil {
		return err
	}
	return t.put(ctx, "save token "+k.Name, `INSERT INTO api_tokens (id, name, digest, expires, used, doc) VALUES (?, ?, ?, ?, 0, ?)`,
		k.ID, k.Name, k.Digest, micros(k.Expires), doc)
}

// APIToken returns the token with a digest, or ErrNotFound. Whether it has expired is
// for the caller to say.
func (t *Tx) APIToken(ctx context.Context, digest string) (APIToken, error) {
	return t.apiTokenWhere(ctx, "digest = ?", digest)
}

// APITokenByID returns a token, or ErrNotFound.
func (t *Tx) APITokenByID(ctx context.Context, id string) (APIToken, error) {
	return t.apiTokenWhere(ctx, "id = ?", id)
}

// APITokenNamed returns the token with a name, or ErrNotFound.
func (t *Tx) APITokenNamed(ctx context.Context, name string) (APIToken, error) {
	return t.apiTokenWhere(ctx, "name = ?", name)
}

func (t *Tx) apiTokenWhere(ctx context.Context, is, value string) (APIToken, error) {
	k, err := apiTokenRow(t.row(ctx, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE `+is, value).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return APIToken{}, fmt.Errorf("token: %w", err)
	}
	return k, nil
}

// APITokens lists all tokens by name, expired ones too.
func (t *Tx) APITokens(ctx context.Context) ([]APIToken, error) { return t.APITokensAfter(ctx, "", 0) }

// APITokensAfter lists up to limit tokens (0: all) whose names come after the given one,
// by name, expired ones too.
func (t *Tx) APITokensAfter(ctx context.Context, after string, limit int) ([]APIToken, error) {
	var all []APIToken
	err := t.each(ctx, func(scan func(...any) error) error {
		k, err := apiTokenRow(scan)
		all = append(all, k)
		return err
	}, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE name > ? ORDER BY name LIMIT ?`, after, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return all, nil
}

// RemoveAPIToken forgets a token: it opens nothing any more.
func (t *Tx) RemoveAPIToken(ctx context.Context, id string) error {
	return t.put(ctx, "remove token", `DELETE FROM api_tokens WHERE id = ?`, id)
}

// A Session is a browser that is logged in, known by the digest of its cookie.
type Session struct {
	Digest  string    `json:"-"`   // SHA-256 of the cookie's value, in hex
	Via     string    `json:"via"` // how the person showed who they are
	Key     string    `json:"key"` // what they showed: a token's id, a token file's line, a person at an identity provider
	Name    string    `json:"name"`
	Groups  []string  `json:"groups,omitempty"` // as the identity provider said at the login
	From    string    `json:"from"`             // address
	Begun   time.Time `json:"begun"`
	Login   time.Time `json:"login"` // when they last showed who they are: single sign-on may be older
	Expires time.Time `json:"expires"`
	Seen    time.Time `json:"-"` // to the minute
}

func sessionRow(scan func(...any) error) (Session, error) {
	var doc, digest string
	var seen int64
	if err := scan(&doc, &digest, &seen); err != nil {
		return Session{}, err
	}
	n, err := decode[Session](doc)
	n.Digest, n.Seen = digest, instant(seen)
	return n, err
}

// AddSession keeps a new session, and forgets all that have expired.
func (t *Tx) AddSession(ctx context.Context, n Session) error {
	doc, _, err := document(n)
	if err != nil {
		return err
	}
	if err := t.put(ctx, "forget old sessions", `DELETE FROM sessions WHERE expires < ?`, micros(t.now)); err != nil {
		return err
	}
	return t.put(ctx, "save session", `INSERT INTO sessions (digest, seen, expires, doc) VALUES (?, ?, ?, ?)`,
		n.Digest, micros(n.Seen), micros(n.Expires), doc)
}

// Session returns the session with a digest, or ErrNotFound.
func (t *Tx) Session(ctx context.Context, digest string) (Session, error) {
	n, err := sessionRow(t.row(ctx, `SELECT doc, digest, seen FROM sessions WHERE digest = ?`, digest).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Session{}, fmt.Errorf("session: %w", err)
	}
	return n, nil
}

// Sessions lists the sessions that have not expired, those that were seen last
// first.
func (t *Tx) Sessions(ctx context.Context) ([]Session, error) {
	var all []Session
	err := t.each(ctx, func(scan func(...any) error) error {
		n, err := sessionRow(scan)
		all = append(all, n)
		return err
	}, `SELECT doc, digest, seen FROM sessions WHERE expires >= ? ORDER BY seen DESC, digest`, micros(t.now))
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return all, nil
}

// RemoveSession ends a session. It is no error if there is none.
func (t *Tx) RemoveSession(ctx context.Context, digest string) error {
	return t.put(ctx, "remove session", `DELETE FROM sessions WHERE digest = ?`, digest)
}

// NoteUse writes when a token and a session were last used; an empty word is none.
// Like the renewal of a lease it stands in nobody's way, and a session that was
// ended meanwhile stays so.
func (s *Store) NoteUse(ctx context.Context, tokenID, session string, at time.Time) error {
	return s.commit(ctx, sql.LevelReadCommitted, false, func(t *Tx) error {
		if tokenID != "" {
			if err := t.put(ctx, "note the use of a token", `UPDATE api_tokens SET used = ? WHERE id = ? AND used < ?`, micros(at), tokenID, micros(at)); err != nil {
				return err
			}
		}
		if session == "" {
			return nil
		}
		return t.put(ctx, "note the use of a session", `UPDATE sessions SET seen = ? WHERE digest = ? AND seen < ?`, micros(at), session, micros(at))
	})
}
