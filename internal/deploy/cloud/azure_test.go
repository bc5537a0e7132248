package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/cloud/azurefake"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

const azureOptions = `{"vault": "https://shop.vault.azure.net", "certificate": "shop"}`

// line is the way to a fake vault, with quick retries.
func line(over wire) vaultLine {
	quick := retries()
	quick.RetryDelay = time.Millisecond
	return vaultLine{
		credential: &azfake.TokenCredential{},
		options:    policy.ClientOptions{Transport: over, Retry: quick},
		every:      time.Millisecond,
	}
}

func azure(t *testing.T, l vaultLine, options string) *records {
	t.Helper()
	o := keyVault{Format: "pfx", Undo: true, Vault: "https://shop.vault.azure.net", Certificate: "shop", Lag: "4h"}
	switch options {
	case "pem":
		o.Format = "pem"
	case "recover":
		o.Recover = true
	case "front door":
		o.Consumers = []string{frontDoor}
	case "no undo":
		o.Undo = false
	}
	s := deploy.Setup{Secrets: map[string]farm.Secret{}}
	if options == "password" {
		s.Secrets["password"] = encode.NewPFXPassword()
	}
	d, err := newKeyVault(o, s, l)
	must(t, err)
	return remember(d)
}

func TestKeyVault(t *testing.T) {
	for _, format := range []string{"pfx", "password", "pem"} {
		t.Run(format, func(t *testing.T) {
			deploytest.Run(t, func(t *testing.T) deploytest.Bench {
				v := azurefake.New()
				over := newWire(v)
				return deploytest.Bench{
					Host: over.faulty, Target: deploytest.Target{Deployer: azure(t, line(over), format)},
					Empty: func(deploytest.T) { v.Versions, v.Deleted = nil, false },
					Plain: func(_ deploytest.T, _ deploytest.Target, b farm.Bundle) { must(t, v.Put(b)) },
				}
			})
		})
	}
}

func TestKeyVaultImportsOnce(t *testing.T) {
	v := azurefake.New()
	d := azure(t, line(newWire(v)), "")
	b := deploytest.NewBundle(t, farm.RSA2048)
	r := install(t, d, b)
	if r.Lag != 4*time.Hour || r.NoUndo {
		t.Errorf("got %+v", r)
	}
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	install(t, d, b)
	if len(v.Versions) != 1 {
		t.Errorf("the same leaf was imported %d times", len(v.Versions))
	}
	for name, want := range map[string]string{tagFarm: "lab", tagSite: "shop", tagVersion: b.Version, tagLeaf: b.Leaf} {
		if got := tag(v.Versions[0].Tags, name); got != want {
			t.Errorf("tag %s is %q, not %q", name, got, want)
		}
	}
}

func TestKeyVaultKeepsToItsOwn(t *testing.T) {
	v := azurefake.New()
	d := azure(t, line(newWire(v)), "")
	install(t, d, deploytest.NewBundle(t, farm.EC256))
	next := deploytest.NewBundle(t, farm.EC256)
	r, err := d.Stage(t.Context(), stageOf(next))
	must(t, err)
	person := deploytest.NewBundle(t, farm.EC256)
	must(t, v.Put(person))
	for _, err := range []error{d.Activate(t.Context(), []deploy.Receipt{r}), d.Restore(t.Context(), []deploy.Receipt{r})} {
		if !errors.Is(err, errForeign) {
			t.Errorf("got %v", err)
		}
	}
	holds(t, d, person.Leaf)
	other := stageOf(next)
	v.Versions[len(v.Versions)-1].Tags = map[string]*string{tagSite: new("blog"), tagFarm: new("lab")}
	_, err = d.Stage(t.Context(), other)
	says(t, err, []string{"belongs to the site blog", `"lab"`})
	v.Versions[len(v.Versions)-1].Tags = nil
	v.Issuer = "DigiCert"
	_, err = d.Stage(t.Context(), other)
	says(t, err, []string{"renews this certificate itself", "DigiCert"})
	v.Issuer = "Self"
	v.Versions[len(v.Versions)-1].Disabled = true
	_, err = d.Stage(t.Context(), other)
	says(t, err, []string{"disabled"})
}

