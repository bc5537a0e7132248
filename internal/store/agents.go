package store

import (
	"context"
	"fmt"
	"time"
)

// An Agent is what is known of a node's agent. Who it is, is its key: a certificate
// only says so for a while.
type Agent struct {
	Farm        string         `json:"farm"`
	Node        string         `json:"node"`
	Pin         string         `json:"pin"` // SHA-256 of its public key (SPKI DER), hex
	Joined      time.Time      `json:"joined"`
	Until       time.Time      `json:"until,omitzero"` // end of its certificate
	Seen        time.Time      `json:"seen,omitzero"`  // when it last asked, to some seconds
	Version     string         `json:"version,omitempty"`
	Session     string         `json:"session,omitempty"` // of the process that asks
	Count       int64          `json:"count,omitempty"`   // of its questions
	Taken       time.Time      `json:"taken,omitzero"`    // when the session began
	Before      []string       `json:"before,omitempty"`  // sessions that ended, the last ones
	Banned      string         `json:"banned,omitempty"`  // who said so
	Quarantined string         `json:"quarantined,omitempty"`
	Ahead       *time.Duration `json:"ahead,omitempty"` // how far its clock is ahead of the controllers', to the second; nil: it did not say
	Roots       []string       `json:"roots,omitempty"` // SHA-256 of the public keys of the CAs that it knows the controllers by; none: that of its token
}

// PutAgent keeps an agent in place of the one that the node had.
func (t *Tx) PutAgent(ctx context.Context, a Agent) error {
	doc, _, err := document(a)
	if err != nil {
		return err
	}
	return t.put(ctx, "save agent of "+a.Node, `INSERT INTO agents (farm, node, pin, doc) VALUES (?, ?, ?, ?)
		ON CONFLICT (farm, node) DO UPDATE SET pin = excluded.pin, doc = excluded.doc`, a.Farm, a.Node, a.Pin, doc)
}

// Agent finds the agent of a node, or ErrNotFound.
func (t *Tx) Agent(ctx context.Context, farmName, node string) (Agent, error) {
	return one[Agent](ctx, t, "agent of "+node, `SELECT doc FROM agents WHERE farm = ? AND node = ?`, farmName, node)
}

// AgentByPin finds an agent by the digest of its public key, or ErrNotFound.
func (t *Tx) AgentByPin(ctx context.Context, pin string) (Agent, error) {
	return one[Agent](ctx, t, "agent", `SELECT doc FROM agents WHERE pin = ?`, pin)
}

// Agents lists a farm's agents by node.
func (t *Tx) Agents(ctx context.Context, farmName string) ([]Agent, error) {
	return many[Agent](ctx, t, "agents", `SELECT doc FROM agents WHERE farm = ? ORDER BY node`, farmName)
}

// AgentsOn lists the agents of some nodes, in the order of the nodes.
func (t *Tx) AgentsOn(ctx context.Context, farmName string, nodes []string) (all []Agent, err error) {
	err = among(farmName, nodes, func(is string, args []any) error {
		some, err := many[Agent](ctx, t, "agents", `SELECT doc FROM agents WHERE farm = ? AND node IN `+is+` ORDER BY node`, args...)
		all = append(all, some...)
		return err
	})
	return all, err
}

// A JoinToken lets agents join: one as a node, or several as nodes with labels.
type JoinToken struct {
	Digest string            `json:"-"` // SHA-256 of its secret, hex
	Farm   string            `json:"farm"`
	Node   string            `json:"node,omitempty"`
	Labels map[string]string `json:"labels,omitempty"` // in place of Node: what the nodes are labelled with
	Uses   int               `json:"uses"`             // that are left
	Until  time.Time         `json:"until"`
	By     string            `json:"by,omitempty"`
}

// PutJoinToken keeps a token, or what is left of it, and forgets those that are over.
func (t *Tx) PutJoinToken(ctx context.Context, k JoinToken) error {
	doc, _, err := document(k)
	if err != nil {
		return err
	}
	if err := t.put(ctx, "forget old tokens", `DELETE FROM join_tokens WHERE until < ?`, micros(t.now)); err != nil {
		return err
	}
	return t.put(ctx, "save token", `INSERT INTO join_tokens (digest, farm, until, doc) VALUES (?, ?, ?, ?)
		ON CONFLICT (digest) DO UPDATE SET doc = excluded.doc`, k.Digest, k.Farm, micros(k.Until), doc)
}

// JoinToken finds a token by its digest, or ErrNotFound.
func (t *Tx) JoinToken(ctx context.Context, digest string) (JoinToken, error) {
	k, err := one[JoinToken](ctx, t, "token", `SELECT doc FROM join_tokens WHERE digest = ?`, digest)
	k.Digest = digest
	return k, err
}

// RemoveJoinTokens forgets the tokens that are bound to a node.
func (t *Tx) RemoveJoinTokens(ctx context.Context, farmName, node string) error {
	var digests []string
	err := t.each(ctx, func(scan func(...any) error) error {
		var digest, doc string
		if err := scan(&digest, &doc); err != nil {
			return err
		}
		k, err := decode[JoinToken](doc)
		if k.Node == node {
			digests = append(digests, digest)
		}
		return err
	}, `SELECT digest, doc FROM join_tokens WHERE farm = ?`, farmName)
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	for _, d := range digests {
		if err := t.put(ctx, "forget token", `DELETE FROM join_tokens WHERE digest = ?`, d); err != nil {
			return err
		}
	}
	return nil
}
