package api

import (
	"errors"
	"slices"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/store"
)

// From is where a list begins: after the item that was shown last, so that what comes and
// goes in between moves nothing.
type From struct {
	After string `query:"after" maxLength:"1000" pattern:"^[^\\p{C}�]*$" patternDescription:"what next said" doc:"only what comes after this: what next said in the answer before"`
}

// Page is where a list begins, and how long it is.
type Page struct {
	From
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// More says how a list goes on.
type More struct {
	Next string `json:"next,omitempty" doc:"send this as after to read on; not set: there is no more"`
}

// paged is a page of a list that the store reads by its keys, without what the caller may
// not see. So it may be shorter than asked; it is empty at the end of the list alone.
func paged[T any](l *access.Lens, in Page, read func(after string, limit int) ([]T, error), key, site func(T) string) (all []T, more More, err error) {
	all = []T{}
	for after := in.After; ; after = more.Next {
		some, err := read(after, in.Limit)
		if errors.Is(err, store.ErrNoPlace) {
			err = noPlace()
		}
		if err != nil {
			return nil, More{}, err
		}
		all = append(all, access.Keep(l, some, site)...)
		if more.Next = ""; len(some) == in.Limit {
			more.Next = key(some[len(some)-1])
		}
		if len(all) > 0 || more.Next == "" {
			return all, more, nil
		}
	}
}

// noPlace tells of a cursor that is in the list no more, or never was.
func noPlace() *Problem {
	p := problem(Invalid, "the list has no such place to go on from", "send after as next said it; where that is long ago, begin again without after")
	p.Faults = []Fault{{"query.after", "it names nothing in this list"}}
	return p
}

// cut is a page of a list that is read whole, since it is short: sorted by its keys, the
// names of things.
func cut[T any](all []T, in Page, key func(T) string) ([]T, More) {
	if in.After != "" {
		at := slices.IndexFunc(all, func(v T) bool { return key(v) > in.After })
		if at < 0 {
			at = len(all)
		}
		all = all[at:]
	}
	return first(all, in.Limit, key)
}

// first is the beginning of what is left of a list.
func first[T any](all []T, limit int, key func(T) string) ([]T, More) {
	if len(all) <= limit {
		return list(all), More{}
	}
	return all[:limit], More{key(all[limit-1])}
}
