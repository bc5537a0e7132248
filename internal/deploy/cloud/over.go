package cloud

import (
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/outbound"
)

// KeyVaultOver is KeyVault whose vault is reached over a transport, with a
// credential that the caller has: azurefake's, in the lab. Options are held to the
// same rules. No farm.yaml can ask for it.
func KeyVaultOver(over policy.Transporter, credential azcore.TokenCredential) deploy.Kind {
	k := KeyVault()
	return deploy.Define(k, *k.Options.(*keyVault), func(o keyVault, s deploy.Setup) (deploy.Deployer, error) {
		return newKeyVault(o, s, vaultLine{credential, policy.ClientOptions{Transport: outbound.NewClient(s.Wire.Around(sender{over})), Retry: retries()}, recoverEvery})
	})
}

// sender is a transport of the SDK as one of net/http.
type sender struct{ policy.Transporter }

// RoundTrip is http.RoundTripper's.
func (s sender) RoundTrip(r *http.Request) (*http.Response, error) { return s.Do(r) }
