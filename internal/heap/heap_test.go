package heap

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		live, room uint64
		want       int
	}{
		{live: 0, room: 64 << 20, want: 1600},
		{live: 16 << 20, room: 64 << 20, want: 400},
		{live: 64 << 20, room: 64 << 20, want: 100},
		{live: 1 << 30, room: 64 << 20, want: 100},
	} {
		if got := percent(c.live, c.room); got != c.want {
			t.Errorf("percent(%d, %d) = %d, want %d", c.live, c.room, got, c.want)
		}
	}
}

func TestAllowComesAgainAfterEachCollection(t *testing.T) {
	was := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(was)
	t.Setenv("GOGC", "")
	Allow(Room)
	const not = 7 // is set by nobody
	for range 2 {
		debug.SetGCPercent(not)
		for late := time.Now().Add(time.Minute); debug.SetGCPercent(not) == not; runtime.GC() {
			if time.Now().After(late) {
				t.Fatal("no collection sets it")
			}
		}
	}
}

func TestGOGCStands(t *testing.T) {
	was := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(was)
	t.Setenv("GOGC", "100")
	Allow(1 << 40)
	if got := debug.SetGCPercent(usual); got > 1<<20 { // what the test before allowed is far less
		t.Errorf("with GOGC=100 the percentage is %d", got)
	}
}
