// Package azurefake is an Azure Key Vault in memory, for the lab and for tests: one
// certificate with its versions, behind the Azure SDK's own fake servers, so that
// every request and answer is encoded as the real vault's are.
//
// It takes what a vault takes (an import of a PFX without password, or of PEM, that
// has not expired) and refuses the rest. It knows nobody: whoever asks may.
package azurefake

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	certificates "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	secrets "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// The media types of the secrets of certificates.
const (
	typePFX = "application/x-pkcs12"
	typePEM = "application/x-pem-file"
)

// A Version is one version of the certificate.
type Version struct {
	Leaf     []byte // DER
	Value    []byte // of the secret that readers get
	Media    string // of the secret: PFX in base64, or PEM
	Tags     map[string]*string
	Disabled bool
}

// A Vault is a Key Vault. Its fields are those of one certificate, the first that it
// is asked for, and may be set between calls. It is the transport of the SDK's clients.
type Vault struct {
	Versions []Version // the last is the newest
	Deleted  bool      // the certificate is deleted, and may be recovered
	Slow     int       // so often a recovered certificate is not there yet
	Issuer   string    // of the certificate's policy: Unknown is renewed by nobody
	// Answer may answer a request in place of the vault, by nil not; nil: never.
	Answer func(*http.Request) *http.Response

	mu           sync.Mutex
	name         string            // of the certificate; empty: it was not asked for yet
	others       map[string]*Vault // certificates of other names
	certificates *certificates.ServerTransport
	secrets      *secrets.ServerTransport
}

// New makes an empty vault.
func New() *Vault {
	v := &Vault{Issuer: "Unknown"}
	v.certificates = certificates.NewServerTransport(&certificates.Server{
		GetCertificate: v.get, GetDeletedCertificate: v.getDeleted, GetCertificatePolicy: v.policy,
		ImportCertificate: v.take, RecoverDeletedCertificate: v.recover,
		DeleteCertificate: v.remove, UpdateCertificate: v.update,
		NewListCertificatePropertiesVersionsPager: v.list,
	})
	v.secrets = secrets.NewServerTransport(&secrets.Server{GetSecret: v.secret})
	return v
}

// Credential is one that the vault lets in, as it does everybody.
func Credential() azcore.TokenCredential { return &azfake.TokenCredential{} }

// Do answers a request; it is policy.Transporter's.
func (v *Vault) Do(r *http.Request) (*http.Response, error) { return v.RoundTrip(r) }

// RoundTrip answers a request.
func (v *Vault) RoundTrip(r *http.Request) (*http.Response, error) {
	if v.Answer != nil {
		if answer := v.Answer(r); answer != nil {
			answer.Request = r
			return answer, nil
		}
	}
	of := v.of(r)
	if strings.HasPrefix(r.URL.Path, "/secrets/") {
		return of.secrets.Do(r)
	}
	return of.certificates.Do(r)
}

