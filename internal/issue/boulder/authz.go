package boulder

import (
	"net/http"
	"strings"
	"time"
)

// An authz is the question about one name (RFC 8555 §7.1.4). Its challenges
// share one token.
type authz struct {
	id      string
	by      *account
	name    identifier
	profile string
	reuse   time.Duration // how long it holds once it is valid
	status  string
	expires time.Time
	token   string
	method  string    // what is, or was, looked at
	proven  time.Time // when
	err     *problem  // of the look that failed
}

func (z *authz) state(now time.Time) string {
	if !z.expires.After(now) && z.status != "invalid" {
		return "expired"
	}
	return z.status
}

func (z *authz) base() string   { return strings.TrimPrefix(z.name.Value, "*.") }
func (z *authz) wildcard() bool { return z.base() != z.name.Value }

// methods are those that can prove the name: an address only by HTTP, a wildcard
// only by DNS. Of one that is decided only the method that was tried is shown.
func (c *CA) methods(z *authz) (all []string) {
	if z.status != "pending" && z.method != "" {
		return []string{z.method}
	}
	if !z.wildcard() {
		all = append(all, http01)
	}
	if z.name.Type == "dns" {
		all = append(all, dns01)
		if c.o.Persist {
			all = append(all, persist01)
		}
	}
	return all
}

// authz shows or ends an authorization (RFC 8555 §7.5).
func (c *CA) authz(q *call) error {
	z, err := c.ownAuthz(q, q.id)
	if err != nil {
		return err
	}
	if len(q.payload) > 0 {
		var ask struct{ Status string }
		if err := q.read(&ask); err != nil {
			return err
		}
		if ask.Status == "deactivated" && (z.status == "pending" || z.status == "valid") {
			z.status = ask.Status
		}
	}
	var challenges []map[string]any
	for _, m := range c.methods(z) {
		challenges = append(challenges, c.challengeJSON(z, m))
	}
	all := map[string]any{
		"identifier": identifier{z.name.Type, z.base()}, "status": z.status,
		"expires": z.expires.UTC().Format(time.RFC3339), "challenges": challenges,
	}
	if z.wildcard() {
		all["wildcard"] = true
	}
	return q.answer(http.StatusOK, all)
}

func (c *CA) ownAuthz(q *call, id string) (*authz, error) {
	z := c.authzs[id]
	switch {
	case z == nil:
		return nil, refuse(http.StatusNotFound, "malformed", "No such authorization")
	case z.by != q.by:
		return nil, refuse(http.StatusForbidden, "unauthorized", "Account does not own authorization")
	case z.expires.Before(q.now):
		return nil, refuse(http.StatusNotFound, "malformed", "Expired authorization")
	}
	return z, nil
}

// challengeJSON shows a challenge. While it is looked at it stays pending, as at
// Boulder, which knows no processing challenge.
func (c *CA) challengeJSON(z *authz, method string) map[string]any {
	all := map[string]any{"type": method, "url": c.base + "/chalZ/" + z.id + "/" + method, "status": "pending"}
	if method == persist01 {
		all["issuer-domain-names"], all["accounturi"] = []string{c.o.Identity}, z.by.url
	} else {
		all["token"] = z.token
	}
	if z.status == "pending" || z.method != method {
		return all
	}
	all["status"] = z.status
	if z.err != nil {
		all["error"] = z.err
	}
	if !z.proven.IsZero() {
		all["validated"] = z.proven.UTC().Format(time.RFC3339)
	}
	return all
}

// challenge begins to look (RFC 8555 §7.5.1). One that is valid stays so; one
// that is looked at already is not looked at twice.
func (c *CA) challenge(q *call) error {
	id, method, _ := strings.Cut(q.id, "/")
	z, err := c.ownAuthz(q, id)
	if err != nil {
		return err
	}
	offered := false
	for _, m := range c.methods(z) {
		offered = offered || m == method
	}
	switch {
	case !offered:
		return refuse(http.StatusNotFound, "malformed", "No such challenge")
	case len(q.payload) > 0 && z.status != "pending" && z.status != "valid":
		return refuse(http.StatusBadRequest, "malformed", "Unable to update challenge :: authorization must be pending")
	case len(q.payload) > 0 && z.status == "pending" && z.method == "":
		z.method = method
		l := c.lookAt(z)
		c.start(func() { c.decide(z, l.all(c.ctx)) })
	}
	q.w.Header().Add("Link", "<"+c.base+"/authZ/"+z.id+`>;rel="up"`)
	return q.answer(http.StatusOK, c.challengeJSON(z, method))
}

// decide writes down what was seen. A failure is final for the authorization and
// its orders, and is counted; a success fills the bucket that pauses.
func (c *CA) decide(z *authz, failure *problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	if z.status != "pending" || c.ctx.Err() != nil {
		return
	}
	z.proven = now
	if failure != nil {
		z.status, z.err = "invalid", failure
		c.failed(z.by, z.name, now)
		return
	}
	z.status, z.expires = "valid", now.Add(z.reuse)
	delete(c.buckets, "pause "+z.by.url+" "+z.name.Value)
}

// start does something beside the requests. The caller holds the lock, under
// which Close ends the context, so that nothing starts after it.
func (c *CA) start(do func()) {
	if c.ctx.Err() == nil {
		c.work.Go(do)
	}
}
