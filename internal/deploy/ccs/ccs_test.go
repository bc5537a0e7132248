package ccs

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
)

func secret() farm.Secret { return farm.NewSecret([]byte("Store-password-1")) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// share is what a host under test is when it has files and nothing else.
type share struct {
	hosttest.Linked
	files Share
}

func (s share) Read(ctx context.Context, name string) ([]byte, error) {
	return s.files.Read(ctx, name)
}

func (s share) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	return s.files.Write(ctx, name, data, a)
}

func (s share) Rename(ctx context.Context, from, to string) error {
	return s.files.Rename(ctx, from, to)
}

func (s share) Remove(ctx context.Context, name string) error { return s.files.Remove(ctx, name) }

func (s share) List(ctx context.Context, folder string) ([]host.Entry, error) {
	return s.files.List(ctx, folder)
}

func (s share) Mkdir(ctx context.Context, name string, a host.Attr) error {
	return s.files.Mkdir(ctx, name, a)
}

func (s share) Readlink(context.Context, string) (string, error) { return "", host.ErrNotLink }

// opener opens PFX files for the contract, each content once: it is slow by
// design.
type opener map[[sha256.Size]byte]farm.Bundle

func (o opener) open(data []byte) (chain, key []byte, err error) {
	sum := sha256.Sum256(data)
	b, known := o[sum]
	if !known {
		if b, err = encode.OpenPFX(data, secret()); err != nil {
			return nil, nil, err
		}
		o[sum] = b
	}
	return b.Chain, b.Key.Reveal(), nil
}

// bench is a share with two stores below base.
func bench(t *testing.T, files Share, base string) deploytest.Bench {
	t.Helper()
	f := &hosttest.Faulty{Linked: share{files: files}}
	open := func(folder string) deploytest.Target {
		root := base + "/" + folder
		must(t, files.Mkdir(t.Context(), root, host.Attr{Mode: 0o755}))
		of := deploytest.Target{Keys: []farm.KeyType{farm.EC256}}
		for _, name := range deploytest.Names {
			at := root + "/" + name + ".pfx"
			of.Live = append(of.Live, [2]string{at, at})
		}
		o := Defaults()
		o.Path, o.Names = root, deploytest.Names
		_, _, err := o.Facts()
		must(t, err)
		of.Deployer = New(Setup{Files: f, Password: secret(), Options: o})
		return of
	}
	return deploytest.Bench{
		Host: f, Target: open("certs"), Second: open("more"), Open: opener{}.open,
		Plain: func(_ deploytest.T, of deploytest.Target, b farm.Bundle) {
			data, err := encode.PFX(b, encode.PFXOptions{Password: secret()})
			must(t, err)
			for _, at := range of.Live {
				must(t, files.Write(t.Context(), at[0], data, private))
			}
		},
	}
}

// unfit skips rules of the contract that a store keeps in another way.
func unfit(t *testing.T, rules ...string) {
	t.Helper()
	for _, rule := range rules {
		if strings.Contains(t.Name(), strings.ReplaceAll(rule, " ", "_")) {
			t.Skip("not for this kind of target or this server")
		}
	}
}

// A store needs no placeholder: IIS runs without a file, and a first
// installation goes back to none. TestFirstGoesBackToNothing holds it to that.
const placeholder = "placeholder"

func TestContract(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		unfit(t, placeholder)
		return bench(t, &hosttest.Mem{}, "/srv")
	})
}

func TestContractOnDisk(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		unfit(t, placeholder, "cut anywhere")
		return bench(t, local.New(local.Config{}), filepath.ToSlash(t.TempDir()))
	})
}
