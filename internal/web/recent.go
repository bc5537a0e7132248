package web

import (
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/snippet"
)

// An asked is what came of the last preflight of a site that a page asked for.
type asked struct {
	controller.PreflightReport
	Records  snippet.Snippet `json:"records"`
	NoRecord string          `json:"no_record,omitempty"` // why there are no records to be set
}

// How many preflights a controller keeps for its pages, and for how long.
const (
	keptAsked = 200
	keptFor   = 24 * time.Hour
)

// recent keeps what preflights found, so that a site's page can show it without asking
// the world again. It is a convenience: another controller asks for itself.
type recent struct {
	mu  sync.Mutex
	all map[string]asked // by farm and site
}

func (r *recent) put(farmName, site string, a asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil || len(r.all) >= keptAsked {
		r.all = map[string]asked{}
	}
	r.all[farmName+"/"+site] = a
}

// get is what was found; nil, where nobody asked lately.
func (r *recent) get(farmName, site string, now time.Time) *asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.all[farmName+"/"+site]; ok && now.Sub(a.At) < keptFor {
		return &a
	}
	return nil
}
