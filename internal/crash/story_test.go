package crash

import (
	"context"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// A story is what a person wants of a farm, and how it must end.
type story struct {
	name    string
	begins  *story   // what was before, told without a death
	fault   lab.Kind // of the last node, from the begin of the story
	silent  bool     // the fault makes the node silent for a while
	ask     func(context.Context, *run) error
	outcome farm.Outcome
	or      farm.Outcome // what a death may make of it
	flees   bool         // from a key that others know: it ends with another than it began with
}

// first is the first certificate, onto nodes that serve a placeholder.
var first = story{
	name: "first issue", outcome: farm.Done,
	ask: func(ctx context.Context, r *run) error {
		_, err := r.lab.Apply(ctx) // whoever got no answer applies once more
		return err
	},
}

// back is a renewal that the last node takes without serving it, so that all go
// back to what they had.
var back = story{
	name: "renewal that is restored", begins: &first, fault: lab.BadReload, outcome: farm.RolledBack, ask: renew,
}

// unstaged is a renewal that finds a disk full before anything has changed.
var unstaged = story{
	name: "renewal that is unstaged", begins: &first, fault: lab.DiskFull, outcome: farm.RolledBack, ask: renew,
}

// refused is a renewal that clients would refuse: nobody trusts what is served.
var refused = story{
	name: "renewal that is not trusted", begins: &first, fault: lab.WrongChain, outcome: farm.RolledBack, ask: renew,
}

// revived is a renewal whose reload ends the last server. A controller that dies
// after that reload finds a server that does not run, and starts it with the new
// certificate: then all is well.
var revived = story{
	name: "renewal that ends a server", begins: &first, fault: lab.DiesOnReload, silent: true, ask: renew,
	outcome: farm.RolledBack, or: farm.Done,
}

// fled is the journey away from a key that others know: another one everywhere, the
// old certificate revoked, the old key erased here and on the nodes.
var fled = story{
	name: "compromise", begins: &first, flees: true, outcome: farm.Done,
	ask: func(ctx context.Context, r *run) error {
		if r.asked {
			return nil
		}
		_, err := r.lab.Controller.Compromise(ctx, r.lab.Farm, r.lab.Site, controller.CompromiseAsk{}, "crash test")
		r.asked = r.life.has(after, "store controller.compromiseOne")
		return err
	},
}

// renew asks once: whoever got no answer looks whether the wish was kept.
func renew(ctx context.Context, r *run) error {
	if r.asked {
		return nil
	}
	err := r.lab.Controller.Renew(ctx, r.lab.Farm, r.lab.Site, "crash test")
	r.asked = r.life.has(after, "store controller.Renew")
	return err
}
