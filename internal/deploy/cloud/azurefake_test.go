package cloud

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates"
	certificates "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azcertificates/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	secrets "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// azureVersion is one version of the fake vault's certificate.
type azureVersion struct {
	leaf, value []byte
	media       string
	tags        map[string]*string
	disabled    bool
}

// azureVault is a fake vault of one certificate, behind the SDK's own fake servers.
type azureVault struct {
	mu       sync.Mutex
	versions []azureVersion
	deleted  bool
	slow     int // so often a recovered certificate is not there yet
	issuer   string
	answer   func(*http.Request) *http.Response // in place of the vault's; nil: none

	certificates *certificates.ServerTransport
	secrets      *secrets.ServerTransport
}

func newAzureVault() *azureVault {
	v := &azureVault{issuer: "Unknown"}
	v.certificates = certificates.NewServerTransport(&certificates.Server{
		GetCertificate: v.get, GetDeletedCertificate: v.getDeleted, GetCertificatePolicy: v.policy,
		ImportCertificate: v.take, RecoverDeletedCertificate: v.recover,
	})
	v.secrets = secrets.NewServerTransport(&secrets.Server{GetSecret: v.secret})
	return v
}

func (v *azureVault) RoundTrip(r *http.Request) (*http.Response, error) {
	if v.answer != nil {
		if answer := v.answer(r); answer != nil {
			answer.Request = r
			return answer, nil
		}
	}
	if strings.HasPrefix(r.URL.Path, "/secrets/") {
		return v.secrets.Do(r)
	}
	return v.certificates.Do(r)
}

func azureID[T ~string](n int) *T {
	return new(T("https://shop.vault.azure.net/certificates/shop/" + strconv.Itoa(n)))
}

func (v *azureVault) at(version string) (azureVersion, int) {
	n := len(v.versions)
	if version != "" {
		n, _ = strconv.Atoi(version)
	}
	if n < 1 || n > len(v.versions) || v.deleted {
		return azureVersion{}, 0
	}
	return v.versions[n-1], n
}

func (v *azureVault) get(_ context.Context, _, version string, _ *azcertificates.GetCertificateOptions) (ok azfake.Responder[azcertificates.GetCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, n := v.at(version)
	if v.slow > 0 && !v.deleted {
		v.slow, n = v.slow-1, 0
	}
	if n == 0 {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azcertificates.GetCertificateResponse{Certificate: azcertificates.Certificate{
		ID: azureID[azcertificates.ID](n), CER: c.leaf, Tags: c.tags, Attributes: &azcertificates.CertificateAttributes{Enabled: new(!c.disabled)},
	}}, nil)
	return ok, no
}

func (v *azureVault) getDeleted(context.Context, string, *azcertificates.GetDeletedCertificateOptions) (ok azfake.Responder[azcertificates.GetDeletedCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.deleted {
		no.SetResponseError(http.StatusNotFound, "CertificateNotFound")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azcertificates.GetDeletedCertificateResponse{DeletedCertificate: azcertificates.DeletedCertificate{
		CER: v.versions[len(v.versions)-1].leaf,
	}}, nil)
	return ok, no
}

func (v *azureVault) policy(context.Context, string, *azcertificates.GetCertificatePolicyOptions) (ok azfake.Responder[azcertificates.GetCertificatePolicyResponse], no azfake.ErrorResponder) {
	ok.SetResponse(http.StatusOK, azcertificates.GetCertificatePolicyResponse{CertificatePolicy: azcertificates.CertificatePolicy{
		IssuerParameters: &azcertificates.IssuerParameters{Name: &v.issuer},
	}}, nil)
	return ok, no
}

func (v *azureVault) take(_ context.Context, _ string, p azcertificates.ImportCertificateParameters, _ *azcertificates.ImportCertificateOptions) (ok azfake.Responder[azcertificates.ImportCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		no.SetResponseError(http.StatusConflict, "Conflict")
		return ok, no
	}
	version := azureVersion{value: []byte(*p.Base64EncodedCertificate), media: *p.CertificatePolicy.SecretProperties.ContentType, tags: p.Tags}
	b, err := version.open()
	if err == nil {
		var leaf, top = must2(encode.Leaf(b.Chain)), time.Now()
		if version.leaf = leaf.Raw; top.After(leaf.NotAfter) {
			err = encode.ErrExpired
		}
	}
	if err != nil || p.Password != nil {
		no.SetResponseError(http.StatusBadRequest, "BadParameter")
		return ok, no
	}
	v.versions = append(v.versions, version)
	ok.SetResponse(http.StatusOK, azcertificates.ImportCertificateResponse{}, nil)
	return ok, no
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (c azureVersion) open() (farm.Bundle, error) {
	if c.media == typePEM {
		return pemBundle(c.value, c.value)
	}
	data, err := base64.StdEncoding.DecodeString(string(c.value))
	if err != nil {
		return farm.Bundle{}, err
	}
	return encode.OpenPFX(data, farm.Secret{})
}

func (v *azureVault) recover(context.Context, string, *azcertificates.RecoverDeletedCertificateOptions) (ok azfake.Responder[azcertificates.RecoverDeletedCertificateResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.deleted {
		no.SetResponseError(http.StatusConflict, "Conflict")
		return ok, no
	}
	v.deleted = false
	ok.SetResponse(http.StatusOK, azcertificates.RecoverDeletedCertificateResponse{}, nil)
	return ok, no
}

func (v *azureVault) secret(_ context.Context, name, version string, _ *azsecrets.GetSecretOptions) (ok azfake.Responder[azsecrets.GetSecretResponse], no azfake.ErrorResponder) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, after, both := strings.Cut(name, "/"); both { // the SDK's fake takes the whole path for the name
		version = after
	}
	c, n := v.at(version)
	if n == 0 {
		no.SetResponseError(http.StatusNotFound, "SecretNotFound")
		return ok, no
	}
	ok.SetResponse(http.StatusOK, azsecrets.GetSecretResponse{Secret: azsecrets.Secret{
		ID: azureID[azsecrets.ID](n), Value: new(string(c.value)), ContentType: &c.media,
	}}, nil)
	return ok, no
}

// puts is a person's import.
func (v *azureVault) puts(t *testing.T, b farm.Bundle) {
	t.Helper()
	text, err := encode.Combined(b)
	must(t, err)
	leaf, err := encode.Leaf(b.Chain)
	must(t, err)
	v.versions = append(v.versions, azureVersion{leaf: leaf.Raw, value: text.Reveal(), media: typePEM})
}
