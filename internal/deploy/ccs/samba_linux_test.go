package ccs

import (
	"strconv"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/host/smb"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// On a real Samba with encryption. The rules that cut every step after each of
// its calls are kept in memory: the steps are the same, and here they would take
// minutes.
func TestContractOnSamba(t *testing.T) {
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": t.TempDir()}})
	h, err := smb.New(smb.Config{Server: s.Host, Port: s.Port, Share: "certs", User: smbtest.User, Password: smbtest.Secret()})
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	n := 0
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		unfit(t, placeholder, "cut anywhere")
		n++
		return bench(t, h, "/rule"+strconv.Itoa(n))
	})
}
