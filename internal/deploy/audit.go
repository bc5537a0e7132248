package deploy

import (
	"context"
	"time"
)

// An Auditor is a deployer that can look through the whole place that its target
// is a part of, also at what others left there: a folder that many files share.
type Auditor interface {
	// Audit tells what is wrong there, and changes nothing. An error says that the
	// place could not be looked through; no flaws, that all is as it should be.
	Audit(ctx context.Context, a Audit) ([]Flaw, error)
}

// An Audit is what a look through a place must know.
type Audit struct {
	Now   time.Time
	Names []string // of all sites with a target in the same reload group
	// Places are what those targets write to, in the words of Facts: what lies there
	// is nobody's leftover.
	Places []string
}

// A Flaw is one thing that is wrong.
type Flaw struct {
	Place   string `json:"place" doc:"the file or object that it is about"`
	Trouble string `json:"trouble" doc:"the sort of trouble, one word"`
	Problem string `json:"problem" doc:"what is wrong, in words"`
	Hint    string `json:"hint,omitempty" doc:"what to do"`
}
