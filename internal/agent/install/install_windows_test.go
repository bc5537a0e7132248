package install

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// A service is made, made otherwise, and taken away, with the service manager that
// there is.
func TestServiceOnWindows(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Wine cannot remove what administrators alone may use: no test must fail of that.
	folder, err := os.MkdirTemp("", Name) //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	a := Ask{Program: self, State: filepath.Join(folder, "state"), Policy: filepath.Join(folder, "policy", "policy.yaml")}
	do := func(p Plan, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Steps {
			if err := s.Do(t.Context()); err != nil {
				t.Fatalf("%s: %v", s.What, err)
			}
		}
	}
	path := func() (path string) {
		t.Helper()
		if err := withService(func(_ *mgr.Mgr, s *mgr.Service) error {
			if s == nil {
				return nil
			}
			var size uint32
			c := make([]byte, 8<<10) // as much as it may be; mgr's Config asks for more than Wine knows
			as := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&c[0]))
			err := windows.QueryServiceConfig(s.Handle, as, uint32(len(c)), &size)
			path = windows.UTF16PtrToString(as.BinaryPathName)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	do(Install(a))
	first := path()
	a.Ready = "127.0.0.1:8405"
	do(Install(a))
	if second := path(); first == "" || second != first+" --ready 127.0.0.1:8405" {
		t.Errorf("first %q, then %q", first, second)
	}
	do(Uninstall())
	do(Uninstall())
	if left := path(); left != "" {
		t.Errorf("%q is left", left)
	}
}
