package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// About is what answers.
type About struct {
	Version string `json:"version" doc:"of the program"`
}

func (s *server) about(context.Context, *struct{}) (About, error) { return About{s.version}, nil }

// Farms are the names of farms.
type Farms struct {
	Farms []string `json:"farms"`
}

func (s *server) listFarms(ctx context.Context, _ *struct{}) (Farms, error) {
	all, err := s.Farms(ctx)
	c, _ := access.CallerOf(ctx)
	return Farms{list(slices.DeleteFunc(all, func(name string) bool { return !c.Enters(name) }))}, err
}

// list is never null in JSON.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// InFarm is a request about a farm. It is exported, as others that stand in
// requests, since huma reads embedded structs only so.
type InFarm struct {
	Farm string `path:"farm" minLength:"1"`
}

// FarmFile is the newest revision of a farm.
type FarmFile struct {
	Farm     string    `json:"farm"`
	Revision int64     `json:"revision"`
	Text     string    `json:"text" doc:"farm.yaml as it was written, comments too"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Frozen   string    `json:"frozen,omitempty" doc:"who froze the farm: nothing is activated"`
}

type getFarm struct {
	InFarm
	Has string `header:"If-None-Match" doc:"the ETag of what who asks has: 304 while it is still that"`
}

func (s *server) getFarm(ctx context.Context, in *getFarm) (*tagged[*FarmFile], error) {
	r, err := s.FarmText(ctx, in.Farm)
	if err != nil {
		return nil, err
	}
	f := &FarmFile{Farm: r.Farm, Revision: r.Number, Text: string(r.Text), By: r.By, At: r.At}
	if f.Frozen, err = s.Frozen(ctx, in.Farm); err != nil {
		return nil, err
	}
	out := &tagged[*FarmFile]{Status: http.StatusOK, ETag: farmTag(f.Revision, f.Frozen != ""), Body: f}
	if has(in.Has, out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

// farmTag is the ETag of a farm at a revision.
func farmTag(revision int64, frozen bool) string {
	tag := strconv.FormatInt(revision, 10)
	if frozen {
		tag += frozenTag
	}
	return `"` + tag + `"`
}

const frozenTag = "-frozen" // what is applied does not depend on it

// revisionOf is the revision in an If-Match; -1 matches none.
func revisionOf(match string) int64 {
	tag := strings.TrimSuffix(strings.Trim(strings.TrimSpace(match), `"`), frozenTag)
	n, err := strconv.ParseInt(tag, 10, 64)
	if err != nil || n < 1 {
		return -1
	}
	return n
}

// PlanAsk is a farm.yaml to plan.
type PlanAsk struct {
	Text string `json:"text" doc:"farm.yaml"`
	File string `json:"file" doc:"its name, for the mistakes"`
}

type planAsk struct {
	InFarm
	Body PlanAsk
}

func (s *server) plan(ctx context.Context, in *planAsk) (controller.Plan, error) {
	p, err := s.Plan(ctx, []byte(in.Body.Text), in.Body.File)
	if err == nil {
		err = sameFarm(p.Farm, in.Farm)
	}
	p.Changes = list(p.Changes)
	return p, err
}

// ApplyAsk is a farm.yaml to apply.
type ApplyAsk struct {
	PlanAsk
	Revision int64 `json:"revision,omitempty" minimum:"0" doc:"the stored revision that the plan was made against, if If-Match does not say; 0: none"`
}

type applyAsk struct {
	InFarm
	Match string `header:"If-Match" doc:"the ETag of the farm that the plan was made against: 412 if it is another by now"`
	Body  ApplyAsk
}

func (s *server) apply(ctx context.Context, in *applyAsk) (*tagged[controller.Plan], error) {
	parsed, err := s.Parse([]byte(in.Body.Text), in.Body.File)
	if err != nil {
		return nil, err
	}
	if err := sameFarm(parsed.Farm.Name, in.Farm); err != nil {
		return nil, err
	}
	was := in.Body.Revision
	if in.Match != "" {
		was = revisionOf(in.Match)
	}
	p, err := s.Apply(ctx, []byte(in.Body.Text), in.Body.File, by(ctx), was)
	if c, ok := errors.AsType[*store.Conflict](err); ok {
		return nil, s.overtaken(ctx, in, c, was)
	}
	p.Changes = list(p.Changes)
	return &tagged[controller.Plan]{Status: http.StatusOK, ETag: farmTag(p.Revision, false), Body: p}, err
}

// overtaken says who changed the farm meanwhile, and what.
func (s *server) overtaken(ctx context.Context, in *applyAsk, c *store.Conflict, was int64) error {
	p := s.problemOf(ctx, "apply", c)
	if in.Match != "" {
		p = problem(Precondition, c.Error(), "get the farm again, and plan against what it is now")
		p.Conflict = &Changed{Revision: c.Revision, By: c.By, At: c.At}
	}
	var err error
	p.Conflict.Changes, err = s.Since(ctx, in.Farm, was)
	return cmp.Or[error](err, p)
}

func sameFarm(is, asked string) error {
	if is == asked {
		return nil
	}
	return &controller.Refusal{Problem: "this farm.yaml is of farm " + is + ", not of " + asked, Hint: "send it to /v1/farms/" + is}
}

// Switch turns something on or off.
type Switch struct {
	On bool `json:"on"`
}

type freezeAsk struct {
	InFarm
	Body Switch
}

func (s *server) freeze(ctx context.Context, in *freezeAsk) error {
	if _, err := s.FarmText(ctx, in.Farm); err != nil {
		return err
	}
	return s.Freeze(ctx, in.Farm, by(ctx), in.Body.On)
}

// SecretNames is a page of the secrets of a farm.
type SecretNames struct {
	Secrets []controller.SecretInfo `json:"secrets"`
	More
}

type listSecrets struct {
	InFarm
	Page
}

func (s *server) listSecrets(ctx context.Context, in *listSecrets) (SecretNames, error) {
	all, more, err := paged(in.Page, func(after string, limit int) ([]controller.SecretInfo, error) {
		return s.Secrets(ctx, in.Farm, after, limit)
	}, func(i controller.SecretInfo) string { return i.Name }, everything)
	return SecretNames{all, more}, err
}

// InSecret is a request about a secret.
type InSecret struct {
	InFarm
	Secret string `path:"secret" minLength:"1" maxLength:"200"`
}

// SecretValue is a secret on its way in; nothing answers with one.
type SecretValue struct {
	Value []byte `json:"value" writeOnly:"true" doc:"the secret, in base64"`
}

type secretAsk struct {
	InSecret
	Body SecretValue
}

func (s *server) setSecret(ctx context.Context, in *secretAsk) error {
	return s.SetSecret(ctx, in.Farm, in.Secret, farm.NewSecret(in.Body.Value), by(ctx))
}

func (s *server) removeSecret(ctx context.Context, in *InSecret) error {
	return s.RemoveSecret(ctx, in.Farm, in.Secret, by(ctx))
}

// Rekeyed says how much was sealed under a new master key.
type Rekeyed struct {
	Records int `json:"records"`
}

func (s *server) rekey(ctx context.Context, _ *struct{}) (Rekeyed, error) {
	n, err := s.Rekey(ctx, by(ctx))
	return Rekeyed{n}, err
}

func (s *server) doctor(ctx context.Context, in *InFarm) (controller.Checkup, error) {
	k, err := s.Checkup(ctx, in.Farm)
	k.Controllers, k.Lanes, k.Fences, k.Checks = list(k.Controllers), list(k.Lanes), list(k.Fences), list(k.Checks)
	return k, err
}