// of is the vault with the certificate that a request is about: /certificates/NAME,
// /deletedcertificates/NAME, /secrets/NAME.
func (v *Vault) of(r *http.Request) *Vault {
	name := ""
	if parts := strings.Split(strings.ToLower(r.URL.Path), "/"); len(parts) > 2 {
		name = parts[2]
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.name == "" {
		v.name = name
	}
	if v.name == name {
		return v
	}
	if v.others == nil {
		v.others = map[string]*Vault{}
	}
	if v.others[name] == nil {
		v.others[name] = New()
	}
	return v.others[name]
}

func id[T ~string](n int) *T {
	return new(T("https://shop.vault.azure.net/certificates/shop/" + strconv.Itoa(n)))
}

func (v *Vault) at(version string) (Version, int) {
	n := len(v.Versions)
	if version != "" {
		n, _ = strconv.Atoi(version)
	}
	if n < 1 || n > len(v.Versions) || v.Deleted {
		return Version{}, 0
	}
	return v.Versions[n-1], n
}

// apart takes a name and a version apart: the SDK's fakes take the whole path for the
// name.
func apart(name, version string) string {
	if _, after, both := strings.Cut(name, "/"); both {
		return after
	}
	return version
}

func (v *Vault) get(_ context.Context, name, version string, _ *azcertificates.GetCertificateOptions) (ok azfake.Responder[azcertificates.GetCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, n := v.at(apart(name, version))
	if v.Slow > 0 && !v.Deleted {
		v.Slow, n = v.Slow-1, 0
	}
	if n == 0 {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azcertificates.GetCertificateResponse{Certificate: azcertificates.Certificate{
		ID: id[azcertificates.ID](n), CER: c.Leaf, Tags: c.Tags, Attributes: &azcertificates.CertificateAttributes{Enabled: new(!c.Disabled)},
	}}, nil)
	return ok, no
}

func (v *Vault) getDeleted(context.Context, string, *azcertificates.GetDeletedCertificateOptions) (ok azfake.Responder[azcertificates.GetDeletedCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.Deleted {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azcertificates.GetDeletedCertificateResponse{DeletedCertificate: azcertificates.DeletedCertificate{
		CER: v.Versions[len(v.Versions)-1].Leaf,
	}}, nil)
	return ok, no
}

func (v *Vault) policy(context.Context, string, *azcertificates.GetCertificatePolicyOptions) (ok azfake.Responder[azcertificates.GetCertificatePolicyResponse], no azfake.ErrorResponder) {
	ok.SetResponse(http.StatusOK, azcertificates.GetCertificatePolicyResponse{CertificatePolicy: azcertificates.CertificatePolicy{
		IssuerParameters: &azcertificates.IssuerParameters{Name: &v.Issuer},
	}}, nil)
	return ok, no
}

func (v *Vault) take(_ context.Context, _ string, p azcertificates.ImportCertificateParameters, _ *azcertificates.ImportCertificateOptions) (ok azfake.Responder[azcertificates.ImportCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.Deleted {
		no.SetResponseError(http.StatusConflict, "Conflict")
		return ok, no
	}
	version := Version{Value: []byte(*p.Base64EncodedCertificate), Media: *p.CertificatePolicy.SecretProperties.ContentType, Tags: p.Tags}
	err := version.strip(p.Password)
	if err == nil {
		err = version.check(time.Now())
	}
	if err != nil {
		no.SetResponseError(http.StatusBadRequest, "BadParameter")
		return ok, no
	}
	v.Versions = append(v.Versions, version)
	ok.SetResponse(http.StatusOK, azcertificates.ImportCertificateResponse{}, nil)
	return ok, no
}

// strip takes the password off a PFX, as the vault does: readers get it without one.
func (c *Version) strip(password *string) error {
	if password == nil {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(string(c.Value))
	if err != nil {
		return err
	}
	b, err := encode.OpenPFX(data, farm.NewSecret([]byte(*password)))
	if err != nil {
		return err
	}
	if data, err = encode.PFX(b, encode.PFXOptions{}); err != nil {
		return err
	}
	c.Value = []byte(base64.StdEncoding.EncodeToString(data))
	return nil
}

// check opens what is imported, and finds its leaf.
func (c *Version) check(now time.Time) error {
	chain := c.Value
	switch c.Media {
	case typePEM:
		if _, err := encode.Pair(c.Value, c.Value); err != nil {
			return err
		}
	case typePFX:
		data, err := base64.StdEncoding.DecodeString(string(c.Value))
		if err != nil {
			return err
		}
		b, err := encode.OpenPFX(data, farm.Secret{})
		if err != nil {
			return err
		}
		chain = b.Chain
	default:
		return fmt.Errorf("no media type: %q", c.Media)
	}
	leaf, err := encode.Leaf(chain)
	if err != nil {
		return err
	}
	if c.Leaf = leaf.Raw; now.After(leaf.NotAfter) {
		return encode.ErrExpired
	}
	return nil
}

func (v *Vault) remove(context.Context, string, *azcertificates.DeleteCertificateOptions) (ok azfake.Responder[azcertificates.DeleteCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.Deleted || len(v.Versions) == 0 {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	v.Deleted = true
	ok.SetResponse(http.StatusOK, azcertificates.DeleteCertificateResponse{}, nil)
	return ok, no
}

// list gives the versions on pages of two, the newest last.
func (v *Vault) list(string, *azcertificates.ListCertificatePropertiesVersionsOptions) (pages azfake.PagerResponder[azcertificates.ListCertificatePropertiesVersionsResponse]) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.Deleted || len(v.Versions) == 0 {
		pages.AddResponseError(http.StatusNotFound, "CertificateNotFound")
		return pages
	}
	var page azcertificates.ListCertificatePropertiesVersionsResponse
	for i, c := range v.Versions {
		page.Value = append(page.Value, &azcertificates.CertificateProperties{
			ID: id[azcertificates.ID](i + 1), Tags: c.Tags, Attributes: &azcertificates.CertificateAttributes{Enabled: new(!c.Disabled)},
		})
		if len(page.Value) == 2 || i+1 == len(v.Versions) {
			pages.AddPage(http.StatusOK, page, nil)
			page.Value = nil
		}
	}
	return pages
}

func (v *Vault) update(_ context.Context, name, version string, p azcertificates.UpdateCertificateParameters, _ *azcertificates.UpdateCertificateOptions) (ok azfake.Responder[azcertificates.UpdateCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, n := v.at(apart(name, version))
	if n == 0 {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	if a := p.CertificateAttributes; a != nil && a.Enabled != nil {
		v.Versions[n-1].Disabled = !*a.Enabled
	}
	ok.SetResponse(http.StatusOK, azcertificates.UpdateCertificateResponse{}, nil)
	return ok, no
}

// All lists the versions as they are now, the newest last.
func (v *Vault) All() []Version {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.Versions)
}

// Has reports whether there is a certificate of this name that is not deleted.
func (v *Vault) Has(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	of := v
	if name != v.name {
		of = v.others[name]
	}
	return of != nil && len(of.Versions) > 0 && !of.Deleted
}

func (v *Vault) recover(context.Context, string, *azcertificates.RecoverDeletedCertificateOptions) (ok azfake.Responder[azcertificates.RecoverDeletedCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.Deleted {
		no.SetResponseError(http.StatusConflict, "Conflict")
		return ok, no
	}
	v.Deleted = false
	ok.SetResponse(http.StatusOK, azcertificates.RecoverDeletedCertificateResponse{}, nil)
	return ok, no
}

func (v *Vault) secret(_ context.Context, name, version string, _ *azsecrets.GetSecretOptions) (ok azfake.Responder[azsecrets.GetSecretResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, n := v.at(apart(name, version))
	if n == 0 {
		no.SetResponseError(http.StatusNotFound, "SecretNotFound")
		return ok, no
	}
	if c.Disabled {
		no.SetResponseError(http.StatusForbidden, "SecretDisabled")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azsecrets.GetSecretResponse{Secret: azsecrets.Secret{
		ID: id[azsecrets.ID](n), Value: new(string(c.Value)), ContentType: &c.Media,
	}}, nil)
	return ok, no
}

// Put makes a version as a person's import does: PEM, without tags.
func (v *Vault) Put(b farm.Bundle) error {
	text, err := encode.Combined(b)
	if err != nil {
		return err
	}
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Versions = append(v.Versions, Version{Leaf: leaf.Raw, Value: text.Reveal(), Media: typePEM})
	return nil
}
