package cloud

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
)

// versions is past's. A certificate that is deleted as a whole has none.
func (v *azureShelf) versions(ctx context.Context) (all []version, err error) {
	pages := v.certificates.NewListCertificatePropertiesVersionsPager(v.options.Certificate, nil)
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if status(err) == http.StatusNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the versions: %w", mayNot(err, "certificates/list"))
		}
		for _, p := range page.Value {
			if p == nil || p.ID == nil {
				continue
			}
			one, err := v.version(ctx, p.ID.Version())
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// version reads the certificate of a version, whatever its tags say.
func (v *azureShelf) version(ctx context.Context, ref string) (version, error) {
	got, err := v.certificates.GetCertificate(ctx, v.options.Certificate, ref, nil)
	if err != nil {
		return version{}, fmt.Errorf("reading version %s: %w", ref, azureError(err))
	}
	leaf, err := x509.ParseCertificate(got.CER)
	if err != nil {
		return version{}, fmt.Errorf("reading version %s: %w", ref, err)
	}
	a := got.Attributes
	return version{ref: ref, keys: []string{keyOf(leaf)}, shut: a != nil && a.Enabled != nil && !*a.Enabled}, nil
}

// shut is past's: the versions are disabled, and with them their secrets and keys
// (Azure Key Vault, About certificates: the attribute enabled). Key Vault deletes a
// certificate with all its versions or not at all.
func (v *azureShelf) shut(ctx context.Context, refs []string) error {
	for _, ref := range refs {
		_, err := v.certificates.UpdateCertificate(ctx, v.options.Certificate, ref, azcertificates.UpdateCertificateParameters{
			CertificateAttributes: &azcertificates.CertificateAttributes{Enabled: new(false)},
		}, nil)
		if err != nil {
			return fmt.Errorf("disabling version %s: %w", ref, mayNot(err, "certificates/update"))
		}
	}
	return nil
}

// mayNot is an error of a call that takes a right which deploying does not.
func mayNot(err error, right string) error {
	told := azureError(err)
	if status(err) != http.StatusForbidden {
		return told
	}
	return fmt.Errorf("%w; it takes the right %s, too", told, right)
}

// left is past's: a version that is disabled can be enabled again.
func (v *azureShelf) left(shut, _ []string) string {
	if len(shut) == 0 {
		return ""
	}
	return "Key Vault erases no single version: who has the right certificates/update can enable " + ofVersions(shut) +
		" again, until the certificate is deleted and purged as a whole"
}
