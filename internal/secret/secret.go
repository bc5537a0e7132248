// Package secret seals private keys and credentials for the store, and backups
// for everywhere else.
//
// Its invariant: what Seal returns says nothing about the secret to whoever lacks
// the master key, and opens only under the name that it was sealed for, so that
// a row cannot be put in another's place. Each record has a key of its own, derived
// from the master key and 32 bytes of chance (HKDF, RFC 5869), and is sealed with
// AES-256-GCM. A record names its master key, so that a wrong one is told from a
// damaged record.
//
//	"cfs1" | master key's id, 8 | salt, 32 | nonce, 12 | ciphertext | tag, 16
package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// ErrWrongKey says that a record was sealed under a master key that is not at
// hand.
var ErrWrongKey = errors.New("wrong master key")

// ErrDamaged says that a record is not what was sealed: its bytes were changed, or
// it was sealed under another name.
var ErrDamaged = errors.New("sealed record is damaged")

const (
	magic    = "cfs1"
	idSize   = 8
	saltSize = 32
	header   = len(magic) + idSize + saltSize
	keySize  = 32
)

// A masterKey is 32 bytes of chance. Its id is made from it.
type masterKey struct {
	id    [idSize]byte
	bytes []byte
}

func newMasterKey(b []byte) masterKey {
	k := masterKey{bytes: b}
	sum := sha256.Sum256(append([]byte("certfarm master key id:"), b...))
	copy(k.id[:], sum[:])
	return k
}

// A Keyring seals under its active master key and opens under every key it has.
// It is safe for use by many goroutines at once. It refuses to print its keys.
type Keyring struct {
	keys []masterKey // the first is active
	file *keyFile    // where it is kept; nil if it came from the environment
}

// String names the active key.
func (k *Keyring) String() string { return "master key " + k.Active() }

// GoString names the active key.
func (k *Keyring) GoString() string { return k.String() }

// Active is the id of the active master key.
func (k *Keyring) Active() string { return hex.EncodeToString(k.keys[0].id[:]) }

// RecordID is the name that a record is sealed for. No two names give one id.
func RecordID(farmName, kind, name string) string {
	return strconv.Quote(farmName) + "/" + strconv.Quote(kind) + "/" + strconv.Quote(name)
}

// Seal seals a secret for the record with an id (see RecordID).
func (k *Keyring) Seal(id string, plain farm.Secret) ([]byte, error) {
	key := k.keys[0]
	sealed := make([]byte, header, header+12+len(plain.Reveal())+16)
	copy(sealed, magic)
	copy(sealed[len(magic):], key.id[:])
	rand.Read(sealed[header-saltSize:]) // never fails (crypto/rand)
	aead, err := key.aead(sealed)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", id, err)
	}
	return aead.Seal(sealed, nil, plain.Reveal(), slices.Concat(sealed[:header], []byte(id))), nil
}

// Open opens what was sealed for the record with an id. Its errors wrap
// ErrWrongKey or ErrDamaged.
func (k *Keyring) Open(id string, sealed []byte) (farm.Secret, error) {
	key, err := k.keyOf(sealed)
	if err != nil {
		return farm.Secret{}, fmt.Errorf("open %s: %w", id, err)
	}
	aead, err := key.aead(sealed)
	if err != nil {
		return farm.Secret{}, fmt.Errorf("open %s: %w", id, err)
	}
	plain, err := aead.Open(nil, nil, sealed[header:], slices.Concat(sealed[:header], []byte(id)))
	if err != nil {
		return farm.Secret{}, fmt.Errorf("open %s: %w: it was changed, or moved here from another record; restore it from a backup or set it again", id, ErrDamaged)
	}
	return farm.NewSecret(plain), nil
}

// Reseal seals a record under the active key if it is sealed under another, and
// reports whether it did. Rekeying is: Rotate, Reseal every record, Retire.
func (k *Keyring) Reseal(id string, sealed []byte) (again []byte, changed bool, err error) {
	key, err := k.keyOf(sealed)
	if err != nil {
		return nil, false, fmt.Errorf("reseal %s: %w", id, err)
	}
	if key.id == k.keys[0].id {
		return sealed, false, nil
	}
	plain, err := k.Open(id, sealed)
	if err != nil {
		return nil, false, err
	}
	again, err = k.Seal(id, plain)
	return again, true, err
}

// Check returns an error that wraps ErrWrongKey if a record was sealed under a
// master key that is not at hand. A controller asks it of a record when it starts.
func (k *Keyring) Check(sealed []byte) error {
	_, err := k.keyOf(sealed)
	return err
}

func (k *Keyring) keyOf(sealed []byte) (masterKey, error) {
	if len(sealed) < header || !bytes.HasPrefix(sealed, []byte(magic)) {
		return masterKey{}, fmt.Errorf("%w: it is too short or of an unknown form", ErrDamaged)
	}
	id := sealed[len(magic) : len(magic)+idSize]
	for _, key := range k.keys {
		if bytes.Equal(key.id[:], id) {
			return key, nil
		}
	}
	return masterKey{}, fmt.Errorf("%w: it was sealed under key %x, and here is %s; give the master key file that belongs to this database", ErrWrongKey, id, k.ids())
}

func (k *Keyring) ids() string {
	var all []string
	for _, key := range k.keys {
		all = append(all, hex.EncodeToString(key.id[:]))
	}
	return strings.Join(all, ", ")
}

// aead is the cipher of the record that begins with head.
func (m masterKey) aead(head []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, m.bytes, head[header-saltSize:header], "certfarm sealed record", keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
