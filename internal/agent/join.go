package agent

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Token is what lets a machine join: a secret that is used once (or as often as it
// says), and the pins by which the agent knows the controllers: one, or two while their
// CA is being followed by another.
//
//	cfa1.SECRET.PIN[.PIN]
type Token struct {
	Secret farm.Secret
	Pins   []string
}

const tokenHead = "cfa1"

var pinForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// NewTokenSecret makes a token's secret, 32 bytes of chance.
func NewTokenSecret() farm.Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return farm.NewSecret([]byte(base64.RawURLEncoding.EncodeToString(b[:])))
}

// Digest is what the controllers know a token's secret by: its SHA-256, hex.
func (t Token) Digest() string { return farm.Fingerprint(t.Secret.Reveal()) }

// Text is the token as it is handed over. It is shown once.
func (t Token) Text() farm.Secret {
	return farm.NewSecret([]byte(tokenHead + "." + string(t.Secret.Reveal()) + "." + strings.Join(t.Pins, ".")))
}

// ReadToken reads a token as Text wrote it.
func ReadToken(text farm.Secret) (Token, error) {
	parts := strings.Split(strings.TrimSpace(string(text.Reveal())), ".")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != tokenHead || len(parts[1]) < 40 || slices.ContainsFunc(parts[2:], func(p string) bool { return !pinForm.MatchString(p) }) {
		return Token{}, errors.New("this is no token: `certfarm node token NODE` at a controller makes one, of one line that begins with " + tokenHead)
	}
	return Token{farm.NewSecret([]byte(parts[1])), parts[2:]}, nil
}

// JoinSetup is what joining takes.
type JoinSetup struct {
	Servers []string // https://host:port; the first that answers is asked
	Token   Token
	Node    string // what the machine is called in farm.yaml, where it knows; else the token says, or the controllers choose
	State   string // folder of the identity
	Version string
	Now     func() time.Time // nil: time.Now
}

// JoinFarm makes a key here, has the controllers take it for a node's, and keeps both
// as the identity in the state folder. One that is there is replaced when all went well.
func JoinFarm(ctx context.Context, s JoinSetup) (*Identity, error) {
	if s.Now == nil {
		s.Now = time.Now
	}
	if len(s.Servers) == 0 {
		return nil, errors.New("no controller is named")
	}
	key, err := newAgentKey()
	if err != nil {
		return nil, err
	}
	csr, err := requestFor(key)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, server := range s.Servers {
		l, err := newLine(server, s.Token.Pins, nil, s.Now)
		if err != nil {
			return nil, err
		}
		var got Joined
		err = l.ask(ctx, askWithin, http.MethodPost, PathJoin, Join{Digest: s.Token.Digest(), Node: s.Node, CSR: csr, Version: s.Version, Learns: true}, &got)
		l.close()
		if err == nil {
			i := &Identity{Farm: got.Farm, Node: got.Node, Servers: slices.Clone(s.Servers), Pins: s.Token.Pins, key: key}
			i.learn(got.Pins)
			return i, errors.Join(i.take(got.Chain), i.Save(s.State))
		}
		errs = append(errs, err)
		if refusedAs(err, KindToken, KindWrong, KindUnknown) {
			break // the others would say the same
		}
	}
	return nil, fmt.Errorf("join: %w", errors.Join(errs...))
}

// newSession names a process, by chance.
func newSession() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
