// Package audit writes down who did what through a door, in lines of JSON that are
// chained by hashes.
//
//	line 1 ── hash 1 ─┐
//	line 2 ───────────┴─ hash 2 ─┐          hash n = SHA-256(hash n-1, line n)
//	line 3 ──────────────────────┴─ hash 3 ── sent away
//
// Its invariants: what changes who may do what, what is deployed or who holds a key is
// written before it is done, or it is not done; a line is never changed and never taken
// away; no line holds a secret. A chain that its own writer could rebuild proves
// nothing: a Sender carries each line and hash to where the controller cannot change
// them, and Verify compares.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/store"
)

// An Entry is one line: somebody did something, or is about to.
type Entry struct {
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"` // UTC
	Actor   string    `json:"actor"`
	Via     string    `json:"via"`            // how they are known: socket, token, token-file, oidc
	Role    string    `json:"role,omitempty"` // of the grants that they have, joined by commas
	From    string    `json:"from,omitempty"` // address
	Request string    `json:"request"`        // the same in the line before it is done and in the one after, and in the log
	Action  string    `json:"action"`         // the route
	Farm    string    `json:"farm,omitempty"`
	Object  string    `json:"object,omitempty"` // what of the farm: "site shop"
	Before  string    `json:"before,omitempty"` // SHA-256 of what was there; of farm.yaml
	After   string    `json:"after,omitempty"`  // of a key that is handed out: the fingerprint of its certificate
	Result  string    `json:"result"`           // begun, done, refused or failed
	Status  int       `json:"status,omitempty"` // of the answer (RFC 9110)
}

// The results.
const (
	Begun   = "begun"
	Done    = "done"
	Refused = "refused" // they may not, or it makes no sense
	Failed  = "failed"
)

// link is the hash of a line that follows one with the given hash.
func link(before, line string) string {
	sum := sha256.Sum256([]byte(before + "\n" + line))
	return hex.EncodeToString(sum[:])
}

// A Book is the audit of a store.
type Book struct{ Store *store.Store }

// Write writes an entry; its number and time are filled in.
func (b Book) Write(ctx context.Context, e Entry) error {
	return b.Store.Update(ctx, func(tx *store.Tx) error {
		last, err := tx.LastAudit(ctx)
		if err != nil {
			return err
		}
		e.Seq, e.At = last.Seq+1, tx.Now()
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return tx.AddAudit(ctx, store.AuditLine{Seq: e.Seq, Line: string(line), Hash: link(last.Hash, string(line))})
	})
}

// A Line is an entry with its hash, as it is listed and sent away.
type Line struct {
	Entry json.RawMessage `json:"entry"` // as it was hashed
	Hash  string          `json:"hash"`
}

// Lines returns up to limit lines (0: all) after a number.
func (b Book) Lines(ctx context.Context, after int64, limit int) (all []Line, err error) {
	err = b.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.AuditLines(ctx, after, limit)
		for _, r := range rows {
			all = append(all, Line{json.RawMessage(r.Line), r.Hash})
		}
		return err
	})
	return all, err
}

// A Break is a line that is not as it was written, or is not there.
type Break struct {
	Seq int64
	Why string
}

// Error says where the chain breaks, and how.
func (b *Break) Error() string {
	return fmt.Sprintf("the audit is broken at line %d: %s", b.Seq, b.Why)
}

// A Proof is what Verify found.
type Proof struct {
	Lines int64  `json:"lines"`
	Head  string `json:"head,omitempty"` // hash of the last
}

// Head is a hash that was kept elsewhere: the line with that number must have it.
type Head struct {
	Seq  int64
	Hash string
}

// verifyAtOnce is how many lines are read at a time.
const verifyAtOnce = 1000

// Verify reads the whole audit, from the first line, and compares it with heads that
// were kept elsewhere. The error is a *Break where something was changed, left out, or
// cut off.
func (b Book) Verify(ctx context.Context, heads []Head) (p Proof, err error) {
	kept := map[int64]string{}
	for _, h := range heads {
		kept[h.Seq] = h.Hash
	}
	for {
		var rows []store.AuditLine
		err := b.Store.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = tx.AuditLines(ctx, p.Lines, verifyAtOnce)
			return err
		})
		if err != nil {
			return p, err
		}
		for _, r := range rows {
			if err := p.take(r, kept); err != nil {
				return p, err
			}
		}
		if len(rows) < verifyAtOnce {
			break
		}
	}
	for seq := range kept {
		if seq > p.Lines {
			return p, &Break{p.Lines + 1, fmt.Sprintf("line %d was there once", seq)}
		}
	}
	return p, nil
}

// take checks the next line.
func (p *Proof) take(r store.AuditLine, kept map[int64]string) error {
	if r.Seq != p.Lines+1 {
		return &Break{p.Lines + 1, "it is not there"}
	}
	var e Entry
	if err := json.Unmarshal([]byte(r.Line), &e); err != nil || e.Seq != r.Seq {
		return &Break{r.Seq, "it is not a line of this audit"}
	}
	if r.Hash != link(p.Head, r.Line) {
		return &Break{r.Seq, "its hash is not that of what stands there"}
	}
	if want, ok := kept[r.Seq]; ok && want != r.Hash {
		return &Break{r.Seq, "it had another hash when it was sent away: the chain was rebuilt"}
	}
	p.Lines, p.Head = r.Seq, r.Hash
	return nil
}

// ErrUnwritten is what an act ends with that must be written down first, and could not
// be.
var ErrUnwritten = errors.New("the audit cannot be written, so this is not done")
