//go:build race

package crash

// raced says that the race detector is on. SQLite, which is Go here, is ten times
// slower with it.
const raced = true
