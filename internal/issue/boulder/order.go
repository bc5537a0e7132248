package boulder

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// An identifier is a name or an address (RFC 8555 §9.7.7, RFC 8738); a wildcard
// has its "*.".
type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// set is what makes two lists of names the same.
func set(names []identifier) string {
	var all []string
	for _, n := range names {
		all = append(all, n.Value)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// An order is one (RFC 8555 §7.1.3).
type order struct {
	id       string
	by       *account
	names    []identifier
	profile  string // as it was asked for
	replaces string // ARI id
	old      *cert  // what replaces stands for
	renewal  bool   // the limits on orders and domains do not count it
	expires  time.Time
	authzs   []*authz
	began    bool // finalized, with or without success
	polls    int  // how often it is still shown processing
	cert     *cert
	err      *problem
}

func (o *order) status(now time.Time) string {
	switch {
	case o.err != nil:
		return "invalid"
	case o.cert != nil && o.polls == 0:
		return "valid"
	case o.began:
		return "processing"
	case !o.expires.After(now):
		return "invalid"
	}
	status := "ready"
	for _, z := range o.authzs {
		switch z.state(now) {
		case "valid":
		case "pending":
			status = "pending"
		default:
			return "invalid"
		}
	}
	return status
}

// open reports that the order can still become a certificate.
func (o *order) open(now time.Time) bool {
	s := o.status(now)
	return s == "pending" || s == "ready"
}

// newOrder makes an order, or finds the one there is (RFC 8555 §7.4). The
// sequence of the checks is Boulder's: what an order replaces is looked at
// before order reuse, so a second request that names it is refused while the
// first one's order is alive.
func (c *CA) newOrder(q *call) error {
	var ask struct {
		Identifiers                            []identifier
		NotBefore, NotAfter, Replaces, Profile string
	}
	if err := q.read(&ask); err != nil {
		return err
	}
	if ask.NotBefore != "" || ask.NotAfter != "" {
		return refuse(http.StatusBadRequest, "malformed", "NotBefore and NotAfter are not supported")
	}
	names, err := normal(ask.Identifiers)
	if err != nil {
		return err
	}
	if err := c.turnAway(q.by, names); err != nil {
		return err
	}
	old, exempt, err := c.replacement(q, ask.Replaces, names)
	if err != nil {
		return err
	}
	profile, known := c.o.Profiles[cmp.Or(ask.Profile, c.o.Default)]
	if !known {
		return refuse(http.StatusBadRequest, "invalidProfile", "profile name %q not recognized", ask.Profile)
	}
	if err := c.allowed(profile, names); err != nil {
		return err
	}
	renewal, err := c.charge(q, names, exempt)
	if err != nil {
		return err
	}
	o := c.openOrder(q.by, names, ask.Profile, q.now)
	if o == nil {
		o = &order{by: q.by, names: names, profile: ask.Profile, replaces: ask.Replaces, old: old, renewal: renewal}
		c.fill(o, profile, q.now)
		if old != nil {
			old.successor = o
		}
	}
	q.w.Header().Set("Location", c.base+"/my-order/"+o.id)
	return q.answer(http.StatusCreated, c.orderJSON(o, q.now))
}

// normal is the identifiers as Boulder keeps them: in lower case, sorted, each once.
func normal(asked []identifier) ([]identifier, error) {
	var names []identifier
	for _, n := range asked {
		n.Value = strings.ToLower(n.Value)
		switch n.Type {
		case "dns":
			base := strings.TrimPrefix(n.Value, "*.")
			if _, ok := dns.IsDomainName(base); !ok || base == "" || !strings.Contains(base, ".") || strings.Trim(base, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
				return nil, refuse(http.StatusBadRequest, "malformed", "Invalid identifiers requested :: %q is no domain name", n.Value)
			}
		case "ip":
			ip, err := netip.ParseAddr(n.Value)
			if err != nil {
				return nil, refuse(http.StatusBadRequest, "malformed", "Invalid identifiers requested :: %q is no address", n.Value)
			}
			n.Value = ip.String()
		default:
			return nil, refuse(http.StatusBadRequest, "unsupportedIdentifier", "NewOrder request included unsupported identifier: type %q, value %q", n.Type, n.Value)
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil, refuse(http.StatusBadRequest, "malformed", "NewOrder request did not specify any identifiers")
	}
	slices.SortFunc(names, func(a, b identifier) int { return strings.Compare(a.Value, b.Value) })
	return names, nil
}

// allowed holds the names against the CA's policy and the profile's.
func (c *CA) allowed(p Profile, names []identifier) error {
	if len(names) > p.Names {
		return refuse(http.StatusBadRequest, "malformed", "Order cannot contain more than %d identifiers", p.Names)
	}
	for _, n := range names {
		if slices.Contains(c.o.Blocked, strings.TrimPrefix(n.Value, "*.")) || (n.Type == "ip" && !p.IP) {
			return refuse(http.StatusBadRequest, "rejectedIdentifier", "Error creating new order :: Cannot issue for %q: the CA's policy or the profile forbids it", n.Value)
		}
	}
	return nil
}

// replacement finds what an order claims to replace (RFC 9773 §5), and whether
// the limits spare it: only within the suggested window.
func (c *CA) replacement(q *call, id string, names []identifier) (old *cert, exempt bool, err error) {
	if id == "" {
		return nil, false, nil
	}
	old, err = c.certOf(id)
	if err != nil {
		return nil, false, err
	}
	const at = "Could not validate ARI 'replaces' field :: "
	if old.replaced(q.now) {
		return nil, false, refuse(http.StatusConflict, "alreadyReplaced", at+"cannot indicate an order replaces certificate with serial %q, which already has a replacement order", old.serial)
	}
	if old.by != q.by {
		return nil, false, refuse(http.StatusForbidden, "unauthorized", at+"requester account did not request the certificate being replaced by this order")
	}
	shared := slices.ContainsFunc(names, func(n identifier) bool { return old.leaf.VerifyHostname(n.Value) == nil })
	if !shared {
		return nil, false, refuse(http.StatusBadRequest, "malformed", at+"identifiers in this order do not match any identifiers in the certificate being replaced")
	}
	w := old.suggested(q.now)
	return old, !q.now.Before(w.Start) && !q.now.After(w.End), nil
}

// openOrder is the order that a request for the same gets again.
func (c *CA) openOrder(by *account, names []identifier, profile string, now time.Time) *order {
	for _, o := range c.orders {
		if o.by == by && o.profile == profile && slices.Equal(o.names, names) && o.open(now) {
			return o
		}
	}
	return nil
}

// fill gives a new order its authorizations, proofs that still hold among them.
// It lives no longer than any of them.
func (c *CA) fill(o *order, p Profile, now time.Time) {
	o.id, o.expires = c.id(), now.Add(p.OrderLife)
	// A proof that is about to expire would take the order with it.
	least := min(max(p.OrderLife/8, time.Hour), 24*time.Hour)
	for _, n := range o.names {
		z := c.proof(o, n, now.Add(least), now)
		if z == nil {
			z = &authz{id: c.id(), by: o.by, name: n, profile: o.profile, reuse: p.AuthzReuse, status: "pending", expires: now.Add(p.PendingAuthz), token: random(32)}
			c.authzs[z.id] = z
		}
		if z.expires.Before(o.expires) {
			o.expires = z.expires
		}
		o.authzs = append(o.authzs, z)
	}
	c.orders[o.id] = o
	c.stats.Orders[set(o.names)]++
}

// proof is a valid authorization of the same account, name and profile.
func (c *CA) proof(o *order, n identifier, until, now time.Time) *authz {
	for _, z := range c.authzs {
		if z.by == o.by && z.name == n && z.profile == o.profile && z.state(now) == "valid" && z.expires.After(until) {
			return z
		}
	}
	return nil
}

// order shows one (RFC 8555 §7.4). One that has expired is gone, its certificate's URL too.
func (c *CA) order(q *call) error {
	o, err := c.ownOrder(q)
	if err != nil {
		return err
	}
	if o.cert != nil && o.polls > 0 {
		o.polls--
	}
	return c.showOrder(q, o)
}

func (c *CA) ownOrder(q *call) (*order, error) {
	o := c.orders[q.id]
	if o == nil || o.by != q.by || o.expires.Before(q.now) {
		return nil, refuse(http.StatusNotFound, "malformed", "No order for ID %s", q.id)
	}
	return o, nil
}

func (c *CA) showOrder(q *call, o *order) error {
	q.w.Header().Set("Location", c.base+"/my-order/"+o.id)
	if wait := int(c.o.RetryAfter / time.Second); wait > 0 && o.status(q.now) == "processing" {
		q.w.Header().Set("Retry-After", fmt.Sprint(wait))
	}
	return q.answer(http.StatusOK, c.orderJSON(o, q.now))
}

func (c *CA) orderJSON(o *order, now time.Time) map[string]any {
	all := map[string]any{
		"status": o.status(now), "expires": o.expires.UTC().Format(time.RFC3339), "identifiers": o.names,
		"finalize": c.base + "/finalize-order/" + o.id,
	}
	var urls []string
	for _, z := range o.authzs {
		urls = append(urls, c.base+"/authZ/"+z.id)
	}
	all["authorizations"] = urls
	if o.profile != "" {
		all["profile"] = o.profile
	}
	if o.replaces != "" {
		all["replaces"] = o.replaces
	}
	if o.err != nil {
		all["error"] = o.err
	}
	if o.status(now) == "valid" {
		all["certificate"] = c.base + "/certZ/" + o.cert.serial
	}
	return all
}
