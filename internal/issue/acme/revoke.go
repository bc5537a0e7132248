package acme

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-acme/lego/v5/acme"

	pemtext "github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// Revoke ends a leaf (PEM or DER) before its time, for a reason of RFC 5280
// §5.3.1; see issue.Issuer. A leaf that another account got, as one that was
// imported, is one for which the CA believes its own key and not our account. No
// account is opened for a revocation that the key alone can ask for.
func (a *Issuer) Revoke(ctx context.Context, leaf []byte, reason int, key farm.Secret) error {
	cert, err := parseLeaf(leaf)
	if err != nil {
		return fmt.Errorf("revoke a certificate: %w", err)
	}
	if reason < 0 || reason > 10 || reason == 7 {
		return fmt.Errorf("revoke a certificate: no reason %d (RFC 5280 §5.3.1)", reason)
	}
	code := uint(reason)
	r := revocation{
		message: acme.RevokeCertMessage{Certificate: encode(cert.Raw), Reason: &code},
		doing:   doing{what: "revoke certificate " + farm.Short(farm.Fingerprint(cert.Raw)), names: cert.DNSNames},
	}
	withKey := len(key.Reveal()) > 0
	if a.accountURL() == "" && withKey {
		return a.revokeByKey(ctx, r, key)
	}
	account, err := a.ensured(ctx)
	if err != nil {
		return err
	}
	err = a.revoke(ctx, a.key, account, r)
	if withKey && (errors.Is(err, issue.Refused) || errors.Is(err, issue.AccountLost)) {
		return a.revokeByKey(ctx, r, key)
	}
	return err
}

// A revocation is what is asked of the CA.
type revocation struct {
	message acme.RevokeCertMessage
	doing   doing
}

// revokeByKey signs with the leaf's own key, which stands in the request in place
// of an account.
func (a *Issuer) revokeByKey(ctx context.Context, r revocation, key farm.Secret) error {
	signer, err := pemtext.Key(key.Reveal()) // one that was imported has any form
	if err != nil {
		return fmt.Errorf("%s: %w", r.doing, err)
	}
	return a.revoke(ctx, signer, "", r)
}

// revoke sends the request, signed for an account, or where none is named with the
// leaf's key. lego never closes the answer: it gets a core of its own, which leaves
// nothing open.
func (a *Issuer) revoke(ctx context.Context, key crypto.Signer, account string, r revocation) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	once := &Issuer{c: a.c, key: key, client: http.Client{Transport: whole{a.client.Transport}, CheckRedirect: noRedirect}}
	core, err := once.open(ctx, account)
	if err != nil {
		return err
	}
	ctx, x := watch(ctx, "revoke")
	err = core.Certificates.Revoke(ctx, r.message)
	if err == nil {
		return nil
	}
	if p, told := errors.AsType[*acme.ProblemDetails](err); told && p.Type == acme.AlreadyRevokedErrorType {
		return nil
	}
	return a.fault(r.doing, err, x, time.Now())
}
