package cloud

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// The media types of a Key Vault certificate's secret.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// The tags that we give to a certificate.
const (
	tagFarm    = "certfarm-farm"
	tagSite    = "certfarm-site"
	tagVersion = "certfarm-version"
	tagLeaf    = "certfarm-leaf"
)

// recoverEvery is how often a recovery of a deleted certificate is asked after.
const recoverEvery = 2 * time.Second

// keyVault are the options of the kind azure-key-vault.
type keyVault struct {
	Vault       string   `json:"vault" doc:"URL of the vault, as in https://shop.vault.azure.net"`
	Certificate string   `json:"certificate" doc:"name of the certificate in the vault"`
	Format      string   `json:"format,omitempty" doc:"pfx or pem: what readers of the secret get"`
	Recover     bool     `json:"recover" doc:"recover a certificate of this name that was deleted, instead of refusing"`
	Undo        bool     `json:"undo" doc:"demand a way back before anything is changed; false: what is not ours is replaced for good, in the last wave"`
	Consumers   []string `json:"consumers,omitempty" doc:"services that read it: app-gateway (4 h until it sees a new version), app-service (24 h), front-door (72 h, RSA alone)"`
	SecretIDs   []string `json:"secret_ids,omitempty" doc:"ids by which they read the secret, as they are set there; one with a version is refused"`
	Lag         string   `json:"lag,omitempty" doc:"how long readers may take to fetch a new version, as in 4h; empty: as long as the slowest of consumers"`
	TenantID    string   `json:"tenant_id,omitempty" doc:"Entra tenant; empty: what the environment says"`
	ClientID    string   `json:"client_id,omitempty" doc:"application (with the secret client_secret) or user-assigned managed identity (without)"`
}

// certificateName is what Key Vault takes (REST reference, Import Certificate), and
// certificateMax how long it may be.
var certificateName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

// Facts checks the options; see deploy.Options. Each certificate is a group of its
// own: a vault has no switch for several.
func (o keyVault) Facts() (identity, group string, err error) {
	host, err := o.host()
	if err != nil {
		return "", "", err
	}
	if !certificateName.MatchString(o.Certificate) {
		return "", "", &deploy.FieldError{Field: "certificate", Problem: fmt.Sprintf("%q is no name for a certificate in Key Vault", o.Certificate), Hint: "letters, digits and hyphens, at most 127: shop-example-com"}
	}
	if o.Format != "pfx" && o.Format != "pem" {
		return "", "", &deploy.FieldError{Field: "format", Problem: fmt.Sprintf("%q is no format", o.Format), Hint: "pfx or pem"}
	}
	if o.TenantID != "" && o.ClientID == "" {
		return "", "", &deploy.FieldError{Field: "client_id", Problem: "it is missing beside tenant_id", Hint: "the application that signs in there, with the secret client_secret"}
	}
	if _, err := o.lag(); err != nil {
		return "", "", err
	}
	if err := o.unversioned(host); err != nil {
		return "", "", err
	}
	identity = "azure-key-vault " + host + "/certificates/" + strings.ToLower(o.Certificate) // no two names differ in case alone
	return identity, identity, nil
}

// NoUndo is deploy.Final's.
func (o keyVault) NoUndo() bool { return !o.Undo }

// host is the vault's, checked: a token for Azure goes there.
func (o keyVault) host() (string, error) {
	u, err := url.Parse(o.Vault)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" {
		return "", &deploy.FieldError{Field: "vault", Problem: fmt.Sprintf("%q is no URL of a vault", o.Vault), Hint: "as in https://shop.vault.azure.net"}
	}
	host := strings.ToLower(u.Host)
	if _, known := cloudOf(host); !known {
		return "", &deploy.FieldError{Field: "vault", Problem: host + " is in no cloud of Azure that we know", Hint: "a host below " + suffixes()}
	}
	return host, nil
}

// KeyVault is a certificate in Azure Key Vault. An import of the same name makes a
// new version, which those that read without a version then get.
func KeyVault() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:     "azure-key-vault",
		Doc:      "Azure Key Vault: a new version of a certificate",
		Fence:    "unfenced",
		Nodeless: true,
		Secrets: []deploy.Secret{
			{Name: "client_secret", Doc: "secret of the application client_id", Optional: true},
			{Name: "password", Doc: "password of the PFX on its way to the vault, which takes it off; only with format pfx", Optional: true},
		},
	}, keyVault{Format: "pfx", Undo: true}, openKeyVault)
}

