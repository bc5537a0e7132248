package web

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// rowsAtOnce is how many sites a page of a list has.
const rowsAtOnce = 50

// A list is a page of sites, and the way to the next.
type list struct {
	Find  string `json:"-"`
	Order string `json:"-"`
	Skip  int    `json:"-"`
	Total int    `json:"-"`
	Shown int    `json:"-"`
}

// listOf reads which page of a list is asked for.
func listOf(q *question, order string) list {
	v := q.URL.Query()
	skip, _ := strconv.Atoi(v.Get("skip")) // what is no number is the beginning
	l := list{Find: v.Get("find"), Order: cmp.Or(v.Get("order"), order), Skip: max(skip, 0)}
	if l.Order != store.ByExpiry {
		l.Order = store.ByName
	}
	return l
}

// First and Last number what is shown; Before and After are the queries of the pages
// beside it, empty where there is none.
func (l list) First() int { return min(l.Skip+1, l.Total) }

// Last is the number of the last that is shown.
func (l list) Last() int { return l.Skip + l.Shown }

// Before is the page before.
func (l list) Before() string {
	if l.Skip == 0 {
		return ""
	}
	return l.at(max(0, l.Skip-rowsAtOnce))
}

// After is the next page.
func (l list) After() string {
	if l.Last() >= l.Total {
		return ""
	}
	return l.at(l.Skip + rowsAtOnce)
}

func (l list) at(skip int) string {
	v := url.Values{"order": {l.Order}, "skip": {strconv.Itoa(skip)}}
	if l.Find != "" {
		v.Set("find", l.Find)
	}
	return "?" + v.Encode()
}

// rows asks for a page of the matrix; bare: without the targets.
func (s *server) rows(q *question, l *list, bare bool) (controller.Matrix, error) {
	m, err := s.Matrix(q.ctx(), q.farm, controller.MatrixAsk{Like: l.Find, Order: l.Order, Skip: l.Skip, Limit: rowsAtOnce, Sees: q.sees(), Bare: bare})
	l.Total, l.Shown = m.Sites, len(m.Rows)
	return m, err
}

// A grid is the matrix as a page shows it.
type grid struct {
	list
	controller.Matrix
}

// matrix is what every node serves of every site's certificate.
func (s *server) matrix(q *question) (any, error) {
	q.cli = "certfarm get targets -o wide"
	g := grid{list: listOf(q, store.ByName)}
	var err error
	g.Matrix, err = s.rows(q, &g.list, false)
	return g, err
}

// Cells are a row's, a column a node; a node may have several targets of a site.
func (g grid) Cells(r controller.MatrixRow) [][]controller.MatrixCell {
	all := make([][]controller.MatrixCell, len(g.Nodes))
	for _, c := range r.Cells {
		if i, ok := slices.BinarySearch(g.Nodes, c.Node); ok {
			all[i] = append(all[i], c)
		}
	}
	return all
}

// Left is the share of a row's life that is left, in percent.
func (g grid) Left(r controller.MatrixRow) int {
	v := farm.VersionFacts{ID: r.Leaf, NotBefore: r.NotBefore, NotAfter: r.NotAfter}
	return int(100 * v.Life(g.At))
}

// Table is a line a target.
func (g grid) Table() [][]string {
	all := [][]string{{"site", "node", "target", "standing", "served", "looked", "not_after"}}
	for _, r := range g.Rows {
		for _, c := range r.Cells {
			all = append(all, []string{r.Site, c.Node, c.Target, string(c.Standing), c.Served, stamp(c.Looked), stamp(r.NotAfter)})
		}
	}
	return all
}

// stamp is a time in a table.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
