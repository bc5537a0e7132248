package door_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
)

// pins are what the agent of a state folder knows the controllers by.
func (b *bed) pins(state string) []string {
	b.Helper()
	i, err := agent.LoadIdentity(state)
	if err != nil {
		b.Fatal(err)
	}
	return i.Pins
}

// renewed runs an agent until it has renewed its certificate, and ends it.
func (b *bed) renewed(p *post, node, state string) {
	b.Helper()
	b.pass(13 * time.Hour)
	from := b.now()
	_, stop := b.run(state, said("x"))
	b.until(p, node+" renews its certificate", func(tx *store.Tx) (bool, error) {
		a, err := tx.Agent(b.Context(), "f", node)
		i, bad := agent.LoadIdentity(state)
		return bad == nil && a.Until.After(from.Add(23*time.Hour)) && !i.Until.Before(a.Until), err
	})
	stop()
}

func (b *bed) ca(p *post) controller.AgentsCA {
	b.Helper()
	is, err := p.AgentsCA(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return is
}

// asked is what an agent answers that is run for one call.
func (b *bed) asked(p *post, node, state, word string) {
	b.Helper()
	_, stop := b.run(state, said(word))
	defer stop()
	b.until(p, node+" asks", func(tx *store.Tx) (bool, error) {
		a, err := tx.Agent(b.Context(), "f", node)
		return b.now().Sub(a.Seen) < time.Minute, err
	})
	if a, err := p.call(b.Context(), node, "call-"+word); err != nil || a.Error != word {
		b.Errorf("%s: %+v, %v", word, a, err)
	}
}

// told counts what was told of a kind.
func (b *bed) told(p *post, kind string) (texts []string) {
	b.Helper()
	err := p.Store.View(b.Context(), func(tx *store.Tx) error {
		all, err := tx.Events(b.Context(), "f", store.EventQuery{Kind: kind})
		for _, e := range all {
			texts = append(texts, e.Text)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return texts
}

// At four fifths of its life the CA is followed by another: agents learn of it as they
// renew, the door is known to those that did not yet, and who was silent for a month
// gets in on either side of the change.
func TestTheCAIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	one, two := b.join("web1", p), b.join("web2", p)
	first := b.ca(p)
	if first.Next != "" || len(b.told(p, "agents.rollover")) != 0 {
		t.Fatalf("%+v", first)
	}
	b.pass(8 * 365 * 24 * time.Hour)
	b.renewed(p, "web1", one)
	b.renewed(p, "web1", one) // it may have come a moment before the CA was made
	is := b.ca(p)
	if is.Pin != first.Pin || is.Next == "" || strings.Join(is.Unaware, " ") != "f/web2" || is.Agents != 2 {
		t.Fatalf("%+v", is)
	}
	if got := b.pins(one); strings.Join(got, " ") != first.Pin+" "+is.Next {
		t.Errorf("web1 knows %v", got)
	}
	if k := b.token(p, controller.AgentTokenAsk{Node: "web1"}); len(k.Pins) != 2 {
		t.Errorf("a token knows %v", k.Pins)
	}
	b.pass(30 * 24 * time.Hour)
	if b.asked(p, "web2", two, "late"); strings.Join(b.pins(two), " ") != first.Pin+" "+is.Next {
		t.Errorf("web2 was silent for a month and knows %v", b.pins(two))
	}
	b.pass(2 * time.Hour)
	b.asked(p, "web2", two, "switches")
	if now := b.ca(p); now.Pin != is.Next || now.Next != "" {
		t.Fatalf("all know, and it is %+v", now)
	}
	b.pass(30 * 24 * time.Hour)
	b.asked(p, "web1", one, "after") // its certificate is of the CA before
	b.renewed(p, "web2", two)
	if got := b.pins(two); len(got) != 1 || got[0] != is.Next {
		t.Errorf("web2 knows %v", got)
	}
	b.join("web1", p)
	if began, done := b.told(p, "agents.rollover"), b.told(p, "agents.rolled"); len(began) != 1 || len(done) != 1 {
		t.Errorf("told: %q, %q", began, done)
	}
}

// A person may not wait: agents that were not told must join anew, and are named.
func TestAPersonHasTheCAFollowed(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	if _, err := p.RollOverAgentsCA(t.Context(), "alice", false); err != nil {
		t.Fatal(err) // the door has made one
	}
	b.pass(2 * time.Hour)
	one, two := b.join("web1", p), b.join("web2", p)
	before := b.ca(p)
	is, err := p.RollOverAgentsCA(t.Context(), "alice", false)
	if err != nil || is.Pin != before.Pin || len(is.Unaware) != 2 || !is.By.After(b.now().Add(89*24*time.Hour)) {
		t.Fatalf("%+v, %v", is, err)
	}
	if _, err := p.RollOverAgentsCA(t.Context(), "alice", false); err == nil || !strings.Contains(err.Error(), "2 of 2") {
		t.Errorf("twice: %v", err)
	}
	b.renewed(p, "web1", one)
	if is, err = p.RollOverAgentsCA(t.Context(), "alice", true); err != nil || is.Next != "" {
		t.Fatalf("%+v, %v", is, err)
	}
	b.asked(p, "web1", one, "knows")
	if turned := b.turned(two, p); !strings.Contains(turned, "its CA is another") {
		t.Errorf("web2: %s", turned)
	}
	if done := b.told(p, "agents.rolled"); len(done) != 1 || !strings.Contains(done[0], "1 of 2 agents were not heard of meanwhile and must join anew: f/web2") {
		t.Errorf("told: %q", done)
	}
	b.asked(p, "web2", b.join("web2", p), "anew")
}

// Several controllers have it followed once, and what one made of it is known at all
// doors.
func TestSeveralControllersFollowTheCAOnce(t *testing.T) {
	t.Parallel()
	b := onPostgres(t)
	p, q := b.post(door.Config{}), b.post(door.Config{})
	b.save(p)
	state := b.join("web1", p, q)
	b.pass(8 * 365 * 24 * time.Hour)
	var both sync.WaitGroup
	for _, at := range []*post{p, q} {
		both.Go(func() {
			if _, err := at.AgentsPins(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	b.renewed(q, "web1", state)
	is := b.ca(q)
	if is.Next == "" || len(is.Unaware) != 0 || len(b.told(p, "agents.rollover")) != 1 {
		t.Fatalf("%+v, %q", is, b.told(p, "agents.rollover"))
	}
	b.pass(time.Hour)
	b.asked(p, "web1", state, "switched")
	if got := b.ca(p); got.Pin != is.Next || len(b.told(q, "agents.rolled")) != 1 {
		t.Errorf("%+v, %q", got, b.told(q, "agents.rolled"))
	}
	for _, at := range []*post{p, q} {
		if pins, err := at.AgentsPins(t.Context()); err != nil || len(pins) != 1 || pins[0] != is.Next {
			t.Errorf("a controller has %v, %v", pins, err)
		}
	}
}
