package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/snippet"
	"github.com/certfarm/certfarm/internal/store"
)

// Sites is a page of sites.
type Sites struct {
	Sites []controller.SiteStatus `json:"sites"`
	More
}

type listSites struct {
	InFarm
	Page
}

func (s *server) listSites(ctx context.Context, in *listSites) (Sites, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Sites{}, err
	}
	name := func(v controller.SiteStatus) string { return v.Name }
	all, more, err := paged(in.Page, func(after string, limit int) ([]controller.SiteStatus, error) {
		return s.Sites(ctx, in.Farm, after, limit)
	}, name, seen(l, name))
	return Sites{all, more}, err
}

// InSite is a request about a site.
type InSite struct {
	InFarm
	Site string `path:"site" minLength:"1"`
}

func (s *server) getSite(ctx context.Context, in *InSite) (controller.SiteDetail, error) {
	d, err := s.Describe(ctx, in.Farm, in.Site)
	return d.Shown(), err
}

func (s *server) renew(ctx context.Context, in *InSite) error {
	return s.Renew(ctx, in.Farm, in.Site, by(ctx))
}

type undoAsk struct {
	InSite
	To string `query:"to" maxLength:"64" doc:"the version: its id, or the beginning of a leaf's fingerprint; not set: the one before the newest"`
}

func (s *server) undo(ctx context.Context, in *undoAsk) error {
	return s.Undo(ctx, in.Farm, in.Site, in.To, by(ctx))
}

// Verifieds is what each target of a site was seen to serve just now.
type Verifieds struct {
	Targets []controller.Verified `json:"targets"`
}

func (s *server) verify(ctx context.Context, in *InSite) (Verifieds, error) {
	all, err := s.Verify(ctx, in.Farm, in.Site)
	return Verifieds{list(all)}, err
}

// Pair is a certificate from elsewhere, on its way in.
type Pair struct {
	Chain string `json:"chain" doc:"PEM, leaf first"`
	Key   []byte `json:"key" writeOnly:"true" doc:"the private key, PEM in base64"`
}

type importAsk struct {
	InSite
	Body Pair
}

// Imported says which version a certificate from elsewhere became.
type Imported struct {
	Version     string `json:"version"`
	Fingerprint string `json:"fingerprint"`
}

func (s *server) importPair(ctx context.Context, in *importAsk) (Imported, error) {
	v, err := s.Import(ctx, in.Farm, in.Site, []byte(in.Body.Chain), farm.NewSecret(in.Body.Key), by(ctx))
	if err != nil {
		return Imported{}, err
	}
	return Imported{v.ID, v.Fingerprints()[0]}, nil
}

// Progresses is what sites are busy with.
type Progresses struct {
	Sites []controller.Progress `json:"sites"`
}

type progressAsk struct {
	InFarm
	Site []string `query:"site,explode" required:"true" minItems:"1" maxItems:"100" doc:"the sites, each one a parameter"`
}

func (s *server) progress(ctx context.Context, in *progressAsk) (Progresses, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Progresses{}, err
	}
	for _, name := range in.Site {
		if !l.Site(name) {
			return Progresses{}, fmt.Errorf("site %s: %w", name, store.ErrNotFound)
		}
	}
	all, err := s.Progress(ctx, in.Farm, in.Site...)
	return Progresses{list(all)}, err
}

// Targets is a page of targets.
type Targets struct {
	Targets []controller.TargetStatus `json:"targets"`
	More
}

// OfSite is a request about all of a farm, or about a site's.
type OfSite struct {
	InFarm
	Site string `query:"site" doc:"only of this site"`
}

type listTargets struct {
	OfSite
	Page
}

func (s *server) listTargets(ctx context.Context, in *listTargets) (Targets, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Targets{}, err
	}
	all, more, err := paged(in.Page, func(after string, limit int) ([]controller.TargetStatus, error) {
		return s.TargetsAfter(ctx, in.Farm, in.Site, after, limit)
	}, func(t controller.TargetStatus) string { return t.Name }, seen(l, siteOf))
	return Targets{all, more}, err
}

