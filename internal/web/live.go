package web

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/certfarm/certfarm/internal/access"
)

// How long a browser is told of changes before it asks anew, how often at most, and
// when it is told at least, so that a line that is gone is noticed.
const (
	liveFor   = time.Hour
	liveEvery = 2 * time.Second
	liveLeast = 15 * time.Second
)

// live tells a browser, by server-sent events, that something has changed; the page
// then asks for itself again, so nothing is told here that it may not show.
func (s *server) live(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), liveFor)
	defer cancel()
	line := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	pause := time.NewTicker(liveEvery)
	defer pause.Stop()
	for word := ": here\n\n"; ; {
		written := s.Store.Written()
		err := line.SetWriteDeadline(time.Now().Add(2 * liveLeast))
		if err == nil {
			_, err = fmt.Fprint(w, word)
		}
		if err != nil || line.Flush() != nil {
			return // the reader is gone
		}
		if !access.Still(ctx) {
			return // the login ended, and so does what it opened
		}
		select {
		case <-ctx.Done():
			return
		case <-written:
			word = "event: changed\ndata: 1\n\n"
		case <-time.After(liveLeast):
			word = ": here\n\n"
		}
		select { // however much is written, a browser asks no more often than this
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}
