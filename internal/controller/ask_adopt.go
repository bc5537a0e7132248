package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
)

// An AdoptAsk says what to look at on a node. The zero value is all servers that run
// there.
type AdoptAsk struct {
	Server string // nginx, apache, haproxy, lighttpd or tomcat; empty: all
	Config string // its configuration, where that is not the program's default; only with Server
}

// adoptWithin is how long looking at a node may take, with all its handshakes.
const adoptWithin = 3 * time.Minute

// Adopt finds the certificate files that the servers on a node use, asks what is
// served, and writes the lines of farm.yaml for them. It changes nothing.
func (c *Controller) Adopt(ctx context.Context, farmName, node string, ask AdoptAsk) (adopt.Report, error) {
	var whole farm.Farm
	var text string
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if whole, err = tx.Farm(ctx, farmName); err != nil {
			return err
		}
		if _, err := tx.Node(ctx, farmName, node); err != nil {
			return err
		}
		r, err := tx.Revision(ctx, farmName)
		text = string(r.Text)
		return err
	})
	if err != nil {
		return adopt.Report{}, err
	}
	return c.adopt(ctx, whole, text, node, ask, c)
}

// AdoptFrom does the same with a farm.yaml that need not be applied, nor have sites
// yet. Secrets in it are read in place.
func (c *Controller) AdoptFrom(ctx context.Context, text []byte, file, node string, ask AdoptAsk) (adopt.Report, error) {
	parsed, err := config.Parse([]byte(adopt.WithSite(string(text), node)), file, Vocabulary(c.Kinds, true))
	if err != nil {
		return adopt.Report{}, err
	}
	parsed.Farm.Sites = slices.DeleteFunc(parsed.Farm.Sites, func(s farm.Site) bool { return adopt.IsStandIn(s.Name) })
	return c.adopt(ctx, parsed.Farm, string(text), node, ask, &unstored{c, parsed.Farm})
}

// unstored is a farm that no store knows.
type unstored struct {
	c     *Controller
	whole farm.Farm
}

// Secret reads a secret in place; one that was sealed cannot be had.
func (u *unstored) Secret(ctx context.Context, farmName string, ref farm.SecretRef) (farm.Secret, error) {
	if ref.Secret != "" {
		return farm.Secret{}, &Refusal{ref.String() + " is sealed in the controller's database", "leave -f out to ask the controller, or write {file: …} or {env: …} in a copy of farm.yaml"}
	}
	return readInPlace(ref)
}

// Node finds a node of the farm.
func (u *unstored) Node(_ context.Context, _, name string) (farm.Node, error) {
	i := slices.IndexFunc(u.whole.Nodes, func(n farm.Node) bool { return n.Name == name })
	if i < 0 {
		return farm.Node{}, fmt.Errorf("node %s: %w", name, store.ErrNotFound)
	}
	return u.whole.Nodes[i], nil
}

// Host opens the line to a node.
func (u *unstored) Host(ctx context.Context, farmName, name string) (host.Host, error) {
	n, err := u.Node(ctx, farmName, name)
	if err == nil {
		err = refuseOwn(n)
	}
	if err != nil {
		return nil, err
	}
	return u.c.Hosts(ctx, farmName, n, u)
}

// adopt looks at one node of a farm.
func (c *Controller) adopt(ctx context.Context, whole farm.Farm, text, node string, ask AdoptAsk, from Context) (r adopt.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, adoptWithin)
	defer cancel()
	l := looking{ask: ask, certs: map[string]certFile{}, prober: c.Prober}
	if l.node, err = from.Node(ctx, whole.Name, node); err != nil {
		return r, err
	}
	if err := ask.check(l.node); err != nil {
		return r, err
	}
	if l.host, err = from.Host(ctx, whole.Name, node); err != nil {
		return r, err
	}
	f := adopt.Facts{Node: l.node, Farm: whole, Now: c.Now()}
	if f.Servers, err = l.servers(ctx); err != nil {
		return r, err
	}
	for i := range f.Servers {
		found := l.read(ctx, &f.Servers[i])
		f.Notes = append(f.Notes, found.Notes...)
		ways := adopt.Ways{Socket: found.Socket}
		ways.Commands, ways.Unsure = adopt.Commands(f.Servers[i], l.unit(ctx, f.Servers[i]))
		for _, p := range found.Places {
			spot := l.finding(ctx, p)
			spot.Ways = ways
			f.Spots = append(f.Spots, spot)
		}
	}
	l.handshakes(ctx, f.Spots)
	f.Notes = append(f.Notes, l.notes...)
	r = adopt.Sort(f)
	if len(f.Servers) == 0 {
		r.Notes = append(r.Notes, "no web server was seen to run: name one with --server, and its configuration with --config")
	}
	if why := c.tried(text, r.YAML); why != "" {
		r.Notes = append(r.Notes, why)
	}
	return r, nil
}

