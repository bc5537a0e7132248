package api

import (
	"errors"

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

// paged is a page of a list that the store reads by its keys, of which keep leaves what
// the caller may see. So it may be shorter than asked; it is empty at the end of the list
// alone.
func paged[T any](in Page, read func(after string, limit int) ([]T, error), key func(T) string, keep func([]T) ([]T, error)) (all []T, more More, err error) {
	all = []T{}
	for after := in.After; ; after = more.Next {
		some, err := read(after, in.Limit)
		if errors.Is(err, store.ErrNoPlace) {
			err = noPlace()
		}
		if err != nil {
			return nil, More{}, err
		}
		if more.Next = ""; len(some) == in.Limit {
			more.Next = key(some[len(some)-1])
		}
		kept, err := keep(some)
		if err != nil {
			return nil, More{}, err
		}
		if all = append(all, kept...); len(all) > 0 || more.Next == "" {
			return all, more, nil
		}
	}
}

// seen keeps what is of sites that the caller sees.
func seen[T any](l *access.Lens, site func(T) string) func([]T) ([]T, error) {
	return func(all []T) ([]T, error) { return access.Keep(l, all, site), nil }
}

// everything is kept of a list that is of no site.
func everything[T any](all []T) ([]T, error) { return all, nil }

// noPlace tells of a cursor that is in the list no more, or never was.
func noPlace() *Problem {
	p := problem(Invalid, "the list has no such place to go on from", "send after as next said it; where that is long ago, begin again without after")
	p.Faults = []Fault{{"query.after", "it names nothing in this list"}}
	return p
}

// first is the beginning of what is left of a list.
func first[T any](all []T, limit int, key func(T) string) ([]T, More) {
	if len(all) <= limit {
		return list(all), More{}
	}
	return all[:limit], More{key(all[limit-1])}
}
