package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/plan"
)

// A plan of very many changes is counted, and the one that is unlike the others is
// seen.
func TestAPlanOfManyChanges(t *testing.T) {
	u, out, _ := testUI()
	p := controller.Plan{Farm: "shop", Revision: 7}
	for i := range 3 * mostChanges {
		p.Changes = append(p.Changes, plan.Change{Do: plan.Issue, Certificate: true, Name: fmt.Sprintf("s%03d", i), Why: "the site is new"})
	}
	p.Changes = append(p.Changes, plan.Change{Do: plan.Release, Name: "www", Why: "the site is gone"})
	(&app{ui: u}).showPlan(p)
	text := out.String()
	if n := strings.Count(text, "\n"); n > mostChanges+10 {
		t.Errorf("%d lines", n)
	}
	for _, want := range []string{"site www:", "… and 200 more changes: order a certificate", "300 certificates to order"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}

// Of very many sites, those that ended unlike the others are seen.
func TestResultsOfManySites(t *testing.T) {
	u, out, _ := testUI()
	all := waiting(make([]string, 500))
	all = append(all, siteResult{Site: "www", Exit: exitFailed, Outcome: "failed"})
	if err := (&app{ui: u}).result(all); err == nil {
		t.Error("nothing is wrong")
	}
	text := out.String()
	if n := strings.Count(text, "\n"); n != mostLines+2 || !strings.Contains(text, "www: failed") || !strings.Contains(text, "… and 460 more sites: waiting") {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

// What is quick is not spoken of, and what goes wrong meanwhile comes back.
func TestDuringSomethingQuick(t *testing.T) {
	u, out, errs := testUI()
	wrong := errors.New("wrong")
	if err := u.during("nothing", func() error { return wrong }); !errors.Is(err, wrong) || out.Len()+errs.Len() > 0 {
		t.Errorf("%v: %s%s", err, out, errs)
	}
}
