package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A NoticeRow is something that people are told of. What is in it is package notify's.
type NoticeRow struct {
	ID  string
	Doc json.RawMessage
}

// Notices are the notices of a farm that are not done with, by id.
func (t *Tx) Notices(ctx context.Context, farmName string) ([]NoticeRow, error) {
	var all []NoticeRow
	err := t.each(ctx, func(scan func(...any) error) error {
		var r NoticeRow
		var doc string
		err := scan(&r.ID, &doc)
		r.Doc = json.RawMessage(doc)
		all = append(all, r)
		return err
	}, `SELECT id, doc FROM notices WHERE farm = ? ORDER BY id`, farmName)
	if err != nil {
		return nil, fmt.Errorf("list notices: %w", err)
	}
	return all, nil
}

// PutNotice keeps a notice.
func (t *Tx) PutNotice(ctx context.Context, farmName string, r NoticeRow) error {
	return t.put(ctx, "save notice "+r.ID, `INSERT INTO notices (farm, id, doc) VALUES (?, ?, ?)
		ON CONFLICT (farm, id) DO UPDATE SET doc = excluded.doc`, farmName, r.ID, string(r.Doc))
}

// RemoveNotice forgets a notice.
func (t *Tx) RemoveNotice(ctx context.Context, farmName, id string) error {
	return t.put(ctx, "remove notice "+id, `DELETE FROM notices WHERE farm = ? AND id = ?`, farmName, id)
}

// A MessageRow is a message on its way to a receiver. What is in it is package notify's.
type MessageRow struct {
	Receiver, ID, Notice string
	Made                 time.Time
	Tries                int // one that was tried may have arrived
	Doc                  json.RawMessage
}

// Messages are those on their way to a receiver, the oldest first, at most limit (0: all).
func (t *Tx) Messages(ctx context.Context, farmName, receiver string, limit int) ([]MessageRow, error) {
	var all []MessageRow
	err := t.each(ctx, func(scan func(...any) error) error {
		var r MessageRow
		var made int64
		var doc string
		err := scan(&r.Receiver, &r.ID, &r.Notice, &made, &r.Tries, &doc)
		r.Made, r.Doc = instant(made), json.RawMessage(doc)
		all = append(all, r)
		return err
	}, `SELECT receiver, id, notice, made, tries, doc FROM messages WHERE farm = ? AND receiver = ? ORDER BY made, id LIMIT ?`, farmName, receiver, limited(limit))
	if err != nil {
		return nil, fmt.Errorf("list messages to %s: %w", receiver, err)
	}
	return all, nil
}

// PutMessage sends a message on its way, or keeps how often it was tried.
func (t *Tx) PutMessage(ctx context.Context, farmName string, r MessageRow) error {
	return t.put(ctx, "save message "+r.ID, `INSERT INTO messages (farm, receiver, id, notice, made, tries, doc) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (farm, receiver, id) DO UPDATE SET tries = excluded.tries`, farmName, r.Receiver, r.ID, r.Notice, micros(r.Made), r.Tries, string(r.Doc))
}

// RemoveMessage takes a message off its way: it arrived, or is of no use any more.
func (t *Tx) RemoveMessage(ctx context.Context, farmName, receiver, id string) error {
	return t.put(ctx, "remove message "+id, `DELETE FROM messages WHERE farm = ? AND receiver = ? AND id = ?`, farmName, receiver, id)
}

// OnTheWay counts the messages on their way, by receiver.
func (t *Tx) OnTheWay(ctx context.Context, farmName string) (map[string]int, error) {
	all := map[string]int{}
	err := t.each(ctx, func(scan func(...any) error) error {
		var receiver string
		var n int
		err := scan(&receiver, &n)
		all[receiver] = n
		return err
	}, `SELECT receiver, COUNT(*) FROM messages WHERE farm = ? GROUP BY receiver`, farmName)
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	return all, nil
}

// Hearing is how a receiver was reached lately; nothing is known of one that never was.
func (t *Tx) Hearing(ctx context.Context, farmName, receiver string) (farm.Hearing, error) {
	h, err := one[farm.Hearing](ctx, t, "receiver "+receiver, `SELECT doc FROM hearing WHERE farm = ? AND receiver = ?`, farmName, receiver)
	if errors.Is(err, ErrNotFound) {
		return farm.Hearing{Receiver: receiver}, nil
	}
	return h, err
}

// PutHearing keeps how a receiver was reached.
func (t *Tx) PutHearing(ctx context.Context, farmName string, h farm.Hearing) error {
	doc, _, err := document(h)
	if err != nil {
		return err
	}
	return t.put(ctx, "save receiver "+h.Receiver, `INSERT INTO hearing (farm, receiver, doc) VALUES (?, ?, ?)
		ON CONFLICT (farm, receiver) DO UPDATE SET doc = excluded.doc`, farmName, h.Receiver, doc)
}

// RemoveHearing forgets a receiver and the messages on their way to it.
func (t *Tx) RemoveHearing(ctx context.Context, farmName, receiver string) error {
	return errors.Join(
		t.put(ctx, "forget receiver "+receiver, `DELETE FROM hearing WHERE farm = ? AND receiver = ?`, farmName, receiver),
		t.put(ctx, "forget messages to "+receiver, `DELETE FROM messages WHERE farm = ? AND receiver = ?`, farmName, receiver))
}
