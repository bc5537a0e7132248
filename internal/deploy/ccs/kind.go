package ccs

import (
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/host/smb"
)

// The secrets of the kind, as farm.yaml names them.
const (
	StorePassword   = "store_password"
	AccountPassword = "password"
	ReaderPassword  = "account_password"
)

// A Wrap gives the deployer that also changes the servers which read a store; see
// package iis.
type Wrap func(files *Store, o Options, s deploy.Setup) deploy.Deployer

// Kind is IIS' Centralized Certificate Store. Its nodes in farm.yaml are the
// servers that read it.
func Kind(wrap Wrap) deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:     "ccs",
		Doc:      "IIS Centralized Certificate Store: PFX files on a share",
		Fence:    "unfenced",
		Nodeless: true,
		Named:    true,
		Audits:   true,
		Secrets: []deploy.Secret{
			{Name: StorePassword, Doc: "the one password of all PFX files in the store, the readers' PrivateKeyPassword"},
			{Name: AccountPassword, Doc: "password of the account that writes to the share", Optional: true},
			{Name: ReaderPassword, Doc: "mode bindings or store-only: password of the account under which IIS reads the store", Optional: true},
		},
	}, Defaults(), func(o Options, s deploy.Setup) (deploy.Deployer, error) {
		files, given := s.Host.(Share)
		if !given {
			var err error
			if files, err = o.Files(s.Secrets[AccountPassword]); err != nil {
				return nil, err
			}
		}
		store := New(Setup{Files: files, Password: s.Secrets[StorePassword], Options: o, Look: s.Look, Target: s.Target, Looks: s.Looks})
		if s.Node == nil { // there is no way to its readers, and so nothing that could be changed of them
			return store, nil
		}
		return wrap(store, o, s), nil
	})
}

// Files is the way to the store: over SMB to a share, through the controller's
// own system to a path. A share is connected to by the first call, and let go of
// when it is idle.
func (o Options) Files(password farm.Secret) (Share, error) {
	u, ok := o.UNC()
	if !ok {
		return local.New(local.Config{}), nil
	}
	return smb.New(smb.Config{Server: u.Server, Port: o.Port, Share: u.Share, User: o.User, Domain: o.Domain, Password: password})
}
