package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// perNode gives each node a key of its own.
func perNode(_ *bed, text string) string {
	text = strings.Replace(text, "    profile: ", "    limits: {names: 100 per 7d}\n    profile: ", 1)
	return strings.Replace(text, "strategy: central", "strategy: per-node", 1)
}

func central(text string) string {
	return strings.Replace(text, "strategy: per-node", "strategy: central", 1)
}

// member is the part of a node.
func member(node string) string { return farm.MemberName("shop", node) }

// own is what is known of a node's part.
func (b *bed) own(node string) controller.SiteDetail {
	b.t.Helper()
	d, err := b.Controller.Describe(b.ctx, b.Farm, member(node))
	must(b.t, err)
	return d
}

// settled waits until nothing is under way, and every node serves what it should: nodes
// go one after another, so that it may take longer than most things.
func (b *bed) settled() {
	b.t.Helper()
	var p controller.Progress
	for b.ctx.Err() == nil {
		written := b.store.Written()
		all, err := b.Controller.Progress(b.ctx, b.Farm, b.Site)
		if len(all) == 1 && err == nil {
			p = all[0]
		}
		if p.Rest && p.Targets > 0 && p.InStep == p.Targets && p.Sync == "in-sync" {
			return
		}
		select {
		case <-written:
		case <-time.After(time.Second): // not all is written in the store
		case <-b.ctx.Done():
		}
	}
	b.t.Fatalf("never at rest and in step: %+v\n%s", p, b.story())
}

// distinct fails unless every node serves a certificate of its own, and returns them.
func (b *bed) distinct(nodes ...string) (leaves []string) {
	b.t.Helper()
	for _, n := range nodes {
		leaf := b.serves(n)
		if slices.Contains(leaves, leaf) {
			b.t.Errorf("%s serves what another serves", n)
		}
		if want := b.own(n).Version; leaf != want {
			b.t.Errorf("%s serves %s, and its own is %s", n, farm.Short(leaf), farm.Short(want))
		}
		leaves = append(leaves, leaf)
	}
	return leaves
}

// Each node has a key and a certificate of its own; the canary has its own verified
// before another node's order begins, at the first issue and at a renewal.
func TestEachNodeHasItsOwnKeyAndTheCanaryGoesFirst(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{policy: steady(), edit: perNode})
	p, err := b.Apply(b.ctx)
	must(t, err)
	if len(p.PerNode) != 1 || p.PerNode[0].Text != "3 nodes: all today" {
		t.Errorf("the plan says %+v", p.PerNode)
	}
	b.settled()
	first := b.distinct("web1", "web2", "web3")
	b.firstCanary(t, 0)

	b.renew()
	b.settled()
	for i, leaf := range b.distinct("web1", "web2", "web3") {
		if slices.Contains(first, leaf) {
			t.Errorf("web%d was not renewed", i+1)
		}
	}
	b.mustHaveIssued(6)
	b.firstCanary(t, 3)
	d := b.describe()
	if len(d.Members) != 3 || d.InStep != 3 || d.Sync != "in-sync" || d.Members[0].Of != "shop" {
		t.Errorf("the whole is %+v", d.SiteStatus)
	}
}

// firstCanary fails unless, of the events after the first n orders, the canary's
// rollout is done before any other order begins.
func (b *bed) firstCanary(t *testing.T, n int) {
	t.Helper()
	events, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{})
	must(t, err)
	orders, done := 0, 0
	for _, e := range events {
		if e.Kind == "rollout.done" && e.Site == member("web1") {
			done++
		}
		if e.Kind != "certificate.due" {
			continue
		}
		orders++
		switch at := orders - n; {
		case at == 1 && e.Site != member("web1"):
			t.Errorf("%s orders first", e.Site)
		case at > 1 && done < orders/4+1:
			t.Errorf("%s orders before the canary has done", e.Site)
		}
	}
}

