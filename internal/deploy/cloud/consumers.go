package cloud

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// frontDoor is the consumer that takes no EC certificates (Microsoft Learn, Azure Front
// Door, Configure HTTPS on a custom domain).
const frontDoor = "front-door"

// consumers are Azure's services that read certificates from a vault, with the longest
// time until they see a new version, by Microsoft Learn: Application Gateway, TLS
// termination with Key Vault certificates; App Service, Add and manage TLS/SSL
// certificates; Azure Front Door, Configure HTTPS on a custom domain.
func consumers() map[string]time.Duration {
	return map[string]time.Duration{"app-gateway": 4 * time.Hour, "app-service": 24 * time.Hour, frontDoor: 72 * time.Hour}
}

// lag is how long readers may take to fetch a new version.
func (o keyVault) lag() (longest time.Duration, err error) {
	known := consumers()
	for _, c := range o.Consumers {
		if known[c] == 0 {
			return 0, &deploy.FieldError{Field: "consumers", Problem: fmt.Sprintf("%q is no service that we know", c), Hint: strings.Join(slices.Sorted(maps.Keys(known)), ", ") + "; of another say its lag"}
		}
		longest = max(longest, known[c])
	}
	if o.Lag != "" {
		return lagOf(o.Lag)
	}
	return longest, nil
}

// unversioned refuses ids of the secret that name one version: who reads by it keeps
// that version until it expires, whatever is imported.
func (o keyVault) unversioned(host string) error {
	want := "https://" + host + "/secrets/" + o.Certificate
	for _, id := range o.SecretIDs {
		u, err := url.Parse(id)
		if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return &deploy.FieldError{Field: "secret_ids", Problem: fmt.Sprintf("%q is no id of a secret", id), Hint: want}
		}
		got := strings.ToLower(u.Host + strings.TrimSuffix(u.Path, "/"))
		if version, named := strings.CutPrefix(got, strings.ToLower(host+"/secrets/"+o.Certificate+"/")); named {
			return &deploy.FieldError{
				Field: "secret_ids", Problem: "who reads by an id with a version (" + version + ") never sees a new certificate, and keeps that one until it expires",
				Hint: "set it to " + want + " there, and here",
			}
		}
		if got != strings.ToLower(host+"/secrets/"+o.Certificate) {
			return &deploy.FieldError{Field: "secret_ids", Problem: fmt.Sprintf("%q is another secret than this certificate's", id), Hint: want}
		}
	}
	return nil
}

// serves refuses what a consumer cannot serve, before anything is changed.
func (o keyVault) serves(b farm.Bundle) error {
	if !slices.Contains(o.Consumers, frontDoor) {
		return nil
	}
	leaf, err := encode.Leaf(b.Chain)
	if err != nil {
		return err
	}
	if leaf.PublicKeyAlgorithm.String() != "RSA" {
		return fmt.Errorf("its consumer %s takes no certificate with a key of type %s: say `keys: [rsa2048]` for the site", frontDoor, leaf.PublicKeyAlgorithm)
	}
	return nil
}
