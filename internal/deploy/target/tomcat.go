package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// tomcat are the options of the kind tomcat.
type tomcat struct {
	keystorePath
	Manager string `json:"manager,omitempty" doc:"URL of Tomcat's manager as the node itself reaches it; empty: the reload command"`
	User    string `json:"user,omitempty" doc:"user of the manager, with the role manager-script"`
	upkeep
}

// The secret that is the user's password, and the bounds on an answer.
const (
	managerSecret = "manager"
	managerWait   = time.Minute
	maxAnswer     = 64 << 10 // bytes
)

// Facts checks the options; see deploy.Options.
func (o tomcat) Facts() (identity, group string, err error) {
	if err := o.checkManager(); err != nil {
		return "", "", err
	}
	identity, group, err = o.storeFacts("tomcat", o.upkeep, pkcs12)
	return identity, fmt.Sprintf("%s manager=%q user=%q", group, o.Manager, o.User), err
}

func (o tomcat) checkManager() error {
	if o.Manager == "" {
		return nil
	}
	wrong := func(problem string) error {
		return &deploy.FieldError{Field: "manager", Problem: fmt.Sprintf("%q %s", o.Manager, problem), Hint: "as in http://127.0.0.1:8080/manager"}
	}
	u, err := url.Parse(o.Manager)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return wrong("is no http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return wrong("holds more than scheme, host and path")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return wrong("would send the password in the clear over a network")
	}
	return nil
}

func loopback(name string) bool {
	a, err := netip.ParseAddr(name)
	return name == "localhost" || (err == nil && a.IsLoopback())
}

// Tomcat is Apache Tomcat 8.5 or newer with a PKCS#12 key store
// (certificateKeystoreFile and certificateKeystorePassword of a Certificate in
// server.xml). Its manager's sslReload, asked from the node's side, makes it read
// the key store anew; server.xml it does not read then, so path and password
// must stay what they are there. A key store that it cannot open is refused, and
// what it serves stays.
func Tomcat() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "tomcat",
		Doc:   "Tomcat: a PKCS#12 key store, and a reload by its manager",
		Fence: "unfenced",
		Secrets: append(passwords(), deploy.Secret{
			Name: managerSecret, Doc: "password of the manager's user", Optional: true,
		}),
	}, tomcat{Manager: "http://127.0.0.1:8080/manager", User: "certfarm", upkeep: commandless()},
		func(o tomcat, s deploy.Setup) (deploy.Deployer, error) {
			secret, err := passwordOf(s)
			if err != nil {
				return nil, err
			}
			e := newEngineOf(o.upkeep, one(o.Path, pkcs12), format{Password: secret, Cipher: encode.PFXModern}, s)
			if o.Manager != "" {
				m := manager{host: s.Host, url: o.Manager, user: o.User, password: s.Secrets[managerSecret]}
				e.wake = func(ctx context.Context, _ []area) error { return m.reload(ctx) }
			}
			return e, nil
		})
}

// manager is Tomcat's manager, asked from the node's side.
type manager struct {
	host      host.Dialer
	url, user string
	password  farm.Secret
}

// reload makes Tomcat read the key stores of all its TLS hosts.
func (m manager) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, managerWait)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(m.url, "/")+"/text/sslReload", nil)
	if err != nil {
		return err
	}
	ask.SetBasicAuth(m.user, string(m.password.Reveal()))
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := m.host.Dial(ctx, network, address)
		if err != nil && ctx.Err() == nil && !errors.Is(err, host.ErrUnreachable) {
			err = fmt.Errorf("%w: %w", errDown, err)
		}
		return c, err
	}}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(ask)
	if err != nil {
		return fmt.Errorf("asking Tomcat's manager at %s: %w", m.url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer of Tomcat's manager: %w", err)
	}
	return m.verdict(answer.StatusCode, string(text))
}

// verdict reads an answer: "OK - …" or "FAIL - …", both with status 200, or an error page.
func (m manager) verdict(status int, text string) error {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	switch {
	case status == http.StatusOK && strings.HasPrefix(line, "OK"):
		return nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("the manager of Tomcat at %s refuses the user %q (status %d): give the user the role manager-script in tomcat-users.xml, set its password as the secret %s, and let the manager's RemoteAddrValve admit the node", m.url, m.user, status, managerSecret)
	case status == http.StatusInternalServerError: // seen with 10.1: a key store that does not open
		return fmt.Errorf("the manager of Tomcat failed to reload (status %d): path and password must be those of server.xml when it started; its log says more", status)
	case status != http.StatusOK:
		return fmt.Errorf("the manager of Tomcat at %s answered with status %d: is its application deployed there?", m.url, status)
	}
	return fmt.Errorf("the manager of Tomcat refused to reload: %.300q", line)
}
