package controller

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/renew"
	"github.com/certfarm/certfarm/internal/rollout"
	"github.com/certfarm/certfarm/internal/store"
)

// A site with strategy per-node is as many sites as it has nodes, its members. Each
// has a certificate, orders, versions and rollouts of its own; what they share is the
// order in which they go: that of the policy's waves.

// What is remembered of members.
const (
	wordAhead = "ahead " // + member: who comes after it and is due, so that it is renewed now
	wordWaits = "waits " // + member: for whom it waits
	wordStuck = "stuck " // + site: why its members wait, where people were told of it
)

// waitAgain is when a member that waits for others looks again, in case whoever was
// to wake it is gone.
const waitAgain = time.Hour

// A herd is what is known of the members of one site, in the order in which they go.
type herd struct {
	sites   []farm.Site
	certs   map[string]farm.Certificate
	places  map[string][]farm.Place
	issued  map[string]time.Time
	rolling map[string]bool
	words   map[string]map[string]string // by prefix, then by member
	held    map[string]string            // by node; of those in lower waves than the one that asks
}

// herdOf reads it.
func herdOf(ctx context.Context, tx *store.Tx, farmName, whole string) (h herd, err error) {
	h = herd{certs: map[string]farm.Certificate{}, places: map[string][]farm.Place{}, words: map[string]map[string]string{}, held: map[string]string{}}
	if h.sites, err = tx.Members(ctx, farmName, whole); err != nil {
		return h, err
	}
	slices.SortFunc(h.sites, farm.Site.Before)
	certs, err := tx.MemberCertificates(ctx, farmName, whole)
	if err != nil {
		return h, err
	}
	for _, c := range certs {
		h.certs[c.Site] = c
	}
	places, err := tx.MemberPlaces(ctx, farmName, whole)
	if err != nil {
		return h, err
	}
	for _, p := range places {
		if !p.Released {
			h.places[p.Target.Site] = append(h.places[p.Target.Site], p)
		}
	}
	if h.issued, err = tx.MembersIssued(ctx, farmName, whole); err != nil {
		return h, err
	}
	if h.rolling, err = tx.MembersRolling(ctx, farmName, whole); err != nil {
		return h, err
	}
	for _, prefix := range []string{wordRenew, wordAhead, wordUndone, wordWaits} {
		if h.words[prefix], err = tx.MemberWords(ctx, farmName, prefix, whole); err != nil {
			return h, err
		}
	}
	return h, nil
}

// hold reads which nodes of members before one are held by a person.
func (h herd) hold(ctx context.Context, tx *store.Tx, farmName string, me farm.Site) (err error) {
	for _, s := range h.sites {
		if s.Member.Wave >= me.Member.Wave {
			break
		}
		if h.held[s.Member.Node], err = tx.Word(ctx, farmName, wordHeld+s.Member.Node); err != nil {
			return err
		}
	}
	return nil
}

// sibling is what others see of a member.
func (h herd) sibling(s farm.Site) renew.Sibling {
	c := h.certs[s.Name]
	o := renew.Sibling{Name: s.Name, Wave: s.Member.Wave, Issued: h.issued[s.Name], State: renew.SiblingDone}
	held := h.held[s.Member.Node]
	switch absent, late, lacks := h.lacking(s, c); {
	case c.Intent != "" || h.rolling[s.Name]:
		o.State = renew.SiblingRuns
	case held != "":
		o.State, o.Why = renew.SiblingAbsent, "held by "+held
	case absent != "":
		o.State, o.Why = renew.SiblingAbsent, absent
	case c.Failing() || late != "":
		o.State, o.Why = renew.SiblingFailed, "its last rollout was restored"
		if c.Failures > 0 {
			o.Why = c.Verdict
		}
		o.Why = cmp.Or(late, o.Why)
	case c.Version != "" && c.Aborted == c.Version:
		o.State, o.Why = renew.SiblingStopped, c.AbortedBy
	case lacks || h.wants(c):
		o.State = renew.SiblingWaits
	}
	return o
}

