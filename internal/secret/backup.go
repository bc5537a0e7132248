package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/certfarm/certfarm/internal/farm"
)

// A BackupKey says for whom a backup is encrypted: for who knows the passphrase,
// or for age recipients ("age1…"), whose owners read it with their identities.
type BackupKey struct {
	Passphrase farm.Secret
	Recipients []string    // to encrypt
	Identities farm.Secret // to decrypt: the text of an age identity file
}

// EncryptBackup returns a writer that encrypts to w with age (age-encryption.org).
// The backup is whole only after it is closed without an error.
func EncryptBackup(w io.Writer, key BackupKey) (io.WriteCloser, error) {
	to, err := key.recipients()
	if err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	out, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	return out, nil
}

func (k BackupKey) recipients() ([]age.Recipient, error) {
	if !k.Passphrase.IsZero() {
		if len(k.Recipients) > 0 {
			return nil, errors.New("give a passphrase or recipients, not both")
		}
		r, err := age.NewScryptRecipient(string(k.Passphrase.Reveal()))
		return []age.Recipient{r}, err
	}
	var all []age.Recipient
	for _, text := range k.Recipients {
		r, err := recipient(text)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, errors.New("for whom? give a passphrase or an age recipient")
	}
	return all, nil
}

// recipient reads a recipient of either sort that age has: X25519, or a hybrid
// with ML-KEM that a quantum computer cannot break.
func recipient(text string) (age.Recipient, error) {
	if r, err := age.ParseHybridRecipient(text); err == nil {
		return r, nil
	}
	r, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no age recipient, which looks like age1…", text)
	}
	return r, nil
}

// DecryptBackup returns a reader of the backup in r. What it gives was not
// changed by anyone; a backup that was cut off gives an error at its end.
func DecryptBackup(r io.Reader, key BackupKey) (io.Reader, error) {
	who, err := key.identities()
	if err != nil {
		return nil, fmt.Errorf("decrypt backup: %w", err)
	}
	in, err := age.Decrypt(r, who...)
	if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
		return nil, errors.New("decrypt backup: it was encrypted for another passphrase or recipient")
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt backup: %w", err)
	}
	return in, nil
}

func (k BackupKey) identities() ([]age.Identity, error) {
	if !k.Passphrase.IsZero() {
		i, err := age.NewScryptIdentity(string(k.Passphrase.Reveal()))
		return []age.Identity{i}, err
	}
	if k.Identities.IsZero() {
		return nil, errors.New("give the passphrase or the identity that it was encrypted for")
	}
	all, err := age.ParseIdentities(bytes.NewReader(k.Identities.Reveal()))
	if err != nil {
		return nil, errors.New("the identity cannot be read: it looks like AGE-SECRET-KEY-1…") // age's error may quote it
	}
	return all, nil
}
