package target

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/local"
)

// Envoy is not to be had here. What it does is done in its place: its folder is
// watched by inotify for moves onto the path, and at each the file is read, which
// must then hold one whole pair, in the fields that Envoy's documentation names.
func TestEnvoyWatches(t *testing.T) {
	root := t.TempDir()
	live := root + "/sds/shop.json"
	s := store{kind: "envoy", ext: ".json", part: sdsSecret}
	d := s.open(t, local.New(local.Config{}), live, root, nil)
	must(t, os.Mkdir(filepath.Dir(live), 0o755))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(live), unix.IN_MOVED_TO)
	must(t, err)

	first, second := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	activate(t, d, 1, first)
	if moved(t, fd) == 0 || seenByEnvoy(t, live) != first.Leaf {
		t.Errorf("after the first, Envoy sees %s", seenByEnvoy(t, live))
	}
	r := activate(t, d, 2, second)
	if moved(t, fd) == 0 || seenByEnvoy(t, live) != second.Leaf {
		t.Errorf("after the second, Envoy sees %s", seenByEnvoy(t, live))
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if moved(t, fd) == 0 || seenByEnvoy(t, live) != first.Leaf {
		t.Errorf("restored, Envoy sees %s", seenByEnvoy(t, live))
	}
}

// moved counts the moves onto shop.json since it was asked last.
func moved(t *testing.T, fd int) (n int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	length, err := unix.Read(fd, buf)
	if err == unix.EAGAIN {
		return 0
	}
	must(t, err)
	for rest := buf[:length]; len(rest) >= unix.SizeofInotifyEvent; {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&rest[0]))
		name := rest[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+int(event.Len)]
		if strings.TrimRight(string(name), "\x00") == "shop.json" {
			n++
		}
		rest = rest[unix.SizeofInotifyEvent+int(event.Len):]
	}
	return n
}

func seenByEnvoy(t *testing.T, live string) string {
	t.Helper()
	text, err := os.ReadFile(live)
	must(t, err)
	var secret struct {
		Resources []struct {
			Type string `json:"@type"`
			Name string
			TLS  struct {
				Chain struct {
					Inline string `json:"inline_string"`
				} `json:"certificate_chain"`
				Key struct {
					Inline string `json:"inline_string"`
				} `json:"private_key"`
			} `json:"tls_certificate"`
		}
	}
	must(t, json.Unmarshal(text, &secret))
	if len(secret.Resources) != 1 || secret.Resources[0].Name != "shop" || secret.Resources[0].Type != "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret" {
		t.Fatalf("got %+v", secret)
	}
	pair := secret.Resources[0].TLS
	leaf, err := encode.Pair([]byte(pair.Chain.Inline), []byte(pair.Key.Inline))
	must(t, err)
	return farm.Fingerprint(leaf.Raw)
}