func siteOf(t controller.TargetStatus) string { return t.Site }

// InTarget is a request about a target.
type InTarget struct {
	InFarm
	Target string `path:"target" minLength:"1"`
}

func (s *server) getTarget(ctx context.Context, in *InTarget) (controller.TargetDetail, error) {
	t, err := s.Target(ctx, in.Farm, in.Target)
	t.Sights = list(t.Sights)
	return t, err
}

func (s *server) audit(ctx context.Context, in *InTarget) (controller.Audit, error) {
	a, err := s.Audit(ctx, in.Farm, in.Target)
	a.Findings = list(a.Findings)
	return a, err
}

type testAsk struct {
	InTarget
	Body TargetTestAsk
}

// TargetTestAsk says how far a target's test goes.
type TargetTestAsk struct {
	Reload bool `json:"reload" doc:"reload the server, too, whose configuration has not changed"`
}

func (s *server) testTarget(ctx context.Context, in *testAsk) (controller.TargetTest, error) {
	return s.TestTarget(ctx, in.Farm, in.Target, by(ctx), in.Body.Reload)
}

func (s *server) retire(ctx context.Context, in *InTarget) error {
	return s.Retire(ctx, in.Farm, in.Target, by(ctx))
}

func (s *server) restore(ctx context.Context, in *InTarget) error {
	return s.Restore(ctx, in.Farm, in.Target, by(ctx))
}

// Nodes is a page of nodes.
type Nodes struct {
	Nodes []controller.NodeStatus `json:"nodes"`
	More
}

type listNodes struct {
	InFarm
	Page
}

func (s *server) listNodes(ctx context.Context, in *listNodes) (Nodes, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return Nodes{}, err
	}
	all, more, err := paged(in.Page, func(after string, limit int) ([]controller.NodeStatus, error) {
		return s.Nodes(ctx, in.Farm, after, limit)
	}, func(n controller.NodeStatus) string { return n.Name }, func(all []controller.NodeStatus) ([]controller.NodeStatus, error) {
		return s.nodesSeen(ctx, l, in.Farm, all)
	})
	return Nodes{all, more}, err
}

// nodesSeen are those of some nodes that have targets that the caller sees, or all.
func (s *server) nodesSeen(ctx context.Context, l *access.Lens, farmName string, all []controller.NodeStatus) ([]controller.NodeStatus, error) {
	if l.All() {
		return all, nil
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Name)
	}
	on, err := s.targetsSeen(ctx, l, farmName, names...)
	for i, n := range all {
		all[i] = nodeSeen(n, on)
	}
	return slices.DeleteFunc(all, func(n controller.NodeStatus) bool { return n.Targets == 0 }), err
}

// targetsSeen are the targets of some nodes that the caller sees.
func (s *server) targetsSeen(ctx context.Context, l *access.Lens, farmName string, nodes ...string) ([]controller.TargetStatus, error) {
	all, err := s.TargetsOn(ctx, farmName, nodes...)
	return access.Keep(l, all, siteOf), err
}

// nodeSeen is a node as somebody sees it who sees certain targets only.
func nodeSeen(n controller.NodeStatus, on []controller.TargetStatus) controller.NodeStatus {
	n.Targets, n.InStep, n.Trouble = 0, 0, nil
	for _, t := range on {
		if t.Node != n.Name || t.Sync == "released" {
			continue
		}
		n.Targets++
		if t.Sync == "in-sync" {
			n.InStep++
		}
		if t.Trouble != "" {
			n.Trouble = append(n.Trouble, t.Trouble)
		}
	}
	return n
}

// InNode is a request about a node.
type InNode struct {
	InFarm
	Node string `path:"node" minLength:"1"`
}

func (s *server) getNode(ctx context.Context, in *InNode) (controller.NodeStatus, error) {
	l, err := s.lens(ctx, in.Farm)
	if err != nil {
		return controller.NodeStatus{}, err
	}
	n, err := s.NodeStatus(ctx, in.Farm, in.Node)
	if err != nil || l.All() {
		return n, err
	}
	on, err := s.targetsSeen(ctx, l, in.Farm, in.Node)
	return nodeSeen(n, on), err
}

