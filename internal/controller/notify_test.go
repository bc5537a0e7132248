package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A listener keeps what it is told.
type listener struct{ texts []string }

// Notify is notify.Notifier's.
func (l *listener) Notify(_ context.Context, events []farm.Event) error {
	for _, e := range events {
		l.texts = append(l.texts, e.Text)
	}
	return nil
}

// With several controllers an event can be seen after one that was made later: both
// are told, each once. The journal is read on, and what is known of it stays short.
// One controller reads nothing twice.
func TestAnEventThatIsSeenLateIsTold(t *testing.T) {
	for _, database := range storetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			seenLate(t, database)
		})
	}
}

func seenLate(t *testing.T, database string) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s := storetest.Open(t, database, store.Options{Now: func() time.Time { return now }})
	heard := &listener{}
	c := New(Config{Store: s, Notifier: heard, Now: func() time.Time { return now }})
	update := func(f func(tx *store.Tx) error) {
		t.Helper()
		if err := s.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	notify := func() (word string, again bool) {
		t.Helper()
		r := c.workNotify(t.Context(), farm.Job{Farm: "shop"})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		update(func(tx *store.Tx) error {
			if err := c.applyNotify(t.Context(), tx, farm.Finished{Job: farm.Job{Farm: "shop"}, Result: r}); err != nil {
				return err
			}
			var err error
			word, err = tx.Word(t.Context(), "shop", notified)
			return err
		})
		return word, !r.Again.IsZero()
	}
	add := func(id, text string) {
		t.Helper()
		update(func(tx *store.Tx) error {
			return tx.AddEvent(t.Context(), farm.Event{ID: id, Farm: "shop", At: now, Text: text})
		})
	}

	update(func(tx *store.Tx) error { return tx.SetWord(t.Context(), "shop", notified, "ev_1") }) // as an earlier release wrote it
	add("ev_1", "told by an earlier release")
	add("ev_3", "made second, seen first")
	notify()
	add("ev_2", "made first, seen second")
	notify()
	notify()
	want, last := []string{"made second, seen first", "made first, seen second"}, 2
	if !s.Shared() {
		want, last = want[:1], 1
	}
	if !slices.Equal(heard.texts, want) {
		t.Fatalf("told were %q, not %q", heard.texts, want)
	}

	now = now.Add(notifyAgain + time.Second)
	for i := range 3 * notifyAtOnce {
		add(fmt.Sprintf("ev_4%06d", i), "one of many")
	}
	rounds := 1
	for word, again := notify(); again; word, again = notify() {
		if first := strings.Fields(word)[0]; first != "ev_3" && s.Shared() {
			t.Fatalf("what is older than a while is not known any more but for the last, yet %s is", first)
		}
		rounds++
	}
	if told := len(heard.texts) - len(want); told != 3*notifyAtOnce || rounds < 3 {
		t.Errorf("%d of %d were told, in %d rounds", told, 3*notifyAtOnce, rounds)
	}
	now = now.Add(notifyAgain + time.Second)
	add("ev_5", "last")
	if word, _ := notify(); len(strings.Fields(word)) != last {
		t.Errorf("kept of the journal: %s", word)
	}
}
