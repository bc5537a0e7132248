package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Slot is what two orders share that a CA would take for one: issuer, names and
// profile. A CA hands out a pending order again instead of making another, so one
// order of a slot is open at a time (RFC 8555 §7.4; Boulder reuses).
func Slot(o farm.Order) string {
	names := slices.Sorted(slices.Values(o.Names))
	return o.Issuer + " " + o.External + strings.ToLower(strings.Join(names, ",")) + " " + o.Profile
}

// PutOrder keeps an order. Created is the transaction's time if it is not set.
func (t *Tx) PutOrder(ctx context.Context, o farm.Order) error {
	if o.Created.IsZero() {
		o.Created = t.now
	}
	doc, _, err := document(o)
	if err != nil {
		return err
	}
	return t.put(ctx, "save order "+o.ID, `INSERT INTO orders (farm, id, site, slot, intent, state, created, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (farm, id) DO UPDATE SET site = excluded.site, slot = excluded.slot, intent = excluded.intent,
			state = excluded.state, created = excluded.created, doc = excluded.doc`,
		o.Farm, o.ID, o.Site, Slot(o), o.Intent, string(o.State), micros(o.Created), doc)
}

// Order returns one order, or ErrNotFound.
func (t *Tx) Order(ctx context.Context, farmName, id string) (farm.Order, error) {
	return one[farm.Order](ctx, t, "order "+id, `SELECT doc FROM orders WHERE farm = ? AND id = ?`, farmName, id)
}

// OrdersOfIntent returns the orders whose leaves become one version, oldest first.
func (t *Tx) OrdersOfIntent(ctx context.Context, farmName, intent string) ([]farm.Order, error) {
	return many[farm.Order](ctx, t, "orders of "+intent,
		`SELECT doc FROM orders WHERE farm = ? AND intent = ? ORDER BY created, id`, farmName, intent)
}

// OpenOrder returns the id of the order of a slot that the CA knows and that is
// not finalized yet, or nothing.
func (t *Tx) OpenOrder(ctx context.Context, farmName, slot string) (id string, err error) {
	err = t.row(ctx, `SELECT id FROM orders WHERE farm = ? AND slot = ? AND state IN (?, ?, ?, ?) ORDER BY created, id LIMIT 1`,
		farmName, slot, string(farm.OrderPending), string(farm.OrderPresented), string(farm.OrderAccepted), string(farm.OrderReady)).Scan(&id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("look for an open order: %w", err)
	}
	return id, nil
}

// An OrderQuery says which orders are wanted; what is empty is any.
type OrderQuery struct {
	Site  string
	Slot  string
	Since time.Time // created then or later
	Limit int       // 0: all
}

// Orders returns orders, newest first.
func (t *Tx) Orders(ctx context.Context, farmName string, q OrderQuery) ([]farm.Order, error) {
	w := where{}
	w.is("farm = ?", farmName)
	w.any("site = ?", q.Site)
	w.any("slot = ?", q.Slot)
	w.is("created >= ?", micros(q.Since))
	return many[farm.Order](ctx, t, "orders",
		`SELECT doc FROM orders`+w.text()+` ORDER BY created DESC, id DESC LIMIT ?`, append(w.args, limited(q.Limit))...)
}

// PutChallenge keeps what is to be answered to a CA that asks, under its token.
func (t *Tx) PutChallenge(ctx context.Context, farmName, order string, c farm.Challenge) error {
	doc, _, err := document(c)
	if err != nil {
		return err
	}
	return t.put(ctx, "save challenge of "+c.Name, `INSERT INTO challenges (farm, order_id, token, doc) VALUES (?, ?, ?, ?)
		ON CONFLICT (farm, order_id, token) DO UPDATE SET doc = excluded.doc`, farmName, order, c.Token, doc)
}

// ChallengeByToken returns the challenge with a token, of any farm, or
// ErrNotFound. Tokens are of at least 128 bits of chance (RFC 8555 §8.3).
func (t *Tx) ChallengeByToken(ctx context.Context, token string) (farm.Challenge, error) {
	return one[farm.Challenge](ctx, t, "challenge", `SELECT doc FROM challenges WHERE token = ? ORDER BY order_id DESC LIMIT 1`, token)
}

// RemoveChallenges forgets the challenges of an order.
func (t *Tx) RemoveChallenges(ctx context.Context, farmName, order string) error {
	return t.put(ctx, "remove challenges of order "+order, `DELETE FROM challenges WHERE farm = ? AND order_id = ?`, farmName, order)
}

// where is a WHERE clause that is put together from what was asked for.
type where struct {
	parts []string
	args  []any
}

func (w *where) is(condition string, value any) {
	w.parts = append(w.parts, condition)
	w.args = append(w.args, value)
}

// any adds a condition unless the value is empty.
func (w *where) any(condition, value string) {
	if value != "" {
		w.is(condition, value)
	}
}

func (w *where) text() string { return " WHERE " + strings.Join(w.parts, " AND ") }
