package web

import (
	"strings"

	"github.com/certfarm/certfarm/internal/controller"
)

// telling is who is told, how they hear, and of what.
type telling struct{ controller.Notifications }

// notifications are the receivers of farm.yaml.
func (s *server) notifications(q *question) (any, error) {
	q.cli = "certfarm get receivers"
	n, err := s.Notifications(q.ctx(), q.farm)
	return telling{n}, err
}

// Table is a line a receiver.
func (t telling) Table() [][]string {
	all := [][]string{{"receiver", "kind", "gets", "heard", "failed", "tries", "waiting", "error"}}
	for _, r := range t.Receivers {
		all = append(all, []string{r.Receiver, r.Kind, strings.Join(r.Gets, "; "), stamp(r.Heard), stamp(r.Failed), text(r.Tries), text(r.Waiting), r.Error})
	}
	return all
}

// testReceiver sends a message to one receiver, or to all.
func (s *server) testReceiver(q *question) (string, error) {
	_, err := s.TestReceivers(q.ctx(), q.farm, q.FormValue("receiver"), q.caller.Name)
	return farmPath(q.farm, "notifications"), err
}
