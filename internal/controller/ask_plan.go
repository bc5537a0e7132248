package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/store"
)

// A Plan is what applying a farm.yaml would change, against a stored revision.
type Plan struct {
	Farm     string        `json:"farm"`
	Revision int64         `json:"revision" doc:"the stored revision that the plan was made against; 0: none"`
	Changes  []plan.Change `json:"changes"`
	Released []string      `json:"released,omitempty" doc:"targets gone from farm.yaml: left alone until retired"`
	PerNode  []PerNode     `json:"per_node,omitempty" doc:"what the first certificates of nodes with keys of their own take"`
	Warnings []PlanWarning `json:"warnings,omitempty" doc:"what can be applied, and will lead to trouble"`
}

// Plan says what applying a farm.yaml would change. Its error is of type
// config.Mistakes where the text is at fault.
func (c *Controller) Plan(ctx context.Context, text []byte, file string) (Plan, error) {
	p, sure, err := c.planPart(ctx, text, file)
	if sure || err != nil {
		return p, err
	}
	parsed, err := c.Parse(text, file)
	if err != nil {
		return Plan{}, err
	}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		if ms, err := missingSecrets(ctx, tx, parsed); err != nil || len(ms) > 0 {
			return errors.Join(err, orNil(ms))
		}
		p, err = planned(ctx, tx, parsed.Farm)
		return err
	})
	return p, err
}

func orNil(ms config.Mistakes) error {
	if len(ms) == 0 {
		return nil
	}
	return ms
}

func missingSecrets(ctx context.Context, tx *store.Tx, p config.Parsed) (config.Mistakes, error) {
	have, err := secretNames(ctx, tx, p.Farm.Name)
	if err != nil {
		return nil, err
	}
	return p.Missing(func(name string) bool { return have[name] }), nil
}

// secretNames are the secrets that a farm has.
func secretNames(ctx context.Context, tx *store.Tx, farmName string) (map[string]bool, error) {
	infos, err := tx.SealedNames(ctx, farmName, sealedSecret)
	have := map[string]bool{}
	for _, i := range infos {
		have[i.Name] = true
	}
	return have, err
}

func planned(ctx context.Context, tx *store.Tx, wanted farm.Farm) (Plan, error) {
	p := Plan{Farm: wanted.Name}
	r, err := tx.Revision(ctx, wanted.Name)
	was := farm.Farm{Name: wanted.Name}
	switch {
	case err == nil:
		p.Revision = r.Number
		if was, err = tx.Farm(ctx, wanted.Name); err != nil {
			return p, err
		}
	case !errors.Is(err, store.ErrNotFound):
		return p, err
	}
	p.Changes = plan.Diff(was, wanted)
	return weighed(ctx, tx, p, wanted)
}

// weighed adds to a plan what its changes cost, and what trouble they lead to.
func weighed(ctx context.Context, tx *store.Tx, p Plan, wanted farm.Farm) (Plan, error) {
	p.Warnings = overloaded(wanted, p.Changes)
	have, err := alreadyHad(ctx, tx, wanted, p.Changes)
	if err != nil {
		return p, err
	}
	p.PerNode, err = prices(ctx, tx, wanted, p.Changes, have)
	keep(p.Changes, have)
	return p, err
}

// wordReading is how the newest revision was read: a reading, in JSON.
const wordReading = "reading"

// A reading tells of a revision what a plan must know of the sites that it does not read.
type reading struct {
	Revision int64        `json:"revision"`
	Reader   string       `json:"reader"` // who read it
	Tally    config.Tally `json:"tally"`
}

// reader names what reads farm.yaml here: two of one name read every text alike. Empty:
// the program does not know from which commit it was built, so that nothing is known of
// what another of its name reads.
func (c *Controller) reader() string {
	v := c.Version
	if v == "" || v == "unknown" || strings.HasPrefix(v, "devel") || strings.HasSuffix(v, "+dirty") {
		return ""
	}
	return fmt.Sprintf("certfarm %s, %s %s/%s, secrets in place: %t", v, runtime.Version(), runtime.GOOS, runtime.GOARCH, c.InPlace)
}

