package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// vaultLine is how a vault is reached.
type vaultLine struct {
	credential azcore.TokenCredential
	options    policy.ClientOptions
	every      time.Duration // see recoverEvery
}

// An azureCloud is one of Azure's: where its vaults are, and where to sign in.
type azureCloud struct {
	suffix string
	config cloud.Configuration
}

// clouds lists Azure's clouds (Microsoft Learn, Azure Key Vault DNS suffixes by
// cloud). The German one was closed in 2021.
func clouds() []azureCloud {
	return []azureCloud{
		{".vault.azure.net", cloud.AzurePublic},
		{".vault.azure.cn", cloud.AzureChina},
		{".vault.usgovcloudapi.net", cloud.AzureGovernment},
	}
}

// cloudOf is the cloud that a vault's host is in.
func cloudOf(host string) (cloud.Configuration, bool) {
	for _, c := range clouds() {
		if name, in := strings.CutSuffix(host, c.suffix); in && name != "" && !strings.Contains(name, ".") {
			return c.config, true
		}
	}
	return cloud.Configuration{}, false
}

func suffixes() string {
	var all []string
	for _, c := range clouds() {
		all = append(all, c.suffix)
	}
	return strings.Join(all, ", ")
}

// retries are those within one call: where the vault throttles us or is not ready
// and the time that it asks to wait is there. All else is the rollout's to
// repeat, after a look at what is live.
func retries() policy.RetryOptions {
	return policy.RetryOptions{ShouldRetry: func(answer *http.Response, err error) bool {
		if err != nil || !runtime.HasStatusCode(answer, http.StatusTooManyRequests, http.StatusServiceUnavailable) {
			return false
		}
		end, bounded := answer.Request.Context().Deadline()
		return !bounded || time.Until(end) > retryAfter(answer.Header)
	}}
}

// retryAfter is how long an answer asks to wait (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

// credentialOf is who we are: an application with its secret, a managed identity
// by its id, or whatever azidentity finds on the controller's machine.
func credentialOf(o keyVault, secret farm.Secret, options policy.ClientOptions) (azcore.TokenCredential, error) {
	host, err := o.host()
	if err != nil {
		return nil, err
	}
	options.Cloud, _ = cloudOf(host)
	var credential azcore.TokenCredential
	switch {
	case !secret.IsZero() && (o.TenantID == "" || o.ClientID == ""):
		return nil, &deploy.FieldError{Field: "client_id", Problem: "the secret client_secret is of no use without client_id and tenant_id", Hint: "the application's (client) ID and the directory's (tenant) ID"}
	case secret.IsZero() && o.TenantID != "":
		return nil, &deploy.FieldError{Field: "tenant_id", Problem: "there is no secret client_secret beside it", Hint: "write secrets: {client_secret: {secret: NAME}}"}
	case !secret.IsZero():
		credential, err = azidentity.NewClientSecretCredential(o.TenantID, o.ClientID, outbound.Word(secret), &azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case o.ClientID != "":
		credential, err = azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: azidentity.ClientID(o.ClientID)})
	default:
		credential, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options})
	}
	if err != nil {
		return nil, outbound.Clean(fmt.Errorf("signing in to Azure: %w", err), secret)
	}
	return credential, nil
}

// status is the HTTP status of an answer of Azure; 0 for what is none.
func status(err error) int {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}

// azureAnswer is what Azure says in an error (Azure REST API guidelines, error
// response).
type azureAnswer struct {
	Error struct {
		Code, Message string
		Inner         struct{ Code string } `json:"innererror"`
	}
}

// azureError makes an error of the SDK readable: its own text is the whole
// exchange, over many lines.
func azureError(err error) error {
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return signInError(err)
	}
	var said azureAnswer
	if answer.RawResponse != nil {
		if body, err := runtime.Payload(answer.RawResponse); err == nil {
			_ = json.Unmarshal(body, &said) // what is no JSON says nothing
		}
	}
	text := fmt.Sprintf("Key Vault answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	code := said.Error.Inner.Code
	if code == "" {
		code = answer.ErrorCode
	}
	if code != "" {
		text += " (" + outbound.Quote(code) + ")"
	}
	if said.Error.Message != "" {
		text += ": " + outbound.Quote(said.Error.Message)
	}
	if hint := azureHint(answer, code); hint != "" {
		text += "; " + hint
	}
	return outbound.Plain(text, answer)
}

// azureHint says what to do about an answer.
func azureHint(answer *azcore.ResponseError, code string) string {
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return "is the vault in the tenant of these credentials?"
	case http.StatusForbidden:
		if code == "ForbiddenByFirewall" {
			return "let the controller's address, or its network, through the vault's firewall"
		}
		return "give the identity certificates/get, import and recover (role Key Vault Certificates Officer)"
	case http.StatusConflict:
		if code == "ObjectIsDeletedButRecoverable" {
			return "a certificate, key or secret of this name was deleted: recover or purge it, or choose another name"
		}
		return "a key or secret of this name may be there already, or another change of it runs: choose another name, or wait"
	case http.StatusTooManyRequests:
		if answer.RawResponse != nil {
			if wait := retryAfter(answer.RawResponse.Header); wait > 0 {
				return "it is tried again by itself; the vault asks to wait " + wait.Round(time.Second).String()
			}
		}
		return "it is tried again by itself"
	}
	return ""
}

// signInError tells a failed sign-in, which is an answer, from a vault that cannot
// be reached.
func signInError(err error) error {
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		why := "nobody answers for these credentials"
		if failed.RawResponse != nil {
			why = "Entra ID answers " + failed.RawResponse.Status
		}
		return outbound.Plain("signing in to Azure: "+why+": check tenant_id, client_id and the secret client_secret, which may have expired", err)
	}
	return unreachable(outbound.Plain(outbound.Quote(err.Error()), err))
}
