// Package cloud has the kinds of target that are no place on a node: vaults and
// services, reached over HTTP; and commands of your own, which may be on one.
//
// Its invariant is: what is live changes in Activate and Restore alone, and only
// from what Stage saw to what was staged, or back. What somebody else put there in
// the meantime is told and left alone.
//
//	Stage     looks: pair, chain, names, the way there, whose the place is, the way back
//	Activate  what Stage saw ─▶ the new version, then looks again
//	Restore   the new version ─▶ what Stage saw, as one more version
//	Discard   nothing: nothing was put beside what is live
//
// A vault keeps nothing beside what is live, and a receipt holds no key. So Activate
// asks for the leaf again, and so does Restore: see deploy.Records.
package cloud

import "github.com/certfarm/certfarm/internal/deploy"

// All lists the kinds of this package. To add one, write its file and name it here.
func All() []deploy.Kind {
	return []deploy.Kind{
		Exec(),
		KeyVault(),
		Vault(),
		Webhook(),
	}
}
