package provider

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

func oneRecord() dns01.Record {
	return digested(dns01.Record{Zone: zone, Name: "_acme-challenge.www." + zone, Value: "v"})
}

// broken is a Cloudflare account whose helper is not a good one.
func broken(helper string, more ...string) account {
	return account{provider: "cloudflare", helper: append([]string{os.Args[0], helper}, more...), secrets: map[string]string{"CF_DNS_API_TOKEN": secret}}
}

func TestHelperThatHangsIsKilledWithItsChildren(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := broken("helper-that-hangs").writer(t, find(t, "cloudflare")).Put(ctx, oneRecord())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 4*time.Second { // WaitDelay would be 5 s: the child has the output
		t.Errorf("it took %v", took)
	}
}

func TestHelperThatIsNoneIsSurvived(t *testing.T) {
	for name, want := range map[string]string{
		"helper-that-crashes": "the helper ended without an answer: exit status 2; it printed: panic: the request was",
		"helper-that-babbles": "makes no sense: hello",
		"helper-that-floods":  "makes no sense: xxx",
	} {
		t.Run(name, func(t *testing.T) {
			err := broken(name).writer(t, find(t, "cloudflare")).Put(t.Context(), oneRecord())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("want %q, got %v", want, err)
			}
			wantNoSecret(t, err)
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	gone := account{provider: "cloudflare", helper: []string{filepath.Join(t.TempDir(), "none")}, secrets: map[string]string{"CF_DNS_API_TOKEN": secret}}
	if err := gone.writer(t, find(t, "cloudflare")).Put(t.Context(), oneRecord()); err == nil || !strings.Contains(err.Error(), "start the helper") {
		t.Errorf("got %v", err)
	}
}

func TestHelperHasACleanEnvironment(t *testing.T) {
	t.Setenv("CLOUDFLARE_API_KEY", "of the controller")
	t.Setenv("CERTFARM_MASTER_KEY", "of the controller")
	t.Setenv("SSL_CERT_FILE", "/roots.pem")
	t.Setenv("SSL_CERT_DIR", "")
	a := broken("helper-that-tells", "x")
	a.proxy = "http://proxy:3128"
	err := a.writer(t, find(t, "cloudflare")).Put(t.Context(), oneRecord())
	want := "environment: SSL_CERT_FILE=/roots.pem HTTPS_PROXY=http://proxy:3128 HTTP_PROXY=http://proxy:3128, arguments: [x]"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %s, got %v", want, err)
	}
	if err := broken("helper-that-tells").writer(t, find(t, "cloudflare")).Put(t.Context(), oneRecord()); !strings.Contains(err.Error(), "environment: SSL_CERT_FILE=/roots.pem, arg") {
		t.Errorf("without a proxy: %v", err)
	}
}

func TestHelperEndsWithItsParent(t *testing.T) {
	h, err := starter{argv: []string{os.Args[0], "dns-helper"}}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.in.Close(); err != nil { // as it is when the controller dies
		t.Fatal(err)
	}
	<-h.ended
	if h.err != nil {
		t.Errorf("it ended with %v", h.err)
	}
}

func TestCredentialsAreNotShown(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.cloudflare.com"], w.hosts["api.digitalocean.com"] = w.cloudflare(), w.digitalOcean()
	for name, setting := range map[string]string{"cloudflare": "CF_DNS_API_TOKEN", "digitalocean": "DO_AUTH_TOKEN"} {
		a := account{provider: name, proxy: w.proxy, secrets: map[string]string{setting: "wrong" + secret}}
		err := a.writer(t, find(t, name)).Put(t.Context(), oneRecord())
		if err == nil || !strings.Contains(err.Error(), "[secret]") { // the API tells the token back
			t.Errorf("%s: %v", name, err)
		}
		wantNoSecret(t, err)
	}
}

func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "with&marks") || strings.Contains(err.Error(), `with\u0026marks`) {
		t.Errorf("there is a credential in %v", err)
	}
}

