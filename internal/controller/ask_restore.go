package controller

import (
	"context"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// Restore brings a target back to what it should hold, as a one-target rollout: a
// person's word where the site's drift is only reported, or before its next try. A valid
// certificate that is not ours takes an assent (Tell with Approve).
func (c *Controller) Restore(ctx context.Context, farmName, target, by string) error {
	return c.Store.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Place(ctx, farmName, target)
		if err != nil {
			return err
		}
		if err := restorable(p); err != nil {
			return err
		}
		if err := workable(ctx, tx, p); err != nil {
			return err
		}
		site, err := tx.Site(ctx, farmName, p.Target.Site)
		if err != nil {
			return err
		}
		v, err := tx.Version(ctx, farmName, p.Desired[0])
		if err != nil {
			return err
		}
		if v.State != farm.VersionGood {
			return &Refusal{"what " + target + " should hold is not good any more: " + string(v.State), "`certfarm renew " + site.Name + "` orders a new one"}
		}
		if err := tell(ctx, tx, farm.Event{
			Farm: farmName, Kind: "target.restore", Site: site.Name, Node: p.Target.Node, Target: target, Actor: by, Text: by + " has it brought back to what it should hold",
		}); err != nil {
			return err
		}
		_, err = start(ctx, tx, site, farmName, v, []farm.Place{p}, reasonDrift)
		return err
	})
}

// restorable refuses a target that there is nothing to bring back to, or that takes
// another word.
func restorable(p farm.Place) error {
	target := p.Target.Name
	switch {
	case p.Released || len(p.Desired) == 0:
		return &Refusal{"there is nothing that " + target + " should hold", ""}
	case p.Drift == "" && p.Late == "":
		return &Refusal{target + " was last seen to serve what it should", "`certfarm verify " + p.Target.Site + "` looks again"}
	case p.Foreign:
		return &Refusal{target + " serves a valid certificate that is not ours", "`certfarm rollout approve " + p.Target.Site + "` lets it be replaced"}
	case p.Reach != farm.ReachUp:
		return &Refusal{target + " cannot be reached", "it is brought back when it answers"}
	}
	return nil
}

// workable refuses a target on which nothing may be changed now.
func workable(ctx context.Context, tx *store.Tx, p farm.Place) error {
	site := p.Target.Site
	running, err := tx.RunningRollouts(ctx, p.Farm, site)
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return &Refusal{"a rollout of " + site + " runs", "`certfarm rollout status " + site + "` shows it"}
	}
	held, err := tx.Word(ctx, p.Farm, wordHeld+p.Target.Node)
	if err != nil {
		return err
	}
	if held != "" && p.Target.Node != "" {
		return &Refusal{"node " + p.Target.Node + " is held by " + held, "`certfarm node release " + p.Target.Node + "`"}
	}
	may, opens, err := mayChange(ctx, tx, p)
	if err != nil || may {
		return err
	}
	return &Refusal{p.Target.Name + " is outside its window until " + opens.UTC().Format("2006-01-02 15:04 MST"), ""}
}