// check says what cannot be asked of a node.
func (ask AdoptAsk) check(n farm.Node) error {
	_, known := adopt.Parsers()[ask.Server]
	switch {
	case n.SMB != nil:
		return &Refusal{"node " + n.Name + " is a share: no server runs there that could be asked", "adopt the node that serves"}
	case ask.Server != "" && !known:
		return &Refusal{ask.Server + " is no server whose configuration can be read", "nginx, apache, haproxy, lighttpd and tomcat are"}
	case ask.Config != "" && (ask.Server == "" || strings.HasPrefix(ask.Config, "-")):
		return &Refusal{"it is not said whose configuration " + ask.Config + " is", "name the server, too: --server nginx --config /etc/nginx/nginx.conf"}
	}
	return nil
}

// tried says what is wrong with farm.yaml once the lines are in it.
func (c *Controller) tried(text, lines string) string {
	whole, ok := adopt.Insert(text, lines)
	if !ok || !strings.HasPrefix(lines, "sites:") {
		return ""
	}
	_, err := config.Parse([]byte(whole), "farm.yaml", Vocabulary(c.Kinds, true))
	mistakes, wrong := errors.AsType[config.Mistakes](err)
	if !wrong {
		return ""
	}
	var all []string
	for _, m := range mistakes {
		all = append(all, m.Problem)
	}
	return "in farm.yaml the lines have mistakes: " + strings.Join(all, "; ")
}

// handshakes asks what is served at each place; not more than is good for a node.
func (l *looking) handshakes(ctx context.Context, all []adopt.Spot) {
	const most, atOnce = 400, 8
	slots := make(chan struct{}, atOnce)
	done := make(chan struct{})
	asked := 0
	for i := range all {
		p := &all[i]
		for _, e := range l.endpoints(*p) {
			if asked++; asked > most {
				continue
			}
			p.Sights = append(p.Sights, adopt.Glance{Endpoint: e})
		}
	}
	n := 0
	for i := range all {
		for k := range all[i].Sights {
			n++
			go func() {
				slots <- struct{}{}
				l.handshake(ctx, all[i].Leaves, &all[i].Sights[k])
				<-slots
				done <- struct{}{}
			}()
		}
	}
	for range n {
		<-done
	}
	for i := range all {
		fromServed(&all[i])
	}
	if asked > most {
		l.notes = append(l.notes, fmt.Sprintf("only %d of %d endpoints were asked what they serve", most, asked))
	}
}

func (l *looking) endpoints(f adopt.Spot) []farm.Endpoint {
	var names []string
	for _, leaf := range f.Leaves {
		names = append(names, leaf.Names...)
	}
	if len(names) == 0 && len(f.Leaves) > 0 && f.Leaves[0].Store != "" {
		names = append(slices.Clone(f.Names), "") // the file does not tell: whatever is served
	}
	return adopt.Endpoints(f.Place, names, l.node)
}

// fromServed takes what is served for what is in a key store, which is not opened.
func fromServed(f *adopt.Spot) {
	for i, s := range f.Sights {
		if len(f.Leaves) == 0 || f.Leaves[0].Store == "" || len(s.Names) == 0 {
			continue
		}
		if leaf := &f.Leaves[0]; len(leaf.Names) == 0 {
			leaf.Names, leaf.NotAfter = s.Names, s.NotAfter
		}
		if s.Endpoint.SNI == "" {
			f.Sights[i].Endpoint.SNI = s.Names[0]
		}
	}
}

// handshake asks one endpoint.
func (l *looking) handshake(ctx context.Context, leaves []adopt.FileLeaf, s *adopt.Glance) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	q := probe.Question{Endpoint: s.Endpoint, Samples: 1}
	for _, leaf := range leaves {
		if len(leaves) > 1 && leaf.KeyType != "" {
			q.KeyTypes = append(q.KeyTypes, leaf.KeyType)
		}
	}
	if s.Endpoint.Path == "ssh" {
		q.Through = l.host
	}
	saw, err := l.prober.Probe(ctx, q)
	switch {
	case err != nil:
		s.Problem = err.Error()
	case !saw.Answered:
		s.Problem = saw.Error
	default:
		s.Served, s.Names, s.NotAfter = saw.Fingerprint, saw.Names, saw.NotAfter
	}
}
