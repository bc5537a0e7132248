package audit

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/certfarm/certfarm/internal/store"
)

// A Filter says which entries are wanted; what is empty is any.
type Filter struct {
	Actor  string // who
	Farm   string
	Result string
	Find   string // part of the action or of the object
}

func (f Filter) wants(e Entry) bool {
	return (f.Actor == "" || e.Actor == f.Actor) && (f.Farm == "" || e.Farm == f.Farm) && (f.Result == "" || e.Result == f.Result) &&
		(f.Find == "" || strings.Contains(e.Action+" "+e.Object, f.Find))
}

// readAtMost bounds what one question reads: a filter that nothing passes must not
// read a whole audit.
const readAtMost = 20 * verifyAtOnce

// A Stretch is a part of the audit, newest first, as far as a filter lets it through.
type Stretch struct {
	Entries []Entry
	Next    int64 // the number before which to go on; 0: there is no more
}

// Back reads back from before a number (0: the end), up to limit entries that a filter
// lets through. Where many lines pass none, the stretch is short, and Next says where
// to go on.
func (b Book) Back(ctx context.Context, f Filter, before int64, limit int) (s Stretch, err error) {
	err = b.Store.View(ctx, func(tx *store.Tx) error {
		for read := 0; read < readAtMost; {
			rows, err := tx.AuditBefore(ctx, before, verifyAtOnce)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if len(s.Entries) == limit {
					s.Next = before
					return nil
				}
				var e Entry
				if json.Unmarshal([]byte(r.Line), &e) != nil {
					e = Entry{Seq: r.Seq, At: r.At, Action: "this is no line of the audit", Result: Failed} // Verify says so
				}
				before = r.Seq
				if f.wants(e) {
					s.Entries = append(s.Entries, e)
				}
			}
			if len(rows) < verifyAtOnce {
				return nil
			}
			read += len(rows)
		}
		s.Next = before
		return nil
	})
	return s, err
}
