package controller

import (
	"context"
	"errors"
	"slices"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A NodeCompromiseAsk says what is known of a node that others have been on.
type NodeCompromiseAsk struct {
	CompromiseAsk
	Clean bool `json:"clean,omitempty" doc:"the node is clean again, or another machine: it is given the new keys, too"`
}

// A NodeFlight is what comes of a node that others have been on.
type NodeFlight struct {
	Node        string       `json:"node"`
	Sites       []string     `json:"sites" doc:"whose keys lay there: each is on its way to another"`
	Held        bool         `json:"held" doc:"nothing is brought to the node until it is released"`
	Credentials []Credential `json:"credentials" doc:"what else stood there, for people to change"`
}

// A Credential is something that stood on a node and may be known to others.
type Credential struct {
	What   string `json:"what"`
	Advice string `json:"advice"`
}

// CompromiseNode begins, for every site whose key lay on a node, the journey away from
// its keys; see Compromise. Unless it is said to be clean the node is held, so that no
// new key comes into the same hands; the old certificates are revoked when it is
// released and has the new ones, or at once with RevokeNow. The same again goes on
// where it was cut short.
func (c *Controller) CompromiseNode(ctx context.Context, farmName, node string, ask NodeCompromiseAsk, by string) (r NodeFlight, err error) {
	r.Node = node
	var sites []string
	err = c.Store.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(ctx, farmName, node)
		if err != nil {
			return err
		}
		r.Credentials = nil
		if sites, err = r.stood(ctx, tx, farmName, n); err != nil || ask.Clean {
			return err
		}
		r.Held = true
		return holdExposed(ctx, tx, farmName, node, by)
	})
	if err != nil {
		return r, err
	}
	for _, site := range sites {
		one, err := c.Compromise(ctx, farmName, site, ask.CompromiseAsk, by)
		if _, never := errors.AsType[*Refusal](err); never {
			continue // it has no certificate, so nothing of it lay there
		}
		if errors.Is(err, store.ErrNotFound) {
			r.add("the key of site "+site+", which is gone from farm.yaml", "have its certificates revoked where they came from")
			continue
		}
		if err != nil {
			return r, err
		}
		for _, s := range one.Sites {
			if !slices.Contains(r.Sites, s) {
				r.Sites = append(r.Sites, s)
			}
		}
	}
	return r, nil
}

// stood finds what stood on a node: the sites that have a target there, or one that it
// reads, and credentials.
func (r *NodeFlight) stood(ctx context.Context, tx *store.Tx, farmName string, n farm.Node) (sites []string, err error) {
	places, err := tx.Places(ctx, farmName, "")
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Target.Node != n.Name && !slices.Contains(p.Target.Readers(), n.Name) {
			continue
		}
		if !slices.Contains(sites, p.Target.Site) {
			sites = append(sites, p.Target.Site)
		}
		for name, ref := range p.Target.Secrets {
			r.add("the secret "+name+" of "+p.Target.Name+" ("+ref.String()+")", "change it there, then `certfarm secret set`")
		}
	}
	slices.SortFunc(r.Credentials, func(a, b Credential) int { return compare(a.What, b.What) })
	r.credentials(n)
	return sites, nil
}

func (r *NodeFlight) add(what, advice string) {
	if !slices.ContainsFunc(r.Credentials, func(c Credential) bool { return c.What == what }) {
		r.Credentials = append(r.Credentials, Credential{what, advice})
	}
}

// credentials are those that a node has by the way it is reached.
func (r *NodeFlight) credentials(n farm.Node) {
	if n.SSH != nil {
		r.add("the SSH host key of "+n.Name, "make a new one there and put it into farm.yaml (host_key); one that a host CA signed is revoked there")
		if n.SSH.Jump != "" {
			r.add("connections through "+n.SSH.Jump, "look on "+n.SSH.Jump+" for logins from "+n.Name)
		}
	}
	if n.SMB != nil {
		r.add("the account "+n.SMB.User+" of the share "+n.SMB.Share, "change its password, then `certfarm secret set` ("+n.SMB.Password.String()+")")
	}
	if n.Agent {
		r.add("the agent's key and certificate of "+n.Name, "`certfarm node ban "+n.Name+"`; it joins anew by a token when it is clean")
	}
	if n.Local {
		r.add("everything that the controller has", "it is the controller's own machine: its master key, secrets and accounts are known, too; `certfarm rekey`, then change each")
	}
}

// holdExposed keeps changes away from a node that others may be on.
func holdExposed(ctx context.Context, tx *store.Tx, farmName, node, by string) error {
	held, err := tx.Word(ctx, farmName, wordHeld+node)
	if err != nil || held != "" {
		return err
	}
	return errors.Join(tx.SetWord(ctx, farmName, wordHeld+node, by), tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "node.exposed", Level: farm.Alarm, Node: node, Actor: by,
		Text: by + ": others have been on " + node + "; it is held, so that no new key comes into their hands",
		Hint: "when it is clean, or another machine: `certfarm node release " + node + "`",
	}))
}
