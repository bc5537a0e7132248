package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/certfarm/certfarm/internal/deploy"
)

// A dropper is a shelf that can be taken away as a whole.
type dropper interface {
	drop(ctx context.Context) error
}

// drop takes away the shelf that a deployer fills.
func drop(ctx context.Context, d deploy.Deployer) error {
	k, ok := d.(*keeper)
	if !ok {
		return fmt.Errorf("%T is no keeper of a shelf", d)
	}
	s, ok := k.shelf.(dropper)
	if !ok {
		return fmt.Errorf("%s: %w", k.identity, errors.ErrUnsupported)
	}
	return k.told("taking away", s.drop(ctx))
}

// suffix is what the name of a shadow place ends in.
func suffix(t deploy.Trial) string {
	if t.Place != "" {
		return "-" + t.Mark + "-" + t.Place
	}
	return "-" + t.Mark
}

// Shadow is deploy.Shadowed: another certificate of the same vault. One that an
// earlier trial deleted is recovered.
func (o keyVault) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	at := o
	at.Certificate += suffix(t)
	at.Recover, at.Undo = true, false // what a trial could not take away is no obstacle to the next
	return deploy.Shadow{
		Options: at,
		Drop:    drop,
		Touches: []string{"certificate " + at.Certificate + " in " + at.Vault + ", which is deleted again; a vault with soft delete keeps the name for its retention time"},
		Untried: []deploy.Untried{{What: "whether the readers of the vault follow", Why: "they read the live certificate"}},
	}, nil
}

// drop deletes the certificate; to purge it is left to people.
func (v *azureShelf) drop(ctx context.Context) error {
	_, err := v.certificates.DeleteCertificate(ctx, v.options.Certificate, nil)
	if status(err) == http.StatusNotFound {
		return nil // it never came to be, or is deleted already
	}
	if status(err) == http.StatusForbidden {
		return fmt.Errorf("%w, and certificates/delete to take a trial away", azureError(err))
	}
	if err != nil {
		return azureError(err)
	}
	return nil
}

// Shadow is deploy.Shadowed: another secret beside the live one.
func (o vault) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	at := o
	at.Path += suffix(t)
	at.Undo = false
	return deploy.Shadow{
		Options: at,
		Drop:    drop,
		Touches: []string{"secret " + at.Path + " in the engine " + at.Mount + " of " + at.Address + ", which is deleted again"},
		Untried: []deploy.Untried{{What: "whether the readers of the secret follow", Why: "they read the live one"}},
	}, nil
}

// drop deletes the secret with all its versions.
func (v *vaultShelf) drop(ctx context.Context) error {
	if err := v.signIn(ctx); err != nil {
		return err
	}
	var err error
	at := v.options.Mount + "/" + v.options.Path
	if v.options.KV == 1 {
		err = v.client.KVv1(v.options.Mount).Delete(ctx, v.options.Path)
	} else {
		at = v.options.Mount + "/metadata/" + v.options.Path
		err = v.client.KVv2(v.options.Mount).DeleteMetadata(ctx, v.options.Path)
	}
	if answer, ok := errors.AsType[*api.ResponseError](err); ok && answer.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w; path %q { capabilities = [\"delete\"] } lets a trial be taken away", vaultError(err), at)
	}
	return vaultError(err)
}