// wants reports that a member is due, or was asked for.
func (h herd) wants(c farm.Certificate) bool {
	return !c.Due.IsZero() || h.words[wordRenew][c.Site] != "" || h.words[wordAhead][c.Site] != ""
}

// lacking says which of a member's targets is silent, which missed a version though it
// answers, and whether one has not the newest yet. A member of which a person undid a
// version lacks none.
func (h herd) lacking(s farm.Site, c farm.Certificate) (absent, late string, lacks bool) {
	undone := h.words[wordUndone][s.Name] != ""
	for _, p := range h.places[s.Name] {
		switch {
		case p.Late != "" && p.Reach == farm.ReachDown:
			absent = p.Target.Name + " is silent"
		case p.Late != "":
			late = p.Target.Name + " missed its last version"
		case len(p.Desired) == 0 || !undone && !slices.Contains(p.Desired, c.Version):
			lacks = true
		}
	}
	return absent, late, lacks
}

// behind says why it is not a member's turn.
func (h herd) behind(me farm.Site, asked, forward bool) renew.Wait {
	m := renew.Member{
		Sibling: h.sibling(me), Parallel: me.Member.Parallel, Failures: me.Member.Failures, Absent: me.Member.Absent,
		Asked: asked, Forward: forward,
	}
	var others []renew.Sibling
	for _, s := range h.sites {
		others = append(others, h.sibling(s))
	}
	return renew.Siblings(m, others)
}

// orderly says why a member's order waits for its siblings; empty: it does not. Those
// that are to be renewed before it are. Past the last safe moment nobody waits.
func (s *standing) orderly(ctx context.Context, tx *store.Tx) (why string, err error) {
	if s.site.Member == nil {
		return "", nil
	}
	if last := s.lastSafe(); !last.IsZero() && !tx.Now().Before(last) && !s.compromised() {
		return "", noteWait(ctx, tx, s.cert.Farm, s.site, renew.Wait{})
	}
	return inTurn(ctx, tx, s.cert.Farm, s.site, s.asked != "" || s.compromised(), s.compromised())
}

// waitsNoMore forgets for whom a member waited that is not due any more.
func (s *standing) waitsNoMore(ctx context.Context, tx *store.Tx) error {
	if s.site.Member == nil {
		return nil
	}
	return tx.SetWord(ctx, s.cert.Farm, wordWaits+s.site.Name, "")
}

// inTurn says why a member waits for its siblings, notes it, and has those renewed that
// go first.
func inTurn(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, asked, forward bool) (why string, err error) {
	h, err := herdOf(ctx, tx, farmName, site.Whole())
	if err != nil {
		return "", err
	}
	if err := h.hold(ctx, tx, farmName, site); err != nil {
		return "", err
	}
	w := h.behind(site, asked, forward)
	for _, name := range w.Ahead {
		if err := tx.SetWord(ctx, farmName, wordAhead+name, site.Name); err != nil {
			return "", err
		}
		if err := arm(ctx, tx, farmName, "check", name, tx.Now()); err != nil {
			return "", err
		}
	}
	if w.Why != "" {
		if err := arm(ctx, tx, farmName, "check", site.Name, tx.Now().Add(waitAgain)); err != nil {
			return "", err
		}
	}
	return w.Why, noteWait(ctx, tx, farmName, site, w)
}

// noteWait writes for whom a member waits, and tells once for all members that one
// which goes first failed.
func noteWait(ctx context.Context, tx *store.Tx, farmName string, site farm.Site, w renew.Wait) error {
	if err := tx.SetWord(ctx, farmName, wordWaits+site.Name, w.Why); err != nil || !w.Failed {
		return err
	}
	whole := site.Whole()
	was, err := tx.Word(ctx, farmName, wordStuck+whole)
	if err != nil || was == w.Why {
		return err
	}
	if err := tx.SetWord(ctx, farmName, wordStuck+whole, w.Why); err != nil {
		return err
	}
	return tell(ctx, tx, farm.Event{
		Farm: farmName, Kind: "member.waits", Level: farm.Warn, Site: site.Name, Text: w.Why + ": the nodes that come after it wait",
		Hint: "they go on by themselves when it has gone well; `certfarm describe site " + whole + "` shows all of them",
	})
}

