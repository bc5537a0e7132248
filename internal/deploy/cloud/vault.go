package cloud

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// vault are the options of the kind vault.
type vault struct {
	Address   string      `json:"address" doc:"URL of the server, as in https://vault.example.org:8200; http to this machine alone"`
	Namespace string      `json:"namespace,omitempty" doc:"namespace of Vault Enterprise or OpenBao; empty: the root"`
	Mount     string      `json:"mount" doc:"where the KV engine is mounted"`
	Path      string      `json:"path" doc:"path of the secret below the mount"`
	KV        int         `json:"kv" doc:"version of the KV engine, 1 or 2; only 2 has check-and-set"`
	Fields    vaultFields `json:"fields" doc:"names of the secret's fields: certificate (leaf), chain (those above it), fullchain (both) and key; empty: not written"`
	RoleID    string      `json:"role_id,omitempty" doc:"sign in by AppRole (with the secret secret_id); empty: by the secret token"`
	RoleMount string      `json:"role_mount,omitempty" doc:"where AppRole is mounted"`
	CA        string      `json:"ca,omitempty" doc:"certificates, PEM, that vouch for the server; empty: the system's"`
	Undo      bool        `json:"undo" doc:"demand a way back before anything is changed; false: what is not ours is replaced for good, in the last wave"`
	Lag       string      `json:"lag,omitempty" doc:"how long readers may take to fetch a new version, as in 4h"`
}

// vaultFields are the names of a secret's fields.
type vaultFields struct {
	Certificate string `json:"certificate" doc:"the leaf"`
	Chain       string `json:"chain" doc:"the certificates above it"`
	Fullchain   string `json:"fullchain" doc:"leaf and chain in one"`
	Key         string `json:"key" doc:"the private key, PKCS#8"`
}

// Facts checks the options; see deploy.Options.
func (o vault) Facts() (identity, group string, err error) {
	at, err := o.at()
	if err != nil {
		return "", "", err
	}
	for field, text := range map[string]string{"mount": o.Mount, "path": o.Path, "role_mount": o.RoleMount} {
		if !vaultPath(text) {
			return "", "", &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q is no path in Vault", text), Hint: "without a slash at its ends, as in tls/shop; the mount, and data/ of KV 2, are not part of path"}
		}
	}
	namespace := strings.Trim(o.Namespace, "/")
	if namespace != "" && !vaultPath(namespace) {
		return "", "", &deploy.FieldError{Field: "namespace", Problem: fmt.Sprintf("%q is no namespace", o.Namespace), Hint: "as in teams/web"}
	}
	if o.KV != 1 && o.KV != 2 {
		return "", "", &deploy.FieldError{Field: "kv", Problem: fmt.Sprintf("there is no version %d of the KV engine", o.KV), Hint: "1 or 2; `vault secrets list -detailed` tells"}
	}
	_, err = lagOf(o.Lag)
	if err := first(o.Fields.check(), checkRoots("ca", o.CA), err); err != nil {
		return "", "", err
	}
	identity = "vault " + at + " " + path.Join("/", namespace, o.Mount, o.Path)
	return identity, identity, nil
}

// vaultPath reports a path that means the same to us and to Vault.
func vaultPath(text string) bool {
	return text != "" && path.Clean("/"+text) == "/"+text && !strings.ContainsFunc(text, unicode.IsControl) && !strings.ContainsAny(text, "?#%")
}

// NoUndo is deploy.Final's.
func (o vault) NoUndo() bool { return !o.Undo }

// at is the server's address, checked: a token and private keys go there.
func (o vault) at() (string, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", &deploy.FieldError{Field: "address", Problem: "it is no URL of a server", Hint: "as in https://vault.example.org:8200"}
	}
	if u.Scheme == "http" && !outbound.Loopback(u.Hostname()) {
		return "", &deploy.FieldError{Field: "address", Problem: "a token and private keys would cross the network in the clear", Hint: "https, with ca if its certificate is from a CA of your own"}
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

func (f vaultFields) check() error {
	if f.Key == "" || f.Certificate == "" && f.Fullchain == "" {
		return &deploy.FieldError{Field: "fields", Problem: "key, and certificate or fullchain, must have a name", Hint: "without fields they are certificate, chain and key"}
	}
	seen := map[string]bool{}
	for _, name := range []string{f.Certificate, f.Chain, f.Fullchain, f.Key} {
		if name != "" && seen[name] {
			return &deploy.FieldError{Field: "fields", Problem: fmt.Sprintf("two fields are called %q", name), Hint: "give each a name of its own"}
		}
		seen[name] = true
	}
	return nil
}

// Vault is a secret in a KV engine of HashiCorp Vault or OpenBao. On KV 2 each
// write is a new version, and only over the one that was seen (check-and-set).
func Vault() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:     "vault",
		Doc:      "HashiCorp Vault or OpenBao: a secret in a KV engine",
		Fence:    "conditional",
		Nodeless: true,
		Secrets: []deploy.Secret{
			{Name: "token", Doc: "token that may read and write the secret", Optional: true},
			{Name: "secret_id", Doc: "secret ID of the AppRole role_id", Optional: true},
		},
	}, vault{
		Mount: "secret", KV: 2, RoleMount: "approle", Undo: true,
		Fields: vaultFields{Certificate: "certificate", Chain: "chain", Key: "key"},
	}, openVault)
}

func openVault(o vault, s deploy.Setup) (deploy.Deployer, error) {
	t, err := outbound.NewTransport(o.CA, s.Proxy)
	if err != nil {
		return nil, err
	}
	return newVault(o, s, outbound.NewClient(s.Wire.Around(t)))
}

// credentials are those of the setup that o signs in with.
func (o vault) credentials(s deploy.Setup) (token, secretID farm.Secret, err error) {
	token, secretID = s.Secrets["token"], s.Secrets["secret_id"]
	if o.RoleID == "" && token.IsZero() {
		err = &deploy.FieldError{Field: "role_id", Problem: "there is neither a role_id nor the secret token", Hint: "write secrets: {token: {secret: NAME}}"}
	}
	if o.RoleID != "" && !token.IsZero() {
		err = &deploy.FieldError{Field: "role_id", Problem: "there is the secret token, too", Hint: "one way to sign in: role_id with secret_id, or token"}
	}
	return token, secretID, err
}
