package web

import (
	"fmt"
	"strconv"

	"github.com/certfarm/certfarm/internal/controller"
)

// A draft is a farm.yaml that is shown, edited, or about to be applied.
type draft struct {
	Text     string           `json:"text"`
	Revision int64            `json:"revision"`
	By       string           `json:"by,omitempty"`
	Plan     *controller.Plan `json:"plan,omitempty"`
	Problem  string           `json:"problem,omitempty"`
}

// farmText is farm.yaml as it was applied, to be edited.
func (s *server) farmText(q *question) (any, error) {
	r, err := s.FarmText(q.ctx(), q.farm)
	return draft{Text: string(r.Text), Revision: r.Number, By: r.By}, err
}

// plan shows what an edited farm.yaml would change. A mistake in it is shown beside
// the text, and nothing of it is lost; neither is what somebody else applied since the
// text was opened.
func (s *server) plan(q *question) (any, error) {
	d := draft{Text: q.FormValue("text")}
	began, _ := strconv.ParseInt(q.FormValue("revision"), 10, 64) // none: the text was not opened here
	p, err := s.planOf(q, d.Text)
	if d.Problem = said(err); d.Problem != "" {
		d.Revision = began
		return d, nil
	}
	d.Revision = p.Revision
	if began > 0 && began != p.Revision {
		d.Problem = fmt.Sprintf("Revision %d was applied while you edited revision %d. The plan of your text, which undoes what it changed, is shown when you ask again.", p.Revision, began)
		return d, nil
	}
	d.Plan = &p
	return d, nil
}

// said is what a page says of an error; empty: there is none.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// planOf makes the plan, for this farm alone: a farm.yaml says which farm it is of.
func (s *server) planOf(q *question, text string) (controller.Plan, error) {
	p, err := s.Plan(q.ctx(), []byte(text), "farm.yaml")
	if err == nil && p.Farm != q.farm {
		return controller.Plan{}, &controller.Refusal{Problem: "this farm.yaml is of the farm " + p.Farm + ", and not of " + q.farm}
	}
	return p, err
}

// apply makes the text the farm's next revision, if nobody changed it since the plan
// was made.
func (s *server) apply(q *question) (string, error) {
	text := q.FormValue("text")
	was, err := strconv.ParseInt(q.FormValue("revision"), 10, 64)
	if err != nil {
		return "", &controller.Refusal{Problem: "it is not known which revision was planned against", Hint: "show the plan again"}
	}
	if _, err := s.planOf(q, text); err != nil {
		return "", err
	}
	_, err = s.Apply(q.ctx(), []byte(text), "farm.yaml", q.caller.Name, was)
	return farmPath(q.farm, "farm"), err
}
