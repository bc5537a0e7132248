package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/farm"
)

// ExportAsk says how a certificate is taken away.
type ExportAsk struct {
	Format   string      // one of api's
	KeyType  string      // of the leaf; empty: the first
	Cipher   string      // of a PFX; empty: the modern one
	Alias    string      // of a JKS' entry; empty: the site's name
	Password farm.Secret // of a PFX or JKS; zero: one is made
	Has      string      // the ETag of what is there already; empty: nothing
}

// An Exported is a certificate with its key.
type Exported struct {
	File     farm.Secret // in the format that was asked for; zero: what is there is still it
	Password farm.Secret // that was made for it; zero: none was
	Leaf     string      // fingerprint
	ETag     string
}

// maxExport bounds a certificate with its key, in bytes.
const maxExport = 4 << 20

// Export takes a site's certificate away with its key.
func (c *Client) Export(ctx context.Context, farmName, site string, e ExportAsk) (Exported, error) {
	return c.taken(ctx, ask{
		route: "export", words: []string{farmName, site},
		query: given("format", e.Format, "key_type", e.KeyType, "cipher", e.Cipher, "alias", e.Alias),
		head:  map[string]string{api.PasswordHeader: string(e.Password.Reveal()), "If-None-Match": e.Has},
	})
}

// Pull takes away the certificate for a name; ok is false where there is none.
func (c *Client) Pull(ctx context.Context, farmName, serverName string) (e Exported, ok bool, err error) {
	e, err = c.taken(ctx, ask{route: "pull", words: []string{farmName}, query: given("server_name", serverName)})
	return e, !e.File.IsZero(), err
}

func (c *Client) taken(ctx context.Context, a ask) (Exported, error) {
	res, err := c.request(ctx, a)
	if err != nil {
		return Exported{}, err
	}
	defer res.Body.Close()
	e := Exported{Leaf: res.Header.Get(api.LeafHeader), ETag: res.Header.Get("ETag")}
	if res.StatusCode != http.StatusOK {
		return e, nil
	}
	e.Password = farm.NewSecret([]byte(res.Header.Get(api.PasswordHeader)))
	body, err := io.ReadAll(io.LimitReader(res.Body, maxExport))
	if err != nil {
		return e, fmt.Errorf("read the answer to %s: %w", a.route, err)
	}
	e.File = farm.NewSecret(body)
	return e, nil
}
