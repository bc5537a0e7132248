package smb_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// A server whose domain is Kerberos only, and a DFS namespace: what to do instead
// is said.
func TestNoNTLM(t *testing.T) {
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": t.TempDir()}, NoNTLM: true})
	_, err := open(t, config(s)).List(t.Context(), "/")
	if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "gMSA") {
		t.Errorf("got %v", err)
	}
	t.Log(err)
}

func TestDFS(t *testing.T) {
	folder := t.TempDir()
	must(t, os.Symlink(`msdfs:files.corp.example\certs`, filepath.Join(folder, "iis")))
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": folder}, DFS: true})
	h := open(t, config(s))
	_, read := h.Read(t.Context(), "/iis/www.pfx")
	_, list := h.List(t.Context(), "/iis")
	for _, err := range []error{read, list, h.Write(t.Context(), "/iis/www.pfx", []byte("key"), private)} {
		if err == nil || !strings.Contains(err.Error(), "Get-DfsnFolderTarget") {
			t.Errorf("got %v", err)
		}
		t.Log(err)
	}
}
