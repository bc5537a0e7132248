// Package target has the kinds of target, one file each.
//
// The kinds of this package install files for a server. They share one engine,
// whose invariant is: at every instant the paths that the server reads hold one
// complete, matching set of chain and key, because one symlink decides which.
//
//	/etc/nginx/tls/shop.pem ──▶ STORE/ID/current/chain.pem
//	/etc/nginx/tls/shop.key ──▶ STORE/ID/current/key.pem
//	                            STORE/ID/current ──▶ 7-5f3a9c01   the switch
//	                            STORE/ID/7-5f3a9c01/{chain,key}.pem   epoch and leaf
//	                            STORE/ID/4-91bb02de/{chain,key}.pem   the one before
//
// The store lies outside every folder that a server globs. Plain files that
// were there first are copied into a folder of the store; current leads to the
// copy before the files become links, so they hold the same bytes throughout.
package target

import (
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/deploy/cloud"
	"github.com/certfarm/certfarm/internal/deploy/iis"
)

// All lists every kind. To add one, write its file and name it here.
func All() deploy.Kinds {
	return deploy.NewKinds(append(cloud.All(),
		Apache(),
		ccs.Kind(iis.OfShare),
		Envoy(),
		Files(),
		HAProxy(),
		iis.Kind(),
		JKS(),
		Lighttpd(),
		Nginx(),
		PFX(),
		Tomcat(),
	)...)
}
