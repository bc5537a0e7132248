package ccs

import (
	"testing"

	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// On a real Samba with encryption: the whole way, from the options to the sheet.
func TestShadowOnSamba(t *testing.T) {
	root := t.TempDir()
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": root}})
	tryStore(t, root, map[string]any{"share": `\\` + s.Host + `\certs`, "port": s.Port, "user": smbtest.User}, smbtest.Secret(), someRules...)
}
