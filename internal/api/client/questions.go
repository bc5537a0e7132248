package client

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// About tells what answers.
func (c *Client) About(ctx context.Context) (api.About, error) {
	return answered[api.About](ctx, c, ask{route: "about"})
}

// Farms lists the farms.
func (c *Client) Farms(ctx context.Context) ([]string, error) {
	out, err := answered[api.Farms](ctx, c, ask{route: "list-farms"})
	return out.Farms, err
}

// FarmFile returns the newest farm.yaml as it was written.
func (c *Client) FarmFile(ctx context.Context, farmName string) (api.FarmFile, error) {
	return answered[api.FarmFile](ctx, c, ask{route: "get-farm", words: []string{farmName}})
}

// Plan says what applying a farm.yaml would change.
func (c *Client) Plan(ctx context.Context, farmName string, text []byte, file string) (controller.Plan, error) {
	return answered[controller.Plan](ctx, c, ask{route: "plan", words: []string{farmName}, body: api.PlanAsk{Text: string(text), File: file}})
}

// Apply makes a farm.yaml the farm's new revision, if the stored one is still
// was.
func (c *Client) Apply(ctx context.Context, farmName string, text []byte, file string, was int64) (controller.Plan, error) {
	in := api.ApplyAsk{PlanAsk: api.PlanAsk{Text: string(text), File: file}, Revision: was}
	a := ask{route: "apply", words: []string{farmName}, body: in}
	if was > 0 {
		a.head = map[string]string{"If-Match": `"` + strconv.FormatInt(was, 10) + `"`}
	}
	return answered[controller.Plan](ctx, c, a)
}

// Freeze stops all activations of a farm, or lets them go on.
func (c *Client) Freeze(ctx context.Context, farmName string, on bool) error {
	return told(ctx, c, ask{route: "freeze", words: []string{farmName}, body: api.Switch{On: on}})
}

// Doctor looks at the controllers and the database, and asks every node and CA.
func (c *Client) Doctor(ctx context.Context, farmName string) (controller.Checkup, error) {
	return answered[controller.Checkup](ctx, c, ask{route: "doctor", words: []string{farmName}})
}

// Forecast plays the next days forward against the limits of the CAs.
func (c *Client) Forecast(ctx context.Context, farmName string, what controller.ForecastAsk) (controller.ForecastReport, error) {
	q := url.Values{"days": {strconv.Itoa(what.Days)}}
	for name, n := range map[string]int{"add_names": what.AddNames, "lifetime": int(what.Lifetime / time.Second), "pause": int(what.Pause / time.Second)} {
		if n != 0 {
			q.Set(name, strconv.Itoa(n))
		}
	}
	if what.Under != "" {
		q.Set("under", what.Under)
	}
	return answered[controller.ForecastReport](ctx, c, ask{route: "forecast", words: []string{farmName}, query: q})
}

// Sites lists all sites by name.
func (c *Client) Sites(ctx context.Context, farmName string) ([]controller.SiteStatus, error) {
	return walked(ctx, c, ask{route: "list-sites", words: []string{farmName}}, 0,
		func(p api.Sites) ([]controller.SiteStatus, string) { return p.Sites, p.Next })
}

// Describe tells everything about a site.
func (c *Client) Describe(ctx context.Context, farmName, site string) (controller.SiteDetail, error) {
	return answered[controller.SiteDetail](ctx, c, ask{route: "get-site", words: []string{farmName, site}})
}

// Renew orders a new certificate for a site now.
func (c *Client) Renew(ctx context.Context, farmName, site string) error {
	return told(ctx, c, ask{route: "renew", words: []string{farmName, site}})
}

// Verify asks every endpoint of a site now what it serves.
func (c *Client) Verify(ctx context.Context, farmName, site string) ([]controller.Verified, error) {
	out, err := answered[api.Verifieds](ctx, c, ask{route: "verify", words: []string{farmName, site}})
	return out.Targets, err
}

// Undo brings a version back, named by its id or the beginning of a leaf's fingerprint;
// empty: the one before the newest.
func (c *Client) Undo(ctx context.Context, farmName, site, to string) error {
	q := url.Values{}
	if to != "" {
		q.Set("to", to)
	}
	return told(ctx, c, ask{route: "undo", words: []string{farmName, site}, query: q})
}

// Import makes a certificate from elsewhere the site's newest version.
func (c *Client) Import(ctx context.Context, farmName, site string, chain []byte, key farm.Secret) (api.Imported, error) {
	return answered[api.Imported](ctx, c, ask{
		route: "import", words: []string{farmName, site}, body: api.Pair{Chain: string(chain), Key: key.Reveal()},
	})
}

