package web

import (
	"cmp"
	"errors"
	"slices"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/prove/http01"
)

// preflight asks now what the CA would ask, and writes the records that an operator
// may set.
func (s *server) preflight(q *question) (any, error) {
	name := q.PathValue("site")
	q.title, q.cli = "Preflight of "+name, "certfarm preflight "+name
	report, err := s.Preflight(q.ctx(), q.farm, name, false)
	if err != nil {
		return nil, err
	}
	a := asked{PreflightReport: report}
	a.Records, err = s.SnippetDNS(q.ctx(), q.farm, name)
	if refusal, ok := errors.AsType[*controller.Refusal](err); ok {
		a.NoRecord, err = refusal.Problem, nil
	}
	if err == nil {
		s.recent.put(q.farm, name, a)
	}
	return a, err
}

// A crossing is what was found for one name at one place.
type crossing struct {
	Verdict http01.Sort
	Saw     string
}

// where is the column of a finding: a node, an address, or DNS.
func where(f http01.Finding) string {
	if f.Check == "" || f.Check == "http-01" {
		return cmp.Or(f.Node, f.Address, "nowhere")
	}
	return f.Check
}

// Places are the columns of the matrix: nodes and addresses in the order in which they
// were asked, and what is asked of DNS.
func (a asked) Places() (all []string) {
	for _, f := range a.Findings {
		if w := where(f); !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// Names are the rows.
func (a asked) Names() (all []string) {
	for _, f := range a.Findings {
		if !slices.Contains(all, f.Name) {
			all = append(all, f.Name)
		}
	}
	return all
}

// Cell is what was found for a name at a place: the worst, if there is more than one.
func (a asked) Cell(name, place string) *crossing {
	var c *crossing
	worse := []http01.Sort{http01.Right, http01.Unclear, http01.Wrong}
	for _, f := range a.Findings {
		if f.Name != name || where(f) != place {
			continue
		}
		if c == nil || slices.Index(worse, f.Verdict) > slices.Index(worse, c.Verdict) {
			c = &crossing{f.Verdict, f.Saw}
		}
	}
	return c
}

// Flaws are the findings that are not as they should be.
func (a asked) Flaws() []http01.Finding {
	return slices.DeleteFunc(slices.Clone(a.Findings), func(f http01.Finding) bool { return f.Verdict == http01.Right })
}

// Table is a line a finding.
func (a asked) Table() [][]string {
	all := [][]string{{"name", "check", "node", "address", "verdict", "saw", "remedy"}}
	for _, f := range a.Findings {
		all = append(all, []string{f.Name, f.Check, f.Node, f.Address, string(f.Verdict), f.Saw, f.Remedy})
	}
	return all
}
