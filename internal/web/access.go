package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
)

// accessPath is where tokens are made, and browsers logged out.
const accessPath = "/access"

// A desk is who may come in, and what they may do.
type desk struct {
	Tokens   []store.APIToken    `json:"tokens"`
	Sessions []session           `json:"sessions"`
	Groups   []access.GroupGrant `json:"groups"` // of people at the identity provider
	OIDC     bool                `json:"-"`
	Farms    []string            `json:"-"`
	New      *newToken           `json:"-"` // was just made
	At       time.Time           `json:"-"`
}

// A newToken is shown once.
type newToken struct{ Name, Secret string }

// A session is a browser that is logged in.
type session struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Via     string    `json:"via"`
	Groups  []string  `json:"groups,omitempty"`
	From    string    `json:"from"`
	Begun   time.Time `json:"begun"`
	Seen    time.Time `json:"seen"`
	Expires time.Time `json:"expires"`
}

// access lists who may come in.
func (s *server) access(q *question) (any, error) {
	q.cli = "certfarm token list"
	return s.desk(q, nil)
}

func (s *server) desk(q *question, made *newToken) (desk, error) {
	d := desk{Groups: s.gate.Grants, OIDC: s.gate.HasOIDC(), New: made, At: time.Now(), Sessions: []session{}}
	var err error
	if d.Tokens, err = (access.Desk{Store: s.Store}).List(q.ctx()); err != nil {
		return d, err
	}
	all, err := access.Desk{Store: s.Store}.Sessions(q.ctx())
	for _, n := range all {
		d.Sessions = append(d.Sessions, session{
			ID: access.SessionID(n), Name: n.Name, Via: n.Via, Groups: n.Groups, From: n.From, Begun: n.Begun, Seen: n.Seen, Expires: n.Expires,
		})
	}
	if err != nil {
		return d, err
	}
	d.Farms, err = s.Controller.Farms(q.ctx())
	return d, err
}

// Over reports that a token has expired.
func (d desk) Over(k store.APIToken) bool { return !d.At.Before(k.Expires) }

// Roles are what tokens may be given.
func (desk) Roles() []access.Role { return access.Roles() }

// May is what a role may do, in words.
func (desk) May(r access.Role) string {
	var all []string
	for _, p := range r.Permissions() {
		all = append(all, mays[p])
	}
	return strings.Join(all, ", ")
}

// mays are the permissions as people read them.
var mays = map[access.Permission]string{
	access.View: "see", access.Operate: "renew, pause, bring back, freeze", access.Approve: "let waves begin", access.Edit: "apply farm.yaml, import, adopt",
	access.Secrets: "set secrets, revoke", access.KeyExport: "be handed keys", access.Access: "give access, read the audit",
	access.Metrics: "read the metrics",
}

// Table is a line a token.
func (d desk) Table() [][]string {
	all := [][]string{{"name", "may", "made_by", "created", "expires", "used"}}
	for _, k := range d.Tokens {
		all = append(all, []string{k.Name, access.Words(k.Grants), k.By, stamp(k.Created), stamp(k.Expires), stamp(k.Used)})
	}
	return all
}

// createToken makes a token, and shows it on the page that answers: no other will.
func (s *server) createToken(q *question) (any, error) {
	if err := q.ParseForm(); err != nil {
		return nil, &controller.Refusal{Problem: "the form cannot be read: " + err.Error()}
	}
	ask := access.TokenAsk{Name: q.FormValue("name")}
	tags := strings.FieldsFunc(q.FormValue("tags"), func(r rune) bool { return r == ',' || r == ' ' })
	for _, role := range q.Form["role"] {
		ask.Grants = append(ask.Grants, store.Grant{Role: role, Farm: q.FormValue("only"), Tags: tags})
	}
	if text := q.FormValue("days"); text != "" {
		days, err := strconv.Atoi(text)
		if err != nil || days < 1 || time.Duration(days)*day > access.LongestToken {
			return nil, &controller.Refusal{Problem: fmt.Sprintf("a token cannot be good for %q days", text), Hint: "from 1 to 3650"}
		}
		ask.Life = time.Duration(days) * day
	}
	k, secret, err := access.Desk{Store: s.Store}.Create(q.ctx(), ask, q.caller)
	if err != nil {
		return nil, err
	}
	q.cli = "certfarm token list"
	return s.desk(q, &newToken{k.Name, string(secret.Reveal())})
}

func (s *server) revokeToken(q *question) (string, error) {
	_, err := access.Desk{Store: s.Store}.Revoke(q.ctx(), q.PathValue("token"))
	return accessPath, err
}

func (s *server) endSession(q *question) (string, error) {
	return accessPath, access.Desk{Store: s.Store}.End(q.ctx(), q.PathValue("session"))
}
