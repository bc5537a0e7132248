package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// locking says how a backup is encrypted.
type locking struct {
	keeping
	passphraseFile, identityFile string
	recipients                   []string
}

func newBackup(a *app) *cobra.Command {
	var l locking
	c := &cobra.Command{
		Use: "backup FILE", GroupID: groupState, Short: "Write everything that is known to an encrypted file",
		Long: `Backup writes the whole database as it is at one moment, encrypted with age
(age-encryption.org), while the controller goes on. The master key is not in it:
keep a copy of that file apart.`,
		Example: `certfarm backup farm.backup --passphrase-file backup.pass
certfarm backup farm.backup --recipient age1ql3z7hjy54pw3hyww5ayyfg7z…`,
		Args: args(1, 1, "the name of a file"),
		RunE: func(cmd *cobra.Command, given []string) error { return a.backup(cmd.Context(), given[0], l) },
	}
	a.keepFlags(c, &l.keeping)
	c.Flags().StringVar(&l.passphraseFile, "passphrase-file", "", "file with the passphrase (default: ask)")
	c.Flags().StringArrayVar(&l.recipients, "recipient", nil, "age recipient who may read it, instead of a passphrase; may be given again")
	return c
}

func newRestore(a *app) *cobra.Command {
	var l locking
	c := &cobra.Command{
		Use: "restore FILE", GroupID: groupState, Short: "Read a backup into a new database",
		Long: `Restore reads a backup into a database in which there is nothing yet. The
controller that starts on it looks at the nodes before it does anything, since
what the backup says may be long past. Put the master key beside it.`,
		Example: "certfarm restore farm.backup --state /srv/certfarm --passphrase-file backup.pass",
		Args:    args(1, 1, "a backup"),
		RunE:    func(cmd *cobra.Command, given []string) error { return a.restore(cmd.Context(), given[0], l) },
	}
	a.keepFlags(c, &l.keeping)
	c.Flags().StringVar(&l.passphraseFile, "passphrase-file", "", "file with the passphrase (default: ask)")
	c.Flags().StringVar(&l.identityFile, "identity", "", "file with an age identity, instead of a passphrase")
	return c
}

// passphrase reads it from the file, or asks; twice where a slip would cost the
// backup.
func (a *app) passphrase(file string, twice bool) (farm.Secret, error) {
	if file != "" {
		text, err := a.readFile(file, maxSecret)
		if err != nil {
			return farm.Secret{}, fmt.Errorf("passphrase: %w", err)
		}
		return given(farm.NewSecret(oneLineSecret(text)))
	}
	first, err := a.hidden("Passphrase")
	if err != nil || !twice {
		return first, err
	}
	second, err := a.hidden("The same again")
	if err == nil && string(first.Reveal()) != string(second.Reveal()) {
		err = errors.New("the passphrases differ")
	}
	if err != nil {
		return farm.Secret{}, err
	}
	return given(first)
}

func given(s farm.Secret) (farm.Secret, error) {
	if s.IsZero() {
		return s, errors.New("the passphrase is empty")
	}
	return s, nil
}

func (a *app) backup(ctx context.Context, name string, l locking) (err error) {
	key := secret.BackupKey{Recipients: l.recipients}
	if len(l.recipients) == 0 {
		if key.Passphrase, err = a.passphrase(l.passphraseFile, true); err != nil {
			return err
		}
	}
	s, err := a.openStore(ctx, l.keeping, store.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	// Written beside and renamed: the backup of yesterday stays until this one is whole.
	f, err := os.CreateTemp(filepath.Dir(name), ".backup-") // mode 0600
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	err = errors.Join(write(ctx, s, f, key), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("backup: %w", err), os.Remove(f.Name()))
	}
	a.stampBackup()
	return a.done("backup", map[string]any{"file": name}, "Everything is in %s. The master key is not: keep a copy of it apart.", name)
}

func write(ctx context.Context, s *store.Store, to io.Writer, key secret.BackupKey) error {
	w, err := secret.EncryptBackup(to, key)
	if err != nil {
		return err
	}
	return errors.Join(s.Backup(ctx, w), w.Close())
}

func (a *app) restore(ctx context.Context, name string, l locking) (err error) {
	var key secret.BackupKey
	if l.identityFile != "" {
		text, err := a.readFile(l.identityFile, maxSecret)
		if err != nil {
			return err
		}
		key.Identities = farm.NewSecret(text)
	} else if key.Passphrase, err = a.passphrase(l.passphraseFile, false); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := secret.DecryptBackup(f, key)
	if err != nil {
		return err
	}
	s, err := a.openStore(ctx, l.keeping, store.Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(s.Restore(ctx, r), s.Close()); err != nil {
		return err
	}
	at, err := a.address(l.keeping)
	if err != nil {
		return err
	}
	return a.done("restored", map[string]any{"file": name},
		"Restored to %s. Put the master key that belongs to it beside, then `certfarm serve`.", shown(at))
}

// shown is a database's address without who uses it.
func shown(at string) string {
	if filepath.IsAbs(at) {
		return at
	}
	return "the database"
}
