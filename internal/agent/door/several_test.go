package door_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/agent/door"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// onPostgres is a bed for several controllers.
func onPostgres(t *testing.T) *bed {
	address := storetest.Postgres(t)
	return makeBed(t, func(o store.Options) *store.Store {
		s, err := store.Open(t.Context(), address, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() }) // the test is over
		return s
	})
}

// A job may run in one controller while the agent hangs on another; when that one dies
// in the middle of a call, the agent ends what it has begun, does it once, and brings
// the answer to the next.
func TestACallGoesByWayOfTheOther(t *testing.T) {
	t.Parallel()
	b := onPostgres(t)
	hung, asks := b.post(door.Config{}), b.post(door.Config{})
	b.save(asks)
	state := b.join("web1", hung, asks)
	var did atomic.Int32
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	b.run(state, answers(func(_ context.Context, c remote.Call) remote.Answer {
		did.Add(1)
		if c.ID == "slow" {
			began <- struct{}{}
			<-goOn
		}
		return remote.Answer{ID: c.ID, Error: "done"}
	}))
	b.up(asks, "web1")
	if a, err := asks.call(t.Context(), "web1", "quick"); err != nil || a.Error != "done" {
		t.Fatalf("%+v, %v", a, err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := asks.call(context.Background(), "web1", "slow")
		result <- err
	}()
	<-began
	hung.stop()
	close(goOn)
	if err := <-result; err != nil {
		t.Errorf("the controller died that the agent hung on: %v", err)
	}
	if n := did.Load(); n != 2 {
		t.Errorf("two calls were done %d times", n)
	}
	if a, err := asks.call(t.Context(), "web1", "after"); err != nil || a.Error != "done" {
		t.Errorf("at the other: %+v, %v", a, err)
	}
	// What another controller says of an agent counts here, too.
	if err := asks.BanAgent(t.Context(), "f", "web1", "alice", true); err != nil {
		t.Fatal(err)
	}
	if _, err := asks.call(t.Context(), "web1", "banned"); err == nil {
		t.Error("a banned agent was asked")
	}
}

// With all controllers gone an agent ends what it has begun and keeps the answer; a
// process of its own later brings it, and one for which nobody waits is thrown away.
func TestAnAnswerWaitsOnDisk(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	state := b.join("web1", p)
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	_, stop := b.run(state, answers(func(_ context.Context, c remote.Call) remote.Answer {
		began <- struct{}{}
		<-goOn
		return remote.Answer{ID: c.ID, Error: "kept"}
	}))
	b.up(p, "web1")
	result := make(chan remote.Answer, 1)
	go func() {
		a, err := p.call(context.Background(), "web1", "long")
		if err != nil {
			a.Error = err.Error()
		}
		result <- a
	}()
	<-began
	ended := make(chan struct{})
	go func() { // told to stop in the middle: it ends what it has begun first
		defer close(ended)
		stop()
	}()
	close(goOn)
	<-ended
	b.run(state, said("other"))
	if a := <-result; a.Error != "kept" {
		t.Errorf("the answer is %q", a.Error)
	}
}

// What is told of a node's agent follows what was heard of it.
func TestAnAgentsStateIsTold(t *testing.T) {
	t.Parallel()
	b, p := onSQLite(t)
	state := func(want string) *controller.AgentStatus {
		t.Helper()
		n, err := p.NodeStatus(t.Context(), "f", "web1")
		if err != nil || n.Agent == nil || n.Agent.State != want {
			t.Fatalf("%+v, %v, want %s", n.Agent, err, want)
		}
		return n.Agent
	}
	state("none")
	folder := b.join("web1", p)
	state("joined")
	_, stop := b.run(folder, said("x"))
	b.up(p, "web1")
	if s := state("up"); s.Version != "v1" || s.Until.IsZero() || s.Clock == nil || *s.Clock != 0 {
		t.Errorf("%+v", s)
	}
	stop()
	b.pass(2 * 60 * 1e9)
	state("silent")
	if err := p.BanAgent(t.Context(), "f", "web1", "alice", true); err != nil {
		t.Fatal(err)
	}
	if s := state("banned"); s.Why != "alice" {
		t.Errorf("%+v", s)
	}
	if n, err := p.NodeStatus(t.Context(), "f", "web3"); err != nil || n.Agent != nil {
		t.Errorf("a node without an agent: %+v, %v", n.Agent, err)
	}
	if _, err := agent.LoadIdentity(t.TempDir()); err == nil {
		t.Error("an empty folder has an identity")
	}
}
