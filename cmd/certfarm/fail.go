package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A failure is an error in JSON.
type failure struct {
	Type     string          `json:"type"` // "error"
	Exit     int             `json:"exit"`
	Problem  string          `json:"problem"`
	Hint     string          `json:"hint,omitempty"`
	Mistakes config.Mistakes `json:"mistakes,omitempty"`
	Conflict *api.Changed    `json:"conflict,omitempty"`
}

// fail tells a command's error: what, where, and what to do.
func (u *ui) fail(err error) {
	if err == nil {
		return
	}
	if e, ok := errors.AsType[*exit](err); ok && e.err == nil {
		return // all was said
	}
	f := failure{Type: "error", Exit: codeOf(err), Problem: err.Error(), Hint: hintOf(err)}
	if ms, ok := errors.AsType[config.Mistakes](err); ok {
		f.Mistakes, f.Problem = ms, farm.Count(len(ms), "mistake")+" in "+ms[0].File
	}
	if c, ok := errors.AsType[*store.Conflict](err); ok {
		f.Conflict = &api.Changed{Revision: c.Revision, By: c.By, At: c.At}
	}
	if u.json {
		_ = u.object(f) // what is printed for people says it, too
	}
	for _, m := range f.Mistakes[:min(len(f.Mistakes), mostMistakes)] {
		u.mistake(m)
	}
	if more := len(f.Mistakes) - mostMistakes; more > 0 {
		u.say("and %s", farm.Count(more, "more mistake"))
	}
	u.say("%s %s", u.tint(u.err, bad, "certfarm:"), f.Problem)
	if f.Hint != "" {
		u.say("%s %s", u.tint(u.err, busy, "hint:"), f.Hint)
	}
}

// mostMistakes is how many mistakes a person reads at once.
const mostMistakes = 20

// mistake shows one mistake with its picture.
func (u *ui) mistake(m config.Mistake) {
	where := fmt.Sprintf("%s:%d:%d:", m.File, m.Line, m.Column)
	if m.Path != "" {
		where += " " + m.Path + ":"
	}
	u.say("%s %s", u.tint(u.err, bold, where), m.Problem)
	if m.Picture != "" {
		u.say("%s", u.tint(u.err, faint, m.Picture))
	}
	if m.Hint != "" {
		u.say("  %s %s", u.tint(u.err, busy, "hint:"), m.Hint)
	}
}

// hintOf is what to do about an error.
func hintOf(err error) string {
	if e, ok := errors.AsType[*exit](err); ok && e.hint != "" {
		return e.hint
	}
	if r, ok := errors.AsType[*controller.Refusal](err); ok {
		return r.Hint
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Hint
	}
	if _, ok := errors.AsType[*store.Conflict](err); ok {
		return "`certfarm plan` shows what would change now"
	}
	switch {
	case errors.Is(err, os.ErrPermission) && errors.Is(err, client.ErrNotRunning):
		return "the controller runs as another user: use sudo, or --url with a token"
	case errors.Is(err, client.ErrNotRunning):
		return "start it with `certfarm serve`, or say where it is with --state, --socket or --url"
	case errors.Is(err, context.DeadlineExceeded):
		return "give it more time with --for"
	case errors.Is(err, fs.ErrPermission):
		return "use the user that certfarm runs as"
	}
	return ""
}
