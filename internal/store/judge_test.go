package store

import (
	"strings"
	"testing"
)

func TestWhyACommitMayBeLost(t *testing.T) {
	for _, c := range []struct {
		standbys, synced int
		commit, fsync    string
		want             string // empty: nothing is lost
	}{
		{0, 0, "on", "on", ""},
		{0, 0, "off", "on", "synchronous_commit is off"},
		{0, 0, "on", "off", "fsync is off"},
		{1, 0, "on", "on", "to the standby is asynchronous"},
		{3, 0, "on", "on", "to 3 standbys is asynchronous"},
		{3, 1, "on", "on", ""},
		{3, 1, "remote_apply", "on", ""},
		{3, 1, "local", "on", "no commit waits"},
	} {
		r := Replication{Standbys: c.standbys, Synced: c.synced}
		r.judge(c.commit, c.fsync)
		if (r.Unsafe == "") != (c.want == "") || !strings.Contains(r.Unsafe, c.want) || (r.Unsafe == "") != (r.Hint == "") {
			t.Errorf("%+v: %q (%q), want %q", c, r.Unsafe, r.Hint, c.want)
		}
	}
}
