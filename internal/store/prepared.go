package store

import (
	"context"
	"database/sql"
	"strings"
	"sync"
)

// maxPrepared bounds the statements that are kept ready, and maxParameters which
// of them: a list of rows has as many texts as lengths, and is parsed each time,
// unless it was cut into lists of few lengths; see inParts.
const (
	maxPrepared   = 256
	maxParameters = 20
)

// prepared keeps SQLite's statements ready. To parse one anew each time, as the
// driver does by itself, costs more than to run it. The writer's one connection is
// held by its transaction, so a statement is prepared after the first transaction
// that used it. PostgreSQL's driver has a cache of its own.
type prepared struct {
	db *sql.DB

	mu     sync.Mutex
	ready  map[string]*sql.Stmt // nil: not yet, or it cannot be
	wanted []string
}

func newPrepared(db *sql.DB) *prepared { return &prepared{db: db, ready: map[string]*sql.Stmt{}} }

// find returns the statement of a text; nil: it is not ready, and may be later. Kept
// ones are kept ready however many parameters they have.
func (p *prepared) find(query string, kept bool) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, known := p.ready[query]
	if !known && len(p.ready) < maxPrepared && (kept || strings.Count(query, "?") <= maxParameters) {
		p.ready[query] = nil
		p.wanted = append(p.wanted, query)
	}
	return s
}

// prepare makes ready what was asked for. It is called between transactions. What
// cannot be prepared goes on to be parsed each time; closing the database closes
// the others.
func (p *prepared) prepare(ctx context.Context) {
	p.mu.Lock()
	wanted := p.wanted
	p.wanted = nil
	p.mu.Unlock()
	for _, query := range wanted {
		s, err := p.db.PrepareContext(context.WithoutCancel(ctx), query)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.ready[query] = s
		p.mu.Unlock()
	}
}

// stmt returns the statement of a text for this transaction; nil: it is not ready.
func (t *Tx) stmt(ctx context.Context, query string, kept bool) *sql.Stmt {
	if t.s.postgres {
		return nil
	}
	s := t.prepared.find(query, kept)
	if s == nil {
		return nil
	}
	return t.tx.StmtContext(ctx, s)
}
