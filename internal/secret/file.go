package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/crypto/argon2"

	"github.com/certfarm/certfarm/internal/farm"
)

// A keyFile is where master keys are kept.
type keyFile struct {
	path       string
	passphrase farm.Secret
}

func (f *keyFile) read() ([]masterKey, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	// Windows has no such bits: there the folder's rights decide. systemd gives
	// credentials as 0440 with an ACL where the folder itself is closed to others.
	if open := info.Mode().Perm() & 0o077; runtime.GOOS != "windows" && open != 0 && !closed(filepath.Dir(f.path), info) {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and `certfarm rekey` if others had a look", f.path, info.Mode().Perm())
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(text, f.passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return keys, nil
}

// closed reports that a file is systemd's credential: not writable for anyone, in
// a folder that only its user may enter.
func closed(dir string, file os.FileInfo) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o077 == 0 && file.Mode().Perm()&0o227 == 0
}

// create makes the file with a first key. Another process that makes it at the
// same time wins or loses as a whole: what is in the file counts.
func (f *keyFile) create() ([]masterKey, error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return nil, err
	}
	temp, err := f.temporary([]masterKey{newMasterKey(random())})
	if err != nil {
		return nil, err
	}
	err = os.Link(temp, f.path)
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	if err := errors.Join(err, os.Remove(temp), syncFolder(filepath.Dir(f.path))); err != nil {
		return nil, err
	}
	return f.read()
}

// write replaces the file: what is there is the old text or the new one.
func (f *keyFile) write(keys []masterKey) error {
	temp, err := f.temporary(keys)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, f.path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncFolder(filepath.Dir(f.path))
}

// temporary writes keys to a file beside the one they are for.
func (f *keyFile) temporary(keys []masterKey) (path string, err error) {
	text, err := format(keys, f.passphrase)
	if err != nil {
		return "", err
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".master-key-") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = temp.Write(text)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return "", errors.Join(err, os.Remove(temp.Name()))
	}
	return temp.Name(), nil
}

// syncFolder makes a new name durable.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// argon2id as RFC 9106 §4 recommends second, for where 2 GiB are too much:
// 3 passes over 64 MiB by 4 lanes.
const (
	passes = 3
	memory = 64 << 10 // KiB
	lanes  = 4
)

const lockedID = "certfarm locked master key"

// lock seals a master key under a passphrase.
func lock(k masterKey, passphrase farm.Secret) (salt, sealed []byte, err error) {
	salt = random()
	sealed, err = byPassphrase(salt, passphrase).Seal(lockedID, farm.NewSecret(k.bytes))
	return salt, sealed, err
}

func unlock(salt, sealed []byte, passphrase farm.Secret) (masterKey, error) {
	if passphrase.IsZero() {
		return masterKey{}, errors.New("the key is locked: give its passphrase")
	}
	plain, err := byPassphrase(salt, passphrase).Open(lockedID, sealed)
	switch {
	case errors.Is(err, ErrWrongKey):
		return masterKey{}, errors.New("wrong passphrase")
	case err != nil || len(plain.Reveal()) != keySize:
		return masterKey{}, errors.New("the locked key is damaged")
	}
	return newMasterKey(plain.Reveal()), nil
}

func byPassphrase(salt []byte, passphrase farm.Secret) *Keyring {
	return &Keyring{keys: []masterKey{newMasterKey(argon2.IDKey(passphrase.Reveal(), salt, passes, memory, lanes, keySize))}}
}
