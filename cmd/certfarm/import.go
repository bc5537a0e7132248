package main

import (
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/farm"
)

func newImport(a *app) *cobra.Command {
	var chain, key string
	w := watching{one: true}
	c := a.inFarm(&cobra.Command{
		Use: "import SITE [FILE]", GroupID: groupFarm, Short: "Roll out a certificate that was got elsewhere",
		Long: `Import makes a certificate and its key the site's newest version, and rolls it
out. They must fit each other and the site's names. FILE is PEM with all of it;
or name two files with --chain and --key.`,
		Example: `certfarm import shop shop.pem
certfarm import shop --chain fullchain.pem --key privkey.pem`,
		Args: args(1, 2, "the name of a site, and a file"), ValidArgsFunction: a.completeNames("site"),
		RunE: func(cmd *cobra.Command, given []string) error {
			certificates, secret, err := a.readPair(given[1:], chain, key)
			if err != nil {
				return err
			}
			return a.begin(cmd.Context(), given[0], w, "The certificate is the newest version of "+given[0]+".", func(c *client.Client, farmName string) error {
				_, err := c.Import(cmd.Context(), farmName, given[0], certificates, secret)
				return err
			})
		},
	})
	c.Flags().StringVar(&chain, "chain", "", "PEM file of the certificate and its chain, leaf first")
	c.Flags().StringVar(&key, "key", "", "PEM file of the private key")
	w.flags(c)
	return c
}

// readPair reads a chain and its key from one file, or from two.
func (a *app) readPair(one []string, chain, key string) ([]byte, farm.Secret, error) {
	files := one
	if len(one) == 0 {
		files = []string{chain, key}
	}
	if slices.Contains(files, "") || len(one) > 0 && chain+key != "" {
		return nil, farm.Secret{}, usage("certfarm import SITE FILE, or --chain FILE --key FILE", "import needs one file with chain and key, or both apart")
	}
	var certificates, secret []byte
	for _, name := range files {
		text, err := a.readFile(name, maxSecret)
		if err != nil {
			return nil, farm.Secret{}, err
		}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if strings.HasSuffix(block.Type, "PRIVATE KEY") {
				secret = append(secret, pem.EncodeToMemory(block)...)
			} else {
				certificates = append(certificates, pem.EncodeToMemory(block)...)
			}
		}
	}
	if certificates == nil || secret == nil {
		return nil, farm.Secret{}, hinted(fmt.Errorf("%s: there is no certificate and key in PEM", strings.Join(files, " and ")),
			"convert PFX with openssl pkcs12 -in FILE -nodes")
	}
	return certificates, farm.NewSecret(secret), nil
}
