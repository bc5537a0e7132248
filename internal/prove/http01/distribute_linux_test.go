package http01_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/smb"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/prove/provetest"
)

// A webroot on a share of a real Samba, as on an IIS that nobody logs in at.
func TestDistributeOverSMB(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"wwwroot": root}})
	h, err := smb.New(smb.Config{Server: s.Host, Port: s.Port, Share: "wwwroot", User: smbtest.User, Password: smbtest.Secret()})
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	server := httptest.NewServer(http.FileServer(http.Dir(root)))
	t.Cleanup(server.Close)
	provetest.Run(t, provetest.Suite{
		New: func(*testing.T) prove.Solver {
			return http01.Distribute{Nodes: []http01.Place{{Name: "iis1", Webroot: "/", Host: opens(smb.Node{Host: h})}}}
		},
		Challenge: challenge,
		Seen: func(t *testing.T, c farm.Challenge) bool {
			status, body := get(t, server.URL+http01.Path+c.Token)
			return status == http.StatusOK && body == c.Value
		},
	})
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left in the webroot: %v, %v", left, err)
	}
}