type holdAsk struct {
	InNode
	Body Switch
}

func (s *server) hold(ctx context.Context, in *holdAsk) error {
	return s.Hold(ctx, in.Farm, in.Node, by(ctx), in.Body.On)
}

type snippetAsk struct {
	InSite
	Server     string   `query:"server" required:"true" doc:"nginx, apache, haproxy, lighttpd, caddy, traefik, envoy or iis"`
	Via        string   `query:"via" doc:"gateway, redirect, stateless or distribute; not set: as farm.yaml says"`
	Controller []string `query:"controller,explode" maxItems:"100" doc:"where controllers answer challenges, host:port; not set: as farm.yaml says"`
}

func (s *server) snippet(ctx context.Context, in *snippetAsk) (snippet.Snippet, error) {
	return s.Snippet(ctx, in.Farm, in.Site, controller.SnippetAsk{Server: in.Server, Via: in.Via, Controllers: in.Controller})
}

func (s *server) records(ctx context.Context, in *InSite) (snippet.Snippet, error) {
	return s.SnippetDNS(ctx, in.Farm, in.Site)
}

type adoptAsk struct {
	InNode
	Body AdoptAsk
}

// AdoptAsk says what to look at on a node.
type AdoptAsk struct {
	Server string `json:"server,omitempty" doc:"nginx, apache, haproxy, lighttpd or tomcat; not set: all that run"`
	Config string `json:"config,omitempty" doc:"the server's configuration on the node; not set: as its process says"`
}

func (s *server) adopt(ctx context.Context, in *adoptAsk) (adopt.Report, error) {
	return s.Adopt(ctx, in.Farm, in.Node, controller.AdoptAsk{Server: in.Body.Server, Config: in.Body.Config})
}

func (s *server) nodePolicy(ctx context.Context, in *InNode) (snippet.Snippet, error) {
	return s.NodePolicy(ctx, in.Farm, in.Node)
}

func (s *server) nodeReceiver(ctx context.Context, in *InNode) (snippet.Snippet, error) {
	return s.NodeReceiver(ctx, in.Farm, in.Node)
}

func (s *server) sudoers(ctx context.Context, in *InNode) (snippet.Snippet, error) {
	return s.Sudoers(ctx, in.Farm, in.Node)
}

type preflightAsk struct {
	InSite
	Body PreflightAsk
}

// PreflightAsk says how far a preflight goes.
type PreflightAsk struct {
	External bool `json:"external" doc:"order at the CA's staging directory, too"`
}

func (s *server) preflight(ctx context.Context, in *preflightAsk) (controller.PreflightReport, error) {
	return s.Preflight(ctx, in.Farm, in.Site, in.Body.External)
}

type inIssuer struct {
	InFarm
	Issuer string `path:"issuer" minLength:"1"`
}

func (s *server) rollOver(ctx context.Context, in *inIssuer) (controller.Rollover, error) {
	return s.RollOver(ctx, in.Farm, in.Issuer, by(ctx))
}

type forecastAsk struct {
	InFarm
	Days     int    `query:"days" minimum:"1" maximum:"400" default:"90"`
	AddNames int    `query:"add_names" minimum:"0" maximum:"100000" doc:"so many new sites of one name"`
	Under    string `query:"under" maxLength:"250" doc:"the domain of those names; not set: each has its own"`
	Lifetime int    `query:"lifetime" minimum:"0" maximum:"34560000" doc:"seconds that all live that are ordered from now on; not set: as now"`
	Pause    int    `query:"pause" minimum:"0" maximum:"34560000" doc:"seconds from now in which nothing is ordered"`
}

func (s *server) forecast(ctx context.Context, in *forecastAsk) (controller.ForecastReport, error) {
	r, err := s.Forecast(ctx, in.Farm, controller.ForecastAsk{
		Days: in.Days, AddNames: in.AddNames, Under: in.Under,
		Lifetime: time.Duration(in.Lifetime) * time.Second, Pause: time.Duration(in.Pause) * time.Second,
	})
	r.Issuers = list(r.Issuers)
	return r, err
}
