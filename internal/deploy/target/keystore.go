package target

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// keystorePath is where a key store goes.
type keystorePath struct {
	Path string `json:"path" doc:"path of the one file with chain and key"`
}

// Places is deploy.Spread.
func (o keystorePath) Places() []string { return []string{"file " + fold(o.Path)} }

// storeFacts is deploy.Options.Facts for a kind with a key store.
func (o keystorePath) storeFacts(kind string, u upkeep, p part) (identity, group string, err error) {
	if err := checkPath("path", o.Path); err != nil {
		return "", "", err
	}
	return u.facts(kind, one(o.Path, p))
}

// password is the secret that every key store has.
const password = "password"

func passwords() []deploy.Secret {
	return []deploy.Secret{{Name: password, Doc: "password of the key store, ASCII, at least 6 characters"}}
}

// minPassword is the shortest password that Java's keytool takes.
const minPassword = 6

// passwordOf is a key store's password, held to what Java's tools take as well.
func passwordOf(s deploy.Setup) (farm.Secret, error) {
	text := string(s.Secrets[password].Reveal())
	switch {
	case len(text) < minPassword:
		return farm.Secret{}, fmt.Errorf("the secret %s has %d characters: Java takes no password with fewer than %d", password, len(text), minPassword)
	case strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }):
		return farm.Secret{}, errors.New("the secret " + password + " has a character that is not ASCII, or a control character such as a line end: Java reads these differently")
	}
	return s.Secrets[password], nil
}