// keepReading keeps what plans against a new revision can go by. Where that is nothing,
// it takes away what was kept of the revision before.
func (c *Controller) keepReading(ctx context.Context, tx *store.Tx, p config.Parsed, revision int64) error {
	if p.Tally == nil || c.reader() == "" {
		return tx.SetWord(ctx, p.Farm.Name, wordReading, "")
	}
	text, err := json.Marshal(reading{revision, c.reader(), *p.Tally})
	if err != nil {
		return fmt.Errorf("encode how revision %d was read: %w", revision, err)
	}
	return tx.SetWord(ctx, p.Farm.Name, wordReading, string(text))
}

// lastRead is the newest revision of a farm with its reading. Not ok: there is none, or
// another reader read it.
func (c *Controller) lastRead(ctx context.Context, tx *store.Tx, farmName string) (r store.Revision, of reading, ok bool, err error) {
	text, err := tx.Word(ctx, farmName, wordReading)
	if err != nil || text == "" {
		return r, of, false, err
	}
	if json.Unmarshal([]byte(text), &of) != nil || of.Reader != c.reader() {
		return r, of, false, nil //nolint:nilerr // another Certfarm wrote it
	}
	r, err = tx.Revision(ctx, farmName)
	return r, of, err == nil && r.Number == of.Revision, err
}

// planPart is the plan of a text that differs from the newest revision in some sites
// alone: those are read, and no others. Where it is sure, the plan is the one that the
// whole text has; else the whole is read, which also tells what is wrong in it.
func (c *Controller) planPart(ctx context.Context, text []byte, file string) (p Plan, sure bool, err error) {
	name := config.FarmOf(text)
	if name == "" || c.reader() == "" {
		return p, false, nil
	}
	err = c.Store.View(ctx, func(tx *store.Tx) error {
		last, of, ok, err := c.lastRead(ctx, tx, name)
		if !ok || err != nil {
			return err
		}
		part, ok := config.Between(last.Text, text, file, of.Tally, c.Vocabulary())
		if !ok {
			return nil
		}
		if lack, err := lacking(ctx, tx, part.Is, of.Tally); lack || err != nil {
			return err
		}
		p, err = plannedPart(ctx, tx, part, last.Number)
		sure = true
		return err
	})
	return p, sure, err
}

// lacking reports that the farm names a secret that is not there, or is no more.
func lacking(ctx context.Context, tx *store.Tx, is config.Parsed, t config.Tally) (bool, error) {
	have, err := secretNames(ctx, tx, is.Farm.Name)
	there := func(name string) bool { return have[name] }
	known := slices.DeleteFunc(slices.Clone(t.Secrets), there)
	return len(known)+len(is.Missing(there)) > 0, err
}

// plannedPart is planned, for a part of a farm.
func plannedPart(ctx context.Context, tx *store.Tx, part config.Part, revision int64) (Plan, error) {
	was, wanted := part.Was.Farm, part.Is.Farm
	p := Plan{Farm: wanted.Name, Revision: revision, Changes: plan.Diff(was, wanted)}
	if len(concerned(wanted, p.Changes)) > 0 {
		all, err := tx.SitesAsked(ctx, wanted.Name)
		if err != nil {
			return p, err
		}
		wanted.Sites = instead(all, was.Sites, wanted.Sites)
	}
	return weighed(ctx, tx, p, wanted)
}

// instead are all sites, but for some of them others, in no order.
func instead(all, of, others []farm.Site) []farm.Site {
	gone := map[string]bool{}
	for _, s := range of {
		gone[s.Name] = true
	}
	all = slices.DeleteFunc(all, func(s farm.Site) bool { return gone[s.Name] })
	return append(all, others...)
}