// A canary that fails holds the others, and it is told once; when it goes well the
// others follow.
func TestAFailedCanaryHoldsTheOtherNodes(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{policy: steady(), edit: perNode})
	b.apply()
	b.settled()
	before := b.distinct("web1", "web2", "web3")
	must(t, b.node("web1").Set(lab.Fault{Kind: lab.BadReload}))
	b.renew()
	e := b.happens("member.waits", "")
	if !strings.Contains(e.Text, "shop@web1 goes first, and failed") {
		t.Errorf("told %q", e.Text)
	}
	b.mustServe(before[0], "web1")
	b.mustServe(before[1], "web2")
	b.mustServe(before[2], "web3")
	b.pass(2 * time.Hour)
	b.until("web2 waits still", func(tx *store.Tx) (bool, error) { return b.own("web2").Waits != "", nil })
	b.mustServe(before[1], "web2")
	if n := b.count("member.waits"); n != 1 {
		t.Errorf("told %d times", n)
	}
	must(t, b.node("web1").Set(lab.Fault{}))
	b.pass(7 * time.Hour)
	b.settled()
	for i, leaf := range b.distinct("web1", "web2", "web3") {
		if slices.Contains(before, leaf) {
			t.Errorf("web%d serves what it did", i+1)
		}
	}
	b.mustHaveIssued(6)
}

// One word of a person lets a wave of nodes begin, and the next time they wait for the
// next word.
func TestAssentIsForAWaveOfNodesAndForOneTime(t *testing.T) {
	t.Parallel()
	b := newBed(t, setting{policy: steady(), edit: func(b *bed, text string) string {
		at := strings.Index(text, "\n  web2:")
		text = text[:at] + strings.Replace(text[at:], "{pool: web}", "{pool: careful}", 2)
		return perNode(b, policyLine("waves: [{name: careful, match: {pool: careful}, approve: true}]")(b, text))
	}})
	approve := func() {
		t.Helper()
		b.until("a wave of nodes waits for a person", func(*store.Tx) (bool, error) {
			_, err := b.Controller.Tell(b.ctx, b.Farm, b.Site, controller.Approve, "careful", "somebody")
			return err == nil, nil
		})
	}
	b.apply()
	approve()
	b.settled()
	first := b.distinct("web1", "web2", "web3")

	b.renew()
	b.until("the node of the wave waits", func(tx *store.Tx) (bool, error) {
		all, err := tx.Rollouts(b.ctx, b.Farm, member("web2"), 1)
		return err == nil && len(all) > 0 && strings.HasPrefix(all[0].Reason, "renewal") && all[0].Steps[0].State == farm.Staged, err
	})
	b.pass(time.Hour)
	b.mustServe(first[1], "web2")
	b.mustServe(first[2], "web3")
	approve()
	b.settled()
	for i, leaf := range b.distinct("web1", "web2", "web3") {
		if slices.Contains(first, leaf) {
			t.Errorf("web%d was not renewed", i+1)
		}
	}
}

// A change of strategy moves the targets, and can be undone: by undoing the rollout on
// each node, and by applying what was before, without a new order.
func TestAChangeOfStrategyCanBeUndone(t *testing.T) {
	t.Parallel()
	b, v1 := serving(t, setting{edit: func(_ *bed, text string) string {
		return strings.Replace(text, "    profile: ", "    limits: {names: 100 per 7d}\n    profile: ", 1)
	}})
	b.rewrite(func(text string) string { return strings.Replace(text, "strategy: central", "strategy: per-node", 1) })
	p, err := b.Apply(b.ctx)
	must(t, err)
	if len(p.Changes) != 1 || !p.Changes[0].Moves() || len(p.Changes[0].Members) != 3 {
		t.Errorf("the plan is %+v", p.Changes)
	}
	b.settled()
	own := b.distinct("web1", "web2", "web3")
	b.mustHaveIssued(4)

	must(t, b.Controller.Undo(b.ctx, b.Farm, b.Site, "", "somebody"))
	b.until("the old one is back", func(*store.Tx) (bool, error) {
		return b.serves("web1") == v1 && b.serves("web2") == v1 && b.serves("web3") == v1, nil
	})
	b.settled()
	b.mustHaveIssued(4)
	b.renew()
	b.settled()
	newer := b.distinct("web1", "web2", "web3")
	b.mustHaveIssued(7)

	b.rewrite(central)
	b.apply()
	b.settled()
	b.allServe(v1)
	b.mustHaveIssued(7)
	b.rewrite(func(text string) string { return strings.Replace(text, "strategy: central", "strategy: per-node", 1) })
	p, err = b.Apply(b.ctx)
	must(t, err)
	if len(p.PerNode) != 1 || len(p.PerNode[0].Kept) != 3 {
		t.Errorf("the plan says %+v", p.PerNode)
	}
	b.settled()
	b.mustHaveIssued(7)
	for i, leaf := range b.distinct("web1", "web2", "web3") {
		if leaf != newer[i] || slices.Contains(own, leaf) {
			t.Errorf("web%d serves %s", i+1, farm.Short(leaf))
		}
	}
}
