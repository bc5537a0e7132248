package target

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
)

// jks are the options of the kind jks.
type jks struct {
	keystorePath
	Alias string `json:"alias,omitempty" doc:"name of the entry in the key store, lower case"`
	upkeep
}

// Facts checks the options; see deploy.Options.
func (o jks) Facts() (identity, group string, err error) {
	if o.Alias == "" || strings.ContainsFunc(o.Alias, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) || unicode.IsUpper(r) }) {
		return "", "", &deploy.FieldError{Field: "alias", Problem: fmt.Sprintf("%q is no alias", o.Alias), Hint: "lower case letters, as Java writes them"}
	}
	return o.storeFacts("jks", o.upkeep, javaStore)
}

// JKS is a Java server that reads a key store of the old kind. The password is
// the store's and the entry's. Java 9 and newer read what kind pfx writes as well,
// which protects the key better.
func JKS() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:    "jks",
		Doc:     "a Java key store (JKS), and commands of your own",
		Fence:   "unfenced",
		Secrets: passwords(),
	}, jks{Alias: "certfarm", upkeep: commandless()}, func(o jks, s deploy.Setup) (deploy.Deployer, error) {
		secret, err := passwordOf(s)
		if err != nil {
			return nil, err
		}
		return newEngineOf(o.upkeep, one(o.Path, javaStore), format{Password: secret, Alias: o.Alias}, s), nil
	})
}
