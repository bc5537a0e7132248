package smb_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/smb"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// A certificate store on a share, one of whose files a reader has open: with the
// status that Windows gives (0xC0000043), from a real server.
func TestStoreWithAReadersLock(t *testing.T) {
	s, folder := start(t, false)
	c := config(s)
	c.Timeout = 2 * time.Second
	impatient, patient := open(t, c), open(t, config(s))
	names := []string{"a.example.org", "b.example.org"}
	held := "b.example.org.pfx" // the second one: the first is switched by then
	store := func(h *smb.Host) *ccs.Store {
		o := ccs.Defaults()
		o.Share, o.User, o.Names = `\\`+s.Host+`\certs`, smbtest.User, names
		return ccs.New(ccs.Setup{Files: h, Password: farm.NewSecret([]byte("Store-password-1")), Options: o})
	}
	live := func() string {
		t.Helper()
		var all strings.Builder
		for _, n := range names {
			data, err := os.ReadFile(filepath.Join(folder, n+".pfx"))
			must(t, err)
			all.Write(data)
		}
		return all.String()
	}
	stage := func(epoch int64) []deploy.Receipt {
		t.Helper()
		b, err := encode.Placeholder(names, time.Now())
		must(t, err)
		r, err := store(patient).Stage(t.Context(), deploy.Stage{Site: "shop", Names: names, Bundles: []farm.Bundle{b}, Epoch: epoch})
		must(t, err)
		return []deploy.Receipt{r}
	}

	must(t, store(patient).Activate(t.Context(), stage(1)))
	old := live()
	r := stage(2)
	// refused does a step against a lock that stays, after the one that it undoes. On a busy
	// machine the call's time may end while an answer is awaited: the session ends with
	// it, and the lock with the session, so that the step tells nothing of locks.
	type step func(context.Context, []deploy.Receipt) error
	refused := func(before, step step) (err error) {
		t.Helper()
		for range 10 {
			must(t, before(t.Context(), r))
			free := impatient.Hold(t, held)
			if err = step(t.Context(), r); free() == nil || errors.Is(err, smb.ErrLocked) {
				break
			}
		}
		return err
	}
	err := refused(store(patient).Restore, store(impatient).Activate)
	if !errors.Is(err, smb.ErrLocked) || !strings.Contains(err.Error(), held) || !strings.Contains(err.Error(), "Get-SmbOpenFile") {
		t.Errorf("a lock that stays gives %v", err)
	}
	if live() != old {
		t.Error("some names were switched and others not")
	}
	free := patient.Hold(t, held)
	time.AfterFunc(100*time.Millisecond, func() { _ = free() })
	must(t, store(patient).Activate(t.Context(), r))
	if live() == old {
		t.Error("it is not live")
	}

	if err := refused(store(patient).Activate, store(impatient).Restore); !errors.Is(err, smb.ErrLocked) {
		t.Errorf("restoring against a lock that stays gives %v", err)
	}
	free = patient.Hold(t, held)
	time.AfterFunc(100*time.Millisecond, func() { _ = free() })
	must(t, store(patient).Restore(t.Context(), r))
	if live() != old {
		t.Error("it is not as it was")
	}
}
