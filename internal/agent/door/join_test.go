package door_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// An agent joins with a token, once, as the node that the token is for, at the
// controllers that made it; and then it is asked and answers.
func TestAnAgentJoinsAndAnswers(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	k := b.token(p, controller.AgentTokenAsk{Node: "web1"})
	refused := func(what, why string, s agent.JoinSetup) {
		t.Helper()
		if _, err := agent.JoinFarm(t.Context(), s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", what, err, why)
		}
	}
	other := b.setup(k, p)
	other.Node = "web2"
	refused("another node's name", "for another node", other)
	strange := b.setup(k, p)
	strange.Token.Pins = []string{strings.Repeat("ab", 32)}
	refused("another CA", "its CA is another", strange)
	guess := b.setup(k, p)
	guess.Token.Secret = agent.NewTokenSecret()
	refused("a made-up token", "no such token", guess)

	s := b.setup(k, p)
	i, err := agent.JoinFarm(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if life := i.Until.Sub(b.now()); i.Farm != "f" || i.Node != "web1" || life > 24*time.Hour || life < 23*time.Hour {
		t.Errorf("joined as %s of %s, for %s", i.Node, i.Farm, life)
	}
	refused("the token again", "was used", b.setup(k, p))

	b.pass(2 * time.Minute)
	if _, err := p.call(t.Context(), "web1", "early"); err == nil || !strings.Contains(err.Error(), "not asked yet") {
		t.Errorf("an agent that does not run was asked: %v", err)
	}
	b.run(s.State, said("hello"))
	b.up(p, "web1")
	for _, id := range []string{"one", "two", "three"} {
		if a, err := p.call(t.Context(), "web1", id); err != nil || a.ID != id || a.Error != "hello" {
			t.Errorf("%s: %+v, %v", id, a, err)
		}
	}
	if _, err := p.call(t.Context(), "web2", "x"); err == nil || !strings.Contains(err.Error(), "no agent has joined") {
		t.Errorf("a node without an agent was asked: %v", err)
	}
}

// A token ends, and is made for what farm.yaml has only.
func TestTokensEnd(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	k := b.token(p, controller.AgentTokenAsk{Node: "web1", Valid: 10 * time.Minute})
	b.pass(11 * time.Minute)
	if _, err := agent.JoinFarm(t.Context(), b.setup(k, p)); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a token that ended: %v", err)
	}
	digest := agent.Token{Secret: agent.NewTokenSecret()}.Digest()
	for why, ask := range map[string]controller.AgentTokenAsk{
		"has no agent":     {Node: "web3"},
		"an hour at most":  {Node: "web1", Valid: 2 * time.Hour},
		"for one node, or": {},
		"used once":        {Node: "web1", Uses: 2},
		"has these labels": {Labels: map[string]string{"pool": "db"}, Uses: 2},
		"no node":          {Labels: map[string]string{"pool": "web", "zone": "x"}, Uses: 2},
	} {
		ask.Digest = digest
		if _, err := p.NewAgentToken(t.Context(), "f", ask, "alice"); err == nil || !strings.Contains(err.Error(), why) && why != "no node" && why != "has these labels" {
			t.Errorf("%+v: %v, want %q", ask, err, why)
		}
	}
}

// A group token is counted, and gives each machine a node of its own: the one whose
// name it has, or one that is free.
func TestAGroupTokenIsCounted(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	k := b.token(p, controller.AgentTokenAsk{Labels: map[string]string{"pool": "web"}, Uses: 3})
	named := b.setup(k, p)
	named.Node = "web2"
	for want, s := range map[string]agent.JoinSetup{"web2": named} {
		if i, err := agent.JoinFarm(t.Context(), s); err != nil || i.Node != want {
			t.Fatalf("%v, %v, want %s", i, err, want)
		}
	}
	if i, err := agent.JoinFarm(t.Context(), b.setup(k, p)); err != nil || i.Node != "web1" {
		t.Fatalf("%v, %v, want web1", i, err)
	}
	if _, err := agent.JoinFarm(t.Context(), b.setup(k, p)); err == nil || !strings.Contains(err.Error(), "has an agent already") {
		t.Errorf("a third machine: %v", err)
	}
	again := b.token(p, controller.AgentTokenAsk{Labels: map[string]string{"pool": "web"}, Uses: 1})
	b.pass(59 * time.Minute)
	if _, err := agent.JoinFarm(t.Context(), b.setup(again, p)); err == nil {
		t.Error("a name was given away within the hour")
	}
	once := b.token(p, controller.AgentTokenAsk{Labels: map[string]string{"pool": "web"}, Uses: 1})
	b.pass(2 * time.Minute)
	if i, err := agent.JoinFarm(t.Context(), b.setup(once, p)); err != nil || i.Node != "web1" && i.Node != "web2" {
		t.Fatalf("after an hour of silence: %v, %v", i, err)
	}
	if _, err := agent.JoinFarm(t.Context(), b.setup(once, p)); err == nil || !strings.Contains(err.Error(), "was used") {
		t.Errorf("a token for one was used twice: %v", err)
	}
}

