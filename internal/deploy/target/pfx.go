package target

import (
	"fmt"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
)

// pfx are the options of the kind pfx.
type pfx struct {
	keystorePath
	Cipher encode.PFXCipher `json:"cipher,omitempty" doc:"how the file is protected: aes256-sha256, or 3des-sha1 for Windows 2016 and older"`
	upkeep
}

// Facts checks the options; see deploy.Options.
func (o pfx) Facts() (identity, group string, err error) {
	if o.Cipher != encode.PFXModern && o.Cipher != encode.PFXLegacy {
		return "", "", &deploy.FieldError{Field: "cipher", Problem: fmt.Sprintf("%q is no cipher", o.Cipher), Hint: fmt.Sprintf("%s or %s", encode.PFXModern, encode.PFXLegacy)}
	}
	return o.storeFacts("pfx", o.upkeep, pkcs12)
}

// PFX is a server that reads a PKCS#12 file: key, leaf and chain under one
// password. An installation that does not open with it counts as broken.
func PFX() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:    "pfx",
		Doc:     "a PKCS#12 (PFX) file, and commands of your own",
		Fence:   "unfenced",
		Secrets: passwords(),
	}, pfx{Cipher: encode.PFXModern, upkeep: commandless()}, func(o pfx, s deploy.Setup) (deploy.Deployer, error) {
		secret, err := passwordOf(s)
		if err != nil {
			return nil, err
		}
		return newEngineOf(o.upkeep, one(o.Path, pkcs12), format{Password: secret, Cipher: o.Cipher}, s), nil
	})
}
