package provider

import (
	"errors"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// TestCredentialThatMayNotLook is an OVH account with the rights that lego's page
// asks for: it writes, and who wants to remove is told what is missing.
func TestCredentialThatMayNotLook(t *testing.T) {
	w := newWorld(t)
	all := w.ovh()
	w.hosts["eu.api.ovh.com"] = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			reply(rw, http.StatusForbidden, map[string]string{"message": "This call has not been granted"})
			return
		}
		all.ServeHTTP(rw, r)
	})
	writer := account{provider: "ovh", proxy: w.proxy, secrets: map[string]string{"OVH_ACCESS_TOKEN": secret}}.writer(t, find(t, "ovh"))
	r := oneRecord()
	if err := writer.Put(t.Context(), r); err != nil || len(w.values(r.Name)) != 1 {
		t.Fatalf("put: %v, %q", err, w.values(r.Name))
	}
	err := writer.Remove(t.Context(), r)
	if !errors.Is(err, dns01.Left) || !strings.Contains(err.Error(), "give it the right to read the zone") || !strings.Contains(err.Error(), r.Name) {
		t.Errorf("remove: %v", err)
	}
}

func TestFileOfACredentialIsOnNoDisk(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such files here")
	}
	name, err := asFile("-----BEGIN KEY-----")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil || string(text) != "-----BEGIN KEY-----" {
		t.Errorf("%q %v", text, err)
	}
	if !strings.HasPrefix(name, "/dev/fd/") {
		t.Error(name)
	}
	if _, err := asFile(strings.Repeat("x", 1<<20)); err == nil {
		t.Error("what no pipe holds would wait for ever")
	}
}