// A certificate is renewed at half its life, and after 30 days of silence, too; not if
// the node is banned.
func TestACertificateIsRenewed(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	state := b.join("web1", p)
	until := func() (at time.Time) {
		i, err := agent.LoadIdentity(state)
		if err != nil {
			t.Fatal(err)
		}
		return i.Until
	}
	first := until()
	b.pass(13 * time.Hour)
	_, stop := b.run(state, said("x"))
	renewed := func(after time.Time) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) {
			a, err := tx.Agent(t.Context(), "f", "web1")
			return a.Until.After(after) && b.now().Sub(a.Seen) < time.Minute && until().After(after), err
		}
	}
	b.until(p, "renewed at half its life", renewed(first))
	stop()
	b.pass(30 * 24 * time.Hour)
	long := until()
	_, stop = b.run(state, said("x"))
	b.until(p, "renewed after 30 days", renewed(long))
	if a, err := p.call(t.Context(), "web1", "back"); err != nil || a.Error != "x" {
		t.Errorf("after 30 days: %+v, %v", a, err)
	}
	stop()

	b.pass(30 * 24 * time.Hour)
	if err := p.BanAgent(t.Context(), "f", "web1", "alice", true); err != nil {
		t.Fatal(err)
	}
	banned := until()
	turned := b.turned(state, p)
	if !strings.Contains(turned, "banned by alice") || until().After(banned) {
		t.Errorf("a banned agent: %q, until %s", turned, until())
	}
	k := agent.Token{Secret: agent.NewTokenSecret()}
	tok, err := p.NewAgentToken(t.Context(), "f", controller.AgentTokenAsk{Digest: k.Digest(), Node: "web1"}, "bob")
	if err != nil {
		t.Fatal(err)
	}
	k.Pins = tok.Pins
	if _, err := agent.JoinFarm(t.Context(), b.setup(k, p)); err == nil || !strings.Contains(err.Error(), "banned by alice") {
		t.Errorf("a banned node joined: %v", err)
	}
	if err := p.BanAgent(t.Context(), "f", "web1", "alice", false); err != nil {
		t.Fatal(err)
	}
	b.run(state, said("again"))
	b.until(p, "renewed after the ban", renewed(banned))
	if a, err := p.call(t.Context(), "web1", "free"); err != nil || a.Error != "again" {
		t.Errorf("after the ban: %+v, %v", a, err)
	}
}

// turned runs an agent until it is turned away, and says why.
func (b *bed) turned(state string, _ *post) string {
	b.Helper()
	said := make(chan string, 100)
	was := b.log
	b.log = logTo(said)
	defer func() { b.log = was }()
	_, stop := b.run(state, answers(nil))
	defer stop()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for {
		select {
		case text := <-said:
			if strings.Contains(text, "ask for work") {
				return text
			}
		case <-ctx.Done():
			b.Fatal("it was not turned away")
		}
	}
}

// Two machines with one key are found out: both are turned away until one joins anew.
func TestACopiedKeyIsFoundOut(t *testing.T) {
	t.Parallel()
	b := makeBed(t, func(o store.Options) *store.Store { return storetest.SQLite(t, o) })
	p := b.post(door.Config{Poll: 200 * time.Millisecond})
	b.save(p)
	state := b.join("web1", p)
	_, stop := b.run(state, said("first"))
	b.up(p, "web1")
	b.run(state, said("copy"))
	ticking, end := context.WithCancel(t.Context())
	defer end()
	go func() { // time goes on
		for ticking.Err() == nil {
			b.pass(time.Second)
			time.Sleep(20 * time.Millisecond) // what is measured is what the agents do meanwhile
		}
	}()
	began := b.now()
	b.until(p, "quarantined", func(tx *store.Tx) (bool, error) {
		a, err := tx.Agent(t.Context(), "f", "web1")
		return a.Quarantined != "", err
	})
	if took := b.now().Sub(began); took > time.Minute {
		t.Errorf("found out after %s", took)
	}
	if _, err := p.call(t.Context(), "web1", "x"); err == nil || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("one in quarantine was asked: %v", err)
	}
	b.until(p, "an alarm", func(tx *store.Tx) (bool, error) {
		all, err := tx.Events(t.Context(), "f", store.EventQuery{Limit: 100})
		for _, e := range all {
			if e.Kind == "agent.quarantined" && e.Level == "alarm" {
				return true, err
			}
		}
		return false, err
	})
	end()
	stop()
	fresh := b.join("web1", p)
	b.run(fresh, said("anew"))
	b.up(p, "web1")
	if a, err := p.call(t.Context(), "web1", "y"); err != nil || a.Error != "anew" {
		t.Errorf("joined anew: %+v, %v", a, err)
	}
}
