package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/store"
)

// An agent is found by its node and by its key; a node has one, and a key is of one.
func TestAgentsAreKnownByTheirKey(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		a := store.Agent{Farm: "f", Node: "n1", Pin: "aa", Joined: c.now(), Before: []string{"x"}}
		update(t, s, func(tx *store.Tx) error { return tx.PutAgent(ctx, a) })
		next := store.Agent{Farm: "f", Node: "n1", Pin: "bb", Joined: c.now()}
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.AgentByPin(ctx, "aa")
			same(t, "by its key", got, a)
			return err
		})
		update(t, s, func(tx *store.Tx) error { return tx.PutAgent(ctx, next) })
		view(t, s, func(tx *store.Tx) error {
			if _, err := tx.AgentByPin(ctx, "aa"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a key that was replaced: %v", err)
			}
			got, err := tx.Agent(ctx, "f", "n1")
			same(t, "the next", got, next)
			all, err2 := tx.Agents(ctx, "f")
			same(t, "all", all, []store.Agent{next})
			return errors.Join(err, err2)
		})
		if err := s.Update(ctx, func(tx *store.Tx) error { return tx.PutAgent(ctx, store.Agent{Farm: "f", Node: "n2", Pin: "bb"}) }); err == nil {
			t.Error("two nodes have one key")
		}
	})
}

// A token counts down, and is forgotten when it is over.
func TestJoinTokensEnd(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		k := store.JoinToken{Digest: "d1", Farm: "f", Node: "n1", Uses: 2, Until: c.now().Add(time.Minute)}
		update(t, s, func(tx *store.Tx) error { return tx.PutJoinToken(ctx, k) })
		k.Uses = 1
		update(t, s, func(tx *store.Tx) error { return tx.PutJoinToken(ctx, k) })
		find := func(digest string) (k store.JoinToken, err error) {
			err = s.View(ctx, func(tx *store.Tx) error { k, err = tx.JoinToken(ctx, digest); return err })
			return k, err
		}
		got, err := find("d1")
		same(t, "token", got, k)
		if err != nil {
			t.Error(err)
		}
		c.pass(2 * time.Minute)
		other := store.JoinToken{Digest: "d2", Farm: "f", Node: "n2", Uses: 1, Until: c.now().Add(time.Minute)}
		update(t, s, func(tx *store.Tx) error { return tx.PutJoinToken(ctx, other) })
		if _, err := find("d1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("one that is over: %v", err)
		}
		update(t, s, func(tx *store.Tx) error { return tx.RemoveJoinTokens(ctx, "f", "n2") })
		if _, err := find("d2"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("one of a banned node: %v", err)
		}
	})
}

// A call is fetched until it is answered, answered by its own node, once, and gone when
// nobody waits.
func TestCallsAreAnsweredOnce(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		call := func(id, node string) store.CallRow {
			return store.CallRow{CallID: store.CallID{Farm: "f", Node: node, ID: id}, Owner: "me", Until: c.now().Add(time.Minute), Sealed: []byte(id)}
		}
		if err := s.PutCalls(ctx, []store.CallRow{call("z", "n1"), call("b", "n2")}); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Second)
		if err := s.PutCalls(ctx, []store.CallRow{call("a", "n1")}); err != nil {
			t.Fatal(err)
		}
		open := func() (ids []string) {
			view(t, s, func(tx *store.Tx) error {
				all, err := tx.OpenCalls(ctx)
				for _, o := range all {
					ids = append(ids, o.ID)
				}
				return err
			})
			return ids
		}
		if ids := open(); len(ids) != 3 || ids[2] != "a" {
			t.Errorf("open: %v", ids)
		}
		answer := func(id, node string) store.CallRow {
			return store.CallRow{CallID: store.CallID{Farm: "f", Node: node, ID: id}, Sealed: []byte("answer " + id)}
		}
		taken, err := s.AnswerCalls(ctx, []store.CallRow{answer("z", "n2"), answer("z", "n1"), answer("z", "n1"), answer("none", "n1")})
		if err != nil || !slices.Equal(taken, []bool{false, true, false, false}) {
			t.Errorf("taken: %v, %v", taken, err)
		}
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.AnsweredCalls(ctx, "me")
			if len(got) != 1 || got[0].ID != "z" || string(got[0].Sealed) != "answer z" {
				t.Errorf("answered: %+v", got)
			}
			still, err2 := tx.Calls(ctx, []string{"z", "a", "b"})
			if len(still) != 2 || still[1].ID != "a" || string(still[1].Sealed) != "a" {
				t.Errorf("still open: %+v", still)
			}
			return errors.Join(err, err2)
		})
		if err := s.DropCalls(ctx, []string{"z"}); err != nil {
			t.Fatal(err)
		}
		c.pass(time.Minute - time.Second)
		if ids := open(); len(ids) != 1 || ids[0] != "a" {
			t.Errorf("when the time of two is over: %v", ids)
		}
		if taken, err := s.AnswerCalls(ctx, []store.CallRow{answer("b", "n2")}); err != nil || taken[0] {
			t.Errorf("a late answer is taken: %v, %v", taken, err)
		}
	})
}
