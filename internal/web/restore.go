package web

import (
	"github.com/certfarm/certfarm/internal/farm"
)

// A bringing is a certificate from elsewhere on its way in.
type bringing struct {
	Site string `json:"site"`
}

// importing asks for a certificate from elsewhere, to be kept in place of ours.
func (s *server) importing(q *question) (any, error) {
	name := q.PathValue("site")
	q.title, q.still = "Import for "+name, true
	q.cli = "certfarm import " + name + " --chain chain.pem --key key.pem"
	return bringing{name}, nil
}

func (s *server) importPair(q *question) (string, error) {
	_, err := s.Import(q.ctx(), q.farm, q.PathValue("site"), []byte(q.PostFormValue("chain")), farm.NewSecret([]byte(q.PostFormValue("key"))), q.caller.Name)
	return siteOf(q), err
}

// restore brings a target back to what it should hold.
func (s *server) restore(q *question) (string, error) {
	return farmPath(q.farm, "drift"), s.Restore(q.ctx(), q.farm, q.PathValue("target"), q.caller.Name)
}