func TestKeyVaultWayBack(t *testing.T) {
	v := azurefake.New()
	old, next := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	must(t, v.Put(old))
	shut := func(r *http.Request) *http.Response {
		if strings.HasPrefix(r.URL.Path, "/secrets/") {
			return refusal(http.StatusForbidden, "ForbiddenByRbac", "no")
		}
		return nil
	}
	over := newWire(v)
	v.Answer = shut
	_, err := azure(t, line(over), "").Stage(t.Context(), stageOf(next))
	says(t, err, []string{"could not be put back", "secrets/get", "undo: false", "ForbiddenByRbac"})
	r, err := azure(t, line(over), "no undo").Stage(t.Context(), stageOf(next))
	must(t, err)
	if !r.NoUndo {
		t.Error("it does not say that there is no way back")
	}
	d := azure(t, line(over), "")
	v.Answer = nil
	r = install(t, d, next)
	holds(t, d, next.Leaf)
	must(t, d.Restore(t.Context(), []deploy.Receipt{r})) // from the secret
	holds(t, d, old.Leaf)
	r = install(t, d, next)
	d.forget()
	v.Answer = shut
	says(t, d.Restore(t.Context(), []deploy.Receipt{r}), []string{"getting", "403"})
}

func TestKeyVaultDeleted(t *testing.T) {
	v := azurefake.New()
	over := newWire(v)
	must(t, v.Put(deploytest.NewBundle(t, farm.EC256)))
	v.Deleted = true
	next := deploytest.NewBundle(t, farm.EC256)
	_, err := azure(t, line(over), "").Stage(t.Context(), stageOf(next))
	says(t, err, []string{"was deleted", "recover: true", "purge"})
	for n := range 12 { // cut the activation after each of its calls
		v.Deleted, v.Slow = true, 2
		d := azure(t, line(over), "recover")
		holds(t, d)
		r, err := d.Stage(t.Context(), stageOf(next))
		must(t, err)
		over.faulty.DieAfter(n, n%2 == 0)
		_ = d.Activate(t.Context(), []deploy.Receipt{r}) // may fail
		over.faulty.Mend()
		v.Slow = 0
		must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
		holds(t, d, next.Leaf)
		must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
		if in, err := d.Inspect(t.Context()); err != nil || !in.Placeholder {
			t.Fatalf("after %d calls: %+v, %v", n, in, err)
		}
		v.Versions = v.Versions[:1]
	}
}

