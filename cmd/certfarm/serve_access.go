package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/access/idp"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// accessFile is access.yaml: who may log in beside those with a token. It stands
// beside the controller and not in farm.yaml, so that who edits a farm cannot make
// themselves its master.
type accessFile struct {
	URL     string        `yaml:"url"`
	OIDC    *oidcFile     `yaml:"oidc"`
	Grants  []groupGrant  `yaml:"grants"`
	Idle    time.Duration `yaml:"session_idle"`
	Longest time.Duration `yaml:"session_longest"`
}

type oidcFile struct {
	Issuer       string   `yaml:"issuer"`
	ClientID     string   `yaml:"client_id"`
	ClientSecret kept     `yaml:"client_secret"`
	RedirectURL  string   `yaml:"redirect_url"`
	Scopes       []string `yaml:"scopes"`
	NameClaim    string   `yaml:"name_claim"`
	GroupsClaim  string   `yaml:"groups_claim"`
	Roots        string   `yaml:"roots"`
}

// kept says where a secret of the controller's own stands.
type kept struct {
	File       string `yaml:"file"`
	Credential string `yaml:"credential"` // systemd's, LoadCredential=
}

type groupGrant struct {
	Group string   `yaml:"group"`
	Role  string   `yaml:"role"`
	Farm  string   `yaml:"farm"`
	Tags  []string `yaml:"tags"`
}

// callbackPath is where the dashboard takes browsers that come back from the
// identity provider.
const callbackPath = "/login/callback"

// gate makes the door of the TCP address.
func (a *app) gate(s serving, st *store.Store, log *slog.Logger) (*access.Gate, error) {
	c := access.Config{Store: st, Log: log}
	if s.tokens != "" {
		var err error
		if c.File, err = access.ReadFile(s.tokens); err != nil {
			return nil, err
		}
	}
	if err := a.readAccess(s.access, &c); err != nil {
		return nil, err
	}
	return access.NewGate(c)
}

// readAccess adds what access.yaml says. Without a name, the file in the state folder
// is read if there is one.
func (a *app) readAccess(file string, c *access.Config) error {
	optional := file == ""
	if optional {
		file = filepath.Join(a.state, "access.yaml")
	}
	info, err := os.Stat(file)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return hinted(fmt.Errorf("access: others may write %s, and give themselves any role", file), "chmod go-w "+file)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	defer f.Close()
	var all accessFile
	in := yaml.NewDecoder(f)
	in.KnownFields(true)
	if err = in.Decode(&all); err == nil {
		err = all.fill(c, filepath.Dir(file))
	}
	if err != nil {
		return hinted(fmt.Errorf("access: %s: %w", file, err), "docs/access.md shows what it may say")
	}
	return nil
}

// fill checks the file and puts it into a gate's config. Relative names of files are
// meant from dir.
func (f accessFile) fill(c *access.Config, dir string) (err error) {
	if f.URL != "" {
		if c.URL, err = url.Parse(f.URL); err != nil || c.URL.Host == "" || c.URL.Scheme != "https" && c.URL.Scheme != "http" {
			return fmt.Errorf("url %q is no URL of a controller: https://host:port", f.URL)
		}
	}
	if f.Idle < 0 || f.Longest < 0 {
		return errors.New("session_idle and session_longest are durations such as 4h")
	}
	c.Idle, c.Long = f.Idle, f.Longest
	if err := f.groups(c); err != nil || f.OIDC == nil {
		return err
	}
	if len(c.Grants) == 0 {
		return errors.New("grants: at least one is needed beside oidc, or nobody may do anything")
	}
	c.OIDC, err = f.OIDC.provider(f.URL, dir)
	return err
}

// groups checks what groups may do.
func (f accessFile) groups(c *access.Config) error {
	for i, g := range f.Grants {
		grant := store.Grant{Role: g.Role, Farm: g.Farm, Tags: g.Tags}
		if err := access.CheckGrants([]store.Grant{grant}); err != nil {
			return fmt.Errorf("grants, number %d: %w", i+1, err)
		}
		if g.Group == "" {
			return fmt.Errorf("grants, number %d: it names no group", i+1)
		}
		c.Grants = append(c.Grants, access.GroupGrant{Group: g.Group, Grant: grant})
	}
	return nil
}

func (o oidcFile) provider(base, dir string) (*idp.Provider, error) {
	c := idp.Config{
		Issuer: o.Issuer, ClientID: o.ClientID, Redirect: o.RedirectURL,
		Scopes: o.Scopes, Name: o.NameClaim, Groups: o.GroupsClaim,
	}
	if c.Redirect == "" && base != "" {
		c.Redirect, _ = url.JoinPath(base, callbackPath) // base was parsed before
	}
	if c.Redirect == "" {
		return nil, errors.New("oidc: url or redirect_url is needed, to which browsers come back")
	}
	var err error
	if c.Secret, err = o.ClientSecret.read(dir); err != nil {
		return nil, fmt.Errorf("oidc: client_secret: %w", err)
	}
	if o.Roots != "" {
		text, err := os.ReadFile(within(dir, o.Roots))
		if err != nil {
			return nil, fmt.Errorf("oidc: roots: %w", err)
		}
		c.Roots = x509.NewCertPool()
		if !c.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("oidc: roots: %s holds no certificate in PEM", o.Roots)
		}
	}
	p, err := idp.New(c)
	if err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	return p, nil
}

// read reads a secret that only its user may read.
func (k kept) read(dir string) (farm.Secret, error) {
	file := within(dir, k.File)
	switch {
	case k.File != "" && k.Credential != "":
		return farm.Secret{}, errors.New("file or credential, not both")
	case k.Credential != "":
		folder := os.Getenv("CREDENTIALS_DIRECTORY") // systemd.exec(5), LoadCredential=
		if folder == "" || filepath.Base(k.Credential) != k.Credential {
			return farm.Secret{}, fmt.Errorf("there is no systemd credential %q: LoadCredential= in the unit names it", k.Credential)
		}
		file = filepath.Join(folder, k.Credential)
	case k.File == "":
		return farm.Secret{}, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return farm.Secret{}, err
	}
	// systemd lets the unit's user read a credential by an ACL, which looks like more.
	if runtime.GOOS != "windows" && k.Credential == "" && info.Mode().Perm()&0o077 != 0 {
		return farm.Secret{}, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and change the secret", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file)
	return farm.NewSecret(bytes.TrimSpace(text)), err
}

// within is a file's name, meant from a folder unless it is full.
func within(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// firstToken makes an admin's token and shows it, once, where nobody could come in by
// TCP otherwise.
func (a *app) firstToken(ctx context.Context, s serving, g *access.Gate) error {
	if g == nil || g.File != nil || g.OIDC != nil {
		return nil
	}
	k, secret, made, err := access.Desk{Store: g.Store}.First(ctx)
	if err != nil || !made {
		return err
	}
	a.say("")
	a.say("This is the first start. A token with the role admin, good until %s, shown this once:", date(k.Expires))
	a.say("")
	a.say("    %s", secret.Reveal())
	a.say("")
	a.say("Log in with it on %s, or put it into a file for --token-file of other commands. Lost it? On this machine", s.listen)
	a.say("`certfarm token create NAME --role admin` makes another, and `certfarm token revoke %s` ends this one.", k.Name)
	a.say("")
	return nil
}
