package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// exporting is what `certfarm export` was told.
type exporting struct {
	client.ExportAsk
	out, passwordFile string
	legacy, force     bool
}

func newExport(a *app) *cobra.Command {
	var o exporting
	c := a.inFarm(&cobra.Command{
		Use: "export SITE", GroupID: groupState, Short: "Write a site's certificate with its key to a file",
		Long: `Export takes a site's certificate away with its key, for a consumer that is no
target: the newest version that was proven on the targets. It needs the permission
key-export, and the audit says who has the key now. The file is readable for you
alone. Where each node has a key of its own, or holds it, there is nothing to export.

A PFX or JKS opens with the password in --password-file; without one, a new one is
made and written to the file's name with .password.`,
		Example: `certfarm export shop --out shop.pem
certfarm export shop --format pfx --out shop.pfx --password-file pfx.password
certfarm export shop --farm prod --out shop.pem --force \
  --url https://certfarm.example.com:8403 --token-file token      with a puller's token`,
		Args: args(1, 1, "the name of a site"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error { return a.export(cmd.Context(), given[0], o) },
	})
	f := c.Flags()
	f.StringVar(&o.Format, "format", api.FormatPEM, "pem, pfx or jks")
	f.StringVarP(&o.out, "out", "o", "", "file to write")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the password of a PFX or JKS, - for standard input")
	f.StringVar(&o.KeyType, "key-type", "", "of a site with several: ec256, ec384, rsa2048, rsa3072, rsa4096")
	f.StringVar(&o.Alias, "alias", "", "of a JKS: the name of its entry (default: the site's name)")
	f.BoolVar(&o.legacy, "legacy", false, "of a PFX: for Windows Server 2016 and older")
	f.BoolVar(&o.force, "force", false, "write over a file that is there")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{api.FormatPEM, api.FormatPFX, api.FormatJKS}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) export(ctx context.Context, site string, o exporting) error {
	if err := o.free(site); err != nil {
		return err
	}
	if o.legacy {
		o.Cipher = string(encode.PFXLegacy)
	}
	if o.passwordFile != "" {
		var err error
		if o.Password, err = a.secretValue(o.passwordFile, "password"); err != nil {
			return err
		}
	}
	return a.with(ctx, func(c *client.Client, farmName string) error {
		e, err := c.Export(ctx, farmName, site, o.ExportAsk)
		if err != nil {
			return a.meant(ctx, c, "sites", farmName, site, err)
		}
		if !e.Password.IsZero() {
			if err := keep(o.passwordOut(), e.Password); err != nil {
				return err
			}
		}
		if err := keep(o.out, e.File); err != nil {
			return err
		}
		return a.done("export", map[string]any{"site": site, "file": o.out, "format": o.Format, "leaf": e.Leaf},
			"%s with its key is in %s.", farm.Short(e.Leaf), o.out)
	})
}

// passwordOut is where a password is written that was made.
func (o exporting) passwordOut() string { return o.out + ".password" }

// free says whether nothing is written over that nobody wanted to lose.
func (o exporting) free(site string) error {
	if o.out == "" {
		return usage("--out "+site+"."+o.Format, "name the file to write")
	}
	files := []string{o.out}
	if o.Format != api.FormatPEM && o.passwordFile == "" {
		files = append(files, o.passwordOut())
	}
	for _, name := range files {
		if _, err := os.Lstat(name); err == nil && !o.force {
			return hinted(fmt.Errorf("%s is there already", name), "choose another name, or --force")
		}
	}
	return nil
}

// keep writes a secret to a file that its owner alone may read, whole or not at all.
func keep(name string, s farm.Secret) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".certfarm-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(s.Reveal())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		return nil
	}
	if gone := os.Remove(f.Name()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return fmt.Errorf("write %s: %w", name, err)
}
