package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/issue"
)

// keysFolder has the keys that were made on this node, each in a file that is named by
// the SHA-256 of its public key (SPKI DER). They go into the files of a server here,
// and nowhere else.
const keysFolder = "keys"

// maxKeys is how many there may be: a caller must not fill the node.
const maxKeys = 256

var errNoKey = errors.New("this node does not hold the key")

func (a *Answerer) keyFile(name string) string {
	return filepath.Join(a.s.State, keysFolder, name+".pem")
}

// makeKey makes a key, keeps it, and returns a signing request for it. The key is
// durable before the request is known to anybody.
func (a *Answerer) makeKey(names []string, kind farm.KeyType) (csr []byte, name string, err error) {
	held, err := os.ReadDir(filepath.Join(a.s.State, keysFolder))
	if err != nil {
		return nil, "", fmt.Errorf("the keys of this node: %w", err)
	}
	if len(held) >= maxKeys {
		return nil, "", &fence.Refusal{Why: fmt.Sprintf("this node holds %d keys already: some must be forgotten first", len(held)), Alarm: true}
	}
	r, err := issue.NewRequest(names, kind)
	if err != nil {
		return nil, "", err
	}
	parsed, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, "", fmt.Errorf("a signing request: %w", err)
	}
	name = nameOf(parsed.RawSubjectPublicKeyInfo)
	if err := fence.Write(a.keyFile(name), r.Key.Reveal()); err != nil {
		return nil, "", fmt.Errorf("keeping a key: %w", err)
	}
	return r.CSR, name, nil
}

// nameOf names a key by its public half.
func nameOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// key is the one that a chain's leaf belongs to.
func (a *Answerer) key(chain []byte) (farm.Secret, error) {
	leaf, err := encode.Leaf(chain)
	if err != nil {
		return farm.Secret{}, err
	}
	text, err := os.ReadFile(a.keyFile(nameOf(leaf.RawSubjectPublicKeyInfo)))
	if errors.Is(err, fs.ErrNotExist) {
		return farm.Secret{}, fmt.Errorf("%w of leaf %s", errNoKey, farm.Short(farm.Fingerprint(leaf.Raw)))
	}
	if err != nil {
		return farm.Secret{}, fmt.Errorf("reading a key of this node: %w", err)
	}
	return farm.NewSecret(text), nil
}

// forget erases keys. One that is not there was erased before.
func (a *Answerer) forget(names []string) error {
	for _, n := range names {
		if err := os.Remove(a.keyFile(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("erasing a key of this node: %w", err)
		}
	}
	return nil
}
