package secret

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// Where a master key is looked for, in this order, before Source.File.
const (
	EnvKey         = "CERTFARM_MASTER_KEY"      // the key itself, in the form of the file
	EnvFile        = "CERTFARM_MASTER_KEY_FILE" // path of the file
	CredentialName = "certfarm-master-key"      // systemd: LoadCredential=certfarm-master-key:…
)

// A Source says where the master key is.
type Source struct {
	File       string              // used if the environment names nothing else
	MustExist  bool                // do not make the file if it is missing
	Passphrase farm.Secret         // the file's keys are locked with it (argon2id); none: they are not
	Getenv     func(string) string // default os.Getenv
}

// Load reads the master keys, or makes the first one. A file that others than its
// user may read is refused.
func Load(s Source) (*Keyring, error) {
	if s.Getenv == nil {
		s.Getenv = os.Getenv
	}
	if text := s.Getenv(EnvKey); text != "" {
		keys, err := parseKeys([]byte(text), s.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("master key in %s: %w", EnvKey, err)
		}
		return &Keyring{keys: keys}, nil
	}
	path, create := s.path()
	if path == "" {
		return nil, errors.New("no master key: say where its file is with " + EnvFile)
	}
	f := &keyFile{path: path, passphrase: s.Passphrase}
	keys, err := f.read()
	if errors.Is(err, fs.ErrNotExist) && create {
		keys, err = f.create()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; put back the file that belongs to this database, without it no key in it can be read", err)
	}
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	return &Keyring{keys: keys, file: f}, nil
}

// path is the file to read, and whether it may be made.
func (s Source) path() (path string, create bool) {
	if path = s.Getenv(EnvFile); path != "" {
		return path, !s.MustExist
	}
	if dir := s.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path = filepath.Join(dir, CredentialName)
		if _, err := os.Stat(path); err == nil {
			return path, false
		}
	}
	return s.File, !s.MustExist
}

// Rotate makes a new master key the active one and keeps the others to open with,
// here and in the file. The keyring at hand stays as it was.
func (k *Keyring) Rotate() (*Keyring, error) {
	return k.rewrite(append([]masterKey{newMasterKey(random())}, k.keys...))
}

// Retire forgets all master keys but the active one, here and in the file. What
// was not sealed anew by then can never be opened again.
func (k *Keyring) Retire() (*Keyring, error) { return k.rewrite(k.keys[:1]) }

func (k *Keyring) rewrite(keys []masterKey) (*Keyring, error) {
	if k.file == nil {
		return nil, errors.New("the master key is in " + EnvKey + ", which cannot be written: move it to a file and name that in " + EnvFile)
	}
	if err := k.file.write(keys); err != nil {
		return nil, fmt.Errorf("write master key: %w", err)
	}
	return &Keyring{keys: keys, file: k.file}, nil
}

// Fresh is a keyring with a new key that is kept nowhere: for tests and for a lab in
// memory.
func Fresh() *Keyring { return &Keyring{keys: []masterKey{newMasterKey(random())}} }

func random() []byte {
	b := make([]byte, keySize)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// The form of a key file: comments, and a line for each key, the active one
// first. A locked key was sealed under a key that argon2id made of the passphrase.
//
//	certfarm-key BASE64
//	certfarm-locked-key BASE64(SALT) BASE64(SEALED)
const (
	plainWord  = "certfarm-key"
	lockedWord = "certfarm-locked-key"
	heading    = `# The master key of certfarm: every private key in its database is sealed under it.
# Keep a copy apart from the backups. The first line is the key in use.
`
)

// parseKeys reads the lines of a key file. Its errors never quote a line.
func parseKeys(text []byte, passphrase farm.Secret) ([]masterKey, error) {
	var keys []masterKey
	for n, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		key, err := parseKey(fields, passphrase)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}

func parseKey(fields []string, passphrase farm.Secret) (masterKey, error) {
	var parts [][]byte
	for _, f := range fields[1:] {
		b, err := base64.StdEncoding.DecodeString(f)
		if err != nil {
			return masterKey{}, errors.New("this is not base64")
		}
		parts = append(parts, b)
	}
	switch {
	case fields[0] == plainWord && len(parts) == 1 && len(parts[0]) == keySize:
		return newMasterKey(parts[0]), nil
	case fields[0] == lockedWord && len(parts) == 2:
		return unlock(parts[0], parts[1], passphrase)
	}
	return masterKey{}, errors.New("this is no master key of certfarm, or one of a later release")
}

// format writes the lines of a key file.
func format(keys []masterKey, passphrase farm.Secret) ([]byte, error) {
	text := []byte(heading)
	for _, k := range keys {
		if passphrase.IsZero() {
			text = fmt.Appendf(text, "%s %s\n", plainWord, base64.StdEncoding.EncodeToString(k.bytes))
			continue
		}
		salt, sealed, err := lock(k, passphrase)
		if err != nil {
			return nil, err
		}
		text = fmt.Appendf(text, "%s %s %s\n", lockedWord, base64.StdEncoding.EncodeToString(salt), base64.StdEncoding.EncodeToString(sealed))
	}
	return text, nil
}
