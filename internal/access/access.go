// Package access says who asks, and whether they may: for the API and for the
// dashboard alike.
//
//	unix socket ─────────────── the same user: everything ─┐
//	bearer token ─ store, file ─ not expired? ─────────────┼─→ Caller ─→ Guard ─→ the route
//	cookie ─ session ─ token or identity provider ─ CSRF ──┘             │
//	                                                   table: permission, object
//
// Its invariants: who has no grant may nothing, so that a mistake shuts a door and
// opens none; every route stands in a table with its permission and the object that
// it is about, and the Guard alone resolves that object to a site and its tags; what
// a caller may not see is answered as if it were not there; tokens and cookies are
// kept as digests only.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/store"
)

// A Permission is what a route needs. Roles are sets of these.
type Permission string

// The permissions.
const (
	View      Permission = "view"       // read everything but secrets
	Operate   Permission = "operate"    // renew, verify, pause, resume, abort, undo, freeze, hold
	Approve   Permission = "approve"    // let a wave begin that waits for assent
	Edit      Permission = "edit"       // apply farm.yaml, retire a target, bring a certificate from elsewhere
	Secrets   Permission = "secrets"    // set and remove secrets, change, revoke and erase keys; nobody can read one
	KeyExport Permission = "key-export" // be handed a certificate with its key
	Access    Permission = "access"     // make and revoke tokens, end sessions
	Metrics   Permission = "metrics"    // read /metrics: numbers of all farms, with the names of sites and nodes

	// Public is what a page needs that everybody may see, before they are known: it
	// is no permission that anybody could be given.
	Public Permission = "public"
)

// Permissions lists every permission that can be given.
func Permissions() []Permission {
	return []Permission{View, Operate, Approve, Edit, Secrets, KeyExport, Access, Metrics}
}

// A Role is a set of permissions with a name.
type Role string

// The roles. Editor and approver are apart, so that who changes a farm need not be
// who lets the change go on; somebody may have several. Puller is for programs that
// take certificates away with their keys, and may nothing else.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Approver Role = "approver"
	Editor   Role = "editor"
	Puller   Role = "puller"
	Scraper  Role = "scraper" // a Prometheus
	Admin    Role = "admin"
)

// Roles lists every role.
func Roles() []Role { return []Role{Viewer, Operator, Approver, Editor, Puller, Scraper, Admin} }

// Permissions is what the role may do; nothing, if there is no such role.
func (r Role) Permissions() []Permission {
	switch r {
	case Viewer:
		return []Permission{View}
	case Operator:
		return []Permission{View, Operate}
	case Approver:
		return []Permission{View, Approve}
	case Editor:
		return []Permission{View, Operate, Edit}
	case Puller:
		return []Permission{KeyExport}
	case Scraper:
		return []Permission{Metrics}
	case Admin:
		return Permissions()
	}
	return nil
}

// A Grant lets a caller do something somewhere.
type Grant struct {
	Role Role // for people; May decides
	May  []Permission
	Farm string   // empty: every farm
	Tags []string // sites with one of these; empty: all, and what concerns a whole farm
}

// Words says in one line what stored grants are good for.
func Words(all []store.Grant) string {
	var words []string
	for _, g := range all {
		word := g.Role
		if g.Farm != "" {
			word += " of " + g.Farm
		}
		if len(g.Tags) > 0 {
			word += " for sites with " + strings.Join(g.Tags, ", ")
		}
		words = append(words, word)
	}
	return strings.Join(words, "; ")
}

// Granted is what stored grants mean now. One whose role is unknown, since another
// version wrote it, is worth nothing.
func Granted(all []store.Grant) []Grant {
	var out []Grant
	for _, g := range all {
		if may := Role(g.Role).Permissions(); may != nil {
			out = append(out, Grant{Role: Role(g.Role), May: may, Farm: g.Farm, Tags: g.Tags})
		}
	}
	return out
}

// CheckGrants says what is wrong with grants that somebody asks for.
func CheckGrants(all []store.Grant) error {
	if len(all) == 0 {
		return fmt.Errorf("there is no role: name at least one of %v", Roles())
	}
	for _, g := range all {
		if !slices.Contains(Roles(), Role(g.Role)) {
			return fmt.Errorf("there is no role %q: %v", g.Role, Roles())
		}
		if slices.Contains(g.Tags, "") {
			return fmt.Errorf("a tag of role %s is empty", g.Role)
		}
	}
	return nil
}

// The ways in which a caller is known.
const (
	ViaSocket = "socket"     // whoever may open it is the user that certfarm runs as
	ViaToken  = "token"      // of the store
	ViaFile   = "token-file" // a line of --token-file
	ViaOIDC   = "oidc"       // an identity provider
)

// A Caller is who asks, and what they may do. The zero Caller is nobody.
type Caller struct {
	Name   string // for the journal
	Via    string // how they are known
	Key    string // what they showed: a token's id, a line's name, issuer and subject
	Grants []Grant
	Login  time.Time // when they last showed it; zero: with this very request
}

// Local is who opened the controller's own socket: they may do everything.
func Local(name string) Caller {
	return Caller{Name: name, Via: ViaSocket, Key: name, Grants: []Grant{{Role: Admin, May: Permissions()}}}
}

// Known reports that the caller is somebody.
func (c Caller) Known() bool { return c.Via != "" }

// A Scope is the part of a farm in which somebody may do a thing.
type Scope struct {
	All  bool     // the whole farm, and what concerns all of it
	Tags []string // else only sites with one of these
}

// None reports that there is no part at all.
func (s Scope) None() bool { return !s.All && len(s.Tags) == 0 }

// Holds reports that a site with these tags lies within.
func (s Scope) Holds(tags []string) bool {
	return s.All || slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(s.Tags, t) })
}

// Scope is where in a farm the caller may do something. The farm "" is every farm:
// only grants for all of them count.
func (c Caller) Scope(p Permission, farmName string) (s Scope) {
	for _, g := range c.Grants {
		if !slices.Contains(g.May, p) || g.Farm != "" && g.Farm != farmName {
			continue
		}
		if len(g.Tags) == 0 {
			return Scope{All: true}
		}
		s.Tags = append(s.Tags, g.Tags...)
	}
	return s
}

// May reports that the caller may do something with a whole farm; the farm "" is
// every farm and what they stand on. For a site ask Scope(p, farm).Holds(its tags).
func (c Caller) May(p Permission, farmName string) bool { return c.Scope(p, farmName).All }

// MaySomewhere reports that the caller may do something with some site of some farm.
func (c Caller) MaySomewhere(p Permission) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool { return slices.Contains(g.May, p) })
}

// Enters reports that the caller may do anything at all in a farm: for others it is
// not there.
func (c Caller) Enters(farmName string) bool {
	return slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.Farm == "" || g.Farm == farmName })
}

// freshFor is how long a login counts as one just made.
const freshFor = 10 * time.Minute

// Fresh reports that the caller showed who they are with this request, or just
// before it.
func (c Caller) Fresh(now time.Time) bool {
	return c.Login.IsZero() || now.Sub(c.Login) <= freshFor
}

type callerKey struct{}

// WithCaller says who asks.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf tells who asks, if anybody is known.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c, c.Known()
}

// digest is how a token or a cookie is kept.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
