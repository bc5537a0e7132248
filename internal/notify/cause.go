package notify

import (
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A cause is what a kind of event says is wrong, or is right again.
type cause struct {
	name string // what is wrong; empty: it is news, which begins and ends at once
	over bool   // it is right again
	of   func(farm.Event) string
}

// The things that something may be wrong with.
func ofTarget(e farm.Event) string { return e.Target }
func ofSite(e farm.Event) string   { return e.Site }
func ofNode(e farm.Event) string   { return e.Node }
func ofFarm(e farm.Event) string   { return e.Farm }

// ofAbout is for causes of which a site, or the farm, has several: one for an address,
// a name or an issuer.
func ofAbout(e farm.Event) string { return strings.TrimSpace(e.Site + " " + e.About) }

// The kinds of events of a receiver that does not hear, and hears again; it is what
// they are about.
const (
	Failing = "receiver.failing"
	Hears   = "receiver.hears"
)

// causeOf says what an event means: which cause begins or ends, on what. What is wrong
// with targets is told by where they stand, so the steps of a rollout only tell why it
// went back.
func causeOf(e farm.Event) cause {
	begins, ends := causes()
	if c, ok := begins[e.Kind]; ok {
		return c
	}
	if c, ok := ends[e.Kind]; ok {
		c.over = true
		return c
	}
	return cause{}
}

// causes are the kinds of events that begin and end causes; every other kind is news.
func causes() (begins, ends map[string]cause) {
	reach, drift := cause{name: "reach", of: ofTarget}, cause{name: "drift", of: ofTarget}
	order, roll := cause{name: "order", of: ofSite}, cause{name: "rollout", of: ofSite}
	balancer, behind, record := cause{name: "balancer", of: ofAbout}, cause{name: "behind", of: ofAbout}, cause{name: "record", of: ofAbout}
	copies, out := cause{name: "copies", of: ofTarget}, cause{name: "left-out", of: ofNode}
	agent, database := cause{name: "agent", of: ofNode}, cause{name: "database", of: ofFarm}
	account, key, deaf := cause{name: "account", of: ofAbout}, cause{name: "compromise", of: ofSite}, cause{name: "receiver", of: ofAbout}
	begins = map[string]cause{
		"target.down": reach, "target.serves": reach, "target.drift": drift,
		"order.failed": order, "order.error": order, "order.given-up": order, "preflight.wrong": order,
		"rollout.back": roll, "rollout.restored": roll, "rollout.partly-restored": roll, "rollout.halted": roll,
		"step.stuck": {name: "stuck", of: ofTarget}, "balancer.disagrees": balancer, "behind.wrong": behind,
		"record.soon": record, "record.now": record, "record.ended": record,
		"copies.left": copies, "node.left-out": out, "agent.quarantined": agent, "agent.banned": agent,
		"database.unsafe": database, "account.failed": account, "compromise.began": key, Failing: deaf,
	}
	ends = map[string]cause{
		"target.up": reach, "target.in-step": drift, "version.issued": order, "rollout.done": roll, "rollout.done-partly": roll,
		"step.restored": {name: "stuck", of: ofTarget}, "step.verified": {name: "stuck", of: ofTarget},
		"balancer.agrees": balancer, "behind.well": behind, "record.right": record, "copies.erased": copies, "node.back": out,
		"agent.unbanned": agent, "database.safe": database, "account.opened": account, "compromise.over": key, Hears: deaf,
	}
	return begins, ends
}

// title is what a cause is called in a message's first line, of one thing or of many.
func title(cause string, many bool) string {
	titles := map[string][2]string{
		"reach": {"target cannot be reached", "targets cannot be reached"}, "drift": {"target serves something else", "targets serve something else"},
		"order": {"certificate cannot be had", "certificates cannot be had"}, "rollout": {"rollout went back", "rollouts went back"},
		"stuck": {"target could not be put back", "targets could not be put back"}, "balancer": {"balancer disagrees", "balancers disagree"},
		"behind": {"node behind the edges is wrong", "nodes behind the edges are wrong"}, "record": {"DNS record needs a person", "DNS records need a person"},
		"copies": {"copy of an old key is left", "copies of old keys are left"}, "left-out": {"node is out of its balancer", "nodes are out of their balancers"},
		"agent": {"agent is turned away", "agents are turned away"}, "database": {"database is unsafe", "database is unsafe"},
		"account": {"account at a CA fails", "accounts at CAs fail"}, "compromise": {"key is known to others", "keys are known to others"},
		"receiver": {"receiver does not hear", "receivers do not hear"},
		News:       {"event", "events"},
	}
	if many {
		return titles[cause][1]
	}
	return titles[cause][0]
}