func openKeyVault(o keyVault, s deploy.Setup) (deploy.Deployer, error) {
	t, err := outbound.NewTransport("", s.Proxy)
	if err != nil {
		return nil, err
	}
	options := policy.ClientOptions{Transport: outbound.NewClient(t), Retry: retries()}
	credential, err := credentialOf(o, s.Secrets["client_secret"], options)
	if err != nil {
		return nil, err
	}
	options.Transport = outbound.NewClient(s.Wire.Around(t)) // signing in is no call of a step
	return newKeyVault(o, s, vaultLine{credential, options, recoverEvery})
}

func newKeyVault(o keyVault, s deploy.Setup, l vaultLine) (deploy.Deployer, error) {
	identity, _, err := o.Facts()
	if err != nil {
		return nil, err
	}
	lag, err := o.lag()
	if err != nil {
		return nil, err
	}
	host, err := o.host()
	if err != nil {
		return nil, err
	}
	at := "https://" + host
	certificates, err := azcertificates.NewClient(at, l.credential, &azcertificates.ClientOptions{ClientOptions: l.options})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", identity, err)
	}
	secrets, err := azsecrets.NewClient(at, l.credential, &azsecrets.ClientOptions{ClientOptions: l.options})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", identity, err)
	}
	v := &azureShelf{options: o, certificates: certificates, secrets: secrets, every: l.every, password: farm.NewSecret([]byte(outbound.Word(s.Secrets["password"])))}
	return &keeper{shelf: v, past: v, identity: identity, undo: o.Undo, perish: true, lag: lag, secrets: []farm.Secret{s.Secrets["client_secret"], s.Secrets["password"]}}, nil
}

// azureShelf is one certificate of a Key Vault.
type azureShelf struct {
	options      keyVault
	certificates *azcertificates.Client
	secrets      *azsecrets.Client
	every        time.Duration // see recoverEvery
	password     farm.Secret   // of a PFX on its way; may be empty
}

func (v *azureShelf) look(ctx context.Context) (held, error) {
	got, err := v.certificates.GetCertificate(ctx, v.options.Certificate, "", nil)
	if status(err) == http.StatusNotFound {
		return v.deleted(ctx)
	}
	if err != nil {
		return held{}, azureError(err)
	}
	if a := got.Attributes; a != nil && a.Enabled != nil && !*a.Enabled {
		return held{}, errors.New("its newest version is disabled, so that nobody can read it: enable it, or delete the certificate")
	}
	leaf, err := x509.ParseCertificate(got.CER)
	if err != nil {
		return held{}, fmt.Errorf("reading the certificate that is there: %w", err)
	}
	h := held{farm: tag(got.Tags, tagFarm), site: tag(got.Tags, tagSite), notAfter: leaf.NotAfter}
	if got.ID != nil {
		h.ref = got.ID.Version()
	}
	if h.placeholder = encode.IsPlaceholder(leaf); !h.placeholder {
		h.leaf, h.key = farm.Fingerprint(leaf.Raw), keyOf(leaf)
	}
	return h, nil
}

// deleted looks whether the name is taken by a certificate that was deleted: it
// stays so for 7 to 90 days, and no new one can have it.
func (v *azureShelf) deleted(ctx context.Context) (held, error) {
	got, err := v.certificates.GetDeletedCertificate(ctx, v.options.Certificate, nil)
	switch status(err) {
	case http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest: // none; no right to know; a vault without soft delete
		return held{}, nil
	}
	if err != nil {
		return held{}, azureError(err)
	}
	return held{gone: farm.Fingerprint(got.CER), farm: tag(got.Tags, tagFarm), site: tag(got.Tags, tagSite)}, nil
}

func (v *azureShelf) ready(ctx context.Context, b farm.Bundle, current held) error {
	if err := v.options.serves(b); err != nil {
		return err
	}
	if current.gone != "" && !v.options.Recover {
		return errors.New("a certificate of this name was deleted and can be recovered, so the name is taken: say `recover: true`, purge it (`az keyvault certificate purge`), or choose another name")
	}
	if current.gone != "" || current.ref == "" {
		return nil
	}
	got, err := v.certificates.GetCertificatePolicy(ctx, v.options.Certificate, nil)
	if err != nil {
		return azureError(err)
	}
	if p := got.IssuerParameters; p != nil && p.Name != nil && *p.Name != "Unknown" && *p.Name != "Self" {
		return fmt.Errorf("the vault renews this certificate itself, by the issuer %s: set the issuer of its policy to Unknown, or choose another name", outbound.Quote(*p.Name))
	}
	return nil
}