// refusal is an answer of Azure as its reference has it.
func refusal(status int, code, message string) *http.Response {
	body := fmt.Sprintf(`{"error": {"code": "Forbidden", "message": %q, "innererror": {"code": %q}}}`, message, code)
	return &http.Response{
		StatusCode: status, Status: strconv.Itoa(status), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

func TestKeyVaultRefusals(t *testing.T) {
	next := deploytest.NewBundle(t, farm.RSA2048)
	for name, c := range map[string]struct {
		status int
		code   string
		words  []string
	}{
		"no right":      {http.StatusForbidden, "ForbiddenByRbac", []string{"403", "ForbiddenByRbac", "Certificates Officer"}},
		"firewall":      {http.StatusForbidden, "ForbiddenByFirewall", []string{"403", "firewall"}},
		"taken":         {http.StatusConflict, "ObjectIsDeletedButRecoverable", []string{"409", "recover or purge"}},
		"busy":          {http.StatusConflict, "", []string{"409", "key or secret of this name"}},
		"throttled":     {http.StatusTooManyRequests, "", []string{"429", "wait 7s"}},
		"out of order":  {http.StatusServiceUnavailable, "", []string{"503"}},
		"wrong tenant":  {http.StatusBadRequest, "", []string{"400"}},
		"quotes us all": {http.StatusBadRequest, "quoted", []string{"400", "[secret]"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := azurefake.New()
			d := azure(t, line(newWire(v)), "")
			old := deploytest.NewBundle(t, farm.EC256)
			install(t, d, old)
			r, err := d.Stage(t.Context(), stageOf(next))
			must(t, err)
			var sent farm.Secret
			v.Answer = func(r *http.Request) *http.Response {
				if r.Method != http.MethodPost || r.Header.Get("Authorization") == "" {
					return nil
				}
				var body struct{ Value string }
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				sent = farm.NewSecret([]byte(body.Value))
				message := "The certificate cannot be imported."
				if c.code == "quoted" {
					message = "bad: " + body.Value
				}
				answer := refusal(c.status, c.code, message)
				if c.status == http.StatusTooManyRequests {
					answer.Header.Set("Retry-After", "7")
				}
				return answer
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // less than the vault asks us to wait
			defer cancel()
			began := time.Now()
			err = d.Activate(ctx, []deploy.Receipt{r})
			says(t, err, c.words, next.Key, sent)
			if errors.Is(err, host.ErrUnreachable) {
				t.Error("an answer counts as silence")
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it waited %s for what could not come in time", took)
			}
			v.Answer = nil
			holds(t, d, old.Leaf)
		})
	}
}

func TestKeyVaultWaitsAsAsked(t *testing.T) {
	v := azurefake.New()
	d := azure(t, line(newWire(v)), "")
	throttled := 0
	v.Answer = func(r *http.Request) *http.Response {
		if r.Method != http.MethodPost || r.Header.Get("Authorization") == "" || throttled > 0 {
			return nil
		}
		throttled++
		answer := refusal(http.StatusTooManyRequests, "", "slow down")
		answer.Header.Set("Retry-After-Ms", "30")
		return answer
	}
	began := time.Now()
	b := deploytest.NewBundle(t, farm.EC256)
	install(t, d, b)
	if took := time.Since(began); throttled != 1 || took < 30*time.Millisecond {
		t.Errorf("it was throttled %d times and took %s", throttled, took)
	}
	holds(t, d, b.Leaf)
}

func TestKeyVaultSignIn(t *testing.T) {
	canary := farm.NewSecret([]byte("canary-of-a-client-secret-0123456789"))
	l := line(newWire(azurefake.New()))
	credential := &azfake.TokenCredential{}
	credential.SetError(&azidentity.AuthenticationFailedError{RawResponse: &http.Response{Status: "401 Unauthorized", StatusCode: 401, Request: &http.Request{}, Body: http.NoBody}})
	l.credential = credential
	_, err := azure(t, l, "").Inspect(t.Context())
	says(t, err, []string{"signing in to Azure", "401", "client_secret"})
	if errors.Is(err, host.ErrUnreachable) {
		t.Error("a refused sign-in counts as silence")
	}
	for host, want := range map[string]string{
		"shop.vault.azure.net":         "https://login.microsoftonline.com/",
		"shop.vault.azure.cn":          "https://login.chinacloudapi.cn/",
		"shop.vault.usgovcloudapi.net": "https://login.microsoftonline.us/",
	} {
		c, known := cloudOf(host)
		if !known || c.ActiveDirectoryAuthorityHost != want {
			t.Errorf("%s signs in at %q", host, c.ActiveDirectoryAuthorityHost)
		}
	}
	o := keyVault{Vault: "https://shop.vault.azure.cn", Certificate: "shop", Format: "pfx", TenantID: "t", ClientID: "c"}
	open := func(o keyVault, s farm.Secret) (azcore.TokenCredential, error) {
		return credentialOf(o, s, policy.ClientOptions{})
	}
	got, err := open(o, canary)
	if _, ok := got.(*azidentity.ClientSecretCredential); !ok || err != nil {
		t.Errorf("got %T, %v", got, err)
	}
	o.TenantID = ""
	_, err = open(o, canary)
	says(t, err, []string{"client_id"}, canary)
	got, err = open(o, farm.Secret{})
	if _, ok := got.(*azidentity.ManagedIdentityCredential); !ok || err != nil {
		t.Errorf("got %T, %v", got, err)
	}
	o.ClientID = ""
	got, err = open(o, farm.Secret{})
	if _, ok := got.(*azidentity.DefaultAzureCredential); !ok || err != nil {
		t.Errorf("got %T, %v", got, err)
	}
}

func TestKeyVaultOptions(t *testing.T) {
	badOptions(t, "azure-key-vault", map[string]string{
		`{}`: "vault",
		`{"vault": "http://shop.vault.azure.net", "certificate": "a"}`:                                 "vault",
		`{"vault": "https://shop.vault.azure.net.evil.org", "certificate": "a"}`:                       "vault",
		`{"vault": "https://a.b.vault.azure.net", "certificate": "a"}`:                                 "vault",
		`{"vault": "https://u:p@shop.vault.azure.net", "certificate": "a"}`:                            "vault",
		`{"vault": "https://shop.vault.azure.net/x", "certificate": "a"}`:                              "vault",
		`{"vault": "https://shop.vault.azure.net"}`:                                                    "certificate",
		`{"vault": "https://shop.vault.azure.net", "certificate": "a_b"}`:                              "certificate",
		`{"vault": "https://shop.vault.azure.net", "certificate": "a", "format": "der"}`:               "format",
		`{"vault": "https://shop.vault.azure.net", "certificate": "a", "lag": "long"}`:                 "lag",
		`{"vault": "https://shop.vault.azure.net", "certificate": "a", "tenant_id": "t"}`:              "client_id",
		`{"vault": "https://shop.vault.azure.net", "certificate": "a", "format": "pem", "lag": "-1h"}`: "lag",
	})
	facts, err := KeyVault().Check([]byte(`{"vault": "https://Shop.vault.azure.net/", "certificate": "Shop"}`))
	must(t, err)
	if facts.Identity != "azure-key-vault shop.vault.azure.net/certificates/shop" || facts.Group != facts.Identity {
		t.Errorf("got %+v", facts)
	}
	if d, err := deploy.NewKinds(All()...).Open("azure-key-vault", []byte(azureOptions), deploy.Setup{Proxy: "http://proxy:3128"}); err != nil || d == nil {
		t.Error(d, err)
	}
	if _, err := KeyVault().Check([]byte(`{"vault": "https://shop.vault.azure.net", "certificate": "a", "pwd": "x"}`)); err == nil {
		t.Error("an unknown option passed")
	}
}

func TestWithoutRecordsNothingIsStaged(t *testing.T) {
	d, err := newKeyVault(keyVault{Format: "pfx", Vault: "https://shop.vault.azure.net", Certificate: "shop"}, deploy.Setup{}, line(newWire(azurefake.New())))
	must(t, err)
	_, err = d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.EC256)))
	says(t, err, []string{"nothing that could give the certificate again"})
}