// progressAtOnce is how many sites are asked about in one request.
const progressAtOnce = 100

// Progress tells what the named sites are busy with, in the order asked.
func (c *Client) Progress(ctx context.Context, farmName string, sites ...string) (all []controller.Progress, err error) {
	for some := range slices.Chunk(sites, progressAtOnce) {
		out, err := answered[api.Progresses](ctx, c, ask{route: "progress", words: []string{farmName}, query: url.Values{"site": some}})
		if err != nil {
			return nil, err
		}
		all = append(all, out.Sites...)
	}
	return all, nil
}

// Targets lists the targets of a site, or of all sites, by name.
func (c *Client) Targets(ctx context.Context, farmName, site string) ([]controller.TargetStatus, error) {
	return walked(ctx, c, ask{route: "list-targets", words: []string{farmName}, query: given("site", site)}, 0,
		func(p api.Targets) ([]controller.TargetStatus, string) { return p.Targets, p.Next })
}

// Target tells everything about a target.
func (c *Client) Target(ctx context.Context, farmName, target string) (controller.TargetDetail, error) {
	return answered[controller.TargetDetail](ctx, c, ask{route: "get-target", words: []string{farmName, target}})
}

// Audit looks through the whole place of a target now.
func (c *Client) Audit(ctx context.Context, farmName, target string) (controller.Audit, error) {
	return answered[controller.Audit](ctx, c, ask{route: "audit", words: []string{farmName, target}})
}

// TestTarget tries a target with a throw-away certificate beside what is live.
func (c *Client) TestTarget(ctx context.Context, farmName, target string, reload bool) (controller.TargetTest, error) {
	return answered[controller.TargetTest](ctx, c, ask{
		route: "test-target", words: []string{farmName, target}, body: api.TargetTestAsk{Reload: reload},
	})
}

// RestoreTarget brings a target back to what it should hold.
func (c *Client) RestoreTarget(ctx context.Context, farmName, target string) error {
	return told(ctx, c, ask{route: "restore-target", words: []string{farmName, target}})
}

// Retire forgets a target that is gone from farm.yaml.
func (c *Client) Retire(ctx context.Context, farmName, target string) error {
	return told(ctx, c, ask{route: "retire", words: []string{farmName, target}})
}

// Nodes lists the nodes by name.
func (c *Client) Nodes(ctx context.Context, farmName string) ([]controller.NodeStatus, error) {
	return walked(ctx, c, ask{route: "list-nodes", words: []string{farmName}}, 0,
		func(p api.Nodes) ([]controller.NodeStatus, string) { return p.Nodes, p.Next })
}

// NodeStatus tells of one node.
func (c *Client) NodeStatus(ctx context.Context, farmName, node string) (controller.NodeStatus, error) {
	return answered[controller.NodeStatus](ctx, c, ask{route: "get-node", words: []string{farmName, node}})
}

// Hold keeps every change away from a node, or releases it.
func (c *Client) Hold(ctx context.Context, farmName, node string, on bool) error {
	return told(ctx, c, ask{route: "hold", words: []string{farmName, node}, body: api.Switch{On: on}})
}

// SetSecret seals a secret under a name.
func (c *Client) SetSecret(ctx context.Context, farmName, name string, value farm.Secret) error {
	return told(ctx, c, ask{route: "set-secret", words: []string{farmName, name}, body: api.SecretValue{Value: value.Reveal()}})
}

// Secrets lists the names of the farm's secrets.
func (c *Client) Secrets(ctx context.Context, farmName string) ([]controller.SecretInfo, error) {
	return walked(ctx, c, ask{route: "list-secrets", words: []string{farmName}}, 0,
		func(p api.SecretNames) ([]controller.SecretInfo, string) { return p.Secrets, p.Next })
}

// RemoveSecret forgets a secret.
func (c *Client) RemoveSecret(ctx context.Context, farmName, name string) error {
	return told(ctx, c, ask{route: "remove-secret", words: []string{farmName, name}})
}

// Rekey makes a new master key and seals everything under it. It returns how many
// records there were.
func (c *Client) Rekey(ctx context.Context) (int, error) {
	out, err := answered[api.Rekeyed](ctx, c, ask{route: "rekey"})
	return out.Records, err
}

// given is a query of pairs, without those that are empty.
func given(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}