func TestRecordThatADelegationLeadsTo(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.cloudflare.com"], w.hosts["api.digitalocean.com"] = w.cloudflare(), w.digitalOcean()
	for name, setting := range map[string]string{"cloudflare": "CF_DNS_API_TOKEN", "digitalocean": "DO_AUTH_TOKEN"} {
		for _, at := range []string{"shop.auth." + zone, "_acme-challenge." + zone, zone} {
			r := digested(dns01.Record{Zone: zone, Name: at, Value: "v"})
			writer := account{provider: name, proxy: w.proxy, secrets: map[string]string{setting: secret}}.writer(t, find(t, name))
			if err := writer.Put(t.Context(), r); err != nil {
				t.Errorf("%s at %s: %v", name, at, err)
			}
			if got := w.values(at); !slices.Equal(got, []string{r.Value}) {
				t.Errorf("%s at %s: %q", name, at, got)
			}
			if err := writer.Remove(t.Context(), r); err != nil || len(w.values(at)) > 0 {
				t.Errorf("%s at %s: %v, %q", name, at, err, w.values(at))
			}
		}
	}
}

func TestAPIThatForgets(t *testing.T) {
	w := newWorld(t)
	w.hosts["api.netlify.com"] = w.netlify()
	p := find(t, "netlify")
	if !p.Forgets {
		t.Fatal("netlify does not forget any more: take another one")
	}
	a := account{provider: "netlify", proxy: w.proxy, secrets: map[string]string{"NETLIFY_TOKEN": secret}}
	one, two := oneRecord(), digested(dns01.Record{Zone: zone, Name: "_acme-challenge.www." + zone, Value: "two"})
	for range 2 {
		for _, r := range []dns01.Record{one, two} {
			if err := a.writer(t, p).Put(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := w.values(one.Name); !slices.Equal(got, []string{one.Value, two.Value}) {
		t.Errorf("put: %q", got)
	}
	if err := a.writer(t, p).Remove(t.Context(), one); err != nil {
		t.Error(err)
	}
	if got := w.values(one.Name); !slices.Equal(got, []string{two.Value}) {
		t.Errorf("removed: %q", got)
	}
	err := a.writer(t, find(t, "netlify")).Remove(t.Context(), two) // after a restart
	if !errors.Is(err, dns01.Left) || !strings.Contains(err.Error(), two.Name) || !strings.Contains(err.Error(), two.Value) {
		t.Errorf("got %v", err)
	}
	if err := a.writer(t, p).Remove(t.Context(), two); err != nil || len(w.values(two.Name)) > 0 {
		t.Errorf("removed by who put it: %v, %q", err, w.values(two.Name))
	}
}

func TestValueWithoutKeyAuthorization(t *testing.T) {
	r := oneRecord()
	r.KeyAuth = ""
	err := broken("helper-that-hangs").writer(t, find(t, "cloudflare")).Put(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "is not the digest of its key authorization") {
		t.Errorf("got %v", err)
	}
	r = oneRecord()
	r.Zone = "example.org"
	if err := broken("helper-that-hangs").writer(t, find(t, "cloudflare")).Put(t.Context(), r); err == nil || !strings.Contains(err.Error(), "is not in the zone") {
		t.Errorf("got %v", err)
	}
}

func TestSecretsAreHiddenInEveryForm(t *testing.T) {
	account := `{"type":"service_account","private_key":"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n"}`
	hide := hiding([]string{"p&ss w\"rd/", account, "a.example:tokenone,b.example:tokentwo"}, []string{"me@example.com"})
	for _, text := range []string{
		`p&ss w"rd/`, `p%26ss+w%22rd%2F`, `p&ss%20w%22rd%2F`, `p&ss w\"rd/`, `p\u0026ss w\"rd/`, "MIIEvQIBADANBgkqhkiG", "tokentwo",
		"cCZzcyB3InJkLw", "bWVAZXhhbXBsZS5jb206cCZzcyB3InJkLw==",
	} {
		if got := hide.Replace("<" + text + ">"); strings.Contains(got, strings.TrimRight(text, "=")) || !strings.Contains(got, "[secret]") {
			t.Errorf("%s: %s", text, got)
		}
	}
	if got := hiding(nil, []string{"x"}).Replace("all is said"); got != "all is said" {
		t.Error(got)
	}
	if got := tidy("a\x1b[31m\n\tb\xff"); got != "a?[31m b?" {
		t.Errorf("%q", got)
	}
}