func TestConsumersOfAKeyVault(t *testing.T) {
	base := keyVault{Format: "pfx", Undo: true, Vault: "https://Shop.vault.azure.net", Certificate: "shop"}
	for name, test := range map[string]struct {
		consumers []string
		ids       []string
		lag       string
		want      time.Duration
		wrong     string
	}{
		"none":                 {},
		"one":                  {consumers: []string{"app-gateway"}, want: 4 * time.Hour},
		"the slowest":          {consumers: []string{"app-gateway", "front-door", "app-service"}, want: 72 * time.Hour},
		"said":                 {consumers: []string{"front-door"}, lag: "30m", want: 30 * time.Minute},
		"unknown":              {consumers: []string{"apim"}, wrong: "no service that we know"},
		"without a version":    {ids: []string{"https://shop.vault.azure.net/secrets/shop", "https://shop.vault.azure.net/secrets/Shop/"}},
		"with a version":       {ids: []string{"https://shop.vault.azure.net/secrets/shop/5f3a9c01"}, wrong: "with a version (5f3a9c01) never sees a new certificate"},
		"of another":           {ids: []string{"https://shop.vault.azure.net/secrets/shop2"}, wrong: "another secret"},
		"of another vault":     {ids: []string{"https://other.vault.azure.net/secrets/shop"}, wrong: "another secret"},
		"that is no id at all": {ids: []string{"shop"}, wrong: "no id of a secret"},
	} {
		o := base
		o.Consumers, o.SecretIDs, o.Lag = test.consumers, test.ids, test.lag
		_, _, err := o.Facts()
		if test.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%s: got %v, want %q", name, err, test.wrong)
			}
			continue
		}
		if got, lagErr := o.lag(); err != nil || lagErr != nil || got != test.want {
			t.Errorf("%s: got %v, %v, %v, want %v", name, got, err, lagErr, test.want)
		}
	}
}

// Front Door takes no EC certificates; that is told before anything is changed.
func TestFrontDoorTakesRSAAlone(t *testing.T) {
	v := azurefake.New()
	d := azure(t, line(newWire(v)), "front door")
	if _, err := d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.EC256))); err == nil || !strings.Contains(err.Error(), "front-door takes no certificate with a key of type ECDSA") {
		t.Errorf("got %v", err)
	}
	if _, err := d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.RSA2048))); err != nil {
		t.Errorf("got %v", err)
	}
}
