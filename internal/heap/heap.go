// Package heap says how much garbage a long-running process keeps before it is
// collected. Its invariant: never less than the runtime's own measure, which is as much
// as is live, and an operator's GOGC stands.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Room is what a controller gives garbage, in bytes.
const Room = 192 << 20

// usual is the runtime's own percentage of garbage to what is live.
const usual = 100

// least is what counts as live at the least, as in the runtime.
const least = 4 << 20

// Allow lets garbage grow to room bytes where less is live, from now on. With little
// live the runtime collects for every few MB of garbage, and each time looks through all
// that is live; a fixed percentage would cost a large farm several times what it has. A
// memory limit (GOMEMLIMIT) holds as before. With GOGC set nothing is done.
func Allow(room uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	adjust(room)
}

// adjust sets the percentage for what is live, and comes again after each collection,
// which finds that nothing holds the mark.
func adjust(room uint64) {
	debug.SetGCPercent(percent(live(), room))
	mark := new([1]*byte) // one with a pointer is collected by itself, and at once
	runtime.AddCleanup(mark, adjust, room)
}

// live is how many bytes the last collection found in use.
func live() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0 // a later runtime that has no such figure
	}
	return sample[0].Value.Uint64()
}

// percent is the percentage at which garbage grows to room, or to what is live.
func percent(live, room uint64) int {
	return max(usual, int(usual*room/max(live, least)))
}