// wakeSiblings lets those look again whether it is their turn that waited for a member.
func wakeSiblings(ctx context.Context, tx *store.Tx, farmName, name string) error {
	whole := farm.WholeOf(name)
	if whole == name {
		return nil
	}
	waiting, err := tx.MemberWords(ctx, farmName, wordWaits, whole)
	if err != nil || len(waiting) == 0 {
		return err
	}
	if err := wakeFirst(ctx, tx, farmName, name, waiting); err != nil {
		return err
	}
	if stuck, err := tx.Word(ctx, farmName, wordStuck+whole); err != nil || !strings.HasPrefix(stuck, name+" ") {
		return err
	}
	return tx.SetWord(ctx, farmName, wordStuck+whole, "")
}

// rollsInTurn says why a member's rollout waits for its siblings; empty: it does not.
// What presses waits for nobody, as it does for no window.
func rollsInTurn(ctx context.Context, tx *store.Tx, site farm.Site, v farm.Version, places []farm.Place) (why string, err error) {
	if site.Member == nil || len(places) == 0 {
		return "", nil
	}
	forward := false
	for _, p := range places {
		from, err := live(ctx, tx, p)
		if err != nil {
			return "", err
		}
		if rollout.Pressing(farm.Rollout{Steps: []farm.Step{{State: farm.Planned, From: from}}}, tx.Now()) && len(from) > 0 {
			return "", nil
		}
		flees, err := fleeing(ctx, tx, p)
		if err != nil {
			return "", err
		}
		forward = forward || flees
	}
	return inTurn(ctx, tx, v.Farm, site, true, forward)
}

// asMember adds what is known of a site as one of several. Where a person undid its
// versions, it goes back to those of before its strategy changed.
func (s *standing) asMember(ctx context.Context, tx *store.Tx) (err error) {
	if s.site.Member == nil {
		return nil
	}
	if s.ahead, err = tx.Word(ctx, s.cert.Farm, wordAhead+s.site.Name); err != nil {
		return err
	}
	if node, _ := heldOn(s.good); node != "" {
		_, own, err := keptAt(ctx, tx, s.cert.Farm, s.site)
		if err != nil || own {
			return err
		}
		s.good, s.newest = farm.Version{}, farm.Version{} // its key is where nobody can ask for it any more
	}
	if s.good.ID != "" {
		return nil
	}
	return s.asBefore(ctx, tx)
}

// asBefore adds what a member without a version of its own has from before its strategy
// changed.
func (s *standing) asBefore(ctx context.Context, tx *store.Tx) error {
	before, err := heldBefore(ctx, tx, s.cert.Farm, s.site.Name)
	if err != nil || len(before) == 0 {
		return err
	}
	if !s.undone.IsZero() {
		s.choose(before)
	}
	places, err := tx.Places(ctx, s.cert.Farm, s.site.Name)
	for _, p := range places {
		for _, v := range before {
			if slices.Contains(p.Desired, v.ID) && (s.held.ID == "" || v.NotAfter().Before(s.held.NotAfter())) {
				s.held = v
			}
		}
	}
	return err
}

// wakeFirst lets as many of those look again that wait as may run at one time, the first
// ones: those after them are woken by their ends.
func wakeFirst(ctx context.Context, tx *store.Tx, farmName, by string, waiting map[string]string) error {
	sites, err := tx.Members(ctx, farmName, farm.WholeOf(by))
	if err != nil {
		return err
	}
	slices.SortFunc(sites, farm.Site.Before)
	woken := 0
	for _, s := range sites {
		if s.Name == by || waiting[s.Name] == "" {
			continue
		}
		if woken++; woken > s.Member.Parallel {
			return nil
		}
		if err := arm(ctx, tx, farmName, "check", s.Name, tx.Now()); err != nil {
			return err
		}
	}
	return nil
}
