// Package certfarm keeps every TLS certificate of a load-balanced web farm in
// step. The program is in cmd/certfarm, the house in internal; ARCHITECTURE.md
// is the way in.
package certfarm
