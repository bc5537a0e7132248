package store_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

func TestTokensAndSessions(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		k := store.APIToken{
			ID: "tk_1", Name: "ci", Grants: []store.Grant{{Role: "viewer", Farm: "f", Tags: []string{"a"}}}, By: "ann",
			Created: c.now(), Expires: c.now().Add(time.Hour), Digest: "d1",
		}
		n := store.Session{Digest: "s1", Via: "token", Key: "tk_1", Name: "ci", Groups: []string{"g"}, Begun: c.now(), Login: c.now(), Seen: c.now(), Expires: c.now().Add(time.Hour)}
		update(t, s, func(tx *store.Tx) error { return errors.Join(tx.AddAPIToken(ctx, k), tx.AddSession(ctx, n)) })
		if err := s.Update(ctx, func(tx *store.Tx) error {
			return tx.AddAPIToken(ctx, store.APIToken{ID: "tk_2", Name: "ci", Digest: "d2"})
		}); err == nil {
			t.Error("two tokens have one name")
		}
		used := c.now().Add(time.Minute)
		if err := s.NoteUse(ctx, "tk_1", "s1", used); err != nil {
			t.Fatal(err)
		}
		if err := s.NoteUse(ctx, "gone", "gone", used); err != nil {
			t.Fatal(err)
		}
		k.Used, n.Seen = used, used
		view(t, s, func(tx *store.Tx) error {
			byDigest, err := tx.APIToken(ctx, "d1")
			same(t, "by digest", byDigest, k)
			byID, err2 := tx.APITokenByID(ctx, "tk_1")
			same(t, "by id", byID, k)
			byName, err3 := tx.APITokenNamed(ctx, "ci")
			same(t, "by name", byName, k)
			session, err4 := tx.Session(ctx, "s1")
			same(t, "session", session, n)
			all, err5 := tx.Sessions(ctx)
			same(t, "sessions", all, []store.Session{n})
			return errors.Join(err, err2, err3, err4, err5)
		})

		var backup bytes.Buffer
		if err := s.Backup(ctx, &backup); err != nil {
			t.Fatal(err)
		}
		if text := backup.String(); !bytes.Contains([]byte(text), []byte("tk_1")) || bytes.Contains([]byte(text), []byte(`"s1"`)) {
			t.Error("a backup has tokens and no sessions")
		}

		c.pass(2 * time.Hour)
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.RemoveAPIToken(ctx, "tk_1"), tx.AddSession(ctx, store.Session{Digest: "s2", Expires: c.now().Add(time.Hour)}), tx.RemoveSession(ctx, "gone"))
		})
		view(t, s, func(tx *store.Tx) error {
			if _, err := tx.APIToken(ctx, "d1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("removed: %v", err)
			}
			if _, err := tx.Session(ctx, "s1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("expired: %v", err)
			}
			_, err := tx.Session(ctx, "s2")
			return err
		})
	})
}

func TestWhatSaysWhoMaySee(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		f := small("a", "b")
		f.Sites[0].Tags = []string{"x", "y"}
		update(t, s, func(tx *store.Tx) error {
			_, err := tx.SaveFarm(ctx, f, nil, "ann", 0)
			return errors.Join(err, tx.PutRollout(ctx, farm.Rollout{ID: "ro_1", Farm: "f", Site: "b"}))
		})
		view(t, s, func(tx *store.Tx) error {
			revision, err := tx.RevisionNumber(ctx, "f")
			none, err2 := tx.RevisionNumber(ctx, "none")
			if revision != 1 || none != 0 {
				t.Errorf("revisions %d, %d", revision, none)
			}
			all, err3 := tx.Tagged(ctx, "f")
			same(t, "tagged", all, []store.Tagged{{Name: "a", Tags: []string{"x", "y"}, Nodes: []string{"n1"}}, {Name: "b", Nodes: []string{"n1"}}})
			ofTarget, err4 := tx.SiteOfTarget(ctx, "f", "a-n1")
			ofRollout, err5 := tx.SiteOfRollout(ctx, "f", "ro_1")
			if ofTarget != "a" || ofRollout != "b" {
				t.Errorf("target of %q, rollout of %q", ofTarget, ofRollout)
			}
			_, gone := tx.SiteOfTarget(ctx, "f", "x")
			_, goneToo := tx.SiteOfRollout(ctx, "other", "ro_1")
			if !errors.Is(gone, store.ErrNotFound) || !errors.Is(goneToo, store.ErrNotFound) {
				t.Errorf("%v, %v", gone, goneToo)
			}
			return errors.Join(err, err2, err3, err4, err5)
		})
	})
}
