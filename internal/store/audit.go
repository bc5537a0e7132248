package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"
)

// An AuditLine is a line of the audit; package audit says what stands in it.
type AuditLine struct {
	Seq  int64
	At   time.Time
	Line string // as it was hashed
	Hash string // of the line before and this one
}

// LastAudit returns the newest line of the audit; the zero one, if there is none.
func (t *Tx) LastAudit(ctx context.Context) (l AuditLine, err error) {
	var at int64
	err = t.row(ctx, `SELECT seq, at, line, hash FROM audit ORDER BY seq DESC LIMIT 1`).Scan(&l.Seq, &at, &l.Line, &l.Hash)
	if errors.Is(err, sql.ErrNoRows) {
		return AuditLine{}, nil
	}
	if err != nil {
		return l, fmt.Errorf("read the audit's head: %w", err)
	}
	l.At = instant(at)
	return l, nil
}

// AddAudit writes a line. Its number must be the next: two that write at once have one
// of them begin anew.
func (t *Tx) AddAudit(ctx context.Context, l AuditLine) error {
	return t.put(ctx, "write the audit", `INSERT INTO audit (seq, at, line, hash) VALUES (?, ?, ?, ?)`, l.Seq, micros(t.now), l.Line, l.Hash)
}

// AuditLines returns up to limit lines (0: all) after a number, in their order.
func (t *Tx) AuditLines(ctx context.Context, after int64, limit int) (all []AuditLine, err error) {
	return t.auditLines(ctx, `seq > ? ORDER BY seq LIMIT ?`, after, limited(limit))
}

// AuditBefore returns up to limit lines before a number (0: the newest), newest first.
func (t *Tx) AuditBefore(ctx context.Context, before int64, limit int) (all []AuditLine, err error) {
	if before <= 0 {
		before = math.MaxInt64
	}
	return t.auditLines(ctx, `seq < ? ORDER BY seq DESC LIMIT ?`, before, limited(limit))
}

func (t *Tx) auditLines(ctx context.Context, which string, args ...any) (all []AuditLine, err error) {
	err = t.each(ctx, func(scan func(...any) error) error {
		var l AuditLine
		var at int64
		if err := scan(&l.Seq, &at, &l.Line, &l.Hash); err != nil {
			return err
		}
		l.At = instant(at)
		all = append(all, l)
		return nil
	}, `SELECT seq, at, line, hash FROM audit WHERE `+which, args...)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	return all, nil
}