func (v *azureShelf) keeps(ctx context.Context, current held) error {
	b, err := v.old(ctx, current.ref)
	if err == nil && b.Leaf != current.leaf {
		err = fmt.Errorf("the secret of version %s holds %s", current.ref, farm.Short(b.Leaf))
	}
	if status(err) == http.StatusForbidden {
		err = fmt.Errorf("%w; the right secrets/get would do (role Key Vault Secrets User)", err)
	}
	return err
}

// old reads a version's secret: the PFX or PEM as Key Vault gives it to readers,
// if its key may be exported.
func (v *azureShelf) old(ctx context.Context, ref string) (farm.Bundle, error) {
	got, err := v.secrets.GetSecret(ctx, v.options.Certificate, ref, nil)
	if err != nil {
		return farm.Bundle{}, azureError(err)
	}
	if got.Value == nil || got.ContentType == nil {
		return farm.Bundle{}, errors.New("the secret of that version is empty")
	}
	if *got.ContentType == typePEM {
		return pemBundle([]byte(*got.Value), []byte(*got.Value))
	}
	data, err := base64.StdEncoding.DecodeString(*got.Value)
	if err != nil {
		return farm.Bundle{}, errors.New("the secret of that version is no base64")
	}
	return encode.OpenPFX(data, farm.Secret{})
}

func (v *azureShelf) put(ctx context.Context, p parcel, over held) error {
	if over.gone != "" {
		if err := v.recover(ctx); err != nil {
			return fmt.Errorf("recovering the deleted certificate: %w", err)
		}
	}
	value, media, err := v.encode(p.Bundle)
	if err != nil {
		return err
	}
	tags := map[string]*string{tagSite: new(p.site), tagLeaf: new(farm.LeafFingerprint(p.Chain))}
	if p.farm != "" {
		tags[tagFarm] = new(p.farm)
	}
	if p.Version != "" {
		tags[tagVersion] = new(p.Version)
	}
	text := string(value.Reveal())
	var password *string
	if secret := v.password.Reveal(); media == typePFX && len(secret) > 0 {
		password = new(string(secret))
	}
	_, err = v.certificates.ImportCertificate(ctx, v.options.Certificate, azcertificates.ImportCertificateParameters{
		Base64EncodedCertificate: &text,
		Password:                 password,
		CertificateAttributes:    &azcertificates.CertificateAttributes{Enabled: new(true)},
		CertificatePolicy:        &azcertificates.CertificatePolicy{SecretProperties: &azcertificates.SecretProperties{ContentType: &media}},
		Tags:                     tags,
	}, nil)
	if err != nil {
		return outbound.Clean(azureError(err), value, v.password)
	}
	return nil
}

// encode is a bundle as Key Vault takes it: base64 of a PFX, or
// PEM of nothing but certificates and an unencrypted PKCS#8 key.
func (v *azureShelf) encode(b farm.Bundle) (value farm.Secret, media string, err error) {
	if v.options.Format == "pem" {
		value, err = encode.Combined(b)
		return value, typePEM, err
	}
	data, err := encode.PFX(b, encode.PFXOptions{Password: v.password})
	return farm.NewSecret([]byte(base64.StdEncoding.EncodeToString(data))), typePFX, err
}

// recover takes a deleted certificate back and waits until it is there.
func (v *azureShelf) recover(ctx context.Context) error {
	if _, err := v.certificates.RecoverDeletedCertificate(ctx, v.options.Certificate, nil); err != nil && status(err) != http.StatusConflict { // a recovery that runs
		return azureError(err)
	}
	tick := time.NewTicker(v.every)
	defer tick.Stop()
	for {
		_, err := v.certificates.GetCertificate(ctx, v.options.Certificate, "", nil)
		if err == nil {
			return nil
		}
		if status(err) != http.StatusNotFound {
			return azureError(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func tag(tags map[string]*string, name string) string {
	if t := tags[name]; t != nil {
		return *t
	}
	return ""
}
