package api

import (
	"context"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/store"
)

// Tokens is a page of API tokens by name, without what opens.
type Tokens struct {
	Tokens []store.APIToken `json:"tokens"`
	More
}

type listTokens struct{ Page }

func (s *server) listTokens(ctx context.Context, in *listTokens) (Tokens, error) {
	all, more, err := paged(in.Page, func(after string, limit int) ([]store.APIToken, error) {
		return s.desk.ListAfter(ctx, after, limit)
	}, func(k store.APIToken) string { return k.Name }, everything)
	return Tokens{all, more}, err
}

// TokenAsk is an API token that somebody wants.
type TokenAsk struct {
	Name   string        `json:"name" minLength:"1" maxLength:"63"`
	Grants []store.Grant `json:"grants" minItems:"1" maxItems:"100"`
	Life   int64         `json:"life,omitempty" minimum:"0" maximum:"315360000" doc:"seconds until it expires; not set: 90 days"`
}

type tokenAsk struct{ Body TokenAsk }

// NewToken is a token that was just made, the only time that it is shown.
type NewToken struct {
	store.APIToken
	Token string `json:"token" doc:"what opens: keep it now, nobody can show it again"`
}

func (s *server) createToken(ctx context.Context, in *tokenAsk) (NewToken, error) {
	c, _ := access.CallerOf(ctx)
	ask := access.TokenAsk{Name: in.Body.Name, Grants: in.Body.Grants, Life: time.Duration(in.Body.Life) * time.Second}
	k, secret, err := s.desk.Create(ctx, ask, c)
	if err != nil {
		return NewToken{}, err
	}
	return NewToken{k, string(secret.Reveal())}, nil
}

// InToken is a request about an API token.
type InToken struct {
	Token string `path:"token" minLength:"1" doc:"its name or id"`
}

func (s *server) revokeToken(ctx context.Context, in *InToken) error {
	_, err := s.desk.Revoke(ctx, in.Token)
	return err
}

// Sessions are the browsers that are logged in, those that were seen last first.
type Sessions struct {
	Sessions []Session `json:"sessions"`
}

// A Session is a browser that is logged in.
type Session struct {
	ID      string    `json:"id"`
	Name    string    `json:"name" doc:"who"`
	Via     string    `json:"via" enum:"token,token-file,oidc" doc:"how they showed who they are"`
	Groups  []string  `json:"groups,omitempty" doc:"as the identity provider said"`
	From    string    `json:"from" doc:"address or network"`
	Begun   time.Time `json:"begun"`
	Seen    time.Time `json:"seen" doc:"to the minute"`
	Expires time.Time `json:"expires"`
}

func (s *server) listSessions(ctx context.Context, _ *struct{}) (Sessions, error) {
	all, err := s.desk.Sessions(ctx)
	out := Sessions{[]Session{}}
	for _, n := range all {
		out.Sessions = append(out.Sessions, Session{
			ID: access.SessionID(n), Name: n.Name, Via: n.Via, Groups: n.Groups, From: n.From, Begun: n.Begun, Seen: n.Seen, Expires: n.Expires,
		})
	}
	return out, err
}

// InSession is a request about a session.
type InSession struct {
	Session string `path:"session" minLength:"1"`
}

func (s *server) endSession(ctx context.Context, in *InSession) error {
	return s.desk.End(ctx, in.Session)
}

// Whoami is who asks, and what they may do.
type Whoami struct {
	Name   string  `json:"name"`
	Via    string  `json:"via" enum:"socket,token,token-file,oidc"`
	Rights []Right `json:"rights"`
}

// A Right is what somebody may do, and where.
type Right struct {
	Role string   `json:"role,omitempty" doc:"not set: the permissions of a line in a token file"`
	May  []string `json:"may"`
	Farm string   `json:"farm,omitempty" doc:"not set: every farm"`
	Tags []string `json:"tags,omitempty" doc:"not set: every site, and what concerns a whole farm"`
}

func (s *server) whoami(ctx context.Context, _ *struct{}) (Whoami, error) {
	c, _ := access.CallerOf(ctx)
	out := Whoami{Name: c.Name, Via: c.Via, Rights: []Right{}}
	for _, g := range c.Grants {
		one := Right{Role: string(g.Role), May: []string{}, Farm: g.Farm, Tags: g.Tags}
		for _, p := range g.May {
			one.May = append(one.May, string(p))
		}
		out.Rights = append(out.Rights, one)
	}
	return out, nil
}
