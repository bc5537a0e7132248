//go:build race

package several

// racing says that the race detector is on: everything takes several times as long.
const racing = true
