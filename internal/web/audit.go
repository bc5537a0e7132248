package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
)

// auditAtOnce is how many lines of the audit a page has.
const auditAtOnce = 100

// A ledger is a page of the audit, newest first.
type ledger struct {
	audit.Filter  `json:"-"`
	audit.Stretch `json:"-"`
	Before        int64         `json:"-"`
	Lines         []audit.Entry `json:"lines"`
}

// audit shows who did what.
func (s *server) audit(q *question) (any, error) {
	v := q.URL.Query()
	before, _ := strconv.ParseInt(v.Get("before"), 10, 64) // what is no number is the end
	l := ledger{Before: before, Filter: audit.Filter{Actor: v.Get("actor"), Farm: v.Get("farm"), Result: v.Get("result"), Find: v.Get("find")}}
	var err error
	l.Stretch, err = s.keeper.Book.Back(q.ctx(), l.Filter, before, auditAtOnce)
	l.Lines = l.Entries
	q.cli = "certfarm audit list"
	if n := len(l.Entries); n > 0 && l.Filter == (audit.Filter{}) {
		q.cli += fmt.Sprintf(" --after %d --limit %d", l.Entries[n-1].Seq-1, n)
	}
	return l, err
}

// Results are what the filter offers.
func (ledger) Results() []string {
	return []string{audit.Done, audit.Refused, audit.Failed, audit.Begun}
}

// Older is the query of the page before; empty: there is none.
func (l ledger) Older() string {
	if l.Next == 0 {
		return ""
	}
	v := url.Values{"before": {strconv.FormatInt(l.Next, 10)}}
	for name, is := range map[string]string{"actor": l.Actor, "farm": l.Farm, "result": l.Result, "find": l.Find} {
		if is != "" {
			v.Set(name, is)
		}
	}
	return "?" + v.Encode()
}

// Table is a line an entry.
func (l ledger) Table() [][]string {
	all := [][]string{{"line", "at", "actor", "via", "role", "from", "action", "farm", "object", "result", "status", "before", "after", "request"}}
	for _, e := range l.Entries {
		all = append(all, []string{
			strconv.FormatInt(e.Seq, 10), stamp(e.At), e.Actor, e.Via, e.Role, e.From, e.Action, e.Farm, e.Object, e.Result, text(e.Status), e.Before, e.After, e.Request,
		})
	}
	return all
}

// A verdict is what became of reading the whole audit.
type verdict struct {
	audit.Proof
	Broken string `json:"broken,omitempty"`
	Heads  string `json:"-"` // that were kept elsewhere, as they were given
}

// prove reads the whole audit, and compares it with what was kept elsewhere.
func (s *server) prove(q *question) (any, error) {
	v := verdict{Heads: q.URL.Query().Get("heads")}
	q.cli = "certfarm audit verify"
	var heads []audit.Head
	for _, word := range strings.Fields(v.Heads) {
		number, hash, ok := strings.Cut(word, ":")
		seq, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || seq < 1 || hash == "" {
			return nil, &controller.Refusal{Problem: fmt.Sprintf("%q is no head of the audit", word), Hint: "a head is NUMBER:HASH, as it was sent away"}
		}
		heads = append(heads, audit.Head{Seq: seq, Hash: hash})
		q.cli += " --head " + word
	}
	var err error
	v.Proof, err = s.keeper.Book.Verify(q.ctx(), heads)
	if b, ok := errors.AsType[*audit.Break](err); ok {
		v.Broken = b.Error()
		return v, nil
	}
	return v, err
}

// exportAtOnce is how many lines are read at a time for a file of all of them.
const exportAtOnce = 1000

// export sends the whole audit: a line of JSON for each, with its hash, as they are
// sent away (serve --audit-to).
func (s *server) export(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="certfarm-audit.jsonl"`)
	out := json.NewEncoder(w)
	for after := int64(0); ; {
		lines, err := s.keeper.Book.Lines(r.Context(), after, exportAtOnce)
		if err != nil {
			s.log.Error("export the audit", "error", err)
			panic(http.ErrAbortHandler) // so that who reads it knows that it is not whole
		}
		for _, l := range lines {
			if out.Encode(l) != nil {
				return // the reader is gone
			}
		}
		after += int64(len(lines))
		if len(lines) < exportAtOnce {
			return
		}
	}
}
