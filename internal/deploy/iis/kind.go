package iis

import (
	"errors"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
)

// The secrets of the kind, as farm.yaml names them.
const (
	StorePassword   = "store_password"
	AccountPassword = "password"
)

// Kind is IIS on a Windows node: its certificate store, its HTTPS bindings, and a
// Centralized Certificate Store of its own.
func Kind() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:   "iis",
		Doc:    "IIS on a Windows node: the machine's certificate store or a folder of its own, and the HTTPS bindings",
		Fence:  "unfenced",
		Named:  true,
		Audits: true,
		Secrets: []deploy.Secret{
			{Name: StorePassword, Doc: "store ccs: the one password of all PFX files in the folder", Optional: true},
			{Name: AccountPassword, Doc: "store ccs: password of the account under which IIS reads the folder", Optional: true},
		},
	}, Defaults(), open)
}

// open makes the deployer that the options ask for.
func open(o Options, s deploy.Setup) (deploy.Deployer, error) {
	if o.Store == Machine {
		return &machine{shell{s.Host}, o}, nil
	}
	files, ok := s.Host.(ccs.Share)
	if !ok {
		return nil, errors.New("opening a certificate store: the node offers no folders: reach it over SSH")
	}
	password, ok := s.Secrets[StorePassword]
	if !ok {
		return nil, errors.New("opening a certificate store: the secret " + StorePassword + " is missing: write secrets: {" + StorePassword + ": {secret: NAME}}")
	}
	return &central{
		shell: shell{s.Host}, options: o, password: password, account: s.Secrets[AccountPassword],
		files: ccs.New(ccs.Setup{Files: files, Password: password, Options: o.files()}),
	}, nil
}
