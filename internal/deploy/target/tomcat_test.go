package target

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

const managerPassword = "manager-password"

// fakeManager answers as Tomcat's manager does.
type fakeManager struct {
	*httptest.Server
	reloads atomic.Int64
	says    atomic.Pointer[string] // in place of OK
}

func startManager(t *testing.T) *fakeManager {
	m := &fakeManager{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, word, _ := r.BasicAuth()
		switch {
		case user != "certfarm" || word != managerPassword:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path != "/manager/text/sslReload":
			w.WriteHeader(http.StatusNotFound)
		default:
			m.reloads.Add(1)
			text := "OK - Reloaded TLS configuration for all TLS virtual hosts\n"
			if said := m.says.Load(); said != nil {
				text = *said
			}
			_, _ = w.Write([]byte(text))
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func TestTomcatRefuses(t *testing.T) {
	m := startManager(t)
	s := store{kind: "tomcat", ext: ".p12", part: pkcs12, options: map[string]any{"manager": m.URL + "/manager/"}}
	b := s.bench(t, &hosttest.Mem{}, "/")
	d := b.Target.Deployer
	old := deploytest.NewBundle(t, farm.EC256)
	activate(t, d, 1, old)
	stage := func(d deploy.Deployer, epoch int64) []deploy.Receipt {
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}, Epoch: epoch})
		must(t, err)
		return []deploy.Receipt{r}
	}
	refused := func(d deploy.Deployer, want string) {
		t.Helper()
		err := d.Activate(t.Context(), stage(d, 2))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), managerPassword) {
			t.Errorf("got %v, want %q", err, want)
		}
		if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != old.Leaf {
			t.Errorf("holds %+v, %v", in, err)
		}
	}
	no := "FAIL - Failed to reload TLS configuration\n"
	m.says.Store(&no)
	refused(d, "FAIL")
	m.says.Store(nil)
	stranger := secrets()
	stranger[managerSecret] = farm.NewSecret([]byte("guess"))
	refused(s.open(t, b.Host, "/etc/tls/shop.p12", "/", stranger), "manager-script")
	s.options = map[string]any{"manager": m.URL + "/elsewhere"}
	refused(s.open(t, b.Host, "/etc/tls/shop.p12", "/", secrets()), "404")
	m.Close()
	refused(d, "does not answer")
}
